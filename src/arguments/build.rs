//! `build`, `lock`, `update`, `plan`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use drystone_builder::output::EngineKind;
use drystone_builder::realise::CommandLimits;
use drystone_builder::sandbox::{Isolation, Resources};

use super::{AttachArguments, CacheArguments, ImageFile, ImageOption};

/// Where packages come from, and with how many hands.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Sources")]
pub struct ArchiveArguments {
    /// The Debian archive's mirror
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// The security archive's mirror [default: the mirror's address and `-security`]
    #[arg(long, value_name = "URL")]
    pub security_mirror: Option<String>,
    /// A keyring to trust beside the built-in one
    #[arg(long, value_name = "FILE")]
    pub keyring: Option<PathBuf>,
    /// A registry that may be asked over plain HTTP; on this host all may
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// Use only what is already on this host
    #[arg(long)]
    pub offline: bool,
    /// How many steps run at once [default: the number of processors]
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<String>,
}

/// What each command of a build may use up.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits (for each script; before those of recipes)")]
pub struct LimitArguments {
    /// Memory of all its processes, as `4G` [default: nine tenths of this host's]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory_limit: Option<u64>,
    /// What it may write, as `20G` [default: 64G]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub disk_limit: Option<u64>,
    /// Processes and threads at once [default: 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub process_limit: Option<u32>,
    /// Processors that it runs on [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cpu_limit: Option<u32>,
    /// Processor time of all its processes together, as `1h`
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub cpu_time_limit: Option<Duration>,
    /// How long it may run, as `2h`
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub time_limit: Option<Duration>,
    /// How long it may print nothing, as `10m`
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub silence_limit: Option<Duration>,
}

fn size(text: &str) -> Result<u64, String> {
    drystone_builder::spec::size(text).map_err(|error| error.to_string())
}

fn span(text: &str) -> Result<Duration, String> {
    drystone_builder::spec::duration(text).map_err(|error| error.to_string())
}

impl LimitArguments {
    /// The limits as the sandbox takes them.
    pub fn limits(&self) -> CommandLimits {
        CommandLimits {
            time: self.time_limit,
            silence: self.silence_limit,
            resources: Resources {
                memory: self.memory_limit,
                disk: self.disk_limit,
                processes: self.process_limit,
                cpu_time: self.cpu_time_limit,
                cpus: self.cpu_limit,
            },
        }
    }
}

/// `drystone build`.
#[derive(Debug, Clone, Default, Args)]
pub struct BuildArguments {
    #[command(flatten)]
    pub image: ImageFile,
    /// Write the image as a tarball [default: NAME.tar beside image.toml, unless it goes elsewhere]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What the image is called [default: name and tag of image.toml]
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub tag: Option<String>,
    /// The platforms to build for, as `linux/amd64,linux/arm64` [default: those of image.toml]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Load the image into a container engine
    #[arg(long, value_name = "ENGINE")]
    pub load: Vec<EngineArgument>,
    /// Write the image into an OCI layout
    #[arg(long, value_name = "DIR")]
    pub oci_layout: Option<PathBuf>,
    /// Push the image to a registry: HOST/NAME[:TAG], or file:DIR[:TAG]
    #[arg(long, value_name = "REFERENCE")]
    pub push: Vec<String>,
    /// Fail if the lock would change
    #[arg(long)]
    pub locked: bool,
    /// Build one recipe and what it needs, and no image
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["output", "load", "oci_layout", "push", "metadata_file"]
    )]
    pub recipe: Option<String>,
    /// Go on with other recipes after one has failed
    #[arg(long)]
    pub keep_going: bool,
    /// Keep the root of a recipe that failed
    #[arg(long)]
    pub keep_failed: bool,
    /// How layers are compressed: gzip or zstd [default: gzip]
    #[arg(long, value_name = "KIND")]
    pub compression: Option<String>,
    /// Print one JSON object instead of the reference
    #[arg(long)]
    pub json: bool,
    /// Write the JSON object to a file as well
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Read back what was pushed, and hash it
    #[arg(long)]
    pub verify: bool,
    #[command(flatten)]
    pub attachments: AttachArguments,
    #[command(flatten)]
    pub caches: CacheArguments,
    /// Build nothing that needs a sandbox: what is in no cache is listed, and the command fails
    #[arg(long, help_heading = "Binary caches")]
    pub substitute_only: bool,
    /// What scripts run in: namespaces, or none, for hosts that forbid them (as root only, in a store
    /// of its own; nothing is shared or signed)
    #[arg(long, value_name = "KIND", default_value = "namespaces")]
    pub sandbox: SandboxArgument,
    #[command(flatten)]
    pub limits: LimitArguments,
    #[command(flatten)]
    pub archive: ArchiveArguments,
}

/// What scripts run in. (What has a text of its own makes the help long, so variants have none.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum SandboxArgument {
    #[default]
    Namespaces,
    None,
}

impl From<SandboxArgument> for Isolation {
    fn from(argument: SandboxArgument) -> Self {
        match argument {
            SandboxArgument::Namespaces => Self::Namespaces,
            SandboxArgument::None => Self::None,
        }
    }
}

/// A container engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineArgument {
    Docker,
    Podman,
}

impl From<EngineArgument> for EngineKind {
    fn from(argument: EngineArgument) -> Self {
        match argument {
            EngineArgument::Docker => Self::Docker,
            EngineArgument::Podman => Self::Podman,
        }
    }
}

/// `drystone lock`.
#[derive(Debug, Clone, Args)]
pub struct LockArguments {
    #[command(flatten)]
    pub image: ImageFile,
    /// Prove every pin against its signed Release, and change nothing
    #[arg(long)]
    pub verify: bool,
    /// Fail if the lock would change
    #[arg(long, conflicts_with = "verify")]
    pub locked: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub archive: ArchiveArguments,
}

/// `drystone update`.
#[derive(Debug, Clone, Args)]
pub struct UpdateArguments {
    /// The packages to move; all, if none is named
    #[arg(value_name = "PACKAGE")]
    pub packages: Vec<String>,
    #[command(flatten)]
    pub image: ImageOption,
    /// Show what would move, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub archive: ArchiveArguments,
}

/// `drystone plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArguments {
    #[command(flatten)]
    pub image: ImageFile,
    /// The platforms to plan for [default: those of image.toml]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// How layers would be compressed: gzip or zstd [default: gzip]
    #[arg(long, value_name = "KIND")]
    pub compression: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub archive: ArchiveArguments,
}
