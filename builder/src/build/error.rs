//! What can go wrong in a build.

use std::io;

use drystone_store::store::StoreError;
use drystone_store::tree::{SpoolError, TreePath};

use super::remote_files::RemoteFileError;
use crate::base::BaseError;
use crate::configure::ConfigureError;
use crate::document::Diagnostics;
use crate::finish::accounts::AccountError;
use crate::finish::loader_cache::LoaderCacheError;
use crate::finish::status::StatusError;
use crate::image::ImageError;
use crate::output::OutputError;
use crate::realise::CheckoutError;
use crate::recipe::RecipeError;
use crate::resolve::ImportError;

use crate::sandbox::SandboxError;
use drystone_source::files::FilesError;

/// A build that failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// image.toml asks for what cannot be.
    #[error("{0}")]
    Image(Box<Diagnostics>),
    /// The lock says nothing about this image.
    #[error("the lock has no packages of image {image} for {platform}")]
    NotLocked {
        /// The image.
        image: String,
        /// The platform.
        platform: String,
    },
    /// A package could not be had.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The base image cannot be used.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// A file of `[files]` could not be fetched.
    #[error(transparent)]
    RemoteFile(#[from] RemoteFileError),
    /// Packages could not be configured.
    #[error(transparent)]
    Configure(#[from] ConfigureError),
    /// Packages need scripts to run that this host cannot run.
    #[error("packages of {platform} need to run scripts ({packages}), and this host is {host}")]
    Foreign {
        /// The image's platform.
        platform: String,
        /// Some of the packages.
        packages: String,
        /// The host's architecture.
        host: String,
    },
    /// A recipe could not be built.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The `[finish]` script failed.
    #[error("the [finish] script {ending}")]
    Finish {
        /// How it ended, in words.
        ending: String,
        /// The limit that it ran into.
        limit: Option<crate::sandbox::Limit>,
        /// The end of its output.
        tail: String,
    },
    /// The `[finish]` script gave two different results.
    #[error("running the [finish] script twice gave different results: {}", paths.join(", "))]
    FinishNotReproducible {
        /// The paths that differ.
        paths: Vec<String>,
    },
    /// A private key would enter the image.
    #[error("/{path} holds {kind}, and {maker} made it")]
    PrivateKey {
        /// Where it stands.
        path: TreePath,
        /// What kind of key.
        kind: String,
        /// What made it.
        maker: String,
    },
    /// An account is unknown or clashes.
    #[error(transparent)]
    Accounts(#[from] AccountError),
    /// `[config] user` names nobody.
    #[error(
        "[config] user names {kind} {name}, which neither image.toml nor a package of the image makes"
    )]
    UnknownAccount {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// Local files cannot be taken.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Scripts could not be checked for their interpreters.
    #[error("cannot look for the interpreters of the image's scripts")]
    Interpreters(#[source] Box<crate::finish::shebang::ShebangError>),
    /// A file changed while it was read.
    #[error("{0} changed while it was read")]
    Changed(String),
    /// The loader cache could not be made.
    #[error(transparent)]
    LoaderCache(#[from] LoaderCacheError),
    /// A control file cannot be written as status.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The image cannot be described.
    #[error(transparent)]
    Describe(#[from] ImageError),
    /// The image's name is refused.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A tree could not be laid out.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// A file's content could not be read.
    #[error("cannot read the content of /{path}")]
    Content {
        /// The path in the tree.
        path: TreePath,
        /// The cause.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Entries make no tree.
    #[error(transparent)]
    Tree(#[from] SpoolError),
}

impl BuildError {
    /// The end of a failed script's output.
    pub fn tail(&self) -> Option<&str> {
        match self {
            Self::Configure(error) => error.tail(),
            Self::Recipe(error) => error.tail(),
            Self::Finish { tail, .. } => Some(tail),
            _ => None,
        }
    }
}
