//! The command line as typed. What the words mean together is settled in [`crate::wiring`].

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "these comments are the texts of --help, where NAME[:TAG] is no link"
)]

mod build;
mod cache;
mod check;
mod explain;
mod key;
mod project;
mod registry;
mod store;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub use build::{ArchiveArguments, BuildArguments, LockArguments, PlanArguments, UpdateArguments};
pub use cache::{
    CacheCommand, CacheImage, CacheInfoArguments, CachePruneArguments, CachePullArguments,
    CachePushArguments, CacheSyncArguments, CacheVerifyArguments,
};
pub use check::{CheckArguments, DiffArgument};
pub use explain::{
    DerivationCommand, DiffArguments, LogArguments, SbomArguments, SbomFormat, ShellArguments,
    ShowArguments, TreeArguments, WhyArguments,
};
pub use key::{
    KeyCommand, KeyGenerateArguments, KeyListArguments, KeyPublicArguments, KeyRevokeArguments,
    KeyTrustArguments,
};
pub use project::{
    AddArguments, CompletionsArguments, DoctorArguments, InitArguments, ManArguments,
    RemoveArguments,
};
pub use registry::{
    AttachArguments, Attachment, CacheArguments, LoginArguments, LogoutArguments, PushArguments,
    SignArguments, VerifyImageArguments,
};
pub use store::{
    DuArguments, GcArguments, LsArguments, PathInfoArguments, StoreCommand, VerifyArguments,
};

const AFTER_HELP: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage or image.toml, 3 lock out of date, 4 not reproducible,
5 unknown package or unsolvable, 6 network, mirror or registry, 7 signature or hash,
8 this host cannot, 130 and 143 interrupted.";

/// Builds reproducible container images from real Debian packages.
#[derive(Debug, Parser)]
#[command(name = "drystone", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(flatten)]
    pub global: GlobalArguments,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArguments {
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log more, on standard error: once for steps, twice for details, three times for everything
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// What to log: a filter such as `drystone_builder=debug`
    #[arg(long, global = true, value_name = "FILTER", conflicts_with = "verbose")]
    pub log: Option<String>,
    /// Whether messages are coloured
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorArgument,
    /// How progress is shown: auto is bars on a terminal, else (and with CI set) lines
    #[arg(long, global = true, value_name = "KIND", default_value = "auto")]
    pub progress: ProgressArgument,
    /// The folder of the store
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

/// When to colour. (What has a text of its own makes the help long, so variants have none.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorArgument {
    Auto,
    Always,
    Never,
}

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressArgument {
    Auto,
    Plain,
    Quiet,
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image and write it where it is wanted
    Build(Box<BuildArguments>),
    /// Build an image and push it to registries
    Push(Box<PushArguments>),
    /// Choose and pin the packages that an image needs, without building
    Lock(LockArguments),
    /// Move pins to the newest versions: of some packages, or of all
    Update(UpdateArguments),
    /// Show what a build would fetch, build and reuse, and the image's layers
    Plan(PlanArguments),
    /// Explain why a package or a file is in the image
    Why(WhyArguments),
    /// Show which packages bring in which
    Tree(TreeArguments),
    /// Compare two locks or images: packages, then files, then bytes
    Diff(DiffArguments),
    /// Print what is in the image as a bill of materials: SPDX or CycloneDX
    Sbom(SbomArguments),
    /// Look at build steps
    #[command(subcommand)]
    Derivation(DerivationCommand),
    /// Show the output of a build step
    Log(LogArguments),
    /// Run everything that ran a script again, in other surroundings, and compare
    Check(Box<CheckArguments>),
    /// Run a command in the environment that a recipe is built in
    Shell(Box<ShellArguments>),
    /// Check whether this host can build, and say how to mend what is missing
    Doctor(DoctorArguments),
    /// Write an image.toml to start from
    Init(InitArguments),
    /// Add packages to image.toml
    Add(AddArguments),
    /// Remove packages from image.toml
    Remove(RemoveArguments),
    /// Look after the store
    #[command(subcommand)]
    Store(StoreCommand),
    /// Remove from the store what no image needs: `store gc`
    Gc(GcArguments),
    /// Keep a user name and a password for a registry
    Login(LoginArguments),
    /// Forget what is kept for a registry
    Logout(LogoutArguments),
    /// Sign an image that is in a registry
    Sign(SignArguments),
    /// Check who signed an image that is in a registry
    Verify(VerifyImageArguments),
    /// Look after binary caches
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Look after signing keys, and whose builds are believed
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print a shell's completion script
    Completions(CompletionsArguments),
    /// Write the manual pages
    Man(ManArguments),
}

/// The image.toml of commands that work on one.
#[derive(Debug, Clone, Default, Args)]
pub struct ImageFile {
    /// The image's file, or a folder with an image.toml [default: image.toml]
    #[arg(value_name = "FILE", conflicts_with = "named")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub option: ImageOption,
}

/// The image.toml of commands whose operands are something else.
#[derive(Debug, Clone, Default, Args)]
pub struct ImageOption {
    /// The image's file, or a folder with an image.toml [default: image.toml]
    #[arg(short = 'f', long = "file", value_name = "FILE", id = "named")]
    pub named: Option<PathBuf>,
}

impl ImageFile {
    /// The path as typed, or the default.
    pub fn path(&self) -> PathBuf {
        self.file.clone().unwrap_or_else(|| self.option.path())
    }
}

impl ImageOption {
    /// The path as typed, or the default.
    pub fn path(&self) -> PathBuf {
        self.named.clone().unwrap_or_else(|| PathBuf::from("image.toml"))
    }
}
