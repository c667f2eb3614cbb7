//! `push`, `login`, `logout`, and what all commands that talk to registries take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use drystone_builder::settings::Flags;

use super::{ArchiveArguments, ImageOption};

/// What is attached to an image that is pushed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Attachments")]
pub struct AttachArguments {
    /// Attach documents to what is pushed, as `spdx,cyclonedx,provenance`
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub attach: Vec<Attachment>,
    /// Sign what is pushed, as cosign does
    #[arg(long)]
    pub sign: bool,
}

/// A document about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attachment {
    Spdx,
    Cyclonedx,
    Provenance,
}

/// `drystone sign`.
#[derive(Debug, Clone, Args)]
pub struct SignArguments {
    /// The image: HOST/NAME[:TAG][@DIGEST], or file:DIR[:TAG]
    #[arg(value_name = "REFERENCE")]
    pub reference: String,
    /// The key to sign with: a file, or the key itself
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    pub signing_key: Option<String>,
    /// A registry that may be asked over plain HTTP; on this host all may
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `drystone verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyImageArguments {
    /// The image: HOST/NAME[:TAG][@DIGEST], or file:DIR[:TAG]
    #[arg(value_name = "REFERENCE")]
    pub reference: String,
    /// A key to believe: NAME:BASE64, or a file of such lines
    #[arg(long, value_name = "KEY")]
    pub trusted_key: Vec<String>,
    /// How many of the trusted keys must have signed [default: 1]
    #[arg(long, value_name = "N")]
    pub threshold: Option<String>,
    /// A registry that may be asked over plain HTTP; on this host all may
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Which binary caches are asked, and whom to believe.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Binary caches")]
pub struct CacheArguments {
    /// A binary cache: HOST/NAME, or file:DIR; read, and written when there is a signing key
    #[arg(long, value_name = "CACHE")]
    pub cache: Vec<String>,
    /// Do not ask the caches that image.toml names
    #[arg(long)]
    pub no_project_caches: bool,
    /// A key to believe: NAME:BASE64, or a file of such lines
    #[arg(long, value_name = "KEY")]
    pub trusted_key: Vec<String>,
    /// How many of the trusted keys must agree [default: 1]
    #[arg(long, value_name = "N")]
    pub threshold: Option<String>,
    /// The key to sign with: a file, or the key itself
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    pub signing_key: Option<String>,
}

impl CacheArguments {
    /// Puts what was typed where settings are joined.
    pub fn add_to(&self, flags: &mut Flags) {
        flags.cache.clone_from(&self.cache);
        flags.no_project_caches = self.no_project_caches;
        flags.trusted_keys.clone_from(&self.trusted_key);
        flags.threshold.clone_from(&self.threshold);
        flags.signing_key.clone_from(&self.signing_key);
    }
}

/// `drystone push`.
#[derive(Debug, Clone, Args)]
pub struct PushArguments {
    /// Where to: HOST/NAME[:TAG], or file:DIR[:TAG] for an OCI layout
    #[arg(value_name = "REFERENCE", required = true)]
    pub references: Vec<String>,
    #[command(flatten)]
    pub image: ImageOption,
    /// The platforms to build for, as `linux/amd64,linux/arm64` [default: those of image.toml]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Fail if the lock would change
    #[arg(long)]
    pub locked: bool,
    /// How layers are compressed: gzip or zstd [default: gzip]
    #[arg(long, value_name = "KIND")]
    pub compression: Option<String>,
    /// Print one JSON object instead of the references
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
    #[command(flatten)]
    pub archive: ArchiveArguments,
}

/// `drystone login`.
#[derive(Debug, Clone, Args)]
pub struct LoginArguments {
    /// The registry: HOST[:PORT]
    #[arg(value_name = "REGISTRY")]
    pub registry: String,
    /// The user name
    #[arg(short, long, value_name = "NAME")]
    pub username: String,
    /// Read the password from standard input
    #[arg(long, required = true)]
    pub password_stdin: bool,
    /// The registry may be asked over plain HTTP
    #[arg(long)]
    pub insecure: bool,
}

/// `drystone logout`.
#[derive(Debug, Clone, Args)]
pub struct LogoutArguments {
    /// The registry: HOST[:PORT]
    #[arg(value_name = "REGISTRY")]
    pub registry: String,
}
