//! What a store holds and where its bytes are: `store du`, `store ls`, `store path-info`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use super::disk::{Disk, allocated, directory_bytes};
use super::inventory::{Inventory, TreeRecord};
use super::roots::{Reach, Root};
use super::{Store, StoreError};
use crate::derivation::Derivation;
use crate::digest::{BlobDigest, DerivationId, DiffId, TreeHash};
use crate::layer::Compression;
use crate::path::StorePath;

/// Number and bytes on disk of one kind of thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct UsageOfKind {
    /// How many there are.
    pub count: u64,
    /// Bytes that they occupy on disk.
    pub bytes: u64,
}

impl UsageOfKind {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// The blobs and checkouts that one root keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RootUsage {
    /// The root's name.
    pub name: String,
    /// The `image.toml` that it was made for.
    pub image: Option<PathBuf>,
    /// The image's platform.
    pub platform: String,
    /// Number of trees.
    pub trees: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes on disk that no other root keeps.
    pub own_bytes: u64,
}

/// Where a store's bytes are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StoreUsage {
    /// Compressed layers.
    pub layers: UsageOfKind,
    /// Listings.
    pub listings: UsageOfKind,
    /// Blobs that belong to no tree: fetched files, manifests.
    pub archives: UsageOfKind,
    /// Checkouts, as far as this user may look.
    pub checkouts: UsageOfKind,
    /// Logs.
    pub logs: UsageOfKind,
    /// The database with its journal.
    pub database: UsageOfKind,
    /// Sum of all these.
    pub total_bytes: u64,
    /// Bytes of blobs and checkouts that several roots keep.
    pub shared_bytes: u64,
    /// Bytes of blobs and checkouts that no root keeps.
    pub unrooted_bytes: u64,
    /// Each root's.
    pub roots: Vec<RootUsage>,
}

/// One tree of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TreeInfo {
    /// The store path.
    pub path: StorePath,
    /// Bytes of the canonical tar.
    pub size: u64,
    /// Bytes of the layers that are present.
    pub layer_bytes: u64,
    /// When it was last used, in seconds since 1970, to the day.
    pub used: i64,
    /// Whether a root keeps it.
    pub is_rooted: bool,
    /// Whether it is checked out.
    pub is_checked_out: bool,
}

/// A layer of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerInfo {
    /// How it is compressed.
    pub compression: Compression,
    /// The blob.
    pub digest: BlobDigest,
    /// Bytes of the blob.
    pub size: u64,
    /// Whether the blob is there.
    pub is_present: bool,
}

/// A derivation that gave a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Maker {
    /// The derivation.
    pub derivation: DerivationId,
    /// Which of its outputs the tree is.
    pub output: String,
    /// The derivation's builder.
    pub builder: String,
}

/// All that is known about a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathInfo {
    /// The store path.
    pub path: StorePath,
    /// SHA-256 of the canonical tar.
    pub diff_id: DiffId,
    /// Bytes of the canonical tar.
    pub size: u64,
    /// Its compressed forms.
    pub layers: Vec<LayerInfo>,
    /// The blob of its listing.
    pub listing: BlobDigest,
    /// Number of entries, when the listing can be read.
    pub entries: Option<u64>,
    /// When it was last used, in seconds since 1970, to the day.
    pub used: i64,
    /// Where it is checked out.
    pub checkout: Option<PathBuf>,
    /// Derivations that gave it.
    pub makers: Vec<Maker>,
    /// Trees that it needs at run time.
    pub references: Vec<TreeHash>,
    /// Trees that need it at run time.
    pub referrers: Vec<StorePath>,
    /// Derivations that have it as an input.
    pub consumers: Vec<DerivationId>,
    /// Roots that keep it.
    pub roots: Vec<String>,
}

/// Something that roots keep and that occupies space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Blob(BlobDigest),
    Checkout(TreeHash),
}

impl Store {
    /// Tells where the store's bytes are.
    pub fn usage(&self) -> Result<StoreUsage, StoreError> {
        let records = self.database.inventory()?.whole()?;
        let disk = self.scan()?;
        let mut usage = StoreUsage::default();
        usage.add_blobs(&records, &disk);
        let mut items: BTreeMap<Item, u64> =
            disk.blobs.iter().map(|(digest, facts)| (Item::Blob(*digest), facts.bytes)).collect();
        for hash in &disk.checkouts {
            let bytes = directory_bytes(&self.root().join("trees").join(hash.to_string()));
            usage.checkouts.add(bytes);
            items.insert(Item::Checkout(*hash), bytes);
        }
        disk.logs.values().for_each(|facts| usage.logs.add(facts.bytes));
        for name in ["db.sqlite", "db.sqlite-wal", "db.sqlite-shm"] {
            if let Ok(data) = self.root().join(name).symlink_metadata() {
                usage.database.add(allocated(&data));
            }
        }
        let kinds = [
            usage.layers,
            usage.listings,
            usage.archives,
            usage.checkouts,
            usage.logs,
            usage.database,
        ];
        usage.total_bytes = kinds.iter().map(|kind| kind.bytes).sum();
        usage.add_roots(&self.roots()?, &records, &items);
        Ok(usage)
    }

    /// Lists the trees, sorted by name and hash.
    pub fn list(&self) -> Result<Vec<TreeInfo>, StoreError> {
        let records = self.database.inventory()?.whole()?;
        let roots = self.roots()?;
        let reach = Reach::of(roots.iter().map(|(_, root)| root), &records);
        let info = |(hash, record): (&TreeHash, &TreeRecord)| {
            let layers = record.output.layers.iter();
            let present = layers.filter(|layer| self.has_blob(&layer.digest));
            TreeInfo {
                path: record.output.path.clone(),
                size: record.output.size,
                layer_bytes: present.map(|layer| layer.size).sum(),
                used: record.used,
                is_rooted: reach.trees.contains(hash),
                is_checked_out: self.checkout_path(&record.output.path).exists(),
            }
        };
        let mut trees: Vec<TreeInfo> = records.trees.iter().map(info).collect();
        trees.sort_by(|left, right| {
            (left.path.name(), left.path.hash()).cmp(&(right.path.name(), right.path.hash()))
        });
        Ok(trees)
    }

    /// Tells all about one tree, which is named by a store path, by a checkout's path, or by the
    /// start of a store path that no other one has.
    pub fn path_info(&self, query: &str) -> Result<PathInfo, StoreError> {
        let records = self.database.inventory()?.whole()?;
        let (hash, record) = find(&records, query)?;
        let output = &record.output;
        let mut roots = Vec::new();
        for (name, root) in self.roots()? {
            if Reach::of([&root], &records).trees.contains(hash) {
                roots.push(name);
            }
        }
        let layers = output.layers.iter().map(|layer| LayerInfo {
            compression: layer.compression,
            digest: layer.digest,
            size: layer.size,
            is_present: self.has_blob(&layer.digest),
        });
        let (makers, consumers) = self.derivations_of(hash, &records)?;
        let checkout = Some(self.checkout_path(&output.path)).filter(|path| path.exists());
        let listing = self.listing(output).ok().flatten();
        let referrers =
            records.trees.values().filter(|other| other.output.references.contains(hash));
        Ok(PathInfo {
            path: output.path.clone(),
            diff_id: output.diff_id,
            size: output.size,
            layers: layers.collect(),
            listing: output.listing.digest,
            entries: listing.map(|listing| listing.entries().len() as u64),
            used: record.used,
            checkout,
            makers,
            references: output.references.clone(),
            referrers: referrers.map(|other| other.output.path.clone()).collect(),
            consumers,
            roots,
        })
    }

    /// Which derivations gave a tree, and which take it.
    fn derivations_of(
        &self,
        hash: &TreeHash,
        records: &Inventory,
    ) -> Result<(Vec<Maker>, Vec<DerivationId>), StoreError> {
        let (mut makers, mut consumers) = (Vec::new(), Vec::new());
        self.database.each_derivation(|id, json| {
            let Ok(id) = id.parse::<DerivationId>() else { return };
            let Ok(derivation) = serde_json::from_str::<Derivation>(json) else { return };
            let outputs = records.derivations.get(&id).into_iter().flat_map(|r| &r.outputs);
            makers.extend(outputs.filter(|(_, tree)| *tree == hash).map(|(output, _)| Maker {
                derivation: id,
                output: output.clone(),
                builder: derivation.builder.clone(),
            }));
            if derivation.inputs.iter().any(|input| input.tree == *hash) {
                consumers.push(id);
            }
        })?;
        Ok((makers, consumers))
    }
}

/// The tree that a text names.
fn find<'a>(
    records: &'a Inventory,
    query: &str,
) -> Result<(&'a TreeHash, &'a TreeRecord), StoreError> {
    let missing = || StoreError::NoSuchPath { query: query.to_owned() };
    let last = query.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if let Ok(path) = last.parse::<StorePath>() {
        // Names are for people: the hash alone says which tree is meant.
        return records.trees.get_key_value(path.hash()).ok_or_else(missing);
    }
    let starts = |(_, record): &(&TreeHash, &TreeRecord)| {
        !last.is_empty() && record.output.path.to_string().starts_with(last)
    };
    let mut found = records.trees.iter().filter(starts);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(missing()),
        (Some(first), Some(second)) => {
            let all = [first, second].into_iter().chain(found);
            let candidates = all.map(|(_, record)| record.output.path.clone()).collect();
            Err(StoreError::Ambiguous { query: query.to_owned(), candidates })
        }
    }
}

impl StoreUsage {
    fn add_blobs(&mut self, records: &Inventory, disk: &Disk) {
        let outputs = || records.trees.values().map(|record| &record.output);
        let layers: BTreeSet<BlobDigest> =
            outputs().flat_map(|output| &output.layers).map(|layer| layer.digest).collect();
        let listings: BTreeSet<BlobDigest> =
            outputs().map(|output| output.listing.digest).collect();
        for (digest, facts) in &disk.blobs {
            let kind = if layers.contains(digest) {
                &mut self.layers
            } else if listings.contains(digest) {
                &mut self.listings
            } else {
                &mut self.archives
            };
            kind.add(facts.bytes);
        }
    }

    fn add_roots(
        &mut self,
        roots: &[(String, Root)],
        records: &Inventory,
        items: &BTreeMap<Item, u64>,
    ) {
        let reaches: Vec<Reach> =
            roots.iter().map(|(_, root)| Reach::of([root], records)).collect();
        let mut keepers: BTreeMap<Item, u64> = BTreeMap::new();
        for reach in &reaches {
            for item in reach.items() {
                *keepers.entry(item).or_default() += 1;
            }
        }
        for (item, bytes) in items {
            match keepers.get(item) {
                None => self.unrooted_bytes += bytes,
                Some(1) => {}
                Some(_) => self.shared_bytes += bytes,
            }
        }
        for ((name, root), reach) in roots.iter().zip(&reaches) {
            let sum = |own: bool| -> u64 {
                let kept = reach.items().filter(|item| !own || keepers.get(item) == Some(&1));
                kept.filter_map(|item| items.get(&item)).sum()
            };
            self.roots.push(RootUsage {
                name: name.clone(),
                image: root.image.clone(),
                platform: root.platform.clone(),
                trees: reach.trees.len() as u64,
                bytes: sum(false),
                own_bytes: sum(true),
            });
        }
    }
}

impl Reach {
    fn items(&self) -> impl Iterator<Item = Item> + '_ {
        let blobs = self.blobs.iter().copied().map(Item::Blob);
        blobs.chain(self.trees.iter().copied().map(Item::Checkout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::*;

    #[test]
    fn bytes_are_told_by_kind_and_root() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let trees = ["one", "two", "three", "four"].map(|text| tree(&store, text));
        let hash = |at: usize| *trees[at].path.hash();
        check_out(&store, &trees[0]);
        let archive = store.add_blob(&[1; 9000]).unwrap();
        let root = |trees, blobs| Root { trees, blobs, ..Root::default() };
        store.put_root("a", &root(vec![hash(0), hash(1)], vec![])).unwrap();
        store.put_root("b", &root(vec![hash(1), hash(2)], vec![archive])).unwrap();
        let usage = store.usage().unwrap();
        let counts = [usage.layers, usage.listings, usage.archives, usage.checkouts, usage.logs]
            .map(|kind| kind.count);
        assert_eq!(counts, [4, 4, 1, 1, 0]);
        assert!(usage.archives.bytes >= 9000 && usage.checkouts.bytes >= 50_000);
        assert!(usage.database.bytes > 0);
        let own: u64 = usage.roots.iter().map(|root| root.own_bytes).sum();
        let rooted = usage.shared_bytes + own;
        assert_eq!(
            rooted + usage.unrooted_bytes + usage.logs.bytes + usage.database.bytes,
            usage.total_bytes
        );
        for root in &usage.roots {
            assert_eq!(root.bytes, root.own_bytes + usage.shared_bytes, "{}", root.name);
            assert_eq!(root.trees, 2);
        }
    }

    #[test]
    fn trees_are_listed_with_their_state() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.list().unwrap(), []);
        let (one, two) = (tree(&store, "one"), tree(&store, "two"));
        check_out(&store, &one);
        let root = Root { trees: vec![*one.path.hash()], ..Root::default() };
        store.put_root("r", &root).unwrap();
        set_used(&store, two.path.hash(), 77);
        let list = store.list().unwrap();
        assert_eq!(list.len(), 2);
        let find = |output: &crate::realisation::Output| {
            list.iter().find(|info| info.path == output.path).unwrap()
        };
        assert!(find(&one).is_rooted && find(&one).is_checked_out);
        assert!(!find(&two).is_rooted && !find(&two).is_checked_out);
        assert_eq!((find(&two).used, find(&two).layer_bytes), (77, two.layers[0].size));
    }

    #[test]
    fn a_path_is_found_by_any_of_its_names() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (one, two) = (tree(&store, "one"), tree(&store, "two"));
        let mut needs = tree(&store, "needs");
        needs.references = vec![*one.path.hash()];
        let maker = realise(&store, "k", &[&one, &needs]);
        let consumer = Derivation::new("pack", 1).with_inputs([*one.path.hash()]);
        store.put_realisation(&consumer, [("out".to_owned(), two)]).unwrap();
        let root = Root { derivations: vec![maker.id()], ..Root::default() };
        store.put_root("r", &root).unwrap();
        check_out(&store, &one);
        let info = store.path_info(&one.path.to_string()).unwrap();
        assert_eq!((info.diff_id, info.size, info.entries), (one.diff_id, one.size, Some(8)));
        assert!(info.layers[0].is_present);
        let maker =
            Maker { derivation: maker.id(), output: "out0".into(), builder: "files".into() };
        assert_eq!(info.makers, [maker]);
        assert_eq!(info.referrers, [needs.path.clone()]);
        assert_eq!(info.consumers, [consumer.id()]);
        assert_eq!(info.roots, ["r"]);
        let hash = one.path.hash().to_string();
        let checkout = store.checkout_path(&one.path).display().to_string();
        for query in [hash.as_str(), &hash[..20], &checkout, &format!("{hash}-another-name")] {
            assert_eq!(store.path_info(query).unwrap(), info, "{query}");
        }
        for query in ["", "/", "nothing", &"a".repeat(52)] {
            let error = store.path_info(query).unwrap_err();
            assert!(matches!(error, StoreError::NoSuchPath { .. }), "{query}");
        }
    }

    #[test]
    fn an_ambiguous_start_names_what_it_starts() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        // More trees than there are characters: two start with the same one.
        let paths: Vec<String> =
            (0..33).map(|n| tree(&store, &n.to_string()).path.to_string()).collect();
        let start = |text: &String| text[..1].to_owned();
        let double = paths
            .iter()
            .find(|path| paths.iter().filter(|other| start(other) == start(path)).count() > 1);
        let error = store.path_info(&start(double.unwrap())).unwrap_err();
        assert!(matches!(&error, StoreError::Ambiguous { candidates, .. } if candidates.len() > 1));
    }
}
