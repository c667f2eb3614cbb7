//! `store`.

use clap::{Args, Subcommand};

use crate::quantity::Bytes;

/// `drystone store`.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Hash everything again and list every problem
    Verify(VerifyArguments),
    /// Remove what no image needs
    Gc(GcArguments),
    /// Show where the bytes are
    Du(DuArguments),
    /// List the trees
    Ls(LsArguments),
    /// Show all that is known about a tree
    PathInfo(PathInfoArguments),
}

/// `drystone store verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArguments {
    /// Mend what can be mended, and build again the images that stand on what is lost
    #[arg(long)]
    pub repair: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `drystone store gc`.
#[derive(Debug, Clone, Args)]
pub struct GcArguments {
    /// Keep what was used within so many days
    #[arg(long, value_name = "DAYS")]
    pub keep_days: Option<u64>,
    /// Remove the least recently used first, until the store is no larger, as `10GB` or `500MiB`
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<Bytes>,
    /// Show what would go, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `drystone store du`.
#[derive(Debug, Clone, Args)]
pub struct DuArguments {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `drystone store ls`.
#[derive(Debug, Clone, Args)]
pub struct LsArguments {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `drystone store path-info`.
#[derive(Debug, Clone, Args)]
pub struct PathInfoArguments {
    /// A store path or the start of one
    #[arg(value_name = "PATH")]
    pub path: String,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
