//! Recipes in the order in which they need each other, several at once.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, PoisonError};

use super::{Made, RecipeError};
use crate::progress::{Event, Progress};
use crate::spec::Name;

/// Builds one recipe of what was made before it.
pub type Build<'a> = dyn Fn(&Name, &BTreeMap<Name, Made>) -> Result<Made, RecipeError> + Sync + 'a;

/// What is to be done, and what came of it.
struct Board {
    waiting: BTreeSet<Name>,
    running: usize,
    made: BTreeMap<Name, Made>,
    failed: BTreeMap<Name, RecipeError>,
    stopped: bool,
}

impl Board {
    /// The first recipe that has all it needs; those that never will are failures.
    fn next(&mut self, needs: &BTreeMap<Name, BTreeSet<Name>>) -> Option<Name> {
        loop {
            let hopeless = self.waiting.iter().find_map(|name| {
                let need = needs.get(name)?.iter().find(|need| self.failed.contains_key(*need))?;
                Some((name.clone(), need.clone()))
            });
            let Some((name, need)) = hopeless else { break };
            self.waiting.remove(&name);
            let (recipe, needs) = (name.to_string(), need.to_string());
            self.failed.insert(name, RecipeError::Needs { recipe, needs });
        }
        let ready = |name: &&Name| {
            needs.get(*name).is_none_or(|needs| needs.iter().all(|it| self.made.contains_key(it)))
        };
        let name = self.waiting.iter().find(ready).cloned()?;
        self.waiting.remove(&name);
        Some(name)
    }
}

/// Builds recipes, at most `jobs` at once, each when what it needs is there. After a failure
/// nothing new is begun, unless `keep_going` asks for all that can be had.
///
/// `needs` names every recipe to build, and has no circle: image.toml was checked for that.
pub fn build_all(
    needs: &BTreeMap<Name, BTreeSet<Name>>,
    jobs: NonZeroUsize,
    keep_going: bool,
    progress: &dyn Progress,
    build: &Build<'_>,
) -> Result<BTreeMap<Name, Made>, RecipeError> {
    let board = Mutex::new(Board {
        waiting: needs.keys().cloned().collect(),
        running: 0,
        made: BTreeMap::new(),
        failed: BTreeMap::new(),
        stopped: false,
    });
    let changed = Condvar::new();
    let work = || {
        let mut state = board.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.stopped || (state.waiting.is_empty() && state.running == 0) {
                changed.notify_all();
                return;
            }
            let Some(name) = state.next(needs) else {
                if state.running == 0 {
                    changed.notify_all();
                    return;
                }
                state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.running += 1;
            let made = state.made.clone();
            drop(state);
            let result = build(&name, &made);
            state = board.lock().unwrap_or_else(PoisonError::into_inner);
            state.running -= 1;
            match result {
                Ok(made) => {
                    state.made.insert(name, made);
                }
                Err(error) => {
                    state.stopped = !keep_going;
                    state.failed.insert(name, error);
                }
            }
            changed.notify_all();
        }
    };
    let threads = jobs.get().min(needs.len());
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    let board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
    finish(board, progress)
}

/// One failure is told as it is; of several each is reported, and all are named.
fn finish(board: Board, progress: &dyn Progress) -> Result<BTreeMap<Name, Made>, RecipeError> {
    let mut failed: Vec<(Name, RecipeError)> = board.failed.into_iter().collect();
    if failed.is_empty() {
        return Ok(board.made);
    }
    if failed.len() == 1 {
        return Err(failed.remove(0).1);
    }
    for (_, error) in &failed {
        progress.event(Event::Warning { text: error.to_string() });
    }
    let failed = failed.into_iter().map(|(name, _)| name.to_string()).collect();
    Err(RecipeError::Several { failed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use drystone_store::digest::DerivationId;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn graph(lines: &[(&str, &[&str])]) -> BTreeMap<Name, BTreeSet<Name>> {
        let set = |needs: &[&str]| needs.iter().map(|need| name(need)).collect();
        lines.iter().map(|(recipe, needs)| (name(recipe), set(needs))).collect()
    }

    fn made() -> Made {
        Made { derivation: DerivationId::of(b"x"), outputs: BTreeMap::new() }
    }

    #[test]
    fn what_is_needed_comes_first_whatever_the_number_of_threads() {
        let needs =
            graph(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[]), ("e", &[])]);
        for jobs in [1, 2, 8] {
            let jobs = NonZeroUsize::new(jobs).unwrap();
            let built = build_all(&needs, jobs, false, &Silent, &|recipe, before| {
                assert!(needs[recipe].iter().all(|need| before.contains_key(need)), "{recipe}");
                Ok(made())
            });
            assert_eq!(built.unwrap().len(), 5);
        }
    }

    #[test]
    fn a_failure_stops_what_needs_it_and_keep_going_builds_the_rest() {
        let needs = graph(&[("a", &["b"]), ("b", &[]), ("c", &[])]);
        for (keep_going, expected) in [(false, 0), (true, 1)] {
            let count = std::sync::atomic::AtomicUsize::new(0);
            let error = build_all(&needs, NonZeroUsize::MIN, keep_going, &Silent, &|recipe, _| {
                if recipe.as_str() == "b" {
                    let (recipe, output) = ("b".to_owned(), "out".to_owned());
                    return Err(RecipeError::Empty { recipe, output });
                }
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok(made())
            });
            assert_eq!(count.into_inner(), expected);
            match (keep_going, error.unwrap_err()) {
                (false, RecipeError::Empty { .. }) => {}
                (true, RecipeError::Several { failed }) => assert_eq!(failed, ["a", "b"]),
                (_, other) => panic!("{other}"),
            }
        }
    }
}
