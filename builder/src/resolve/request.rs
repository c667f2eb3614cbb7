//! One platform's task: what is asked for, chosen on a thread of its own, and what is said when it
//! cannot be had.

use std::collections::{BTreeMap, BTreeSet};

use super::ResolveError;
use super::indexes::Offer;
use super::pins::{PinError, Pins, Update};
use super::sets::{SetError, Sets, Wish};
use crate::document::{Diagnostic, Diagnostics, Place, ValueError};
use crate::lock::{ArchiveKey, Lock, LockedPlatform};
use crate::spec::{Debian, Image, Name, Platform, Suite};
use drystone_source::debian::index::PackageRecord;
use drystone_source::debian::solve::{PackageRequest, Problem, Unsolvable};
use drystone_source::debian::universe::{Reach, Universe};
use drystone_source::debian::version::Version;

/// Everything that one platform's packages are chosen from and by.
pub(super) struct Task {
    platform: Platform,
    main: ArchiveKey,
    records: Vec<(Reach, Vec<PackageRecord>)>,
    wish: Wish,
    /// What each recipe's build asks for.
    recipes: BTreeMap<Name, Wish>,
    pins: Pins,
    update: Update,
}

/// A set that cannot be had, and the recipe that it is for, if it is one.
type Refusal = (Option<Name>, PinError);

impl Task {
    /// Takes the platform's records out of the offers: they are large, and no other platform uses
    /// them.
    pub fn new(
        image: &Image,
        debian: &Debian,
        platform: Platform,
        codename: &Suite,
        previous: Option<&Lock>,
        update: &Update,
        offers: &mut [Offer],
    ) -> Self {
        let main = offers[0].archive.key.clone();
        let records = offers
            .iter_mut()
            .map(|offer| (offer.archive.reach, offer.take(platform.debian_name())))
            .collect();
        let before = previous.and_then(|lock| lock.platform(&image.name, platform));
        let pins = previous.filter(|_| *update != Update::All);
        let used = repositories(debian);
        let pins = pins.map(|lock| Pins::of(lock, &image.name, codename, platform, &used));
        Self {
            platform,
            main,
            records,
            wish: wish(image, debian, platform, before),
            recipes: image
                .recipes_on(platform)
                .map(|(name, recipe)| {
                    let packages = recipe.build_packages(&debian.suite);
                    let roots = packages.iter().map(|name| PackageRequest::named(name.as_str()));
                    (name.clone(), Wish { roots: roots.collect(), ..Wish::default() })
                })
                .collect(),
            pins: pins.unwrap_or_default(),
            update: update.clone(),
        }
    }

    /// Chooses the sets.
    pub async fn run(self, image: &Image) -> Result<Sets, ResolveError> {
        let (platform, main) = (self.platform, self.main.clone());
        let chosen = tokio::task::spawn_blocking(move || self.choose()).await;
        chosen
            .map_err(ResolveError::worker)?
            .map_err(|refusal| explain(image, platform, main, refusal))
    }

    fn choose(self) -> Result<Sets, Refusal> {
        let mut universe = Universe::new(self.platform.debian_name());
        for (reach, records) in self.records {
            universe.add(reach, records);
        }
        for (reach, record) in self.pins.dropped(&universe) {
            universe.add(reach, vec![record]);
        }
        let pins = self.pins.clone();
        let chosen = pins.choose(&universe, &self.wish, &self.update);
        let mut sets = chosen.map_err(|error| (None, error))?;
        // One version serves all roles, so what was chosen is settled for whatever comes later.
        let version = |record: &PackageRecord| (record.name.clone(), record.version.clone());
        let mut settled: BTreeMap<String, Version> = sets.full.values().map(version).collect();
        for (name, wish) in self.recipes {
            let chosen = self.pins.choose_beside(&universe, &wish, &self.update, &settled);
            let chosen = chosen.map_err(|error| (Some(name.clone()), error))?;
            settled.extend(chosen.full.values().map(version));
            let mut inputs = chosen.full;
            inputs.retain(|name, _| !chosen.essential.contains(name));
            sets.recipes.insert(name.to_string(), inputs);
        }
        Ok(sets)
    }
}

/// The repositories that packages are asked from.
pub(super) fn repositories(debian: &Debian) -> BTreeSet<&Name> {
    debian.packages.iter().filter_map(|package| package.from.as_ref()).collect()
}

fn wish(
    image: &Image,
    debian: &Debian,
    platform: Platform,
    before: Option<&LockedPlatform>,
) -> Wish {
    let mut roots: Vec<PackageRequest> = debian
        .packages
        .iter()
        .map(|package| PackageRequest {
            name: package.name.to_string(),
            version: package.version.as_ref().map(|version| version.as_str().to_owned()),
            repository: package.from.as_ref().map(ToString::to_string),
        })
        .collect();
    let runtime = image.recipes_on(platform).flat_map(|(_, recipe)| &recipe.runtime);
    for package in runtime {
        if roots.iter().all(|root| root.name != package.as_str()) {
            roots.push(PackageRequest::named(package.as_str()));
        }
    }
    // What recipes' results were found to need is asked for as long as the recipes are there.
    let found = before.into_iter().flat_map(|content| &content.found_by);
    for (package, _) in found.filter(|(_, recipe)| image.recipes.contains_key(*recipe)) {
        if roots.iter().all(|root| root.name != package.as_str()) {
            roots.push(PackageRequest::named(package.as_str()));
        }
    }
    Wish {
        roots,
        essential: debian.essential,
        recommends: debian.recommends,
        exclude: debian.exclude.iter().map(ToString::to_string).collect(),
    }
}

fn explain(
    image: &Image,
    platform: Platform,
    main: ArchiveKey,
    (recipe, error): Refusal,
) -> ResolveError {
    match error {
        PinError::InTheWay(source) => ResolveError::Pinned { platform, source },
        PinError::Set(SetError::NoBase(package)) => ResolveError::NoBase { archive: main, package },
        PinError::Set(SetError::Excluded { name, by }) => {
            let needs = by.map_or("`essential = true`".to_owned(), |by| format!("package `{by}`"));
            let message = format!("{needs} brings `{name}`, which `exclude` keeps out");
            let place = image.debian.as_ref().map(|debian| debian.place).unwrap_or_default();
            ResolveError::Request(Box::new(image.problem(place, message).into()))
        }
        PinError::Set(SetError::Unsolvable(source)) => {
            match refused(image, recipe.as_ref(), &main.suite, &source) {
                Some(problems) => ResolveError::Request(Box::new(problems)),
                None => ResolveError::Unsolvable { platform, source },
            }
        }
    }
}

/// The problems of an unsolvable request that lie with single packages of image.toml, at their
/// places; `None` if there are others.
fn refused(
    image: &Image,
    recipe: Option<&Name>,
    suite: &Suite,
    unsolvable: &Unsolvable,
) -> Option<Diagnostics> {
    let problems = unsolvable.failures.iter().map(|failure| {
        let [rejection] = failure.rejections.as_slice() else { return None };
        let place = match recipe {
            Some(recipe) => image.recipes.get(recipe)?.place,
            None => {
                let mut packages = image.debian.as_ref()?.packages.iter();
                packages.find(|package| package.name.as_str() == rejection.candidate)?.place
            }
        };
        problem(image, place, suite, &rejection.candidate, &rejection.problem)
    });
    Diagnostics::new(problems.collect::<Option<Vec<_>>>()?)
}

fn problem(
    image: &Image,
    place: Place,
    suite: &Suite,
    name: &str,
    problem: &Problem,
) -> Option<Diagnostic> {
    let problem = match problem {
        Problem::Unknown { near } => {
            let message = format!("package `{name}` is not in suite `{suite}`");
            let problem = image.problem(place, message);
            match near.as_slice() {
                [] => problem,
                near => problem.with_help(format!("did you mean {}?", quoted(near))),
            }
        }
        Problem::NoCandidate { wanted, offers } => image
            .problem(place, format!("package `{name}` cannot be had: wanted {wanted}"))
            .with_help(format!("there is {}", offers.join(", "))),
        Problem::Virtual { providers } => image
            .problem(place, format!("package `{name}` is virtual: several packages provide it"))
            .with_help(format!("ask for one of {}", quoted(providers))),
        _ => return None,
    };
    Some(problem)
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Refuses to update what no image has.
pub(super) fn check_updates(previous: Option<&Lock>, update: &Update) -> Result<(), ResolveError> {
    let Update::Packages(names) = update else { return Ok(()) };
    let keys = previous.into_iter().flat_map(|lock| lock.packages.keys());
    let locked: BTreeSet<&str> = keys.map(|key| key.name.as_str()).collect();
    let Some(name) = names.iter().find(|name| !locked.contains(name.as_str())) else {
        return Ok(());
    };
    let name = name.to_string();
    let mut near: Vec<(usize, &str)> =
        locked.iter().map(|known| (strsim::osa_distance(&name, known), *known)).collect();
    near.retain(|(distance, _)| *distance <= 1 + name.len() / 5);
    near.sort_unstable();
    let near = near.into_iter().take(5).map(|(_, near)| near.to_owned()).collect();
    Err(ResolveError::NotLocked { name, near })
}

/// Says which package has a name, version or path that no lock can hold.
pub(super) fn pinnable<T>(package: &str, value: Result<T, ValueError>) -> Result<T, ResolveError> {
    value.map_err(|source| ResolveError::Unpinnable { package: package.to_owned(), source })
}
