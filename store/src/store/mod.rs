//! The store on disk.
//!
//! ```text
//! db.sqlite          metadata: trees, layers, derivations, outputs, facts
//! blobs/sha256/HEX   layers, listings, fetched files, manifests
//! trees/HASH/        checkouts, made only for sandboxes
//! roots/NAME.json    what keeps things from garbage collection
//! logs/ID            output of builds
//! locks/             one lock a derivation, and `store` (shared by builds, exclusive for gc)
//! tmp/               one directory a process
//! ```
//!
//! Invariant: a file gets its name only when it is whole and synced (write to `tmp`, sync,
//! rename), and the database names only what is there; so a crash at any instant leaves a store
//! that verifies.

mod blobs;
mod database;
mod disk;
mod error;
mod exclusive;
mod gc;
mod growing;
mod inventory;
mod read_ahead;
mod roots;
#[cfg(test)]
mod samples;
mod substitution;
mod trees;
mod usage;
mod verify;
mod workspace;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

pub use blobs::BlobWriter;
pub use error::StoreError;
pub use gc::{GcOptions, GcReport, LeftBehind, RemoveTree};
pub use inventory::MalformedRow;
pub use roots::{Root, root_name};
pub use substitution::Substituted;
pub use trees::TreeIngest;
pub use usage::{LayerInfo, Maker, PathInfo, RootUsage, StoreUsage, TreeInfo, UsageOfKind};
pub use verify::content::{Examined, examine_layer};
pub use verify::{Lost, Problem, Repair, VerifyOptions, VerifyReport};

use crate::derivation::Derivation;
use crate::digest::DerivationId;
use crate::realisation::{Output, Realisation};
use database::Database;
use substitution::Substitution;
use workspace::Workspace;

/// A store that is open. Many threads and many processes may use one store at once.
pub struct Store {
    root: PathBuf,
    database: Database,
    workspace: Workspace,
    substitution: Substitution,
    in_use: File,
}

/// Holds a derivation's lock: no other process builds it meanwhile.
#[derive(Debug)]
pub struct DerivationLock {
    _file: File,
}

/// The folder in a store that is a store of its own: what was built without a sandbox answers no other
/// build.
pub const UNSANDBOXED: &str = "unsandboxed";

/// Says that what is in a directory does not belong together, where the file system knows that
/// (ext4: `chattr +T`). It then takes inodes for each entry from another place; in one place, a file
/// system without a journal looks through all inodes that were freed lately for each new file.
pub(super) fn spread(directory: &Path) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    // A hint: without it all works as well, if slower.
    let Ok(file) = File::open(directory) else { return };
    if let Ok(flags) = ioctl_getflags(&file) {
        let _ = ioctl_setflags(&file, flags | IFlags::TOPDIR);
    }
}

impl Store {
    /// Opens a store, and makes it where there is none.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
        let lock = root.join("locks/store");
        if !lock.exists() {
            for directory in ["blobs/sha256", "trees", "roots", "logs", "locks", "tmp"] {
                let path = root.join(directory);
                std::fs::create_dir_all(&path).map_err(StoreError::io("create", &path))?;
            }
            spread(&root.join("trees"));
        }
        let in_use = open_lock(&lock)?;
        flock(&in_use, FlockOperation::LockShared)
            .map_err(|error| StoreError::io("lock", &lock)(error.into()))?;
        Workspace::sweep(&root);
        let database = Database::open(&root)?;
        let workspace = Workspace::create(&root)?;
        let substitution = Substitution::default();
        Ok(Self { root, database, workspace, substitution, in_use })
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// This process's own directory inside the store; gone when the store is closed.
    pub fn temporary_directory(&self) -> &Path {
        self.workspace.directory()
    }

    /// Where the log of a derivation's build is, or would be.
    pub fn log_path(&self, derivation: &DerivationId) -> PathBuf {
        self.root.join("logs").join(derivation.to_string())
    }

    /// Waits for a derivation's lock.
    pub fn lock_derivation(&self, id: &DerivationId) -> Result<DerivationLock, StoreError> {
        let path = self.root.join("locks").join(id.to_string());
        let file = open_lock(&path)?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| StoreError::io("lock", &path)(error.into()))?;
        Ok(DerivationLock { _file: file })
    }

    /// Whether some process makes a derivation right now.
    pub fn is_being_made(&self, id: &DerivationId) -> Result<bool, StoreError> {
        let path = self.root.join("locks").join(id.to_string());
        if !path.exists() {
            return Ok(false);
        }
        let file = open_lock(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(StoreError::io("lock", &path)(error.into())),
        }
    }

    /// Records what a derivation gave.
    pub fn put_realisation(
        &self,
        derivation: &Derivation,
        outputs: impl IntoIterator<Item = (String, Output)>,
    ) -> Result<Realisation, StoreError> {
        let outputs = outputs.into_iter().collect();
        let realisation = Realisation { derivation: derivation.id(), outputs };
        self.database.put_realisation(derivation, &realisation, now())?;
        self.note_used(&realisation.derivation);
        Ok(realisation)
    }

    /// What a derivation gave; `None` when it was neither built here nor is known to a
    /// substituter. A realisation whose blobs are gone counts as not built.
    ///
    /// The bytes of a substitute come when something reads them.
    pub fn realisation(&self, id: &DerivationId) -> Result<Option<Realisation>, StoreError> {
        let found = match self.local_realisation(id)? {
            Some(realisation) => Some(realisation),
            None => self.remote_realisation(id)?,
        };
        if found.is_some() {
            self.note_used(id);
        }
        Ok(found)
    }

    /// One output of what a derivation gave, by its name; as [`Store::realisation`].
    pub fn realised_output(
        &self,
        id: &DerivationId,
        name: &str,
    ) -> Result<Option<Output>, StoreError> {
        Ok(self.realisation(id)?.and_then(|mut realisation| realisation.outputs.remove(name)))
    }

    fn local_realisation(&self, id: &DerivationId) -> Result<Option<Realisation>, StoreError> {
        let Some(realisation) = self.database.realisation(id)? else { return Ok(None) };
        let present = realisation.outputs.values().all(|output| self.is_present(output));
        Ok(present.then_some(realisation))
    }

    /// The canonical JSON of a derivation that was built here.
    pub fn derivation_json(&self, id: &DerivationId) -> Result<Option<String>, StoreError> {
        self.database.derivation_json(id)
    }

    /// A remembered fact: something that was computed and is cheap to lose, such as which tree an
    /// archive's digest gave.
    pub fn fact(&self, kind: &str, key: &str) -> Result<Option<String>, StoreError> {
        self.database.fact(kind, key)
    }

    /// Remembers a fact.
    pub fn put_fact(&self, kind: &str, key: &str, value: &str) -> Result<(), StoreError> {
        self.database.put_fact(kind, key, value, now())
    }
}

fn open_lock(path: &Path) -> Result<File, StoreError> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(StoreError::io("open the lock", path))
}

/// Seconds since 1970. Only what orders garbage collection uses it; no output does.
fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Compression;
    use crate::tree::TreePath;

    fn sample(store: &Store, text: &str) -> Output {
        let mut spool = store.spool();
        spool.add_file(TreePath::new("etc/x").unwrap(), 0o644, text.as_bytes()).unwrap();
        store.add_tree("sample-1", Compression::Gzip1, &mut spool).unwrap()
    }

    #[test]
    fn trees_come_back_as_they_went_in() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let output = sample(&store, "hello");
        assert_eq!(store.output(output.path.hash()).unwrap().unwrap(), output);
        let mut seen = Vec::new();
        store
            .read_tree(&output, |entry, content| {
                let mut text = String::new();
                content.read_to_string(&mut text).unwrap();
                seen.push((entry.path.to_string(), text));
                Ok::<(), StoreError>(())
            })
            .unwrap();
        assert_eq!(seen, [("etc".into(), String::new()), ("etc/x".into(), "hello".into())]);
        assert_eq!(store.listing(&output).unwrap().unwrap().entries().len(), 2);
        let zstd = store.layer(&output, Compression::Zstd1).unwrap();
        assert_eq!(zstd.diff_id, output.diff_id);
        assert!(store.has_blob(&zstd.digest));
        assert_eq!(store.output(output.path.hash()).unwrap().unwrap().layers.len(), 2);
    }

    #[test]
    fn the_same_tree_in_two_stores_is_the_same() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outputs =
            [&one, &two].map(|directory| sample(&Store::open(directory.path()).unwrap(), "hello"));
        assert_eq!(outputs[0], outputs[1]);
    }

    #[test]
    fn realisations_are_found_until_a_blob_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let output = sample(&store, "hello");
        let derivation = Derivation::new("files", 1);
        let put = store.put_realisation(&derivation, [("out".to_owned(), output.clone())]).unwrap();
        assert_eq!(store.realisation(&derivation.id()).unwrap(), Some(put));
        let json = store.derivation_json(&derivation.id()).unwrap();
        assert_eq!(json, Some(derivation.to_json()));
        std::fs::remove_file(store.blob_path(&output.layers[0].digest)).unwrap();
        assert_eq!(store.realisation(&derivation.id()).unwrap(), None);
    }

    #[test]
    fn what_is_being_made_is_known_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let (store, other) =
            (Store::open(directory.path()).unwrap(), Store::open(directory.path()).unwrap());
        let id = Derivation::new("files", 1).id();
        assert!(!other.is_being_made(&id).unwrap());
        let lock = store.lock_derivation(&id).unwrap();
        assert!(other.is_being_made(&id).unwrap());
        drop(lock);
        assert!(!other.is_being_made(&id).unwrap());
    }

    #[test]
    fn a_dead_process_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let dead = directory.path().join("tmp/dead");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join("lock"), "").unwrap();
        let second = Store::open(directory.path()).unwrap();
        assert!(!dead.exists());
        assert!(store.temporary_directory().exists(), "a living process keeps its own");
        drop((store, second));
        assert_eq!(std::fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_newer_store_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let database = rusqlite::Connection::open(directory.path().join("db.sqlite")).unwrap();
        database.pragma_update(None, "user_version", 99).unwrap();
        let error = Store::open(directory.path()).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Newer { found: 99, .. }));
    }
}
