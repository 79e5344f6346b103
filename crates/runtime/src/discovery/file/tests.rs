use std::fs;
use std::path::Path;
use std::sync::Weak;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt as _;
use tempfile::TempDir;
use tokio::time::timeout;

use super::super::InstanceEvent;
use super::*;

crate::discovery_conformance_tests!(InTemp::new());

/// Discovery in a directory of its own.
struct InTemp {
    discovery: FileDiscovery,
    _directory: TempDir,
}

impl InTemp {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            discovery: open(directory.path(), &Health::new()),
            _directory: directory,
        }
    }
}

impl Discovery for InTemp {
    fn register(
        &self,
        instance: Instance,
    ) -> BoxFuture<'_, Result<Box<dyn Registration>, PlaneError>> {
        self.discovery.register(instance)
    }

    fn list<'a>(
        &'a self,
        endpoint: &'a EndpointId,
    ) -> BoxFuture<'a, Result<Vec<Instance>, PlaneError>> {
        self.discovery.list(endpoint)
    }

    fn watch<'a>(&'a self, endpoint: &'a EndpointId) -> BoxFuture<'a, Result<Watch, PlaneError>> {
        self.discovery.watch(endpoint)
    }
}

fn open(directory: &Path, health: &Health) -> FileDiscovery {
    let registry = Registry::new();
    let config = FileConfig {
        poll: Duration::from_millis(10),
        ..FileConfig::new(directory)
    };
    FileDiscovery::open(config, &Tasks::new(&registry), &registry, health).unwrap()
}

fn endpoint() -> EndpointId {
    EndpointId::new("forebay", "worker", "engine").unwrap()
}

fn instance(worker: u64, card: &'static str) -> Instance {
    Instance {
        endpoint: endpoint(),
        worker: WorkerId(worker),
        address: format!("somewhere:{worker}"),
        card: Bytes::from_static(card.as_bytes()),
    }
}

async fn next(watch: &mut Watch) -> InstanceEvent {
    let event = timeout(Duration::from_secs(60), watch.next()).await;
    event.expect("what had to happen did not").unwrap()
}

async fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "what had to happen did not");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A process that can die without a goodbye: it only does what a test has it do.
fn keeper(directory: &Path, ttl: Duration) -> Keeper {
    let directory = Directory::open(directory.to_owned()).unwrap();
    Keeper::new(directory, random(), ttl, Metrics::default())
}

#[tokio::test]
async fn who_is_silent_expires_and_comes_back_with_its_next_beat() {
    let directory = tempfile::tempdir().unwrap();
    let ttl = Duration::from_millis(100);
    let mut dead = keeper(directory.path(), ttl);
    let alive = Arc::new(());
    let (owner, registration) = (random(), Arc::downgrade(&alive));
    let start = Instant::now();
    dead.register(start, &instance(1, "a"), owner, registration)
        .unwrap();

    let discovery = open(directory.path(), &Health::new());
    let mut watch = discovery.watch(&endpoint()).await.unwrap();
    let present = InstanceEvent::Present(vec![instance(1, "a")]);
    assert_eq!(next(&mut watch).await, present);
    assert_eq!(next(&mut watch).await, InstanceEvent::Expired(WorkerId(1)));
    assert_eq!(discovery.list(&endpoint()).await.unwrap(), []);

    dead.upkeep(start + ttl).unwrap();
    assert_eq!(next(&mut watch).await, InstanceEvent::Put(instance(1, "a")));
}

#[tokio::test]
async fn what_is_no_record_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let discovery = open(directory.path(), &Health::new());
    let _registration = discovery.register(instance(1, "a")).await.unwrap();
    let layout = Directory::open(directory.path().to_owned()).unwrap();
    let folder = layout.endpoint(&endpoint());
    let good = fs::read(layout.instance(&endpoint(), WorkerId(1))).unwrap();
    fs::write(folder.join("readme.txt"), "hello").unwrap();
    fs::write(layout.instance(&endpoint(), WorkerId(2)), "nonsense").unwrap();
    fs::write(layout.instance(&endpoint(), WorkerId(3)), good).unwrap();
    fs::create_dir(layout.instance(&endpoint(), WorkerId(4))).unwrap();

    let listed = discovery.list(&endpoint()).await.unwrap();
    assert_eq!(listed, [instance(1, "a")]);
    let mut watch = discovery.watch(&endpoint()).await.unwrap();
    let present = InstanceEvent::Present(vec![instance(1, "a")]);
    assert_eq!(next(&mut watch).await, present);
    assert!(folder.join("readme.txt").exists());
}

#[tokio::test]
async fn an_outage_changes_nothing_and_is_told() {
    let parent = tempfile::tempdir().unwrap();
    let (here, away) = (parent.path().join("here"), parent.path().join("away"));
    let owner = open(&here, &Health::new());
    let _registration = owner.register(instance(1, "a")).await.unwrap();
    let health = Health::new();
    let reader = open(&here, &health);
    let mut watch = reader.watch(&endpoint()).await.unwrap();
    next(&mut watch).await;

    fs::rename(&here, &away).unwrap();
    until(|| !health.report().degraded.is_empty()).await;
    assert_eq!(health.report().degraded[0].name, "discovery");
    assert!(health.report().ready);
    assert!(reader.list(&endpoint()).await.is_err());
    assert!(owner.register(instance(2, "b")).await.is_err());

    fs::rename(&away, &here).unwrap();
    until(|| health.report().degraded.is_empty()).await;
    let _late = owner.register(instance(2, "b")).await.unwrap();
    // Nothing has happened meanwhile.
    assert_eq!(next(&mut watch).await, InstanceEvent::Put(instance(2, "b")));
}

#[tokio::test]
async fn a_worker_of_another_process_replaces_ours() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (
        open(directory.path(), &Health::new()),
        open(directory.path(), &Health::new()),
    );
    let replaced = old.register(instance(1, "old")).await.unwrap();
    let _registration = new.register(instance(1, "new")).await.unwrap();
    replaced.deregister().await.unwrap();
    drop(old);
    let listed = new.list(&endpoint()).await.unwrap();
    assert_eq!(listed, [instance(1, "new")]);
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_no_regular_file_is_waited_for_by_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Directory::open(directory.path().to_owned()).unwrap();
    let owner = open(directory.path(), &Health::new());
    let _registration = owner.register(instance(1, "a")).await.unwrap();
    let good = fs::read(layout.instance(&endpoint(), WorkerId(1))).unwrap();
    // A pipe that nobody writes to, a link, and a file without end.
    let pipe = layout.instance(&endpoint(), WorkerId(2));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
    let elsewhere = directory.path().join("elsewhere");
    fs::write(&elsewhere, good).unwrap();
    let link = layout.instance(&endpoint(), WorkerId(3));
    std::os::unix::fs::symlink(elsewhere, link).unwrap();
    let large = layout.instance(&endpoint(), WorkerId(4));
    fs::File::create(large).unwrap().set_len(1 << 40).unwrap();

    let reader = open(directory.path(), &Health::new());
    let listed = reader.list(&endpoint()).await.unwrap();
    assert_eq!(listed, [instance(1, "a")]);
    let mut huge = instance(5, "");
    huge.card = vec![0; directory::MAX_FILE_BYTES].into();
    assert!(owner.register(huge).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_does_not_answer_is_not_waited_for() {
    let tasks = Tasks::new(&Registry::new());
    let (orders, _waiting) = sync_channel(1);
    let task = tasks.spawn(TaskKind::Background, "hangs", std::future::pending::<()>());
    let discovery = FileDiscovery {
        shared: Arc::new(Shared { orders, task }),
    };
    let error = discovery.list(&endpoint()).await.unwrap_err();
    assert!(matches!(error, PlaneError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn who_ends_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let tasks = Tasks::new(&Registry::new());
    let config = FileConfig::new(directory.path());
    let (registry, health) = (Registry::new(), Health::new());
    let discovery = FileDiscovery::open(config, &tasks, &registry, &health).unwrap();
    let layout = Directory::open(directory.path().to_owned()).unwrap();
    let reader = open(directory.path(), &Health::new());
    let mut watch = reader.watch(&endpoint()).await.unwrap();
    next(&mut watch).await;

    let left = discovery.register(instance(1, "a")).await.unwrap();
    let _stays = discovery.register(instance(2, "b")).await.unwrap();
    for _ in 0..2 {
        next(&mut watch).await;
    }
    left.deregister().await.unwrap();
    tasks.cancel(TaskKind::Critical);
    tasks.ended(TaskKind::Critical).await;
    let folders = [layout.leases(), layout.endpoint(&endpoint())];
    for folder in &folders {
        assert_eq!(layout.names(folder).unwrap(), [""; 0]);
    }
    for _ in 0..2 {
        let gone = next(&mut watch).await;
        let is_gone = matches!(gone, InstanceEvent::Removed(_) | InstanceEvent::Expired(_));
        assert!(is_gone, "{gone:?}");
    }
}

#[test]
fn what_the_dead_leave_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let ttl = Duration::from_secs(10);
    let (mut dead, mut alive) = (keeper(directory.path(), ttl), keeper(directory.path(), ttl));
    let start = Instant::now();
    let registered = Arc::new(());
    for (worker, keeper) in [&mut dead, &mut alive].into_iter().enumerate() {
        let instance = instance(worker as u64, "");
        let registration = Arc::downgrade(&registered);
        keeper.register(start, &instance, 7, registration).unwrap();
    }
    let layout = Directory::open(directory.path().to_owned()).unwrap();
    let (leases_folder, folder) = (layout.leases(), layout.endpoint(&endpoint()));
    for name in layout.names(&leases_folder).unwrap() {
        fs::write(leases_folder.join(format!(".{name}")), "unfin").unwrap();
        fs::write(folder.join(format!(".{name}")), "ished").unwrap();
    }
    for folder in [&leases_folder, &folder] {
        fs::write(folder.join("readme.txt"), "someone's").unwrap();
        fs::write(folder.join(".hidden"), "someone's").unwrap();
    }

    let mut leases = Leases::new(layout.clone(), ttl);
    let mut sweep = |seconds| {
        let folders = [&*folder].into_iter();
        leases.sweep(folders, Duration::from_secs(seconds)).unwrap();
    };
    sweep(0);
    alive.upkeep(start + ttl).unwrap();
    sweep(60);
    // The living one has finished its lease by now.
    assert_eq!(layout.names(&leases_folder).unwrap().len(), 5);
    alive.upkeep(start + ttl * 2).unwrap();
    sweep(70);
    // What is the living one's stays, and what is nobody's.
    assert_eq!(layout.names(&leases_folder).unwrap().len(), 3);
    assert_eq!(layout.names(&folder).unwrap().len(), 5);
}

#[test]
fn a_record_that_was_taken_away_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let ttl = Duration::from_secs(10);
    let mut keeper = keeper(directory.path(), ttl);
    let alive = Arc::new(());
    let start = Instant::now();
    keeper
        .register(start, &instance(1, "a"), 7, Arc::downgrade(&alive))
        .unwrap();
    let layout = Directory::open(directory.path().to_owned()).unwrap();
    let record = layout.instance(&endpoint(), WorkerId(1));
    fs::remove_file(&record).unwrap();
    keeper.upkeep(start + ttl).unwrap();
    assert!(record.exists());

    // Its goodbye can be read for a while, and then it leaves no trace.
    drop(alive);
    keeper.upkeep(start + ttl).unwrap();
    assert!(record.exists());
    keeper.upkeep(start + ttl * 2).unwrap();
    assert!(!record.exists());
}

#[test]
fn a_lease_ends_by_the_readers_clock() {
    let directory = tempfile::tempdir().unwrap();
    let ttl = Duration::from_secs(10);
    let mut keeper = keeper(directory.path(), ttl);
    let start = Instant::now();
    keeper
        .register(start, &instance(1, "a"), 7, Weak::new())
        .unwrap();
    let layout = Directory::open(directory.path().to_owned()).unwrap();
    let folder = directory.path().join("leases");
    let name = fs::read_dir(folder).unwrap().next().unwrap().unwrap();
    let name = name.file_name().into_string().unwrap();
    let lease = u64::from_str_radix(&name, 16).unwrap();

    let at = Duration::from_secs;
    let mut leases = Leases::new(layout, at(60));
    assert_eq!(leases.over_for(lease, at(100)), None);
    assert_eq!(leases.over_for(lease, at(109)), None);
    assert_eq!(leases.over_for(lease, at(112)), Some(at(2)));
    keeper.upkeep(start + ttl).unwrap();
    assert_eq!(leases.over_for(lease, at(113)), None);
    // One that says nothing has the reader's own time to live.
    assert_eq!(leases.over_for(1, at(0)), None);
    assert_eq!(leases.over_for(1, at(60)), Some(at(0)));
}
