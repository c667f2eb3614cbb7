//! The pipeline: from a locked image.toml to an image.
//!
//! ```text
//! packages -> configure -> share -+
//!     |                           +-> system -> files -> finish script
//!     +---------------------------+
//!            all of it -> layer plan -> packs -> layers -> config, manifest
//! ```
//!
//! On a base image (`from`) the base stands in the place of packages and configuration.
//!
//! Every step is a derivation that is looked up before it is made, so a step whose inputs did not
//! change costs a look-up.

mod again;
mod ahead;
mod alternatives;
mod base_layer;
mod based;
mod closure;
mod corrections;
mod error;
mod files;
mod finish_script;
mod languages;
mod layer_plan;
mod recipe_root;
mod recipes;
mod remote_files;
mod share;
mod sources;
mod system;
mod system_texts;
mod view;
mod whole;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::sync::Arc;

use drystone_store::derivation::Derivation;
use drystone_store::digest::{BlobDigest, DerivationId};
use drystone_store::layer::{Compression, Layer};
use drystone_store::listing::Listing;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::{Entry, Kind, TreePath};
use rayon::prelude::*;

pub use based::base_digest;
pub use error::BuildError;
pub use files::LocalFiles;
pub use languages::{LanguageNetwork, pinned_packages};
pub use recipes::{BuiltRecipes, ByHand, RecipeOptions, last_build};
pub use remote_files::{RemoteFile, RemoteFileError, RemoteFiles, StoredFile, fetch_files, stored};
pub use sources::FetchCommit;
pub use view::StackView;
pub use whole::{BUILDER as IMAGE_BUILDER, StandsOn, WholeImage, remember_image, remembered_image};

use ahead::Ahead;
use based::BaseWork;
use system_texts::SystemTexts;

use crate::base::{Base, BaseSource};
use crate::check::Checker;
use crate::configure::{
    self, AccountLines, Configured, Package, PinnedIds, StateRule, StateTable, Workshop,
};
use crate::finish::accounts::{AccountTexts, Accounts};
use crate::finish::private_keys;
use crate::image::order::FOREIGN_CLASS;
use crate::image::{
    self as oci, Image as OciImage, ImageConfig, ImageSet, LayerPlan, LayerRef, OrderTable,
    PackItem, UserIds, plan_layers,
};
use crate::lock::{LayerMember, Lock, LockedPlatform, PackageKey};
use crate::progress::{Event, Progress};
use crate::realise::Checkouts;
use crate::sandbox::emulation;
use crate::spec::{self, Account, Platform};
use crate::stack::Diversion;
use drystone_source::debian::deb::ImportedDeb;
use drystone_source::files::Fingerprint;

/// Version of the `pack` builder: rises whenever its output can change.
const PACK_VERSION: u32 = 1;
/// `created` of an image without packages and without SOURCE_DATE_EPOCH: the time of all entries.
const NO_DATE: i64 = drystone_store::tar::MTIME as i64;

/// Fetches and imports packages that the store lacks.
pub type Import<'a> =
    dyn Fn(&[PackageKey]) -> Result<BTreeMap<PackageKey, ImportedDeb>, BuildError> + Sync + 'a;

/// Brings files that `[files]` names by address into the store; every one of them is in the answer.
pub type Fetch<'a> =
    dyn Fn(&[RemoteFile]) -> Result<BTreeMap<BlobDigest, StoredFile>, BuildError> + Sync + 'a;

/// What a build works with.
pub struct Builder<'a> {
    /// The store.
    pub store: &'a Store,
    /// Checkouts of its trees, and the sandbox.
    pub checkouts: &'a Checkouts<'a>,
    /// Where progress goes.
    pub progress: &'a dyn Progress,
    /// Fetches and imports packages.
    pub import: &'a Import<'a>,
    /// Fetches files; not called when there are none to fetch.
    pub fetch: &'a Fetch<'a>,
    /// Fetches what lockfiles pin; not called when there is nothing to fetch.
    pub languages: &'a dyn LanguageNetwork,
    /// Fetches commits of git repositories; not called for those that the store has.
    pub fetch_commit: &'a FetchCommit<'a>,
    /// Where base images come from; `None` when the network may not be used.
    pub bases: Option<&'a dyn BaseSource>,
    /// Checks what ran a script, if that is wanted.
    pub checker: Option<&'a Checker<'a>>,
}

/// What to build.
pub struct BuildRequest<'a> {
    /// The image.
    pub image: &'a spec::Image,
    /// Its lock, complete for the platforms.
    pub lock: &'a Lock,
    /// The platforms.
    pub platforms: &'a [Platform],
    /// How layers are compressed.
    pub compression: Compression,
    /// `created` instead of the lock's date, in seconds since 1970 (SOURCE_DATE_EPOCH).
    pub created: Option<i64>,
}

/// What was built.
pub struct Built {
    /// The image of each platform, and the index.
    pub set: ImageSet,
    /// Each platform's part.
    pub platforms: Vec<BuiltPlatform>,
    /// What local files were read, those of recipes included.
    pub fingerprints: Vec<Fingerprint>,
    /// How many files `.gitignore` kept out.
    pub ignored_files: usize,
    /// The blobs of fetched files, for roots.
    pub fetched: Vec<BlobDigest>,
}

/// One platform of what was built.
pub struct BuiltPlatform {
    /// The platform.
    pub platform: Platform,
    /// The layers' members, lowest first.
    pub layers: Vec<Vec<LayerMember>>,
    /// The version of the order that layers were planned in.
    pub order: String,
    /// Every output that the image stands on, for roots.
    pub outputs: Vec<Output>,
    /// Configuration's derivations, for roots.
    pub derivations: Vec<DerivationId>,
    /// The packages that were imported.
    pub imported: BTreeMap<PackageKey, ImportedDeb>,
    /// Numbers of the users that packages make.
    pub users: BTreeMap<String, u32>,
    /// Numbers of the groups that packages make.
    pub groups: BTreeMap<String, u32>,
    /// The base image, if there is one.
    pub base: Option<Base>,
}

/// A platform's packages and what configuration made of them.
pub struct PlatformWork {
    packages: Vec<Package>,
    is_essential: bool,
    skeleton: Option<Output>,
    /// What configuration adds to the image, lowest first.
    configured: Vec<Output>,
    stages: Vec<Configured>,
    /// The account files that configuration left, with the Essential set.
    accounts: Option<AccountTexts>,
    base_passwd: Option<Output>,
    diversions: Vec<Diversion>,
    imported: BTreeMap<PackageKey, ImportedDeb>,
    base: Option<BaseWork>,
}

impl PlatformWork {
    /// Nothing at all.
    fn empty() -> Self {
        Self {
            packages: Vec::new(),
            is_essential: false,
            skeleton: None,
            configured: Vec::new(),
            stages: Vec::new(),
            accounts: None,
            base_passwd: None,
            diversions: Vec::new(),
            imported: BTreeMap::new(),
            base: None,
        }
    }

    fn package_names(&self) -> BTreeSet<&str> {
        self.packages.iter().map(|package| package.name.as_str()).collect()
    }

    /// The image's packages in the order in which dpkg unpacks them.
    fn unpacked(&self) -> Vec<&Package> {
        let Some(stage) = self.stages.last() else {
            let order = configure::dependency_order(&self.packages, true);
            return order.into_iter().map(|number| &self.packages[number]).collect();
        };
        let names = stage.packages.iter().map(|package| package.name.as_str());
        let places: HashMap<&str, usize> = names.zip(0..).collect();
        let mut packages: Vec<&Package> = self.packages.iter().collect();
        packages.sort_by_key(|package| places.get(package.name.as_str()));
        packages
    }

    fn account_lines(&self) -> impl Iterator<Item = (&String, &AccountLines)> {
        self.stages
            .iter()
            .flat_map(|stage| &stage.attribution.accounts)
            .map(|(package, lines)| (package, lines))
    }

    /// Trees of the base, packages and configuration, lowest first.
    fn stack(&self) -> Vec<&Output> {
        let base = self.base.iter().flat_map(|base| &base.trees);
        let data = self.packages.iter().map(|package| &package.data);
        base.chain(&self.skeleton).chain(data).chain(&self.configured).collect()
    }
}

impl Builder<'_> {
    /// Builds an image for all its platforms, of recipes that are built already.
    pub fn build(
        &self,
        request: &BuildRequest<'_>,
        recipes: &mut BuiltRecipes,
    ) -> Result<Built, BuildError> {
        if let Some(problems) = request.image.unsupported() {
            return Err(BuildError::Image(Box::new(problems)));
        }
        let remote = RemoteFile::all(request.image);
        let fetched = match remote.is_empty() {
            true => BTreeMap::new(),
            false => (self.fetch)(&remote)?,
        };
        let local = LocalFiles::read(request.image, &fetched)?;
        let mut images = Vec::new();
        let mut platforms = Vec::new();
        for platform in request.platforms {
            let (image, built) = self.build_platform(request, *platform, &local, recipes)?;
            images.push(image);
            platforms.push(built);
        }
        for (one, two) in &local.sources.case_clashes {
            let text = format!("/{one} and /{two} differ only in case");
            self.progress.event(Event::Warning { text });
        }
        Ok(Built {
            set: ImageSet::new(images)?,
            platforms,
            fingerprints: recipes
                .fingerprints
                .iter()
                .cloned()
                .chain([local.sources.fingerprint])
                .collect(),
            ignored_files: local.sources.ignored + recipes.ignored,
            fetched: fetched.into_keys().chain(recipes.fetched.iter().copied()).collect(),
        })
    }

    fn build_platform(
        &self,
        request: &BuildRequest<'_>,
        platform: Platform,
        local: &LocalFiles,
        recipes: &mut BuiltRecipes,
    ) -> Result<(OciImage, BuiltPlatform), BuildError> {
        let image = request.image;
        let architecture = platform.debian_name();
        let nothing = LockedPlatform::default();
        let locked = match (request.lock.platform(&image.name, platform), &image.debian) {
            (Some(locked), _) => locked,
            (None, None) => &nothing,
            (None, Some(_)) => {
                return Err(BuildError::NotLocked {
                    image: image.name.to_string(),
                    platform: platform.to_string(),
                });
            }
        };
        let table = state_table(image);
        let prepared = recipes.prepared.remove(&platform);
        let recipes = &*recipes;
        let mut work = match prepared {
            Some(it) if Some(&it.lock) == request.lock.images.get(&image.name) => it.work,
            _ => self.prepare(request, platform, locked, &table, &recipes.imported)?,
        };
        let built = recipes.imported.iter().map(|(key, deb)| (key.clone(), deb.clone()));
        work.imported.extend(built);

        // Local files go over packages and configuration; where they matter to accounts or the
        // loader cache, the system layer takes them into account.
        let mut entering = recipes.entering(image, platform);
        self.refuse_clashes(&entering)?;
        if !entering.is_empty() {
            let view = StackView::new(self.store, work.stack(), |_| 0)?;
            for (_, output) in &mut entering {
                *output = self.settled(output, &view)?;
            }
        }
        let stack: Vec<&Output> =
            work.stack().into_iter().chain(entering.iter().map(|(_, output)| output)).collect();
        let root = files::Root { stack, keeps_merged_usr: work.base.is_none() };
        let files = local.realise(self.store, root, &recipes.files(image, platform))?;
        let mut above: Vec<&Output> = Vec::new();
        for output in entering.iter().map(|(_, output)| output).chain(&files) {
            if system::matters(&*listing(self.store, output)?) {
                above.push(output);
            }
        }
        let system = system::System { store: self.store, image, work: &work, above, architecture };
        let accounts = system.accounts()?;
        for missing in system.missing_interpreters()? {
            self.progress.event(Event::Warning { text: missing });
        }
        let system = system.realise()?;
        let mut own: Vec<(String, Output)> = Vec::new();
        for output in &work.configured {
            own.push((output.path.name().to_owned(), output.clone()));
        }
        own.extend(system.map(|output| ("system".to_owned(), output)));
        own.extend(entering);
        own.extend(files.map(|output| ("files".to_owned(), output)));
        if let Some(finish) = &image.finish {
            let above = own[work.configured.len()..].iter().map(|(_, output)| output);
            let root: Vec<&Output> = match work.stages.last() {
                Some(stage) => stage.trees.iter().chain(above).collect(),
                None => work.stack().into_iter().chain(above).collect(),
            };
            let in_image = work.stack().into_iter().chain(own.iter().map(|(_, output)| output));
            let script = finish_script::FinishScript {
                store: self.store,
                checkouts: self.checkouts,
                progress: self.progress,
                script: &finish.script,
                root,
                image: in_image.collect(),
                architecture,
                table: &table,
            };
            let output = script.realise()?;
            if let Some(checker) = self.checker.filter(|checker| checker.wants_all()) {
                checker.check(&again::FinishAgain { script: &script, output: &output })?;
            }
            if output.size > 1024 {
                own.push(("finish".to_owned(), output));
            }
        }
        own.retain(|(_, output)| output.size > 1024);
        let (image, mut built) = self.assemble(request, platform, locked, work, own, &accounts)?;
        let made = recipes.platforms.get(&platform).into_iter().flat_map(BTreeMap::values);
        for made in made {
            built.derivations.push(made.derivation);
            built.outputs.extend(made.outputs.values().cloned());
        }
        built.derivations.extend(&recipes.dependencies);
        Ok((image, built))
    }

    /// Imports packages and configures them, as far as the image needs that. `known` are packages
    /// that recipes have had imported.
    fn prepare(
        &self,
        request: &BuildRequest<'_>,
        platform: Platform,
        locked: &LockedPlatform,
        table: &StateTable,
        known: &BTreeMap<PackageKey, ImportedDeb>,
    ) -> Result<PlatformWork, BuildError> {
        let image = request.image;
        let architecture = platform.debian_name();
        let Some(debian) = &image.debian else {
            return match &image.from {
                Some((from, _)) => self.prepare_base(request, from, platform),
                None => Ok(PlatformWork::empty()),
            };
        };
        let mut wanted: Vec<PackageKey> = locked.packages.iter().cloned().collect();
        let surely_configured =
            debian.essential || image.finish.is_some() || !debian.debconf.is_empty();
        if surely_configured {
            wanted = locked.all().cloned().collect();
        }
        wanted.extend(
            locked.essential.iter().filter(|key| key.name.as_str() == "base-passwd").cloned(),
        );
        wanted.sort();
        wanted.dedup();
        let mut imported = BTreeMap::new();
        self.import_into(&mut imported, &wanted, known)?;
        let packages = self.load(&imported, &locked.packages)?;
        let needs = surely_configured || configure::is_needed(&packages);
        let base_passwd = imported
            .iter()
            .find(|(key, _)| key.name.as_str() == "base-passwd")
            .map(|(_, deb)| deb.data.clone());
        let skeleton = configure::skeleton(self.store, Compression::Store1, architecture)?;
        let mut work = PlatformWork {
            is_essential: debian.essential,
            skeleton: Some(skeleton),
            base_passwd,
            packages,
            ..PlatformWork::empty()
        };
        if needs {
            self.check_host(platform, &work.packages)?;
            let all: Vec<PackageKey> = locked.all().cloned().collect();
            self.import_into(&mut imported, &all, known)?;
            work.imported.clone_from(&imported);
            let ahead = Ahead::new(self, request, locked, &work)?;
            ahead.during(|| {
                self.configure(request, platform, locked, table, &imported, &mut work)
            })?;
        } else if let Some(base) =
            work.packages.iter().find(|it| configure::base_files::is_known(it))
        {
            let listing = listing(self.store, &base.data)?;
            work.configured = vec![configure::base_files::make(self.store, base, &listing)?];
        }
        work.imported = imported;
        Ok(work)
    }

    /// Adds packages: those that are known, and the others imported.
    fn import_into(
        &self,
        imported: &mut BTreeMap<PackageKey, ImportedDeb>,
        wanted: &[PackageKey],
        known: &BTreeMap<PackageKey, ImportedDeb>,
    ) -> Result<(), BuildError> {
        let mut missing = Vec::new();
        for key in wanted {
            if imported.contains_key(key) {
                continue;
            }
            match known.get(key) {
                Some(deb) => drop(imported.insert(key.clone(), deb.clone())),
                None => missing.push(key.clone()),
            }
        }
        if !missing.is_empty() {
            imported.extend((self.import)(&missing)?);
        }
        Ok(())
    }

    /// What configuration works with.
    fn workshop(&self, platform: Platform) -> Workshop<'_> {
        Workshop {
            store: self.store,
            checkouts: self.checkouts,
            progress: self.progress,
            compression: Compression::Store1,
            architecture: platform.debian_name(),
        }
    }

    fn load(
        &self,
        imported: &BTreeMap<PackageKey, ImportedDeb>,
        keys: &BTreeSet<PackageKey>,
    ) -> Result<Vec<Package>, BuildError> {
        let debs: Vec<&ImportedDeb> = keys.iter().filter_map(|key| imported.get(key)).collect();
        let controls: Vec<&Output> = debs.iter().map(|deb| &deb.control).collect();
        self.store.fetch_trees(&controls)?;
        let packages =
            debs.par_iter().map(|deb| Package::load(self.store, deb)).collect::<Result<_, _>>()?;
        Ok(packages)
    }

    /// Scripts of a foreign architecture need an emulator: the host's registration, or one of the
    /// sandbox's own.
    fn check_host(&self, platform: Platform, packages: &[Package]) -> Result<(), BuildError> {
        let host = Platform::host();
        let architecture = platform.debian_name();
        let runs = host == Some(platform) || emulation::is_registered(architecture);
        if runs || self.checkouts.is_forbidden() {
            return Ok(());
        }
        if let Some(line) = emulation::registration(architecture) {
            match self.checkouts.session()?.emulate(&line) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::debug!(%error, "no registration of the sandbox's own"),
            }
        }
        let names: Vec<&str> = packages
            .iter()
            .filter(|package| package.has_effects() && !configure::is_inert(package))
            .map(|package| package.name.as_str())
            .take(5)
            .collect();
        Err(BuildError::Foreign {
            platform: platform.to_string(),
            packages: names.join(", "),
            host: host.map_or_else(|| "unknown".to_owned(), |host| host.to_string()),
        })
    }

    fn configure(
        &self,
        request: &BuildRequest<'_>,
        platform: Platform,
        locked: &LockedPlatform,
        table: &StateTable,
        imported: &BTreeMap<PackageKey, ImportedDeb>,
        work: &mut PlatformWork,
    ) -> Result<(), BuildError> {
        let workshop = self.workshop(platform);
        let essential = self.load(imported, &locked.essential)?;
        let first =
            configure::Stage::new(workshop, None, essential, Vec::new(), PinnedIds::default())?;
        let first = self.realise_stage(&first, table)?;
        let above: BTreeSet<PackageKey> = locked
            .packages
            .iter()
            .chain(&locked.configure)
            .filter(|key| !locked.essential.contains(key))
            .cloned()
            .collect();
        let preseed = request.image.debian.as_ref().map(|debian| debian.debconf.clone());
        let above = self.load(imported, &above)?;
        let pinned = request
            .lock
            .images
            .get(&request.image.name)
            .map(|image| PinnedIds { users: image.users.clone(), groups: image.groups.clone() });
        let second = configure::Stage::new(
            workshop,
            Some(&first),
            above,
            preseed.unwrap_or_default(),
            pinned.unwrap_or_default(),
        )?;
        let second = self.realise_stage(&second, table)?;
        for stage in [&first, &second] {
            self.refuse_keys(stage)?;
        }
        let texts = [
            SystemTexts::read(self.store, &second.out)?,
            SystemTexts::read(self.store, &first.out)?,
        ];
        let texts = SystemTexts::stacked(texts);
        work.diversions = texts.diversions(work);
        if work.is_essential {
            work.accounts = Some(texts.accounts());
            work.configured = vec![first.out.clone(), second.out.clone()];
        } else {
            let data: Vec<&Output> = work.packages.iter().map(|package| &package.data).collect();
            let listings = listings(self.store, &data)?;
            let exists =
                |path: &TreePath| listings.iter().any(|listing| listing.find(path).is_some());
            let names = work.package_names();
            let share = share::realise(self.store, &[&first, &second], &names, &exists)?;
            work.configured = vec![share];
        }
        work.stages = vec![first, second];
        Ok(())
    }

    /// Refuses private keys that scripts made; asked once for each result.
    fn refuse_keys(&self, stage: &Configured) -> Result<(), BuildError> {
        let hash = stage.out.path.hash().to_string();
        if self.store.fact("no-private-keys", &hash)?.is_some() {
            return Ok(());
        }
        self.store.read_tree(&stage.out, |entry, content| {
            let is_searched = matches!(entry.kind, Kind::File { size } if size <= 1 << 20)
                && !private_keys::is_public(entry.path.as_str());
            if !is_searched {
                return Ok(());
            }
            let mut bytes = Vec::new();
            content
                .read_to_end(&mut bytes)
                .map_err(|source| BuildError::Content { path: entry.path.clone(), source })?;
            match private_keys::detect(&bytes) {
                None => Ok(()),
                Some(kind) => {
                    let makers = stage.attribution.paths.get(entry.path.as_str());
                    let makers: Vec<&str> =
                        makers.into_iter().flatten().map(String::as_str).collect();
                    Err(BuildError::PrivateKey {
                        path: entry.path.clone(),
                        kind: kind.to_string(),
                        maker: format!("the configuration of {}", makers.join(", ")),
                    })
                }
            }
        })?;
        self.store.put_fact("no-private-keys", &hash, "1")?;
        Ok(())
    }

    fn assemble(
        &self,
        request: &BuildRequest<'_>,
        platform: Platform,
        locked: &LockedPlatform,
        work: PlatformWork,
        own: Vec<(String, Output)>,
        accounts: &Accounts,
    ) -> Result<(OciImage, BuiltPlatform), BuildError> {
        let image = request.image;
        let locked_image = request.lock.images.get(&image.name);
        let Planned { order, plan, members, outputs } = planned(request, locked, &work, &own)?;
        let text = "pack and compress layers".to_owned();
        self.progress.event(Event::Phase { name: "layers".into(), text });
        let layers = plan
            .par_iter()
            .with_max_len(1)
            .map(|plan| {
                let parts: Vec<&Output> = plan.members.iter().map(|&at| &outputs[at]).collect();
                let (tree, layer) = self.compress(&parts, request.compression)?;
                let names: Vec<String> =
                    plan.members.iter().map(|&at| members[at].to_string()).collect();
                let title = names.join(" ");
                Ok((
                    tree.clone(),
                    LayerRef {
                        digest: layer.digest,
                        size: layer.size,
                        diff_id: layer.diff_id,
                        uncompressed_size: Some(tree.size),
                        media_type: layer.compression.media_type(),
                        title,
                    },
                ))
            })
            .collect::<Result<Vec<(Output, LayerRef)>, BuildError>>()?;
        self.progress.event(Event::Done { name: "layers".into() });
        let created = request
            .created
            .or_else(|| locked_image.and_then(|image| image.date).map(|date| date.as_second()))
            .or_else(|| work.base.as_ref().and_then(|base| base.base.created()))
            .unwrap_or(NO_DATE);
        let config = config(image, platform, created, accounts)?;
        let (trees, layers): (Vec<Output>, Vec<LayerRef>) = layers.into_iter().unzip();
        let oci = match &work.base {
            None => OciImage::assemble(&config, &image.annotations, layers)?,
            Some(under) => {
                let mut all = under.layers();
                let base = (&under.base.config, &under.base.manifest, all.len());
                all.extend(layers);
                OciImage::assemble_over(base, &config, &image.annotations, all)?
            }
        };
        let ids = work.stages.last().map(|stage| configure::allocated(&stage.attribution));
        let ids = ids.unwrap_or_default();
        let built = BuiltPlatform {
            platform,
            layers: plan
                .iter()
                .map(|plan| plan.members.iter().map(|&at| members[at].clone()).collect())
                .collect(),
            order,
            outputs: trees.into_iter().chain(outputs).collect(),
            derivations: work.stages.iter().map(|stage| stage.derivation).collect(),
            imported: work.imported,
            users: ids.users,
            groups: ids.groups,
            base: work.base.map(|under| under.base),
        };
        Ok((oci, built))
    }

    /// Several trees as one layer.
    fn compress(
        &self,
        parts: &[&Output],
        compression: Compression,
    ) -> Result<(Output, Layer), BuildError> {
        let tree = self.pack(parts)?;
        let layer = self.store.layer(&tree, compression)?;
        Ok((tree, layer))
    }

    /// One tree of several, as they stack; a single one is itself.
    fn pack(&self, parts: &[&Output]) -> Result<Output, BuildError> {
        if let [single] = parts {
            return Ok((*single).clone());
        }
        let derivation = Derivation::new("pack", PACK_VERSION)
            .with_inputs(parts.iter().map(|part| *part.path.hash()));
        if let Some(output) = self.store.realised_output(&derivation.id(), "out")? {
            return Ok(output);
        }
        let mut spool = self.store.spool();
        for part in parts {
            self.store.read_tree(part, |entry: &Entry, content: &mut dyn Read| {
                let is_directory = |entry: &Entry| entry.kind == Kind::Directory;
                if !is_directory(entry) {
                    // A link hides a directory of a tree below, with all in it.
                    spool.remove_below(&entry.path);
                } else if spool.entry(&entry.path).is_some_and(is_directory) {
                    // The first package that has a directory decides, as when it is unpacked.
                    return Ok(());
                }
                spool.replace(entry.clone(), content)?;
                Ok::<(), BuildError>(())
            })?;
        }
        let output = self.store.add_tree("pack", Compression::Store1, &mut spool)?;
        self.store.put_realisation(&derivation, [("out".to_owned(), output.clone())])?;
        Ok(output)
    }
}

/// How an image is divided into layers.
struct Planned {
    /// What the plan was made by, for the lock.
    order: String,
    plan: Vec<LayerPlan>,
    /// What the plan's positions mean: by name, and as trees.
    members: Vec<LayerMember>,
    outputs: Vec<Output>,
}

/// Plans the layers of packages and of the image's own trees, as the lock records or anew.
fn planned(
    request: &BuildRequest<'_>,
    locked: &LockedPlatform,
    work: &PlatformWork,
    own: &[(String, Output)],
) -> Result<Planned, BuildError> {
    let image = request.image;
    let suite = request.lock.images.get(&image.name).and_then(|image| image.suite.as_ref());
    let suite = suite
        .map(ToString::to_string)
        .or_else(|| image.debian.as_ref().map(|debian| debian.suite.to_string()));
    let table = suite.as_deref().map_or_else(|| OrderTable::parse(""), OrderTable::for_suite)?;
    let (items, members, outputs) = items(request.lock, locked, work, own, &table);
    let layers = &image.image.layers;
    let (order, plan) = match layer_plan::recorded(locked, layers, &members) {
        Some(recorded) => recorded,
        None => {
            let below = work.base.as_ref().map_or(0, |base| base.base.layers.len());
            let plan = plan_layers(&items, layers.into(), below)?;
            (layer_plan::order(layers, suite.as_deref()), plan)
        }
    };
    Ok(Planned { order, plan, members, outputs })
}

/// What is to be divided into layers: for the planner, by name, and as trees.
fn items(
    lock: &Lock,
    locked: &LockedPlatform,
    work: &PlatformWork,
    own: &[(String, Output)],
    table: &OrderTable,
) -> (Vec<PackItem>, Vec<LayerMember>, Vec<Output>) {
    let mut items = Vec::new();
    let mut members = Vec::new();
    let mut outputs = Vec::new();
    if let Some(skeleton) = &work.skeleton {
        items.push(PackItem {
            name: "merged-usr".to_owned(),
            source: "base-files".to_owned(),
            class: table.class("base-files", "base-files"),
            compressed_size: 200,
            is_own: false,
        });
        members.push(LayerMember::Special("merged-usr".to_owned()));
        outputs.push(skeleton.clone());
    }
    for key in &locked.packages {
        let Some(deb) = work.imported.get(key) else { continue };
        let pin = lock.packages.get(key);
        let source = pin.map_or_else(|| key.name.to_string(), |pin| pin.source.to_string());
        let is_foreign = pin.is_some_and(|pin| pin.archive.repository.as_str() != "debian");
        let name = key.name.to_string();
        items.push(PackItem {
            class: match is_foreign {
                true => FOREIGN_CLASS,
                false => table.class(&source, &name),
            },
            name,
            source,
            compressed_size: pin.map_or(0, |pin| pin.size),
            is_own: false,
        });
        members.push(LayerMember::Package(key.name.clone()));
        outputs.push(deb.data.clone());
    }
    for (name, output) in own {
        items.push(PackItem {
            name: name.clone(),
            source: name.clone(),
            class: FOREIGN_CLASS,
            compressed_size: output.size / 3,
            is_own: true,
        });
        members.push(LayerMember::Special(name.clone()));
        outputs.push(output.clone());
    }
    (items, members, outputs)
}

fn config(
    image: &spec::Image,
    platform: Platform,
    created: i64,
    accounts: &Accounts,
) -> Result<ImageConfig, BuildError> {
    let written = &image.config;
    let mut config = ImageConfig::new(
        oci::Platform {
            architecture: platform.architecture().to_owned(),
            os: platform.operating_system().to_owned(),
            variant: platform.variant().map(str::to_owned),
        },
        created,
    );
    config.user = written.user.as_ref().map(|user| user_ids(user, accounts)).transpose()?;
    config.exposed_ports =
        written.ports.iter().filter_map(|port| port.to_string().parse().ok()).collect();
    config.env.clone_from(&written.env);
    config.entrypoint.clone_from(&written.entrypoint);
    config.command.clone_from(&written.cmd);
    config.volumes = written.volumes.iter().map(ToString::to_string).collect();
    config.working_directory = written.workdir.as_ref().map(ToString::to_string);
    config.labels.clone_from(&written.labels);
    config.stop_signal.clone_from(&written.stop_signal);
    config.healthcheck = written.healthcheck.as_ref().map(|check| {
        let nanoseconds = |time: Option<std::time::Duration>| {
            time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
        };
        let mut test = vec!["CMD".to_owned()];
        test.extend(check.cmd.iter().cloned());
        oci::Healthcheck {
            test,
            interval: nanoseconds(check.interval),
            timeout: nanoseconds(check.timeout),
            start_period: nanoseconds(check.start_period),
            start_interval: nanoseconds(check.start_interval),
            retries: u64::from(check.retries.unwrap_or(0)),
        }
    });
    Ok(config)
}

/// Numbers for `[config] user`: Kubernetes' `runAsNonRoot` refuses names.
fn user_ids(user: &spec::UserReference, accounts: &Accounts) -> Result<UserIds, BuildError> {
    let unknown =
        |kind: &'static str, name: &str| BuildError::UnknownAccount { kind, name: name.to_owned() };
    let uid = match &user.user {
        Account::Id(uid) => *uid,
        Account::Name(name) => {
            accounts.user_id(name.as_str()).ok_or_else(|| unknown("user", name.as_str()))?
        }
    };
    let gid = match &user.group {
        Some(Account::Id(gid)) => *gid,
        Some(Account::Name(name)) => {
            accounts.group_id(name.as_str()).ok_or_else(|| unknown("group", name.as_str()))?
        }
        None => accounts.primary_group_id(uid).unwrap_or(0),
    };
    Ok(UserIds { uid, gid })
}

fn state_table(image: &spec::Image) -> StateTable {
    let more = image.debian.iter().flat_map(|debian| &debian.remove_state).map(|rule| StateRule {
        path: rule.path.to_string().trim_start_matches('/').to_owned(),
        reason: rule.reason.clone(),
        first_run: None,
        keep_directories: false,
        empty: false,
        secret: None,
        with_all_below: true,
    });
    StateTable::with_rules(more)
}

/// A tree's listing.
fn listing(store: &Store, output: &Output) -> Result<Arc<Listing>, BuildError> {
    let listing = store.listing(output)?.ok_or_else(|| StoreError::NoTree(*output.path.hash()))?;
    Ok(Arc::new(listing))
}

/// The listings of several trees.
fn listings(store: &Store, outputs: &[&Output]) -> Result<Vec<Arc<Listing>>, BuildError> {
    store.fetch_listings(outputs)?;
    outputs.par_iter().map(|output| listing(store, output)).collect()
}
