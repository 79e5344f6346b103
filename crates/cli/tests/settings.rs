//! The settings of every component: all of them are documented, and what is wrong with one is said
//! before anything is fetched or started.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

/// Every component that has settings.
const COMPONENTS: [&str; 3] = ["serve", "worker", "frontend"];

/// The most settings that there may be, of all components together.
const MOST_SETTINGS: usize = 120;

fn forebay(component: &str, arguments: &[&str]) -> Output {
    // Settings of the environment are not looked for here.
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.env_clear().arg(component).args(arguments);
    command.output().unwrap()
}

/// Every setting of a component with its default, `-` where there is none.
fn defaults(component: &str) -> BTreeMap<String, String> {
    let printed = forebay(component, &["--print-config"]).stdout;
    let printed = String::from_utf8(printed).unwrap();
    printed
        .lines()
        .map(|line| {
            let line = line.strip_suffix("(default)").unwrap_or(line);
            if let Some(key) = line.strip_prefix("# ") {
                let key = key.strip_suffix(" is not set ").unwrap();
                return (key.to_owned(), "-".to_owned());
            }
            let line = line.strip_suffix("  # default").unwrap();
            let (key, value) = line.split_once(" = ").unwrap();
            (key.to_owned(), plain(value))
        })
        .collect()
}

/// The rows of the page's tables: a key and its default.
fn documented() -> BTreeMap<String, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    let page = std::fs::read_to_string(page).unwrap();
    page.lines()
        .filter_map(|line| {
            let (key, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
            let (default, _) = rest.split_once(" | ")?;
            Some((key.to_owned(), plain(default)))
        })
        .collect()
}

/// A value without the marks around it: 5.0 and 5 are the same.
fn plain(value: &str) -> String {
    let bare = value.trim_matches(['`', '"']).replace(' ', "");
    let number = bare.parse::<f64>().map(|number| number.to_string());
    number.unwrap_or(bare)
}

#[test]
fn the_page_has_every_setting_and_its_default() {
    let says = documented();
    let mut all = BTreeSet::new();
    for component in COMPONENTS {
        let is = defaults(component);
        assert!(is.len() > 40, "{component}: {is:?}");
        for (key, value) in is {
            let documented = says.get(&key);
            assert_eq!(
                documented,
                Some(&value),
                "{component}: {key} in docs/settings.md"
            );
            all.insert(key);
        }
    }
    for key in says.keys() {
        assert!(all.contains(key), "docs/settings.md has `{key}`");
    }
    assert!(
        all.len() <= MOST_SETTINGS,
        "there are {} settings",
        all.len()
    );
}

#[test]
fn a_password_is_not_printed() {
    for component in ["worker", "frontend"] {
        let secret = "planes.nats.password=hush";
        let printed = forebay(component, &["--set", secret, "--print-config"]).stdout;
        let printed = String::from_utf8(printed).unwrap();
        assert!(
            printed.contains("planes.nats.password = \"(secret)\""),
            "{printed}"
        );
        assert!(!printed.contains("hush"), "{printed}");
    }
}

#[test]
fn what_is_wrong_is_said_before_anything_is_fetched() {
    let cache = tempfile::tempdir().unwrap();
    let at = format!("cache_dir={}", cache.path().display());
    for (setting, says) in [
        (
            "workers.count=1000000000",
            "workers.count must be from 1 to 4096",
        ),
        (
            "workers.count=0",
            "setting `workers.count` (flag --set): invalid value",
        ),
        ("io_threads=5000", "io_threads must be from 1 to 1024"),
        (
            "engine.threads=5000",
            "engine.threads must be from 1 to 1024",
        ),
        ("engine.max_waiting=0", "wrong setting in `engine`"),
        ("engine.block_size_tokens=0", "wrong setting in `engine`"),
        ("mocker.speed=-1", "wrong setting in `mocker`: speed"),
        (
            "frontend.idle_timeout_seconds=0",
            "the frontend's idle_timeout_seconds must be above 0",
        ),
        (
            "frontend.router.weights.queue=-1",
            "`weights.queue` must be a finite number",
        ),
        (
            "frontend.router.mode=direct",
            "another mode than direct: clients name no workers",
        ),
        (
            "frontend.router.mode=foo",
            "setting `frontend.router.mode` (flag --set): unknown variant: found `foo`",
        ),
        ("sampling.top_p=0", "sampling.top_p must be above 0"),
        (
            "served_model_name=\"\"",
            "served_model_name must be not empty",
        ),
        ("aliases=[\"\"]", "each of aliases must be not empty"),
        (
            "shutdown.grace_seconds=-1",
            "wrong setting in `shutdown`: grace_seconds must be from 0 to a day",
        ),
    ] {
        let ended = forebay("serve", &["--port", "0", "--set", &at, "--set", setting]);
        let error = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{setting}: {error}");
        assert!(
            error.starts_with("error: ") && error.contains(says) && error.lines().count() == 1,
            "{setting}: {error}"
        );
    }
    assert_eq!(cache.path().read_dir().unwrap().count(), 0);
}
