//! Substituters: binary caches that are asked before building.
//!
//! The store decides what of an answer may be used; a substituter only finds and carries. So the
//! rules of trust that do not need signatures stand in one place: [`crate::store`].

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::derivation::Derivation;
use crate::digest::{BlobDigest, DerivationId, TreeHash};
use crate::realisation::Realisation;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The derivation.
    pub derivation: DerivationId,
    /// The trees that its outputs must be, where a lock pins them: then nobody has to vouch.
    pub pinned: BTreeMap<String, TreeHash>,
    /// Whether it stands for everything else, so that what is known of the rest need not be asked
    /// for first.
    pub is_whole: bool,
}

impl From<DerivationId> for Wanted {
    fn from(derivation: DerivationId) -> Self {
        Self { derivation, pinned: BTreeMap::new(), is_whole: false }
    }
}

/// What a binary cache says that a derivation gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Substitute {
    /// What it gave.
    pub realisation: Realisation,
    /// The derivation itself.
    pub derivation: Derivation,
    /// The signed statements that say so, each as JSON, to be handed on unchanged.
    pub attestations: Vec<String>,
    /// Whether enough trusted keys signed them. Without, only trees that are pinned are used, and
    /// not before their bytes were read.
    pub is_trusted: bool,
}

/// Binary caches that are asked before building.
///
/// A cache that fails is no failure of a build: implementations tell the user and answer that they
/// know nothing.
pub trait Substituter: Send + Sync {
    /// What is known of these derivations; those that nobody knows are left out.
    fn find(&self, wanted: &[Wanted]) -> Vec<Substitute>;

    /// Which caches are asked, and who is believed: what they did not know is remembered for a while
    /// under this name. `None` when that is not for sure, because one of them failed or they
    /// contradict each other.
    fn identity(&self) -> Option<String>;

    /// How many caches can be asked for blobs, one after another.
    fn sources(&self) -> usize;

    /// Copies a blob of cache `source` (from 0) to `writer`; `false` when it has none. The caller
    /// checks what came.
    fn fetch(
        &self,
        source: usize,
        digest: &BlobDigest,
        size: u64,
        writer: &mut dyn Write,
    ) -> io::Result<bool>;
}
