//! Sources that are fetched as trees: commits of git repositories, and published packages.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use drystone_store::derivation::Derivation;
use drystone_store::digest::BlobDigest;
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::StoreError;
use drystone_store::tree::{Entry, Kind, TreePath};

use super::languages::failed;
use super::recipes::BuiltRecipes;
use super::remote_files::StoredFile;
use super::{BuildError, Builder};
use crate::recipe::git::Commit;
use crate::recipe::language::{
    Dependency, Form, Format, LanguageError, Layout, Placement, unpack_source,
};
use crate::recipe::{BUILDER_ID, SOURCE_DIRECTORY};
use crate::spec::{Image, Recipe, RecipeSource};

/// Version of the `source` builder: rises whenever its output can change.
const VERSION: u32 = 1;

/// Fetches a commit into the store; its tree.
pub type FetchCommit<'a> = dyn Fn(&Commit) -> Result<Output, BuildError> + Sync + 'a;

impl Builder<'_> {
    /// A recipe's source with what is fetched for it; `own` holds the rest, such as its patches.
    pub(super) fn with_fetched(
        &self,
        image: &Image,
        recipe: &Recipe,
        own: Output,
        fetched: &BTreeMap<BlobDigest, StoredFile>,
        built: &mut BuiltRecipes,
    ) -> Result<Output, BuildError> {
        if let Some(sha256) = recipe.unpacked_before() {
            let file = fetched.get(sha256).ok_or(StoreError::NoBlob(*sha256))?;
            let tree = self.unpacked_archive(sha256, file, built)?;
            return self.joined(&own, &tree, "");
        }
        match &recipe.source {
            Some(RecipeSource::Git { url, revision }) => {
                let commit = Commit { url: url.clone(), revision: revision.clone() };
                built.dependencies.push(commit.derivation().id());
                let tree = match commit.realised(self.store)? {
                    Some(tree) => tree,
                    None => (self.fetch_commit)(&commit)?,
                };
                self.joined(&own, &tree, &format!("{}/", &SOURCE_DIRECTORY[1..]))
            }
            Some(RecipeSource::Package(package)) => {
                let (layout, wanted) = (unpacked(package), std::slice::from_ref(package));
                let tree = self.laid_out(&layout, wanted, &image.directory, built)?;
                self.joined(&own, &tree, "")
            }
            _ => Ok(own),
        }
    }

    /// What an archive holds, in the place of a source.
    fn unpacked_archive(
        &self,
        sha256: &BlobDigest,
        file: &StoredFile,
        built: &mut BuiltRecipes,
    ) -> Result<Output, BuildError> {
        let derivation =
            Derivation::new("source-archive", VERSION).with_arg("sha256", sha256.to_hex());
        built.dependencies.push(derivation.id());
        if let Some(output) = self.store.realised_output(&derivation.id(), "out")? {
            return Ok(output);
        }
        let mut spool = self.store.spool();
        let directory = TreePath::new(&SOURCE_DIRECTORY[1..]).expect("a valid path");
        unpack_source(&|| File::open(&file.path), &directory, &mut spool).map_err(|source| {
            let title = format!("the archive sha256:{}", sha256.to_hex());
            failed(LanguageError::Unpack { title, path: directory, source })
        })?;
        let output = self.store.add_tree("archive", Compression::Store1, &mut spool)?;
        self.store.put_realisation(&derivation, [("out".to_owned(), output.clone())])?;
        Ok(output)
    }

    /// Two trees as one, all of it the build's own; the second one's paths begin with `prefix`.
    fn joined(&self, own: &Output, fetched: &Output, prefix: &str) -> Result<Output, BuildError> {
        let derivation = Derivation::new("source", VERSION)
            .with_inputs([*own.path.hash(), *fetched.path.hash()])
            .with_arg("prefix", prefix);
        if let Some(output) = self.store.realised_output(&derivation.id(), "out")? {
            return Ok(output);
        }
        let mut spool = self.store.spool();
        let mut take = |tree: &Output, prefix: &str| {
            self.store.read_tree(tree, |entry: &Entry, content: &mut dyn Read| {
                let below = |path: &TreePath| TreePath::new(format!("{prefix}{path}"));
                let too_long = |error| StoreError::Corrupt { what: format!("a source: {error}") };
                let mut entry = entry.clone();
                entry.path = below(&entry.path).map_err(too_long)?;
                if let Kind::HardLink { target } = &mut entry.kind {
                    *target = below(target).map_err(too_long)?;
                }
                (entry.uid, entry.gid) = (BUILDER_ID, BUILDER_ID);
                Ok::<(), BuildError>(spool.add(entry, content)?)
            })
        };
        take(own, "")?;
        take(fetched, prefix)?;
        let output = self.store.add_tree("source", Compression::Store1, &mut spool)?;
        self.store.put_realisation(&derivation, [("out".to_owned(), output.clone())])?;
        Ok(output)
    }
}

/// A package's files in the place of a source.
fn unpacked(package: &Dependency) -> Layout {
    let form = Form::Unpacked {
        directory: TreePath::new(&SOURCE_DIRECTORY[1..]).expect("a valid path"),
        format: Format::TarGzip,
        executable: std::collections::BTreeSet::new(),
    };
    let (integrity, title) = (package.integrity.clone(), package.to_string());
    Layout { placements: vec![Placement { integrity, title, form }], ..Layout::default() }
}
