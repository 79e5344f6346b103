use std::path::PathBuf;

use crate::Flag;

/// The flags that every component has for its settings, for its own [`clap::Args`] to flatten.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Settings")]
pub struct SettingsArgs {
    /// A TOML file of settings
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Any setting by its key, such as shutdown.grace_seconds=5; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = Flag::parse_set)]
    pub set: Vec<Flag>,

    /// Print every setting and where its value came from, and leave
    #[arg(long)]
    pub print_config: bool,
}

impl SettingsArgs {
    /// The settings that were given: `--set`, then flags of their own, which win.
    pub fn flags(&self, own: impl IntoIterator<Item = Option<Flag>>) -> Vec<Flag> {
        let set = self.set.iter().cloned();
        set.chain(own.into_iter().flatten()).collect()
    }
}
