//! `why`, `tree`, `diff`, `sbom`, `derivation`, `log`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{ArchiveArguments, ImageFile, ImageOption};

/// `drystone why`.
#[derive(Debug, Clone, Args)]
pub struct WhyArguments {
    /// A package's name, or a path in the image that starts with `/`
    #[arg(value_name = "PACKAGE|PATH")]
    pub subject: String,
    #[command(flatten)]
    pub image: ImageOption,
    /// The platform to look at [default: the first of image.toml]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `drystone tree`.
#[derive(Debug, Clone, Args)]
pub struct TreeArguments {
    #[command(flatten)]
    pub image: ImageFile,
    /// Show what brings a package in, instead of what packages bring in
    #[arg(long, value_name = "PACKAGE")]
    pub invert: Option<String>,
    /// How deep to go
    #[arg(long, value_name = "N")]
    pub depth: Option<usize>,
    /// The platform to look at [default: the first of image.toml]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `drystone diff`.
#[derive(Debug, Clone, Args)]
pub struct DiffArguments {
    /// The old side: an image.lock, an image.toml, a tarball or an OCI layout
    #[arg(value_name = "A")]
    pub old: PathBuf,
    /// The new side
    #[arg(value_name = "B")]
    pub new: PathBuf,
    /// The platform to compare [default: the first that both sides have]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Which image of a shared lock or layout to compare: its name, in a layout NAME:TAG
    #[arg(long, value_name = "NAME")]
    pub image: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `drystone sbom`.
#[derive(Debug, Clone, Args)]
pub struct SbomArguments {
    #[command(flatten)]
    pub image: ImageFile,
    /// The format
    #[arg(long, value_name = "FORMAT", default_value = "spdx")]
    pub format: SbomFormat,
    /// Write it to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The platform to look at [default: the first of image.toml]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    #[command(flatten)]
    pub archive: ArchiveArguments,
}

/// The formats of bills of materials. (What has a text of its own makes the help long, so variants
/// have none.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SbomFormat {
    Spdx,
    Cyclonedx,
}

/// `drystone derivation`.
#[derive(Debug, Clone, Subcommand)]
pub enum DerivationCommand {
    /// Print a build step as JSON
    Show(ShowArguments),
}

/// `drystone derivation show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArguments {
    /// A derivation's id, or a store path or the start of one
    #[arg(value_name = "ID|PATH")]
    pub subject: String,
}

/// `drystone log`.
#[derive(Debug, Clone, Args)]
pub struct LogArguments {
    /// A recipe's name, a derivation's id, or a store path or the start of one
    #[arg(value_name = "RECIPE|ID|PATH")]
    pub subject: String,
    /// Go on while another process builds it, until that has ended
    #[arg(long)]
    pub follow: bool,
    #[command(flatten)]
    pub image: ImageOption,
}

/// `drystone shell`.
#[derive(Debug, Clone, Args)]
pub struct ShellArguments {
    /// The recipe
    #[arg(value_name = "RECIPE")]
    pub recipe: String,
    #[command(flatten)]
    pub image: ImageOption,
    /// The command to run there, as a shell reads it [default: a shell, at this terminal]
    #[arg(short, long, value_name = "COMMAND")]
    pub command: Option<String>,
    /// The root of a failed build that was kept with `build --keep-failed`
    #[arg(long, value_name = "DIR")]
    pub kept: Option<PathBuf>,
    /// The platform [default: the first of image.toml]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Fail if the lock would change
    #[arg(long)]
    pub locked: bool,
    #[command(flatten)]
    pub archive: super::ArchiveArguments,
}
