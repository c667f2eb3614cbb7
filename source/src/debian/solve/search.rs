//! The search: choose depth first, and go back to the choice that a conflict has to do with.
//!
//! What remains to be done is a persistent stack ([`Agenda`]), so a choice point keeps it for the
//! price of one reference. Every chosen package carries the choice points that it depends on; a
//! dead end goes back to the latest of those that it involves, past all later ones
//! (conflict-directed backjumping).

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::candidates::{Candidates, Overrides};
use super::explain::{Failure, Problem, Rejection, Unsolvable};
use super::state::{Levels, Requirement, State};
use super::{PackageRequest, Reason, RelationKind, Solution, SolveRequest};
use crate::debian::universe::{NameId, Reach, RecordId, Universe};

/// After so many dead ends the search is given up. Real requests meet a handful.
const MAX_DEAD_ENDS: usize = 5_000;

/// Something that remains to be done.
#[derive(Clone)]
enum Task {
    /// Choose packages that are asked for: all at once, before anything that they need, so that
    /// they are preferred to other ways to satisfy each other's dependencies.
    Roots(Rc<[RecordId]>, Reason),
    /// Satisfy one group of a chosen package.
    Satisfy(Rc<Requirement>),
}

/// A persistent stack of tasks; the first is done next.
type Agenda = Option<Rc<AgendaItem>>;

struct AgendaItem {
    task: Task,
    rest: Agenda,
}

impl Drop for AgendaItem {
    /// Frees a long stack in a loop: one call inside the other would exhaust the call stack.
    fn drop(&mut self) {
        let mut rest = self.rest.take();
        while let Some(mut item) = rest.and_then(|item| Rc::try_unwrap(item).ok()) {
            rest = item.rest.take();
        }
    }
}

/// A requirement that can be satisfied in several ways, one of which is being tried.
struct ChoicePoint {
    requirement: Rc<Requirement>,
    agenda: Agenda,
    /// How many packages were chosen before.
    chosen_before: usize,
    current: Option<RecordId>,
    /// What was not tried yet, the next one last.
    untried: Vec<RecordId>,
    rejections: Vec<Rejection>,
    /// The other choice points that the failures so far, and the choice itself, have to do with.
    levels: Levels,
}

/// Why a search ended without a solution.
enum End {
    Unsolvable(Unsolvable),
    /// Another search is needed, in which that name comes from that repository.
    Override(NameId, String),
}

struct Search<'u, 'r> {
    universe: &'u Universe,
    request: &'r SolveRequest<'r>,
    candidates: Candidates<'u, 'r>,
    state: State<'u, 'r>,
    agenda: Agenda,
    choices: Vec<ChoicePoint>,
    dead_ends: usize,
}

/// Solves a request; see [`super::solve`].
pub(super) fn run<'u>(
    universe: &'u Universe,
    request: &SolveRequest<'_>,
) -> Result<Solution<'u>, Unsolvable> {
    let mut overrides = Overrides::new();
    loop {
        let mut search = Search::new(universe, request, &overrides);
        match search.start().and_then(|()| search.finish()) {
            Ok(()) => return Ok(search.solution()),
            Err(End::Unsolvable(unsolvable)) => return Err(unsolvable.with_near_names(universe)),
            // Every round settles one more name for good, so the rounds come to an end.
            Err(End::Override(name, repository)) => overrides.insert(name, repository),
        };
    }
}

impl<'u, 'r> Search<'u, 'r> {
    fn new(
        universe: &'u Universe,
        request: &'r SolveRequest<'r>,
        overrides: &'r Overrides,
    ) -> Self {
        Self {
            universe,
            request,
            candidates: Candidates::new(universe, request, overrides),
            state: State::new(universe, request),
            agenda: None,
            choices: Vec::new(),
            dead_ends: 0,
        }
    }

    /// Looks up what is asked for and puts it on the agenda, the Essential packages first.
    fn start(&mut self) -> Result<(), End> {
        let requested = self.look_up(&self.request.roots, "is asked for")?;
        self.push(Task::Roots(requested.into(), Reason::Requested));
        if self.request.essential {
            let names = self.universe.essential();
            let roots: Vec<_> = names.into_iter().map(PackageRequest::named).collect();
            let mut essential = self.look_up(&roots, "is Essential")?;
            essential.sort_unstable_by_key(|id| self.universe.name_of(*id));
            self.push(Task::Roots(essential.into(), Reason::Essential));
        }
        Ok(())
    }

    /// The records of packages, in the order in which they are asked for. All unknown ones are
    /// reported at once.
    fn look_up(&self, roots: &[PackageRequest], why: &str) -> Result<Vec<RecordId>, End> {
        let mut records: Vec<RecordId> = Vec::new();
        let mut failures = Vec::new();
        for root in roots {
            match self.candidates.root(root) {
                Ok(id) if records.contains(&id) => {}
                Ok(id) => records.push(id),
                Err(rejection) => failures.push(Failure {
                    chain: Vec::new(),
                    requirement: format!("{} {why}", root.name),
                    rejections: vec![rejection],
                }),
            }
        }
        if !failures.is_empty() {
            return Err(End::Unsolvable(Unsolvable { failures, gave_up: false }));
        }
        Ok(records)
    }

    fn push(&mut self, task: Task) {
        let rest = self.agenda.take();
        self.agenda = Some(Rc::new(AgendaItem { task, rest }));
    }

    /// Works until nothing remains to be done.
    fn finish(&mut self) -> Result<(), End> {
        while let Some(item) = self.agenda.take() {
            self.agenda.clone_from(&item.rest);
            match &item.task {
                Task::Roots(records, reason) => self.choose_roots(records, reason)?,
                Task::Satisfy(requirement) => self.satisfy(requirement)?,
            }
        }
        Ok(())
    }

    fn choose_roots(&mut self, records: &[RecordId], reason: &Reason) -> Result<(), End> {
        for &id in records {
            if let Some(obstacle) = self.state.obstacle(id) {
                let failure = Failure {
                    chain: Vec::new(),
                    requirement: match reason {
                        Reason::Essential => format!("{} is Essential", self.describe(id)),
                        _ => format!("{} is asked for", self.describe(id)),
                    },
                    rejections: vec![self.reject(id, obstacle.problem)],
                };
                return self.dead_end(failure, (*obstacle.levels).clone());
            }
            if self.state.chosen(self.universe.name_of(id)).is_none() {
                self.state.choose(id, Rc::default(), reason.clone());
            }
        }
        for &id in records.iter().rev() {
            self.push_requirements(id);
        }
        Ok(())
    }

    /// Puts what a package needs on the agenda, so that the first group is done next.
    fn push_requirements(&mut self, id: RecordId) {
        for requirement in self.state.parsed(id).requirements.iter().rev() {
            self.push(Task::Satisfy(Rc::clone(requirement)));
        }
    }

    fn satisfy(&mut self, requirement: &Rc<Requirement>) -> Result<(), End> {
        if self.state.satisfies(&requirement.group) {
            return Ok(());
        }
        let owner = self.universe.record(requirement.owner);
        let reach = self.universe.reach(requirement.owner);
        let options = self.candidates.options(&requirement.group, owner, reach);
        let mut levels = (*self.state.levels_of(requirement.owner)).clone();
        let mut rejections = options.rejections;
        let mut open = Vec::new();
        for id in options.records {
            let Some(obstacle) = self.state.obstacle(id) else {
                open.push(id);
                continue;
            };
            if matches!(obstacle.problem, Problem::OtherVersion { .. }) {
                self.override_origin(id)?;
            }
            levels.extend(obstacle.levels.iter());
            rejections.push(self.reject(id, obstacle.problem));
        }
        let optional = requirement.kind == RelationKind::Recommends;
        match (open.as_slice(), optional) {
            ([], true) => Ok(()),
            ([], false) => self.dead_end(self.failure(requirement, rejections), levels),
            ([only], false) => {
                self.choose(*only, requirement, Rc::new(levels));
                Ok(())
            }
            _ => {
                open.reverse();
                self.choices.push(ChoicePoint {
                    requirement: Rc::clone(requirement),
                    agenda: self.agenda.clone(),
                    chosen_before: self.state.len(),
                    current: None,
                    untried: open,
                    rejections,
                    levels,
                });
                self.try_next(self.choices.len() - 1);
                Ok(())
            }
        }
    }

    /// A package of a named repository needs its own repository's version of something that was
    /// chosen from another: search again with that settled, unless the request settles it.
    fn override_origin(&self, id: RecordId) -> Result<(), End> {
        let name = self.universe.name_of(id);
        if self.universe.reach(id) == Reach::Default || self.candidates.is_settled(name) {
            return Ok(());
        }
        Err(End::Override(name, self.universe.record(id).repository.to_string()))
    }

    fn choose(&mut self, id: RecordId, requirement: &Requirement, levels: Rc<Levels>) {
        let reason = Reason::Needed {
            by: self.universe.record(requirement.owner).name.clone(),
            kind: requirement.kind,
            relation: requirement.group.to_string(),
        };
        self.state.choose(id, levels, reason);
        self.push_requirements(id);
    }

    /// Takes the next way at a choice point; `false` if there is none left.
    fn try_next(&mut self, level: usize) -> bool {
        let choice = &mut self.choices[level];
        let Some(id) = choice.untried.pop() else { return false };
        choice.current = Some(id);
        let requirement = Rc::clone(&choice.requirement);
        self.agenda.clone_from(&choice.agenda);
        self.choose(id, &requirement, Rc::new(BTreeSet::from([level])));
        true
    }

    /// Goes back to the latest choice that a failure has to do with.
    fn dead_end(&mut self, mut failure: Failure, mut levels: Levels) -> Result<(), End> {
        self.dead_ends += 1;
        if self.dead_ends > MAX_DEAD_ENDS {
            let failures = vec![failure];
            return Err(End::Unsolvable(Unsolvable { failures, gave_up: true }));
        }
        while let Some(level) = levels.pop_last() {
            self.choices.truncate(level + 1);
            let choice = &mut self.choices[level];
            choice.levels.append(&mut levels);
            let problem = Problem::Needs(Arc::new(failure));
            let tried = choice.current.take().map(|id| describe(self.universe, id));
            choice.rejections.extend(tried.map(|candidate| Rejection { candidate, problem }));
            self.state.undo(choice.chosen_before);
            if self.try_next(level) {
                return Ok(());
            }
            let choice = self.choices.remove(level);
            if choice.requirement.kind == RelationKind::Recommends {
                self.agenda = choice.agenda;
                return Ok(());
            }
            failure = self.failure(&choice.requirement, choice.rejections);
            levels = choice.levels;
        }
        Err(End::Unsolvable(Unsolvable { failures: vec![failure], gave_up: false }))
    }

    fn failure(&self, requirement: &Requirement, rejections: Vec<Rejection>) -> Failure {
        let (owner, verb) = (self.describe(requirement.owner), requirement.kind.verb());
        Failure {
            chain: self.state.chain(requirement.owner),
            requirement: format!("{owner} {verb} {}", requirement.group),
            rejections,
        }
    }

    fn reject(&self, id: RecordId, problem: Problem) -> Rejection {
        Rejection { candidate: self.describe(id), problem }
    }

    fn describe(&self, id: RecordId) -> String {
        describe(self.universe, id)
    }

    fn solution(&self) -> Solution<'u> {
        let mut solution = Solution {
            packages: Vec::with_capacity(self.state.len()),
            reasons: Default::default(),
        };
        let mut asked: BTreeSet<&str> = BTreeSet::new();
        asked.extend(self.request.roots.iter().map(|root| root.name.as_str()));
        for chosen in self.state.iter() {
            let record = self.universe.record(chosen.record);
            // A package may be asked for and Essential or needed by another that is; the first is
            // what people want to hear.
            let asked = asked.contains(record.name.as_str());
            let reason = if asked { Reason::Requested } else { chosen.reason.clone() };
            solution.packages.push(record);
            solution.reasons.insert(record.name.clone(), reason);
        }
        solution.packages.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        solution
    }
}

fn describe(universe: &Universe, id: RecordId) -> String {
    let record = universe.record(id);
    format!("{} {}", record.name, record.version)
}
