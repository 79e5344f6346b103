use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::output::Output;

/// How long the output of a child that has ended is waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A child process whose output is kept, and that does not outlive the test: it is killed when
/// this is dropped, and by the system when the test's process is killed.
///
/// It is signalled through a descriptor of its own, so that a signal never meets another process
/// that has got its number. Methods that wait block the thread; where a test cannot go on they
/// panic with what the child has said.
pub struct Child {
    name: String,
    process: process::Child,
    descriptor: OwnedFd,
    output: Output,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts `command` with no standard input. Its program is looked up in `PATH` and in the
    /// folders of system programs, which are not in everyone's `PATH`.
    ///
    /// # Errors
    ///
    /// `NotFound`, naming the program, or whatever the system says.
    pub fn spawn(command: &Command) -> io::Result<Self> {
        let program = find(command.get_program())?;
        let name = program.file_name().unwrap_or(program.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let mut bound = bound_to_us(&program);
        bound.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => bound.env(key, value),
                None => bound.env_remove(key),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            bound.current_dir(directory);
        }
        bound
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = spawn_for_good(bound)?;
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("the system's ids of processes are positive");
        let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                // Without the descriptor nothing below works, its drop neither.
                let _ = process.kill();
                let _ = process.wait();
                return Err(error.into());
            }
        };
        let output = Output::default();
        output.follow(process.stdout.take().expect("stdout was just piped"));
        output.follow(process.stderr.take().expect("stderr was just piped"));
        Ok(Self {
            name,
            process,
            descriptor,
            output,
            status: None,
        })
    }

    /// The process' id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has written so far to its standard output and standard error, of which the last
    /// MiB is kept.
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// Waits for the first line of its output, from its start on, that `find` takes.
    ///
    /// # Panics
    ///
    /// If `patience` is over or its output ends before there is one.
    #[track_caller]
    pub fn wait_line<T>(&self, patience: Duration, find: impl FnMut(&str) -> Option<T>) -> T {
        match self.output.wait_for(patience, find) {
            Some(found) => found,
            None => panic!("{self:?} did not say what was waited for"),
        }
    }

    /// Sends SIGTERM. To a child that has ended this does nothing, as with all of them.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGINT.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Sends SIGKILL.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Sends SIGSTOP: it holds everything it has and does nothing.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Sends SIGCONT, after [`Child::stop`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        match pidfd_send_signal(&self.descriptor, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => panic!("cannot signal {}: {error}", self.name),
        }
    }

    /// Whether it still runs, or is stopped.
    pub fn is_running(&mut self) -> bool {
        self.ended_within(Duration::ZERO).is_none()
    }

    /// Waits for its end, and for what it said last.
    ///
    /// # Panics
    ///
    /// If `patience` is over before.
    #[track_caller]
    pub fn wait_end(&mut self, patience: Duration) -> ExitStatus {
        match self.ended_within(patience) {
            Some(status) => {
                // Children of its own may go on saying something.
                self.output.wait_for_end(LAST_WORDS);
                status
            }
            None => panic!("{self:?} did not end"),
        }
    }

    fn ended_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        if self.status.is_none() {
            let mut descriptors = [PollFd::new(&self.descriptor, PollFlags::IN)];
            let patience = Timespec::try_from(patience).expect("no patience of centuries");
            while let Err(error) = poll(&mut descriptors, Some(&patience)) {
                assert_eq!(error, rustix::io::Errno::INTR, "cannot wait for a child");
            }
            self.status = self.process.try_wait().expect("the child is ours");
        }
        self.status
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, id) = (&self.name, self.id());
        write!(f, "{name} (process {id}), which said:\n{}", self.output())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
        let _ = self.process.wait();
    }
}

/// Where a program is.
fn find(program: &OsStr) -> io::Result<PathBuf> {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return Ok(path.to_owned());
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&folders)
        .chain(system)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            let message = format!("{} is not installed", path.display());
            io::Error::new(io::ErrorKind::NotFound, message)
        })
}

/// `program` behind util-linux's `setpriv`, which has the system kill it when its parent ends and
/// then becomes it; as it is where there is no `setpriv`.
fn bound_to_us(program: &Path) -> Command {
    let Ok(setpriv) = find(OsStr::new("setpriv")) else {
        return Command::new(program);
    };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Spawns from a thread that never ends: to the system the parent is the thread, and a test's ends
/// with the test.
fn spawn_for_good(command: Command) -> io::Result<process::Child> {
    type Order = (Command, Sender<io::Result<process::Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();

    let spawner = SPAWNER.get_or_init(|| {
        let (orders, incoming) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in incoming {
                // Whoever asked is waiting.
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (reply, outcome) = mpsc::channel();
    let sent = spawner.lock().send((command, reply));
    sent.expect("the spawner never ends");
    outcome.recv().expect("the spawner always replies")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Child::spawn(&command).expect("there is a shell")
    }

    fn running(id: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn what_it_says_is_kept_and_waited_for() {
        let mut child = shell("echo one; echo two >&2; exit 3");
        let two = child.wait_line(PATIENCE, |line| line.strip_prefix("tw").map(str::to_owned));
        assert_eq!(two, "o");
        // Lines of before count as well.
        child.wait_line(PATIENCE, |line| (line == "one").then_some(()));
        assert_eq!(child.wait_end(PATIENCE).code(), Some(3));
        assert!(format!("{child:?}").contains("one\n"));
        let mut last = shell("echo last words");
        last.wait_end(PATIENCE);
        assert_eq!(last.output(), "last words\n");
    }

    #[test]
    #[should_panic(expected = "said:\nonly this\n")]
    fn a_line_that_does_not_come_is_a_panic_with_what_did() {
        shell("echo only this").wait_line(PATIENCE, |line| (line == "else").then_some(()));
    }

    #[test]
    fn it_is_stopped_goes_on_and_ends() {
        let mut child =
            shell("trap 'echo told; exit 0' TERM; echo up; while :; do sleep 0.01; done");
        child.wait_line(PATIENCE, |line| (line == "up").then_some(()));
        child.stop();
        child.terminate();
        assert!(child.is_running());
        child.resume();
        assert_eq!(child.wait_end(PATIENCE).code(), Some(0));
        child.wait_line(PATIENCE, |line| (line == "told").then_some(()));
        // Nobody is there, and nobody else is met.
        child.kill();
    }

    #[test]
    fn it_does_not_outlive_its_value_nor_is_it_bound_to_a_thread() {
        let mut child = thread::spawn(|| shell("echo up; exec sleep 1000"))
            .join()
            .expect("nothing panics there");
        child.wait_line(PATIENCE, |line| (line == "up").then_some(()));
        assert!(child.is_running());
        child.stop();
        let id = child.id();
        drop(child);
        assert!(!running(id));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Child::spawn(&Command::new("no-such-program-1")).expect_err("it is not there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("no-such-program-1"));
    }
}
