//! Who needs whom: the packages of an image and the relations that hold between them.
//!
//! The lock says which packages there are, their control files (in the store since they were
//! imported) why. A relation that no package of the image satisfies is one that was left out on
//! purpose: what only maintainer scripts need is not in the image.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read;

use drystone_builder::lock::{Lock, LockedPlatform, PackageKey};
use drystone_builder::spec::Image;
use drystone_source::debian::control::paragraphs;
use drystone_source::debian::deb::imported;
use drystone_source::debian::relation::{Alternative, RelationField, Relations};
use drystone_source::debian::version::Version;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::Entry;

use crate::diagnostics::{Failure, Family};

/// A control file is small; more is none.
const CONTROL_LIMIT: u64 = 4 << 20;

/// Why a package needs another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// The needed package's name.
    pub target: String,
    /// The field: `Pre-Depends`, `Depends` or `Recommends`.
    pub field: &'static str,
    /// The relation as written, all alternatives of the group.
    pub relation: String,
}

impl Need {
    /// The field as a verb.
    pub fn verb(&self) -> &'static str {
        match self.field {
            "Pre-Depends" => "pre-depends on",
            "Recommends" => "recommends",
            _ => "depends on",
        }
    }
}

/// One package of the image.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name, version, architecture.
    pub key: PackageKey,
    /// Whether it is Essential.
    pub is_essential: bool,
    /// What it needs, in the order of its control file; each target once.
    pub needs: Vec<Need>,
    /// Its control file.
    pub control: String,
}

/// Why a package is in the image without another package that needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// image.toml asks for it, perhaps by the name of a virtual package.
    Asked(String),
    /// `essential = true`.
    Essential,
    /// The result of a recipe needs it.
    Recipe(String),
    /// Every image has it.
    Base,
}

/// A way from a root: each package with what it needs the next one for.
pub type Chain<'a> = (&'a Root, Vec<(&'a Node, Option<&'a Need>)>);

/// Packages that go by a name: really, or as something that they provide.
type Offers<'a> = BTreeMap<&'a str, Vec<(&'a Control, Option<&'a Alternative>)>>;

/// The packages of an image.
#[derive(Debug, Clone)]
pub struct Packages {
    /// By name.
    pub nodes: BTreeMap<String, Node>,
    /// Why each root is in the image.
    pub roots: BTreeMap<String, Root>,
}

/// A control file's facts.
struct Control {
    key: PackageKey,
    text: String,
    version: Version,
    is_essential: bool,
    provides: Relations,
    fields: Vec<(&'static str, RelationField)>,
}

impl Packages {
    /// Reads the control files of an image's packages.
    pub fn read(
        store: &Store,
        lock: &Lock,
        locked: &LockedPlatform,
        image: &Image,
    ) -> Result<Self, Failure> {
        let recommends = image.debian.as_ref().is_some_and(|debian| debian.recommends);
        let mut controls = Vec::new();
        let mut missing = Vec::new();
        for key in &locked.packages {
            let archive = lock.packages.get(key).map(|pin| pin.sha256);
            let deb = archive.map(|archive| imported(store, &archive)).transpose()?.flatten();
            match deb {
                Some(deb) => {
                    let text = control_text(store, &deb.control)?;
                    controls.push(Control::parse(key, &text, recommends)?);
                }
                None => missing.push(key.name.to_string()),
            }
        }
        if let Some(first) = missing.first() {
            let message = format!(
                "{} of {} packages are not in the store yet, {first} among them",
                missing.len(),
                locked.packages.len()
            );
            return Err(Failure::usage(message).hint("run `drystone build` first"));
        }
        Ok(Self::link(&controls, locked, image))
    }

    fn link(controls: &[Control], locked: &LockedPlatform, image: &Image) -> Self {
        let mut offers = Offers::new();
        for control in controls {
            offers.entry(control.key.name.as_str()).or_default().push((control, None));
            for group in &control.provides.groups {
                for provided in &group.alternatives {
                    offers.entry(&provided.name).or_default().push((control, Some(provided)));
                }
            }
        }
        let nodes = controls.iter().map(|control| {
            let node = Node {
                key: control.key.clone(),
                is_essential: control.is_essential,
                needs: control.needs(&offers),
                control: control.text.clone(),
            };
            (control.key.name.to_string(), node)
        });
        let nodes: BTreeMap<String, Node> = nodes.collect();
        let roots = roots(&nodes, &offers, locked, image);
        Self { nodes, roots }
    }

    /// The shortest way from a root to a package: each package with what it needs the next for.
    pub fn chain(&self, name: &str) -> Option<Chain<'_>> {
        let mut from: BTreeMap<&str, (&Node, &Need)> = BTreeMap::new();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut queue: VecDeque<&str> = VecDeque::new();
        // What image.toml asks for explains more than what every image has.
        let rank = |root: &Root| usize::from(!matches!(root, Root::Asked(_)));
        let mut roots: Vec<_> = self.roots.iter().collect();
        roots.sort_by_key(|(name, root)| (rank(root), (*name).clone()));
        for (root, _) in &roots {
            seen.insert(root);
            queue.push_back(root);
        }
        while let Some(next) = queue.pop_front() {
            if next == name {
                break;
            }
            let Some(node) = self.nodes.get(next) else { continue };
            for need in &node.needs {
                if seen.insert(&need.target) {
                    from.insert(&need.target, (node, need));
                    queue.push_back(&need.target);
                }
            }
        }
        let mut chain = vec![(self.nodes.get(name)?, None)];
        let mut at = name;
        while let Some((node, need)) = from.get(at) {
            chain.push((node, Some(*need)));
            at = node.key.name.as_str();
        }
        chain.reverse();
        Some((self.roots.get(at)?, chain))
    }

    /// The packages that need a package directly, with the relation.
    pub fn dependants(&self, name: &str) -> Vec<(&Node, &Need)> {
        let needs = |node: &'_ Node| node.needs.iter().position(|need| need.target == name);
        self.nodes.values().filter_map(|node| Some((node, &node.needs[needs(node)?]))).collect()
    }
}

fn roots(
    nodes: &BTreeMap<String, Node>,
    offers: &Offers<'_>,
    locked: &LockedPlatform,
    image: &Image,
) -> BTreeMap<String, Root> {
    let mut roots = BTreeMap::new();
    let debian = image.debian.as_ref();
    for request in debian.iter().flat_map(|debian| &debian.packages) {
        let asked = request.name.as_str();
        let offers = offers.get(asked).map_or(&[][..], Vec::as_slice);
        let real = offers.iter().find(|(_, provided)| provided.is_none());
        if let Some((control, _)) = real.or_else(|| offers.first()) {
            roots.insert(control.key.name.to_string(), Root::Asked(asked.to_owned()));
        }
    }
    for (package, recipe) in &locked.found_by {
        roots.entry(package.to_string()).or_insert_with(|| Root::Recipe(recipe.to_string()));
    }
    if debian.is_some_and(|debian| debian.essential) {
        for (name, _) in nodes.iter().filter(|(_, node)| node.is_essential) {
            roots.entry(name.clone()).or_insert(Root::Essential);
        }
    }
    // base-files is in every image whether something needs it or not.
    let needed: BTreeSet<&str> =
        nodes.values().flat_map(|node| &node.needs).map(|need| need.target.as_str()).collect();
    for name in nodes.keys().filter(|name| !needed.contains(name.as_str())) {
        roots.entry(name.clone()).or_insert(Root::Base);
    }
    roots
}

impl Control {
    fn parse(key: &PackageKey, text: &str, recommends: bool) -> Result<Self, Failure> {
        let damaged = |problem: String| {
            Failure::new(Family::Integrity, format!("the control file of {key}: {problem}"))
        };
        let paragraph = paragraphs(text)
            .next()
            .ok_or_else(|| damaged("it is empty".into()))?
            .map_err(|error| damaged(error.to_string()))?;
        let architecture = key.architecture.as_str();
        let relations = |name| paragraph.value(name).unwrap_or_default();
        let mut fields = Vec::new();
        for name in ["Pre-Depends", "Depends", "Recommends"] {
            if name != "Recommends" || recommends {
                let field = RelationField::new(relations(name))
                    .map_err(|error| damaged(error.to_string()))?;
                fields.push((name, field));
            }
        }
        let provides: Relations =
            relations("Provides").parse().map_err(|error| damaged(format!("{error}")))?;
        Ok(Self {
            key: key.clone(),
            text: text.to_owned(),
            version: Version::new(key.version.as_str())
                .map_err(|error| damaged(error.to_string()))?,
            is_essential: paragraph.value("Essential") == Some("yes"),
            provides: provides.for_architecture(architecture),
            fields,
        })
    }

    /// What of this package's relations is satisfied by which package of the image.
    fn needs(&self, offers: &Offers<'_>) -> Vec<Need> {
        let mut needs: Vec<Need> = Vec::new();
        for (field, relations) in &self.fields {
            for group in relations.as_str().split(',').map(str::trim) {
                let Ok(parsed) = group.parse::<Relations>() else { continue };
                let alternatives = parsed.groups.iter().flat_map(|group| &group.alternatives);
                let target = alternatives.flat_map(|wanted| satisfying(wanted, offers)).next();
                let Some(target) = target.map(|control| control.key.name.to_string()) else {
                    continue;
                };
                let known = needs.iter().any(|need| need.target == target);
                if !known && target != self.key.name.as_str() {
                    needs.push(Need { target, field, relation: group.to_owned() });
                }
            }
        }
        needs
    }
}

/// The packages of the image that satisfy an alternative, real ones first.
fn satisfying<'a>(wanted: &Alternative, offers: &Offers<'a>) -> Vec<&'a Control> {
    let offers = offers.get(wanted.name.as_str()).map_or(&[][..], Vec::as_slice);
    let suits = |(control, provided): &&(&Control, Option<&Alternative>)| {
        let Some(constraint) = &wanted.constraint else { return true };
        match provided {
            None => constraint.allows(&control.version),
            // A provided name without a version satisfies no versioned relation (policy 7.5).
            Some(provided) => provided
                .constraint
                .as_ref()
                .is_some_and(|provided| constraint.allows(&provided.version)),
        }
    };
    let mut found: Vec<_> = offers.iter().filter(suits).collect();
    found.sort_by_key(|(_, provided)| provided.is_some());
    found.into_iter().map(|(control, _)| *control).collect()
}

/// The file `control` of a control tree.
fn control_text(
    store: &Store,
    tree: &drystone_store::realisation::Output,
) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = store.read_tree(tree, |entry: &Entry, content: &mut dyn Read| {
        if entry.path.as_str() == "control" {
            content.take(CONTROL_LIMIT).read_to_end(&mut bytes).map_err(ReadControl::Io)?;
        }
        Ok::<(), ReadControl>(())
    });
    match read {
        Ok(()) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(ReadControl::Store(error)) => Err(error.into()),
        Err(ReadControl::Io(error)) => Err(Failure::io(&format!("read {}", tree.path), error)),
    }
}

enum ReadControl {
    Store(StoreError),
    Io(std::io::Error),
}

impl From<StoreError> for ReadControl {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn packages(controls: &[(&str, &str)], asked: &str) -> Packages {
        let text =
            format!("name = \"x\"\n[debian]\nsuite = \"bookworm\"\npackages = [\"{asked}\"]\n");
        let image = Image::parse(Path::new("image.toml"), &text).unwrap();
        let controls: Vec<Control> = controls
            .iter()
            .map(|(name, fields)| {
                let key = PackageKey {
                    name: drystone_builder::spec::PackageName::new(name).unwrap(),
                    version: drystone_builder::spec::PackageVersion::new("2.0-1").unwrap(),
                    architecture: drystone_builder::spec::Architecture::new("amd64").unwrap(),
                };
                Control::parse(&key, &format!("Package: {name}\n{fields}"), false).unwrap()
            })
            .collect();
        Packages::link(&controls, &LockedPlatform::default(), &image)
    }

    #[test]
    fn the_shortest_chain_from_what_was_asked() {
        let packages = packages(
            &[
                ("app", "Depends: lib (>= 1), shell | nothing\n"),
                ("lib", "Pre-Depends: libc (>= 2)\n"),
                ("libc", ""),
                ("dash", "Provides: shell\nDepends: lib\n"),
                ("base-files", ""),
            ],
            "app",
        );
        let (root, chain) = packages.chain("libc").unwrap();
        assert_eq!(*root, Root::Asked("app".into()));
        let text: Vec<String> = chain
            .iter()
            .map(|(node, need)| {
                let need = need.map(|need| format!(" {} {}", need.verb(), need.relation));
                format!("{}{}", node.key.name, need.unwrap_or_default())
            })
            .collect();
        assert_eq!(text, ["app depends on lib (>= 1)", "lib pre-depends on libc (>= 2)", "libc"]);
        let (_, chain) = packages.chain("dash").unwrap();
        assert_eq!(chain[0].1.unwrap().relation, "shell | nothing");
        assert_eq!(packages.roots["base-files"], Root::Base);
        assert_eq!(packages.dependants("lib").len(), 2);
        assert!(packages.chain("absent").is_none());
    }

    #[test]
    fn versions_decide_what_satisfies() {
        let packages = packages(
            &[
                ("app", "Depends: mail (>= 1), lib (>= 3) | lib (<< 3)\n"),
                ("postfix", "Provides: mail\n"),
                ("exim", "Provides: mail (= 1.5)\n"),
                ("lib", ""),
            ],
            "app",
        );
        let targets: Vec<_> =
            packages.nodes["app"].needs.iter().map(|need| need.target.as_str()).collect();
        assert_eq!(targets, ["exim", "lib"]);
    }

    #[test]
    fn a_damaged_control_file_is_named() {
        let key = PackageKey {
            name: drystone_builder::spec::PackageName::new("xx").unwrap(),
            version: drystone_builder::spec::PackageVersion::new("1").unwrap(),
            architecture: drystone_builder::spec::Architecture::new("all").unwrap(),
        };
        for text in ["", "Depends: (", "nothing"] {
            let failure = Control::parse(&key, text, false).err().unwrap();
            assert_eq!(failure.family, Family::Integrity, "{text}");
        }
    }
}
