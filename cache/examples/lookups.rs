//! Times look-ups of realisations in a registry against a plain load of the same requests.
//!
//! ```text
//! lookups HOST:PORT COUNT ROUNDS
//! ```
//!
//! Shares COUNT small realisations with the registry at HOST:PORT, then in each round asks for all of
//! them one by one, as a build does that finds no bundle, and sends the same requests (a manifest and
//! an attestation each) without reading anything into them. Prints seconds and the ratio of medians.

use std::sync::Arc;
use std::time::Instant;

use drystone_cache::attestation::{Attestation, BuildContext, SandboxMode};
use drystone_cache::binary_cache::{Caches, Share, realisation_tag, share};
use drystone_cache::key::SecretKey;
use drystone_cache::registry::{Registries, Settings};
use drystone_cache::repository::Repository;
use drystone_cache::trust::{Trust, TrustedKey};
use drystone_store::derivation::Derivation;
use drystone_store::digest::{BlobDigest, DerivationId, DiffId, TreeHash};
use drystone_store::layer::{Compression, Layer};
use drystone_store::path::StorePath;
use drystone_store::realisation::{ListingRef, Output, Realisation};
use drystone_store::substituter::{Substituter as _, Wanted};
use futures_util::StreamExt as _;
use tokio::runtime::Runtime;

/// Requests at once: what the cache itself does with one registry.
const AT_ONCE: usize = 8;

type Any = Box<dyn std::error::Error>;

fn main() -> Result<(), Any> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, count, rounds] = arguments.as_slice() else {
        return Err("usage: lookups HOST:PORT COUNT ROUNDS".into());
    };
    let (count, rounds): (u32, usize) = (count.parse()?, rounds.parse()?);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let settings = || Settings { proxies: false, ..Settings::default() };
    let location = format!("{host}/bench/lookups").parse()?;
    let cache = Registries::new(settings()).open(&location);
    let key = SecretKey::from_seed("bench", &[1; 32])?;
    let folder = tempfile::tempdir()?;
    let shares = (0..count).map(|at| realisation(folder.path(), at, &key));
    let shares = shares.collect::<Result<Vec<Share>, Any>>()?;
    let part = |digest: &BlobDigest| Some(folder.path().join(digest.to_hex()));
    let done = runtime.block_on(share(&cache, &shares, &part, &[], &[], &key.public()));
    if let Some(failed) = done.failed.first() {
        return Err(failed.clone().into());
    }
    let ids: Vec<DerivationId> = shares.iter().map(|share| share.derivation).collect();
    let urls = runtime.block_on(urls(&cache, host, &ids, &key))?;
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        // New connections each time, on both sides.
        let cache = Registries::new(settings()).open(&location);
        let trust = Trust::new([TrustedKey::new(key.public())], 1)?;
        let caches =
            Caches::new(vec![cache], trust, 1_800_000_000, vec![], runtime.handle().clone());
        let wanted: Vec<Wanted> = ids.iter().map(|id| Wanted::from(*id)).collect();
        let start = Instant::now();
        let found = caches.find(&wanted);
        ours.push(start.elapsed().as_secs_f64());
        if found.len() != ids.len() {
            return Err(format!("{} of {} were found", found.len(), ids.len()).into());
        }
        plain.push(load(&runtime, &urls)?);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (ours, plain) = (median(&mut ours), median(&mut plain));
    println!(
        "{count} look-ups: {ours:.3} s, the same requests plain: {plain:.3} s, ratio {:.2}",
        ours / plain
    );
    Ok(())
}

/// A realisation whose blobs are in the folder.
fn realisation(folder: &std::path::Path, at: u32, key: &SecretKey) -> Result<Share, Any> {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&at.to_le_bytes());
    let blob = |text: String| -> Result<(BlobDigest, u64), Any> {
        let digest = BlobDigest::of(text.as_bytes());
        std::fs::write(folder.join(digest.to_hex()), &text)?;
        Ok((digest, text.len() as u64))
    };
    let (digest, size) = blob(format!("layer {at}"))?;
    let (listing, listing_size) = blob(format!("listing {at}"))?;
    let diff_id = DiffId::from_bytes(seed);
    let output = Output {
        path: StorePath::new(TreeHash::from_bytes(seed), "package-1.0"),
        diff_id,
        size: 10_240,
        layers: vec![Layer { compression: Compression::Gzip1, digest, size, diff_id }],
        listing: ListingRef { digest: listing, size: listing_size },
        references: Vec::new(),
    };
    let derivation = Derivation { outputs: vec!["data".into()], ..Derivation::new("deb", 1) }
        .with_inputs([TreeHash::from_bytes(seed)]);
    let outputs = [("data".to_owned(), output.clone())].into();
    let id = derivation.id();
    let attestation = Attestation {
        realisation: Realisation { derivation: id, outputs },
        derivation,
        context: BuildContext { sandbox: SandboxMode::Unused, emulation: false },
    };
    let envelope = attestation.sign(key)?;
    Ok(Share { envelope, derivation: id, outputs: vec![output], is_pinned: false, is_lost: false })
}

/// The addresses of each realisation's manifest and attestation.
async fn urls(
    cache: &Arc<dyn Repository>,
    host: &str,
    ids: &[DerivationId],
    key: &SecretKey,
) -> Result<Vec<[String; 2]>, Any> {
    let mut urls = Vec::new();
    for id in ids {
        let tag = realisation_tag(id, Some(key.public().id()));
        let manifest = cache.manifest(&tag.clone().into()).await?.ok_or("a manifest is missing")?;
        let digest =
            manifest.json()?["layers"][0]["digest"].as_str().unwrap_or_default().to_owned();
        let base = format!("http://{host}/v2/bench/lookups");
        urls.push([format!("{base}/manifests/{tag}"), format!("{base}/blobs/{digest}")]);
    }
    Ok(urls)
}

/// Sends all requests, the two of a realisation one after the other; the seconds.
fn load(runtime: &Runtime, urls: &[[String; 2]]) -> Result<f64, Any> {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
    let one = |urls: &[String; 2]| {
        let (client, urls) = (client.clone(), urls.clone());
        async move {
            for url in urls {
                let accept = "application/vnd.oci.image.manifest.v1+json";
                let reply = client.get(url).header("accept", accept).send().await?;
                reply.error_for_status()?.bytes().await?;
            }
            Ok::<_, reqwest::Error>(())
        }
    };
    let start = Instant::now();
    runtime.block_on(async {
        let mut all = futures_util::stream::iter(urls.iter().map(one)).buffer_unordered(AT_ONCE);
        while let Some(done) = all.next().await {
            done?;
        }
        Ok::<_, reqwest::Error>(())
    })?;
    Ok(start.elapsed().as_secs_f64())
}
