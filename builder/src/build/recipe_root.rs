//! The root of recipes: their packages as configured, in plain form.
//!
//! To know it again takes every package's control files and listing. A store remembers it by what it
//! is made from, so that a changed source costs its own build and nothing of this.

use std::collections::{BTreeMap, BTreeSet};

use drystone_store::derivation::Derivation;
use drystone_store::digest::{DerivationId, TreeHash};
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use serde::{Deserialize, Serialize};

use super::closure::Owner;
use super::system_texts::SystemTexts;
use super::{BuildError, Builder, corrections};
use crate::configure::{self, Configured, PinnedIds, StateTable};
use crate::lock::{LockedPlatform, PackageKey};
use crate::recipe::plain;
use crate::spec::Platform;
use drystone_source::debian::deb::ImportedDeb;

/// The kind of the store's facts that remember roots.
const FACT: &str = "recipe-root";
/// Rises whenever a root of the same packages can change, and with what is remembered of it.
const VERSION: u32 = 1;

/// A root as it is remembered.
#[derive(Serialize, Deserialize)]
struct Remembered {
    /// The stages that configured its packages.
    stages: Vec<DerivationId>,
    /// Its trees, lowest first, with the package that each came from.
    trees: Vec<(Option<String>, TreeHash)>,
}

impl Builder<'_> {
    /// The trees of a recipe's packages as configured, in their plain form, lowest first.
    pub(super) fn recipe_root(
        &self,
        platform: Platform,
        locked: &LockedPlatform,
        inputs: &BTreeSet<PackageKey>,
        imported: &BTreeMap<PackageKey, ImportedDeb>,
        table: &StateTable,
    ) -> Result<Vec<(Owner, Output)>, BuildError> {
        let key = root_key(platform, [&locked.essential, inputs], imported, table);
        // Checking looks at every stage.
        if self.checker.is_none()
            && let Some(root) = self.remembered_root(&key)?
        {
            return Ok(root);
        }
        let workshop = self.workshop(platform);
        let essential = self.load(imported, &locked.essential)?;
        let stage = |below, packages| {
            configure::Stage::new(workshop, below, packages, Vec::new(), PinnedIds::default())
        };
        let first = self.realise_stage(&stage(None, essential)?, table)?;
        let stages = match inputs.is_empty() {
            true => vec![first],
            false => {
                let second = stage(Some(&first), self.load(imported, inputs)?)?;
                let second = self.realise_stage(&second, table)?;
                vec![first, second]
            }
        };
        let last = stages.last().expect("the Essential stage is always there");
        let mut trees = last.trees.clone();
        trees.extend(self.recipe_corrections(&stages, last)?);
        let names: BTreeMap<_, _> = last
            .packages
            .iter()
            .map(|package| (*package.data.path.hash(), package.name.as_str()))
            .collect();
        let owned = trees.iter().map(|tree| {
            let owner = match names.get(tree.path.hash()) {
                Some(name) => Owner::Package((*name).to_owned()),
                None => Owner::Nobody,
            };
            Ok((owner, plain(self.store, tree)?))
        });
        let root = owned.collect::<Result<Vec<_>, BuildError>>()?;
        let remembered = Remembered {
            stages: stages.iter().map(|stage| stage.derivation).collect(),
            trees: root.iter().map(|(owner, tree)| (owner.package(), *tree.path.hash())).collect(),
        };
        let text = serde_json::to_string(&remembered).expect("lists of texts are JSON");
        self.store.put_fact(FACT, &key, &text)?;
        Ok(root)
    }

    /// A root that was made before, if the store still has all of it.
    fn remembered_root(&self, key: &str) -> Result<Option<Vec<(Owner, Output)>>, BuildError> {
        let Some(text) = self.store.fact(FACT, key)? else { return Ok(None) };
        let Ok(remembered) = serde_json::from_str::<Remembered>(&text) else { return Ok(None) };
        for stage in &remembered.stages {
            // Asked for, it counts among what the build stands on.
            if self.store.realisation(stage)?.is_none() {
                return Ok(None);
            }
        }
        let mut root = Vec::new();
        for (package, hash) in remembered.trees {
            let found = self.store.output(&hash)?;
            let is_here =
                |tree: &Output| tree.layers.iter().any(|it| self.store.has_blob(&it.digest));
            let Some(tree) = found.filter(is_here) else { return Ok(None) };
            root.push((package.map_or(Owner::Nobody, Owner::Package), tree));
        }
        Ok(Some(root))
    }

    /// Who owns paths that several packages claim, where configuration did not decide it.
    fn recipe_corrections(
        &self,
        stages: &[Configured],
        last: &Configured,
    ) -> Result<Option<Output>, BuildError> {
        let outs: Vec<Output> = stages.iter().rev().map(|stage| stage.out.clone()).collect();
        let texts = outs.iter().map(|out| SystemTexts::read(self.store, out));
        let texts = SystemTexts::stacked(texts.collect::<Result<Vec<_>, _>>()?);
        let diversions = texts.all_diversions();
        let mut spool = self.store.spool();
        let packages: Vec<_> = last.packages.iter().collect();
        if !corrections::add(self.store, &packages, &diversions, &outs, &mut spool)? {
            return Ok(None);
        }
        Ok(Some(self.store.add_tree("corrections", Compression::Store1, &mut spool)?))
    }
}

/// All that a root is made from, as one digest.
fn root_key(
    platform: Platform,
    sets: [&BTreeSet<PackageKey>; 2],
    imported: &BTreeMap<PackageKey, ImportedDeb>,
    table: &StateTable,
) -> String {
    let mut derivation = Derivation::new("recipe-root", VERSION);
    derivation.platform = Some(platform.to_string());
    derivation.sandbox = Some(crate::sandbox::SANDBOX_VERSION);
    derivation.tables = BTreeMap::from([("state".to_owned(), table.digest())]);
    derivation =
        derivation.with_arg("configure", configure::VERSION).with_arg("essential", sets[0].len());
    let debs = sets.into_iter().flatten().filter_map(|key| imported.get(key));
    let trees = debs.flat_map(|deb| [*deb.data.path.hash(), *deb.control.path.hash()]);
    derivation.with_inputs(trees).id().to_string()
}
