//! The three sets of packages that an image on one platform is made with.
//!
//! 1. *essential*: the suite's Essential packages and what they need, the same for every image;
//! 2. *image*: what the image holds;
//! 3. *full*: all that must be installed for the image's packages to be configured: what is asked
//!    for, over (1), as apt would install it.
//!
//! With `essential = true` the image holds all of (3). Else it holds what is reached inside (3) from
//! what was asked for and `base-files`, each dependency by the alternative that the solution took,
//! without dependencies that serve maintainer scripts only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::script_only::is_script_only;
use drystone_source::debian::index::PackageRecord;
use drystone_source::debian::relation::{Alternative, Group};
use drystone_source::debian::solve::{
    PackageRequest, Reason, Solution, SolveRequest, Unsolvable, solve,
};
use drystone_source::debian::universe::{Polarity, Universe, matches};
use drystone_source::debian::version::Version;

/// In every image: `/etc/os-release`, `/etc/passwd`' directory, the top of the tree.
const BASE_FILES: &str = "base-files";
/// In every Essential set: the base system's accounts come from it.
const BASE_PASSWD: &str = "base-passwd";

/// What an image asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    pub roots: Vec<PackageRequest>,
    pub essential: bool,
    pub recommends: bool,
    pub exclude: BTreeSet<String>,
}

/// The three sets.
#[derive(Debug, Clone)]
pub(super) struct Sets {
    /// Everything, by name.
    pub full: BTreeMap<String, PackageRecord>,
    /// Names of (1).
    pub essential: BTreeSet<String>,
    /// Names of (2).
    pub image: BTreeSet<String>,
    /// What each recipe's build needs above (1), by the recipe's name.
    pub recipes: BTreeMap<String, BTreeMap<String, PackageRecord>>,
}

/// Why there are no sets.
#[derive(Debug)]
pub(super) enum SetError {
    Unsolvable(Box<Unsolvable>),
    /// The suite lacks a package that every image needs.
    NoBase(&'static str),
    /// A package that may not enter is Essential, and the image needs it.
    Excluded {
        name: String,
        /// The package that needs it; `None` when the whole Essential set is asked for.
        by: Option<String>,
    },
}

impl From<Unsolvable> for SetError {
    fn from(unsolvable: Unsolvable) -> Self {
        Self::Unsolvable(Box::new(unsolvable))
    }
}

/// Finds the sets. `pinned` gives versions that are settled.
pub(super) fn choose(
    universe: &Universe,
    wish: &Wish,
    pinned: &BTreeMap<String, Version>,
) -> Result<Sets, SetError> {
    let mut request =
        SolveRequest { essential: true, pinned: pinned.clone(), ..SolveRequest::default() };
    let mut base = solve(universe, &request)?;
    // Of a package there is one version in all sets, so what is asked of one that is Essential is
    // asked of this set already.
    request.roots = wish.roots.iter().filter(|root| is_settled_by(root, &base)).cloned().collect();
    if !request.roots.is_empty() {
        base = solve(universe, &request)?;
    }
    let mut essential = names(&base);
    let exclude: BTreeSet<String> = wish.exclude.difference(&essential).cloned().collect();
    for package in [BASE_PASSWD, BASE_FILES] {
        if !essential.contains(package) {
            return Err(SetError::NoBase(package));
        }
    }
    let mut pinned = pinned.clone();
    let versions = base.packages.iter().map(|record| (record.name.clone(), record.version.clone()));
    pinned.extend(versions);
    let mut roots = wish.roots.clone();
    let asked: BTreeSet<&str> = wish.roots.iter().map(|root| root.name.as_str()).collect();
    let others = essential.iter().filter(|name| !asked.contains(name.as_str()));
    roots.extend(others.map(|name| PackageRequest::named(name)));
    let request = SolveRequest {
        roots,
        essential: true,
        recommends: wish.recommends,
        // Packages are configured over the Essential set whatever the image may hold.
        exclude,
        pinned,
        ..SolveRequest::default()
    };
    let solution = solve(universe, &request)?;
    if wish.essential && wish.recommends {
        // An installer that follows Recommends does so for the Essential set already, and configures
        // all of that before the rest. Where the set only stands below scripts, less is better.
        let with_recommended =
            names(&solve(universe, &SolveRequest { roots: Vec::new(), ..request })?);
        if with_recommended.is_subset(&names(&solution)) {
            essential = with_recommended;
        }
    }
    let image = match wish.essential {
        true => everything(&solution, wish)?,
        false => Reached::new(&solution, wish).run()?,
    };
    let full = solution.packages.iter().map(|record| (record.name.clone(), (*record).clone()));
    Ok(Sets { full: full.collect(), essential, image, recipes: BTreeMap::new() })
}

/// Whether a package that is asked for, of a version or from a repository, is in a solution.
fn is_settled_by(root: &PackageRequest, solution: &Solution<'_>) -> bool {
    let is_narrow = root.version.is_some() || root.repository.is_some();
    is_narrow && solution.packages.iter().any(|record| record.name == root.name)
}

fn names(solution: &Solution<'_>) -> BTreeSet<String> {
    solution.packages.iter().map(|record| record.name.clone()).collect()
}

fn everything(solution: &Solution<'_>, wish: &Wish) -> Result<BTreeSet<String>, SetError> {
    let names = names(solution);
    match names.intersection(&wish.exclude).next() {
        Some(name) => Err(SetError::Excluded { name: name.clone(), by: None }),
        None => Ok(names),
    }
}

/// The walk from what is asked for to all that it needs.
struct Reached<'s, 'u> {
    solution: &'s Solution<'u>,
    wish: &'s Wish,
    by_name: BTreeMap<&'s str, &'u PackageRecord>,
    providers: BTreeMap<&'s str, Vec<&'u PackageRecord>>,
}

impl<'s, 'u> Reached<'s, 'u> {
    fn new(solution: &'s Solution<'u>, wish: &'s Wish) -> Self {
        let mut by_name = BTreeMap::new();
        let mut providers: BTreeMap<&str, Vec<&PackageRecord>> = BTreeMap::new();
        for &record in &solution.packages {
            by_name.insert(record.name.as_str(), record);
            for provided in &record.provides {
                providers.entry(provided.name.as_str()).or_default().push(record);
            }
        }
        Self { solution, wish, by_name, providers }
    }

    fn run(&self) -> Result<BTreeSet<String>, SetError> {
        let asked = self.wish.roots.iter().map(|root| root.name.as_str());
        let roots = asked.chain([BASE_FILES]).filter_map(|name| self.root(name));
        let mut queue: VecDeque<(&PackageRecord, Option<&str>)> =
            roots.map(|record| (record, None)).collect();
        let mut reached = BTreeSet::new();
        while let Some((record, by)) = queue.pop_front() {
            if !reached.insert(record.name.clone()) {
                continue;
            }
            if self.wish.exclude.contains(&record.name) {
                let by = by.map(str::to_owned);
                return Err(SetError::Excluded { name: record.name.clone(), by });
            }
            let needed = self.needed(record);
            queue.extend(needed.into_iter().map(|needed| (needed, Some(record.name.as_str()))));
        }
        Ok(reached)
    }

    /// The package of a name that is asked for, or the one that provides it.
    fn root(&self, name: &str) -> Option<&'u PackageRecord> {
        let providers = || {
            let requested = |record: &&&PackageRecord| {
                self.solution.reasons.get(&record.name) == Some(&Reason::Requested)
            };
            let providers = self.providers.get(name)?;
            providers.iter().find(requested).or_else(|| providers.first()).copied()
        };
        self.by_name.get(name).copied().or_else(providers)
    }

    fn needed(&self, record: &PackageRecord) -> Vec<&'u PackageRecord> {
        let mut fields = vec![&record.pre_depends, &record.depends];
        if self.wish.recommends {
            fields.push(&record.recommends);
        }
        let groups = fields.into_iter().flat_map(|field| field.relations().groups);
        groups.filter_map(|group| self.taken(record, &group)).collect()
    }

    /// The package that satisfies a group in the solution, unless it serves scripts only.
    fn taken(&self, owner: &PackageRecord, group: &Group) -> Option<&'u PackageRecord> {
        let found = group.alternatives.iter().find_map(|alternative| {
            Some((alternative, self.satisfying(owner, group, alternative)?))
        });
        let (alternative, record) = found?;
        let serves_scripts = is_script_only(&owner.name, &alternative.name)
            || is_script_only(&owner.name, &record.name);
        (!serves_scripts).then_some(record)
    }

    fn satisfying(
        &self,
        owner: &PackageRecord,
        group: &Group,
        alternative: &Alternative,
    ) -> Option<&'u PackageRecord> {
        let suits = |record: &PackageRecord| matches(alternative, record, Polarity::Positive);
        let name = alternative.name.as_str();
        if let Some(real) = self.by_name.get(name).filter(|record| suits(record)) {
            return Some(real);
        }
        let providers = self.providers.get(name)?.iter().filter(|record| suits(record));
        // Of several the one that was chosen for this very relation; else the first by name.
        let relation = group.to_string();
        let chosen_for_it = |record: &&&PackageRecord| {
            matches!(self.solution.reasons.get(&record.name),
                Some(Reason::Needed { by, relation: why, .. }) if *by == owner.name && *why == relation)
        };
        providers.clone().find(chosen_for_it).or_else(|| providers.clone().next()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drystone_source::debian::index::read_packages;
    use drystone_source::debian::universe::Reach;

    const BASE: &str = "base-files 12 essential pre-depends:awk\nbase-passwd 3 essential depends:libc6\n\
        dpkg 1 essential depends:tar\ntar 1 essential\ngawk 5 provides:awk\nmawk 1 provides:awk\nlibc6 2\n\
        perl-base 5 essential\ndebconf 1 depends:perl-base provides:debconf-2.0\n";

    /// A universe from lines of `name version field:relations...`; `_` stands for a space.
    fn universe(lines: &str) -> Universe {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let mut text = String::new();
        for line in lines.lines() {
            let mut words = line.split(' ');
            let (name, version) = (words.next().unwrap(), words.next().unwrap());
            text.push_str(&format!(
                "Package: {name}\nVersion: {version}\nArchitecture: amd64\nSize: 1\nSHA256: {hex}\nFilename: {name}\n"
            ));
            for word in words {
                match word.split_once(':') {
                    Some((field, value)) => {
                        text.push_str(&format!("{field}: {}\n", value.replace('_', " ")));
                    }
                    None => text.push_str("Essential: yes\n"),
                }
            }
            text.push('\n');
        }
        let mut universe = Universe::new("amd64");
        universe.add(Reach::Default, read_packages("test", &text).unwrap());
        universe
    }

    fn wish(names: &[&str]) -> Wish {
        Wish {
            roots: names.iter().map(|name| PackageRequest::named(name)).collect(),
            ..Wish::default()
        }
    }

    fn image(lines: &str, wish: &Wish) -> String {
        let universe = universe(&format!("{BASE}{lines}"));
        let sets = choose(&universe, wish, &BTreeMap::new()).unwrap();
        sets.image.into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_only_scripts_need_stays_outside() {
        let lines =
            "web 1 depends:libc6,_debconf_|_debconf-2.0,_dpkg_(>=_1),_web-data\nweb-data 1\n";
        assert_eq!(image(lines, &wish(&["web"])), "base-files libc6 web web-data");
        let asked = wish(&["web", "debconf"]);
        assert_eq!(
            image(lines, &asked),
            "base-files debconf libc6 perl-base web web-data",
            "what is asked for enters with what it needs"
        );
        let all = Wish { essential: true, ..wish(&["web"]) };
        assert_eq!(
            image(lines, &all),
            "base-files base-passwd debconf dpkg libc6 mawk perl-base tar web web-data"
        );
    }

    #[test]
    fn the_alternative_that_the_solution_took_is_followed() {
        let lines = "web 1 depends:x_|_y,_mta\nx 1 conflicts:z\ny 1\nz 1\n\
            exim 1 provides:mta\npostfix 1 provides:mta\n";
        assert_eq!(image(lines, &wish(&["web"])), "base-files postfix web x");
        assert_eq!(image(lines, &wish(&["web", "z", "exim"])), "base-files exim web y z");
    }

    #[test]
    fn recommends_enter_when_asked_for() {
        let lines = "web 1 recommends:extra,_dpkg,_nothing\nextra 1 depends:libc6\n";
        assert_eq!(image(lines, &wish(&["web"])), "base-files web");
        let more = Wish { recommends: true, ..wish(&["web"]) };
        assert_eq!(image(lines, &more), "base-files extra libc6 web");
    }

    /// As apt does when it is told to: uuid-runtime of util-linux is configured before a daemon.
    #[test]
    fn what_essential_packages_recommend_is_configured_with_them() {
        let base = BASE.replace("tar 1 essential", "tar 1 essential recommends:runtime");
        let universe = universe(&format!("{base}runtime 1\nweb 1\nother 1 conflicts:runtime\n"));
        let essential = |names: &[&str], essential, recommends| {
            let wish = Wish { essential, recommends, ..wish(names) };
            choose(&universe, &wish, &BTreeMap::new()).unwrap().essential
        };
        assert!(essential(&["web"], true, true).contains("runtime"));
        assert!(!essential(&["web"], true, false).contains("runtime"));
        assert!(!essential(&["web"], false, true).contains("runtime"));
        assert!(!essential(&["other"], true, true).contains("runtime"), "it cannot be there");
        let wish = Wish {
            essential: true,
            recommends: true,
            exclude: ["runtime".to_owned()].into(),
            ..wish(&["web"])
        };
        let sets = choose(&universe, &wish, &BTreeMap::new()).unwrap();
        assert!(!sets.essential.contains("runtime"), "it may not be there");
    }

    #[test]
    fn an_excluded_essential_package_only_stays_out_of_the_image() {
        let universe = universe(&format!("{BASE}git 1 depends:perl-base\nweb 1\n"));
        let without =
            |names: &[&str]| Wish { exclude: ["perl-base".to_owned()].into(), ..wish(names) };
        let sets = choose(&universe, &without(&["web"]), &BTreeMap::new()).unwrap();
        assert!(sets.essential.contains("perl-base") && !sets.image.contains("perl-base"));
        let error = choose(&universe, &without(&["git"]), &BTreeMap::new()).unwrap_err();
        assert!(
            matches!(&error, SetError::Excluded { name, by: Some(by) } if name == "perl-base" && by == "git"),
            "{error:?}"
        );
    }

    #[test]
    fn a_suite_without_its_base_is_refused() {
        let universe = universe("base-files 1 essential\nweb 1\n");
        let error = choose(&universe, &wish(&["web"]), &BTreeMap::new()).unwrap_err();
        assert!(matches!(error, SetError::NoBase("base-passwd")), "{error:?}");
    }

    #[test]
    fn one_version_serves_all_roles() {
        let universe = universe(&format!("{BASE}libc6 3\nweb 1 depends:libc6\n"));
        let pinned = [("libc6".to_owned(), Version::new("2").unwrap())].into();
        let sets = choose(&universe, &wish(&["web"]), &pinned).unwrap();
        assert_eq!(sets.full["libc6"].version.as_str(), "2");
        let sets = choose(&universe, &wish(&["web"]), &BTreeMap::new()).unwrap();
        assert_eq!(sets.full["libc6"].version.as_str(), "3");
    }
}
