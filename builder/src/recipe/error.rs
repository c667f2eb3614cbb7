//! Why a recipe could not be built.

use std::fmt;
use std::path::PathBuf;

use drystone_store::store::StoreError;
use drystone_store::tree::{SpoolError, TreePath};

use super::SourceError;
use super::git::GitError;
use super::language::LanguageError;
use crate::realise::CheckoutError;
use crate::resolve::MissingFile;
use crate::sandbox::SandboxError;

/// A script that ran and did not do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedScript {
    /// The recipe.
    pub recipe: String,
    /// `script`, or what went before it.
    pub step: String,
    /// How it ended, in words.
    pub ending: String,
    /// The end of its output.
    pub tail: String,
    /// The file with all of its output.
    pub log: PathBuf,
    /// What would mend it, where that is known.
    pub hint: Option<String>,
    /// What it looked for and did not find, where a package would mend it.
    pub missing: Option<MissingFile>,
}

impl fmt::Display for FailedScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recipe, step, ending, log, .. } = self;
        write!(f, "recipe {recipe}: the {step} {ending}; the whole log is {}", log.display())
    }
}

/// A recipe that could not be built.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// Its script failed.
    #[error("{0}")]
    Failed(Box<FailedScript>),
    /// An output has nothing in it.
    #[error("recipe {recipe}: output `{output}` is empty")]
    Empty {
        /// The recipe.
        recipe: String,
        /// The output.
        output: String,
    },
    /// An output holds a device, socket or FIFO.
    #[error("recipe {recipe}: output `{output}` holds a {what}: /{path}")]
    Special {
        /// The recipe.
        recipe: String,
        /// The output.
        output: String,
        /// Where it stands in the output.
        path: String,
        /// What it is.
        what: String,
    },
    /// An output holds a program that would run with another user's rights.
    #[error("recipe {recipe}: output `{output}` holds a file with a setuid or setgid bit: /{path}")]
    Setuid {
        /// The recipe.
        recipe: String,
        /// The output.
        output: String,
        /// The file.
        path: TreePath,
    },
    /// A symbolic link leads out of the image or into the build.
    #[error("recipe {recipe}: output `{output}`: the link /{path} -> {target} {problem}")]
    Link {
        /// The recipe.
        recipe: String,
        /// The output.
        output: String,
        /// The link.
        path: TreePath,
        /// Its text.
        target: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A private key would enter an image.
    #[error("recipe {recipe}: output `{output}` holds {kind}: /{path}")]
    PrivateKey {
        /// The recipe.
        recipe: String,
        /// The output.
        output: String,
        /// The file.
        path: TreePath,
        /// What kind of key.
        kind: String,
    },
    /// Outputs that stand in one root have different files at one path.
    #[error("recipes clash: {first} and {second} have different files at /{path}")]
    Clash {
        /// The path.
        path: TreePath,
        /// One output.
        first: String,
        /// The other output.
        second: String,
    },
    /// What it needs was not built.
    #[error("recipe {recipe} was not built, because {needs} was not")]
    Needs {
        /// The recipe.
        recipe: String,
        /// The recipe that it needs.
        needs: String,
    },
    /// It needs a recipe that is not built for this platform.
    #[error("recipe {recipe} needs {needs}, which is not built for {platform}")]
    OtherPlatform {
        /// The recipe, or what stands for it.
        recipe: String,
        /// The recipe that it needs.
        needs: String,
        /// The platform.
        platform: String,
    },
    /// `[files]` names what the output does not have.
    #[error("[files] takes {path} of recipe {recipe}, which its output `{output}` does not have")]
    NoPath {
        /// The recipe.
        recipe: String,
        /// The output.
        output: String,
        /// The path in the output.
        path: String,
    },
    /// There is no such recipe.
    #[error("there is no recipe `{name}`")]
    Unknown {
        /// The name as asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// Several recipes failed.
    #[error("{} recipes were not built: {}", failed.len(), failed.join(", "))]
    Several {
        /// Their names.
        failed: Vec<String>,
    },
    /// Its source cannot be taken.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Its commit cannot be had.
    #[error(transparent)]
    Git(#[from] GitError),
    /// Its dependencies cannot be had.
    #[error(transparent)]
    Language(#[from] LanguageError),
    /// A tree could not be laid out.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The output makes no tree.
    #[error(transparent)]
    Tree(#[from] SpoolError),
}

impl RecipeError {
    /// The end of the failed script's output.
    pub fn tail(&self) -> Option<&str> {
        match self {
            Self::Failed(failed) => Some(&failed.tail),
            _ => None,
        }
    }

    /// What would mend it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Failed(failed) => return failed.hint.clone(),
            Self::Git(error) => return error.hint().map(str::to_owned),
            Self::Language(error) => return error.hint().map(str::to_owned),
            Self::Empty { output, .. } => {
                let variable = super::run::variable(output);
                return Some(format!(
                    "the script must put its result below ${variable}, for example with `make \
                     install DESTDIR=${variable}`"
                ));
            }
            Self::Special { .. } => "let the script remove it; images hold files and links only",
            Self::Setuid { .. } => {
                "let the script remove the bit (chmod u-s,g-s); an image that needs it sets `mode` \
                 under [files]"
            }
            Self::Link { .. } => {
                "outputs are rooted at /: link to where the target will stand in the image"
            }
            Self::PrivateKey { .. } => {
                "keep keys out of images: mount them when the container runs"
            }
            Self::Clash { .. } => "let one of the recipes leave the file out",
            Self::OtherPlatform { .. } => "add the platform to its `platforms`",
            Self::NoPath { .. } => {
                "`drystone build --recipe NAME` builds it alone and lists nothing else"
            }
            Self::Unknown { known, .. } => {
                return Some(format!("there is {}", known.join(", ")));
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
