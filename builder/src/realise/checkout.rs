//! Trees laid out on disk for sandboxes, each once.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drystone_store::digest::{BlobDigest, DerivationId};
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use rayon::prelude::*;

use crate::sandbox::{
    Command, Early, IdMap, Isolation, MAX_LOWERS, Resources, SandboxError, Session,
};

/// Why a tree could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// The sandbox's helper failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing that needs a sandbox may be built.
    #[error("{what} ({id}) is in no cache, and nothing may be built in a sandbox")]
    Forbidden {
        /// What would be built.
        what: String,
        /// Its derivation.
        id: DerivationId,
    },
    /// The tree could not be streamed to the helper.
    #[error("cannot lay out {tree}")]
    Io {
        /// The tree's store path.
        tree: String,
        /// The cause.
        source: io::Error,
    },
}

/// Limits that the user sets for every command of a build; they come before those of recipes.
#[derive(Debug, Clone, Copy, Default)]
pub struct CommandLimits {
    /// How long each may run.
    pub time: Option<Duration>,
    /// How long each may print nothing.
    pub silence: Option<Duration>,
    /// What else each may use up.
    pub resources: Resources,
}

/// Lays trees out below the store's `trees/`; the sandbox session starts when it is first needed.
pub struct Checkouts<'a> {
    store: &'a Store,
    program: Option<PathBuf>,
    session: Mutex<Option<Arc<Session>>>,
    early: Early<Result<Session, SandboxError>>,
    ending: Early<()>,
    limits: CommandLimits,
    isolation: Isolation,
    /// What would have been built, where nothing may be.
    missing: Option<Mutex<Vec<(String, DerivationId)>>>,
}

fn start(program: Option<&Path>, isolation: Isolation) -> Result<Session, SandboxError> {
    let map = match isolation {
        Isolation::Namespaces => IdMap::discover()?,
        Isolation::None => IdMap::without_namespaces()?,
    };
    let session = match program {
        Some(program) => Session::start_program(&map, program)?,
        None => Session::start(&map)?,
    };
    session.expect_root();
    Ok(session)
}

impl<'a> Checkouts<'a> {
    /// Checkouts of a store, made by this very program as helper.
    pub fn new(store: &'a Store) -> Self {
        Self {
            store,
            program: None,
            session: Mutex::default(),
            early: Early::default(),
            ending: Early::default(),
            limits: CommandLimits::default(),
            isolation: Isolation::default(),
            missing: None,
        }
    }

    /// Lets nothing be built in a sandbox: what would be is refused and noted.
    #[must_use]
    pub fn forbidding(self, forbidden: bool) -> Self {
        Self { missing: forbidden.then(Mutex::default), ..self }
    }

    /// Whether nothing may be built in a sandbox.
    pub const fn is_forbidden(&self) -> bool {
        self.missing.is_some()
    }

    /// What would have been built, with its derivation.
    pub fn missing(&self) -> Vec<(String, DerivationId)> {
        let missing = self.missing.as_ref();
        let list = missing.map(|it| it.lock().unwrap_or_else(PoisonError::into_inner).clone());
        list.unwrap_or_default()
    }

    /// Asks to build something in a sandbox; everything that does so asks first.
    ///
    /// # Errors
    /// [`CheckoutError::Forbidden`].
    pub fn permit(&self, what: &str, id: DerivationId) -> Result<(), CheckoutError> {
        let Some(missing) = &self.missing else { return Ok(()) };
        let what = what.to_owned();
        let mut list = missing.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever is refused may ask again.
        if list.iter().all(|(_, known)| *known != id) {
            list.push((what.clone(), id));
        }
        drop(list);
        Err(CheckoutError::Forbidden { what, id })
    }

    /// Checkouts made by another program that can be the sandbox's helper (for tests).
    pub fn with_program(store: &'a Store, program: PathBuf) -> Self {
        Self { program: Some(program), ..Self::new(store) }
    }

    /// With limits for every command that runs over them.
    #[must_use]
    pub fn with_limits(self, limits: CommandLimits) -> Self {
        Self { limits, ..self }
    }

    /// With sandboxes that keep commands so far from the host.
    #[must_use]
    pub fn with_isolation(self, isolation: Isolation) -> Self {
        Self { isolation, ..self }
    }

    /// Sets the limits of a command: those that the user asked for, else its own, else the usual.
    pub fn limit(&self, command: &mut Command) {
        command.time_limit = self.limits.time.or(command.time_limit);
        command.silence_limit = self.limits.silence.or(command.silence_limit);
        let own = self.limits.resources.or(command.resources);
        command.resources = own.or(Resources::usual());
    }

    /// Starts the session beside other work, since it will be needed.
    pub fn expect_session(&self) {
        if self.is_forbidden() || self.running().is_some() {
            return;
        }
        let (program, isolation) = (self.program.clone(), self.isolation);
        self.early.begin(move || start(program.as_deref(), isolation));
    }

    /// The sandbox session.
    pub fn session(&self) -> Result<Arc<Session>, SandboxError> {
        let mut running = self.running();
        if let Some(session) = &*running {
            return Ok(Arc::clone(session));
        }
        let session = match self.early.take() {
            Some(started) => started?,
            None => start(self.program.as_deref(), self.isolation)?,
        };
        Ok(Arc::clone(running.insert(Arc::new(session))))
    }

    /// Ends the session beside other work, since nothing more is to be built. Another one would
    /// start if something were.
    pub fn end_session(&self) {
        let session = self.running().take();
        self.ending.begin(move || drop(session));
    }

    fn running(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays out every tree that is not yet; the directories, in the order of `outputs`.
    pub fn ensure(&self, outputs: &[&Output]) -> Result<Vec<PathBuf>, CheckoutError> {
        let session = self.session()?;
        let paths: Vec<PathBuf> =
            outputs.iter().map(|output| self.store.checkout_path(&output.path)).collect();
        let missing: Vec<&Output> = outputs
            .iter()
            .zip(&paths)
            .filter(|(_, path)| !path.exists())
            .map(|(output, _)| *output)
            .collect();
        self.store.fetch_trees(&missing)?;
        // One at a time: sizes differ by powers of ten.
        outputs
            .par_iter()
            .with_max_len(1)
            .zip(&paths)
            .filter(|(_, path)| !path.exists())
            .try_for_each(|(output, path)| self.checkout(&session, output, path))?;
        Ok(paths)
    }

    /// Trees as the kernel takes them for a root, the topmost first. None may be there twice, as
    /// those of two packages without files would be: the upper one hides the other. Where there are
    /// more than a root takes, the lowest are merged into one below `directory`, which the caller
    /// removes.
    pub fn stackable(
        &self,
        mut lower: Vec<PathBuf>,
        directory: &Path,
    ) -> Result<Vec<PathBuf>, CheckoutError> {
        let mut seen = HashSet::new();
        lower.retain(|path| seen.insert(path.clone()));
        if lower.len() > MAX_LOWERS {
            let lowest = lower.split_off(MAX_LOWERS - 1);
            let paths: String = lowest.iter().map(|path| format!("{}\n", path.display())).collect();
            let key = BlobDigest::of(paths.as_bytes());
            let merged = directory.join(format!("merged-{}", key.to_hex()));
            if !merged.exists() {
                self.session()?.merge(&lowest, &merged)?;
            }
            lower.push(merged);
        }
        Ok(lower)
    }

    fn checkout(
        &self,
        session: &Session,
        output: &Output,
        path: &Path,
    ) -> Result<(), CheckoutError> {
        let error = |source| CheckoutError::Io { tree: output.path.to_string(), source };
        let hash = *output.path.hash();
        let mut stream = self.store.open_tree(output)?.ok_or(StoreError::NoTree(hash))?;
        let work = tempfile::tempdir_in(self.store.temporary_directory()).map_err(error)?;
        let destination = work.path().join("tree");
        let (reader, mut writer) = io::pipe().map_err(error)?;
        let sent: Result<(), CheckoutError> = std::thread::scope(|scope| {
            let sender = scope.spawn(move || io::copy(&mut stream, &mut writer).map(drop));
            let result = session.checkout(reader, &destination);
            let sent = sender.join().unwrap_or_else(|_| Err(io::Error::other("sender ended")));
            result?;
            sent.map_err(error)
        });
        sent?;
        match session.rename(&destination, path, false) {
            Ok(()) => Ok(()),
            // Another process was faster.
            Err(_) if path.exists() => Ok(session.remove(&destination)?),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_twice_is_listed_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let checkouts = Checkouts::new(&store).forbidding(true);
        let ids: Vec<DerivationId> = ["one", "two"]
            .map(|name| drystone_store::derivation::Derivation::new(name, 1).id())
            .into();
        for id in [ids[0], ids[1], ids[0]] {
            assert!(matches!(checkouts.permit("x", id), Err(CheckoutError::Forbidden { .. })));
        }
        let listed: Vec<DerivationId> = checkouts.missing().into_iter().map(|(_, id)| id).collect();
        assert_eq!(listed, ids);
    }
}
