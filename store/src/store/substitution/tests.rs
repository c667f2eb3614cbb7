//! A second store that asks the first one, as it would ask a cache.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write};
use std::sync::{Arc, Mutex};

use super::*;
use crate::layer::Compression;
use crate::store::samples::*;
use crate::tree::Entry;

/// Another store's content, and what is wrong with it.
struct Cache {
    store: Store,
    _directory: tempfile::TempDir,
    is_trusted: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    asked: usize,
    is_unsure: bool,
    substitutes: Vec<Substitute>,
    fetched: Vec<BlobDigest>,
    gone: HashSet<BlobDigest>,
    replaced: BTreeMap<BlobDigest, Vec<u8>>,
    /// Whether connections break after half of a blob.
    is_broken: bool,
}

impl Substituter for Cache {
    fn find(&self, wanted: &[Wanted]) -> Vec<Substitute> {
        let mut state = self.state.lock().unwrap();
        state.asked += wanted.len();
        let is_wanted = |id: &DerivationId| wanted.iter().any(|wanted| wanted.derivation == *id);
        let found = state.substitutes.iter().filter(|it| is_wanted(&it.derivation.id()));
        found.cloned().collect()
    }

    fn identity(&self) -> Option<String> {
        let state = self.state.lock().unwrap();
        (!state.is_unsure).then(|| "the cache".to_owned())
    }

    fn sources(&self) -> usize {
        1
    }

    fn fetch(
        &self,
        _: usize,
        digest: &BlobDigest,
        _: u64,
        writer: &mut dyn Write,
    ) -> io::Result<bool> {
        let mut state = self.state.lock().unwrap();
        state.fetched.push(*digest);
        if state.gone.contains(digest) {
            return Ok(false);
        }
        if let Some(bytes) = state.replaced.get(digest) {
            return writer.write_all(bytes).map(|()| true);
        }
        let Some(mut file) = self.store.open_blob(digest).unwrap() else { return Ok(false) };
        if state.is_broken {
            let half = file.metadata()?.len() / 2;
            io::copy(&mut file.take(half), writer)?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        io::copy(&mut file, writer).map(|_| true)
    }
}

/// A cache with one realisation of two trees, and an empty store before it.
struct Sample {
    cache: Arc<Cache>,
    derivation: Derivation,
    outputs: [Output; 2],
    store: Store,
    directory: tempfile::TempDir,
}

impl Sample {
    fn new(is_trusted: bool) -> Self {
        Self::of(is_trusted, tree)
    }

    fn of(is_trusted: bool, tree: impl Fn(&Store, &str) -> Output) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let built = Store::open(directory.path()).unwrap();
        let (one, two) = (tree(&built, "one"), tree(&built, "two"));
        let derivation = realise(&built, "k", &[&one, &two]);
        let realisation = built.realisation(&derivation.id()).unwrap().unwrap();
        let substitute = Substitute {
            realisation,
            derivation: derivation.clone(),
            attestations: vec!["{}".to_owned()],
            is_trusted,
        };
        let state = State { substitutes: vec![substitute], ..State::default() };
        let state = Mutex::new(state);
        let cache = Arc::new(Cache { store: built, _directory: directory, is_trusted, state });
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        store.substitute_from(cache.clone());
        Self { cache, derivation, outputs: [one, two], store, directory }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.cache.state.lock().unwrap()
    }

    fn ask(&self) -> Option<Realisation> {
        self.store.realisation(&self.derivation.id()).unwrap()
    }

    fn wanted(&self) -> Wanted {
        let outputs = self.ids().into_iter().zip(&self.outputs);
        let pinned = outputs.map(|(name, output)| (name, *output.path.hash())).collect();
        Wanted { pinned, ..Wanted::from(self.derivation.id()) }
    }

    fn ids(&self) -> Vec<String> {
        self.derivation.outputs.clone()
    }

    fn blobs(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("blobs/sha256")).unwrap().count()
    }

    /// The store without its cache.
    fn reopened(self) -> (Store, tempfile::TempDir) {
        drop(self.store);
        (Store::open(self.directory.path()).unwrap(), self.directory)
    }
}

#[test]
fn what_trusted_keys_say_is_used_without_any_bytes() {
    let sample = Sample::new(true);
    let found = sample.ask().unwrap();
    let expected: Vec<&Output> = sample.outputs.iter().collect();
    assert_eq!(found.outputs.values().collect::<Vec<_>>(), expected);
    let layer = sample.store.layer(&sample.outputs[0], Compression::Gzip1).unwrap();
    assert_eq!(layer, sample.outputs[0].layers[0]);
    assert_eq!((sample.state().fetched.len(), sample.blobs()), (0, 0));
    // A listing costs a listing, and a tree the layer.
    assert!(sample.store.listing(&sample.outputs[0]).unwrap().is_some());
    assert_eq!(sample.state().fetched, [sample.outputs[0].listing.digest]);
    let mut text = String::new();
    sample.store.open_tree(&sample.outputs[0]).unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.len() as u64, sample.outputs[0].size);
    assert_eq!(sample.state().fetched.len(), 2);
    assert_eq!(
        sample.store.output(sample.outputs[0].path.hash()).unwrap().unwrap(),
        expected[0].clone()
    );
}

#[test]
fn what_a_cache_lacks_is_not_asked_for_again_at_once() {
    let sample = Sample::new(true);
    let unknown = [Derivation::new("k", 7).id(), Derivation::new("k", 8).id()];
    let again = || {
        let mut store = Store::open(sample.directory.path()).unwrap();
        store.substitute_from(sample.cache.clone());
        store
    };
    let ask = |store: &Store, id: &DerivationId| {
        assert_eq!(store.realisation(id).unwrap(), None);
        sample.state().asked
    };
    // A cache that failed has not said what it lacks.
    sample.state().is_unsure = true;
    assert_eq!((ask(&sample.store, &unknown[0]), ask(&again(), &unknown[0])), (1, 2));
    sample.state().is_unsure = false;
    assert_eq!((ask(&again(), &unknown[0]), ask(&again(), &unknown[0])), (3, 3));
    assert_eq!(ask(&again(), &unknown[1]), 4, "others are asked for");
    assert!(again().is_known_to_caches(Wanted { is_whole: true, ..sample.wanted() }));
    // It is forgotten after a moment.
    let long_ago = BTreeMap::from([(unknown[0], now() - MISS_LIFE - 1), (unknown[1], now() + 9)]);
    let text = serde_json::to_string(&long_ago).unwrap();
    sample.store.put_fact(MISSES, "the cache", &text).unwrap();
    let before = sample.state().asked;
    assert_eq!(ask(&again(), &unknown[0]), before + 1);
    assert_eq!(ask(&again(), &unknown[1]), before + 2);
}

#[test]
fn several_trees_and_blobs_come_at_once_and_once() {
    let sample = Sample::new(true);
    sample.ask().unwrap();
    let outputs: Vec<&Output> = sample.outputs.iter().collect();
    for _ in 0..2 {
        sample.store.fetch_trees(&outputs).unwrap();
        sample.store.fetch_listings(&outputs).unwrap();
    }
    // Reading a layer gives its listing, too.
    assert_eq!((sample.state().fetched.len(), sample.blobs()), (2, 4));
    let wrong = BlobDigest::of(b"nobody has this");
    let error = sample.store.fetch_blobs([(wrong, 3)]).unwrap_err();
    assert!(matches!(error, StoreError::Lost { digest } if digest == wrong), "{error}");
}

#[test]
fn without_the_cache_only_what_is_here_counts() {
    let sample = Sample::new(true);
    let (id, outputs) = (sample.derivation.id(), sample.outputs.clone());
    sample.ask().unwrap();
    let (store, _directory) = sample.reopened();
    assert_eq!(store.realisation(&id).unwrap(), None);
    assert!(store.substituted(&id).unwrap().is_some());
    drop(store);
    let sample = Sample::new(true);
    sample.ask().unwrap();
    sample.store.fetch_trees(&sample.outputs.iter().collect::<Vec<_>>()).unwrap();
    let (store, _directory) = sample.reopened();
    let found = store.realisation(&id).unwrap().unwrap();
    assert_eq!(found.outputs.into_values().collect::<Vec<_>>(), outputs);
    assert_eq!(store.substituted(&id).unwrap().unwrap().attestations, ["{}"]);
}

#[test]
fn unsigned_answers_are_used_for_pinned_trees_only_and_their_bytes_are_read() {
    let sample = Sample::new(false);
    assert!(!sample.cache.is_trusted);
    assert_eq!(sample.ask(), None);
    assert_eq!(sample.blobs(), 0);

    let sample = Sample::new(false);
    // What is said beside the hash is not believed.
    let claimed = sample.outputs[0].diff_id;
    for output in sample.state().substitutes[0].realisation.outputs.values_mut() {
        output.diff_id = crate::digest::DiffId::from_bytes([7; 32]);
        output.listing.digest = BlobDigest::of(b"a lie");
    }
    sample.store.prefetch([sample.wanted()]).unwrap();
    let found = sample.ask().unwrap();
    assert_eq!(found.outputs.values().next().unwrap().diff_id, claimed);
    assert_eq!(found.outputs.into_values().collect::<Vec<_>>(), sample.outputs);
}

#[test]
fn trees_other_than_the_pinned_ones_are_refused() {
    for is_trusted in [false, true] {
        let sample = Sample::new(is_trusted);
        let mut wanted = sample.wanted();
        let other = crate::digest::TreeHash::from_bytes([1; 32]);
        wanted.pinned.insert(sample.ids()[0].clone(), other);
        sample.store.prefetch([wanted]).unwrap();
        assert_eq!(sample.ask(), None);
        assert_eq!(sample.blobs(), 0);
    }
}

#[test]
fn answers_for_another_derivation_are_refused() {
    let sample = Sample::new(true);
    let mut other = sample.derivation.clone();
    other.v += 1;
    // Replayed: the cache says that this is what the other derivation gave.
    sample.state().substitutes[0].derivation = other.clone();
    assert_eq!(sample.store.realisation(&other.id()).unwrap(), None);
    assert_eq!(sample.ask(), None);
}

#[test]
fn wrong_bytes_never_become_visible() {
    for number in 0..3 {
        wrong_bytes(number);
    }
}

fn wrong_bytes(number: usize) {
    let sample = Sample::new(true);
    let layer = sample.outputs[0].layers[0].digest;
    let listing = sample.outputs[0].listing.digest;
    let other = sample.cache.store.read_blob(&sample.outputs[1].layers[0].digest).unwrap().unwrap();
    let bytes = vec![other, Vec::new(), b"no layer at all".to_vec()].swap_remove(number);
    let mut state = sample.state();
    state.replaced.insert(layer, bytes.clone());
    state.replaced.insert(listing, bytes);
    drop(state);
    sample.ask().unwrap();
    let Err(error) = sample.store.open_tree(&sample.outputs[0]) else { panic!("it was used") };
    assert!(matches!(error, StoreError::Lost { digest } if digest == layer), "{error}");
    let error = sample.store.fetch_blobs([(listing, 9)]).unwrap_err();
    assert!(matches!(error, StoreError::Lost { digest } if digest == listing), "{error}");
    assert_eq!(sample.blobs(), 0);
}

#[test]
fn a_layer_that_is_not_the_tree_never_becomes_visible() {
    let sample = Sample::new(true);
    // Signed, but the layer of another tree: its digest is right and its tree is not.
    let wrong = sample.outputs[1].layers[0].clone();
    for output in sample.state().substitutes[0].realisation.outputs.values_mut() {
        output.layers = vec![wrong.clone()];
    }
    let found = sample.ask().unwrap();
    let first = found.outputs.values().next().unwrap();
    let Err(error) = sample.store.open_tree(first) else { panic!("it was used") };
    assert!(matches!(error, StoreError::Lost { .. }), "{error}");
    assert_eq!(sample.blobs(), 0);
}

/// A tree whose layer is so large that it is read while it comes.
fn large_tree(store: &Store, text: &str) -> Output {
    let mut noise = Vec::new();
    blake3::Hasher::new()
        .update(text.as_bytes())
        .finalize_xof()
        .take(5 << 20)
        .read_to_end(&mut noise)
        .unwrap();
    let mut spool = store.spool();
    spool.add_file(path("noise"), 0o644, &noise).unwrap();
    let output = store.add_tree("large-1", Compression::Store1, &mut spool).unwrap();
    assert!(output.layers[0].size > BESIDE && output.size > 4 << 20);
    output
}

#[test]
fn a_large_layer_is_read_while_it_comes() {
    let sample = Sample::of(true, large_tree);
    sample.ask().unwrap();
    let mut files = 0;
    let count = |_: &Entry, content: &mut dyn io::Read| {
        files += 1;
        io::copy(content, &mut io::sink()).unwrap();
        Ok::<_, StoreError>(())
    };
    sample.store.read_tree(&sample.outputs[0], count).unwrap();
    assert_eq!((files, sample.state().fetched.len()), (1, 1));
    let (store, _directory) = sample.reopened();
    assert_eq!(problems(&mut { store }), []);
}

/// Whatever goes wrong while it is read, it never becomes visible, and nothing waits for ever.
#[test]
fn a_large_layer_that_comes_wrong_never_becomes_visible() {
    let gone: fn(&mut State, BlobDigest, Vec<u8>) = |state, layer, _| {
        state.gone.insert(layer);
    };
    let cut_off: fn(&mut State, BlobDigest, Vec<u8>) = |state, layer, mut bytes| {
        bytes.truncate(bytes.len() / 2);
        state.replaced.insert(layer, bytes);
    };
    let flipped: fn(&mut State, BlobDigest, Vec<u8>) = |state, layer, mut bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        state.replaced.insert(layer, bytes);
    };
    let longer: fn(&mut State, BlobDigest, Vec<u8>) = |state, layer, mut bytes| {
        bytes.extend(zstd::bulk::compress(b"more", 1).unwrap());
        state.replaced.insert(layer, bytes);
    };
    let broken: fn(&mut State, BlobDigest, Vec<u8>) = |state, _, _| state.is_broken = true;
    for harm in [gone, cut_off, flipped, longer, broken] {
        let sample = Sample::of(true, large_tree);
        let layer = sample.outputs[0].layers[0].digest;
        let bytes = sample.cache.store.read_blob(&layer).unwrap().unwrap();
        harm(&mut sample.state(), layer, bytes);
        sample.ask().unwrap();
        let Err(error) = sample.store.open_tree(&sample.outputs[0]) else { panic!("it was used") };
        assert!(matches!(error, StoreError::Lost { digest } if digest == layer), "{error}");
        assert_eq!(sample.blobs(), 0);
    }
}

/// A signed layer that holds more than was signed of it is not read to its end, however long it is.
#[test]
fn a_layer_is_read_no_further_than_the_tree_it_should_be() {
    let sample = Sample::of(true, large_tree);
    for output in sample.state().substitutes[0].realisation.outputs.values_mut() {
        output.size = 3 << 20;
    }
    let found = sample.ask().unwrap();
    let first = found.outputs.values().next().unwrap();
    let Err(error) = sample.store.open_tree(first) else { panic!("it was used") };
    assert!(matches!(error, StoreError::Lost { .. }), "{error}");
    assert_eq!(sample.blobs(), 0);
}

#[test]
fn a_lost_blob_voids_what_needs_it() {
    let sample = Sample::new(true);
    sample.ask().unwrap();
    sample.state().gone.insert(sample.outputs[0].layers[0].digest);
    let Err(error) = sample.store.open_tree(&sample.outputs[0]) else { panic!("it was found") };
    assert!(matches!(error, StoreError::Lost { .. }), "{error}");
    // The next attempt builds it, and does not ask again.
    assert_eq!(sample.ask(), None);
    let (one, two) = (tree(&sample.store, "one"), tree(&sample.store, "two"));
    realise(&sample.store, "k", &[&one, &two]);
    assert!(sample.ask().is_some());
}
