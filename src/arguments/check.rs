//! `check`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use drystone_builder::check::Kind;

use super::{ArchiveArguments, CacheArguments, ImageFile};

/// `drystone check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArguments {
    #[command(flatten)]
    pub image: ImageFile,
    /// Check one recipe, and nothing else
    #[arg(long, value_name = "NAME")]
    pub recipe: Option<String>,
    /// The platforms to check [default: those of image.toml]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// What to vary: a list of clock, directory-order, inodes, processors, kernel, addresses,
    /// processes, user, build-folder, locale, time-zone, umask, host-name, environment-order
    /// [default: all of them]
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub vary: Vec<Kind>,
    /// What not to vary
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub except: Vec<Kind>,
    /// Only warn where a result depends on nothing but what the sandbox fixes for every build:
    /// user, build folder, locale, time zone, umask, host name, order of variables
    #[arg(long)]
    pub accept_fixed: bool,
    /// How differences are shown: auto is diffoscope where it is installed, else own
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub diff: DiffArgument,
    /// Keep both trees of what differs in this folder
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Fail if the lock would change
    #[arg(long)]
    pub locked: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub caches: CacheArguments,
    #[command(flatten)]
    pub archive: ArchiveArguments,
}

/// How to show differences. (What has a text of its own makes the help long, so variants have
/// none.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DiffArgument {
    Auto,
    Own,
    None,
}
