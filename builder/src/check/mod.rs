//! Proof of reproducibility: every step that ran a script runs again, in other surroundings, and
//! what comes of it is compared with what the store has.
//!
//! ```text
//! stored output ──┐
//! everything else ┴─ equal ──> done
//!                    │ differs
//!                    ├─ again, nothing varied ──> differs by itself: clock, random numbers, timing
//!                    └─ again, some things varied, halved until one is left ──> the cause
//! ```
//!
//! Nothing that the store has is replaced: a tree that differs is one more tree, which no
//! realisation names and garbage collection removes.

mod cause;
mod compare;
mod describe;
mod evidence;
mod variation;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use drystone_store::digest::DerivationId;
use drystone_store::realisation::Output;
use drystone_store::store::Store;

pub use cause::Cause;
pub use describe::{describe, lay_out};
pub use variation::{Kind, Variation};

use crate::build::BuildError;
use crate::progress::{Event, Progress};
use crate::sandbox::Root;
use cause::Search;

/// A step that can run again.
pub trait Rebuild {
    /// What it is called.
    fn name(&self) -> String;
    /// Its derivation.
    fn derivation(&self) -> DerivationId;
    /// What can be varied about it.
    fn kinds(&self) -> Vec<Kind>;
    /// Its outputs in the store, by name.
    fn stored(&self) -> Vec<(String, Output)>;
    /// Runs it; its outputs, in the order of [`Rebuild::stored`].
    ///
    /// # Errors
    /// What is no fault of the step: a sandbox that cannot start, a full disk.
    fn rebuild(&self, variation: &Variation) -> Result<Rebuilt, BuildError>;
}

/// What came of running a step again.
pub enum Rebuilt {
    /// Its outputs.
    Outputs(Vec<(String, Output)>),
    /// Its script failed; the end of its output.
    Failed(String),
}

/// A file that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The output that it is in.
    pub output: String,
    /// Its path, with a leading slash.
    pub path: String,
    /// The likely causes.
    pub causes: Vec<Cause>,
    /// What in the bytes speaks for them.
    pub evidence: Vec<String>,
    /// How it differs, in lines.
    pub summary: Vec<String>,
}

/// What was found about one step.
#[derive(Debug, Clone)]
pub struct Report {
    /// The step's name.
    pub name: String,
    /// Its derivation.
    pub derivation: DerivationId,
    /// How many entries its outputs have.
    pub entries: usize,
    /// How often it ran.
    pub runs: usize,
    /// The files that differ.
    pub differences: Vec<Difference>,
    /// That it failed when something was varied: the causes, and the end of its output.
    pub failure: Option<(Vec<Cause>, String)>,
    /// The stored and the rebuilt tree of each output that differs.
    pub trees: Vec<(String, Output, Output)>,
}

impl Report {
    /// Whether all was equal.
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty() && self.failure.is_none()
    }

    /// Whether all that was found depends only on what the sandbox fixes for every build.
    pub fn is_only_fixed(&self) -> bool {
        let failed = self.failure.iter().map(|(causes, _)| causes);
        let mut all = self.differences.iter().map(|it| &it.causes).chain(failed);
        all.all(|causes| !causes.is_empty() && causes.iter().all(Cause::is_fixed))
    }
}

/// Checks steps and keeps what was found.
pub struct Checker<'a> {
    store: &'a Store,
    progress: &'a dyn Progress,
    kinds: BTreeSet<Kind>,
    /// The only recipe to check.
    only: Option<String>,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    seen: BTreeSet<DerivationId>,
    reports: Vec<Report>,
}

impl<'a> Checker<'a> {
    /// A checker that varies `kinds`; of one recipe if `only` names it, else of all steps.
    pub fn new(
        store: &'a Store,
        progress: &'a dyn Progress,
        kinds: BTreeSet<Kind>,
        only: Option<String>,
    ) -> Self {
        Self { store, progress, kinds, only, done: Mutex::default() }
    }

    /// Whether a recipe is to be checked.
    pub fn wants_recipe(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == name)
    }

    /// Whether steps besides recipes are to be checked.
    pub const fn wants_all(&self) -> bool {
        self.only.is_none()
    }

    /// What was found, in the order of checking.
    pub fn into_reports(self) -> Vec<Report> {
        self.done.into_inner().unwrap_or_else(PoisonError::into_inner).reports
    }

    /// Checks a step, unless that was done.
    ///
    /// # Errors
    /// As [`Rebuild::rebuild`]; that a step is not reproducible is no error but a [`Report`].
    pub fn check(&self, step: &dyn Rebuild) -> Result<(), BuildError> {
        let lock = || self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if !lock().seen.insert(step.derivation()) {
            return Ok(());
        }
        let name = step.name();
        self.tell(&name, "run again, varied");
        let wanted: Vec<Kind> =
            step.kinds().into_iter().filter(|kind| self.kinds.contains(kind)).collect();
        let report = Search::new(self.store, step, &|text| self.tell(&name, text)).run(&wanted)?;
        self.progress.event(Event::Done { name: format!("check {name}") });
        lock().reports.push(report);
        Ok(())
    }

    fn tell(&self, name: &str, text: &str) {
        self.progress.event(Event::Phase { name: format!("check {name}"), text: text.to_owned() });
    }
}

/// Says, once, that this host hides nothing from commands.
pub fn tell_undisguised(root: &Root, progress: &dyn Progress) {
    static TOLD: std::sync::Once = std::sync::Once::new();
    if let Some(problem) = root.undisguised() {
        TOLD.call_once(|| {
            let text = format!(
                "this host does not let the sandbox trace commands ({problem}): the second run \
                 sees the same clock and the same order of directories"
            );
            progress.event(Event::Note { text });
        });
    }
}
