//! `cache`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{CacheArguments, ImageFile};

/// `drystone cache`.
#[derive(Debug, Clone, Subcommand)]
pub enum CacheCommand {
    /// Share what the store holds of an image
    Push(Box<CachePushArguments>),
    /// Fill the store for an image, without building
    Pull(Box<CachePullArguments>),
    /// Show what caches hold
    Info(Box<CacheInfoArguments>),
    /// Read everything again, and list every problem
    Verify(Box<CacheVerifyArguments>),
    /// Copy one cache into another
    Sync(CacheSyncArguments),
    /// Remove what no image needs any more
    Prune(CachePruneArguments),
}

/// An image, and the caches that know it.
#[derive(Debug, Clone, Args)]
pub struct CacheImage {
    #[command(flatten)]
    pub image: ImageFile,
    /// The platforms [default: those of image.toml]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// A registry that may be asked over plain HTTP; on this host all may
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub caches: CacheArguments,
}

/// `drystone cache push`.
#[derive(Debug, Clone, Args)]
pub struct CachePushArguments {
    /// Share what these derivations gave, instead of what the image stands on
    #[arg(long, value_name = "ID")]
    pub derivation: Vec<String>,
    #[command(flatten)]
    pub of: CacheImage,
}

/// `drystone cache pull`.
#[derive(Debug, Clone, Args)]
pub struct CachePullArguments {
    /// Fetch the layers too, so that the image builds without any network
    #[arg(long)]
    pub layers: bool,
    #[command(flatten)]
    pub of: CacheImage,
}

/// `drystone cache info`.
#[derive(Debug, Clone, Args)]
pub struct CacheInfoArguments {
    /// Show all that is in the caches, not one image's part
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub of: CacheImage,
}

/// `drystone cache verify`.
#[derive(Debug, Clone, Args)]
pub struct CacheVerifyArguments {
    /// Check all that is in the caches, not one image's part
    #[arg(long)]
    pub all: bool,
    /// Remove what is wrong, so that it is built and shared again
    #[arg(long)]
    pub repair: bool,
    #[command(flatten)]
    pub of: CacheImage,
}

/// `drystone cache sync`.
#[derive(Debug, Clone, Args)]
pub struct CacheSyncArguments {
    /// The cache to read: HOST/NAME, or file:DIR
    #[arg(value_name = "FROM")]
    pub from: String,
    /// The cache to write
    #[arg(value_name = "TO")]
    pub to: String,
    /// Copy only what these images stand on
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// A registry that may be asked over plain HTTP; on this host all may
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `drystone cache prune`.
#[derive(Debug, Clone, Args)]
pub struct CachePruneArguments {
    /// The cache: HOST/NAME, or file:DIR
    #[arg(value_name = "CACHE")]
    pub cache: String,
    /// An image whose realisations stay; all of its platforms are meant
    #[arg(long, value_name = "FILE", required = true)]
    pub keep: Vec<PathBuf>,
    /// Show what would go, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// A registry that may be asked over plain HTTP; on this host all may
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
