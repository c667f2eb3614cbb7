//! Measures how long it takes to look realisations up one by one, for `benches/run`.
//!
//! ```text
//! lookups HOST/REPOSITORY COUNT ROUNDS
//! ```
//!
//! Shares so many signed realisations with a cache, and prints a line for each round: the
//! milliseconds in which a cache that knows no bundle finds and verifies all of them, and those in
//! which a plain client of HTTP makes the same requests, as many at once, and looks at nothing.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use drystone_cache::attestation::{Attestation, BuildContext, SandboxMode};
use drystone_cache::binary_cache::{Caches, Share, Subject, realisation_tag, share};
use drystone_cache::credentials::Credentials;
use drystone_cache::key::{KeyId, SecretKey};
use drystone_cache::reference::Location;
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

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Within the validity of keys that are trusted without limits.
const NOW: i64 = 1_800_000_000;
/// As many as [`Caches`] makes at once.
const AT_ONCE: usize = 32;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [place, count, rounds] = arguments.as_slice() else {
        return Err("give HOST/REPOSITORY COUNT ROUNDS".into());
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let credentials = Credentials::from_environment(&|name| std::env::var(name).ok());
    let registries = Registries::new(Settings { credentials, ..Settings::default() });
    let location: Location = place.parse()?;
    let cache = registries.open(&location);
    let key = SecretKey::from_seed("builder", &[7; 32])?;
    let ids = fill(&runtime, &cache, &key, count.parse()?)?;
    for round in 0..rounds.parse::<usize>()? {
        // Connections are made anew by both.
        let registries = Registries::new(Settings::default());
        let trust = Trust::new([TrustedKey::new(key.public())], 1)?;
        let subject = Subject { image: "nobody".to_owned(), platform: "linux/amd64".to_owned() };
        let repositories = vec![registries.open(&location)];
        let caches = Caches::new(repositories, trust, NOW, vec![subject], runtime.handle().clone());
        let wanted: Vec<Wanted> = ids.iter().map(|id| Wanted::from(*id)).collect();
        let ours = || -> Outcome<f64> {
            let begin = Instant::now();
            let found = caches.find(&wanted).len();
            match found == ids.len() {
                true => Ok(begin.elapsed().as_secs_f64() * 1e3),
                false => Err(format!("{found} of {} were found", ids.len()).into()),
            }
        };
        let theirs = || -> Outcome<f64> {
            let begin = Instant::now();
            runtime.block_on(ask(place, &ids, key.public().id()))?;
            Ok(begin.elapsed().as_secs_f64() * 1e3)
        };
        // Who comes first changes, since the registry has more to do after a pause.
        let (ours, theirs) = match round % 2 {
            0 => (ours()?, theirs()?),
            _ => {
                let theirs = theirs()?;
                (ours()?, theirs)
            }
        };
        println!("{ours:.2} {theirs:.2}");
    }
    Ok(())
}

/// Shares realisations that differ in their input, and have the same small output.
fn fill(
    runtime: &Runtime,
    cache: &Arc<dyn Repository>,
    key: &SecretKey,
    count: u32,
) -> Outcome<Vec<DerivationId>> {
    let folder = std::env::temp_dir().join(format!("drystone-lookups-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let blob = |text: &str| -> Outcome<(BlobDigest, u64)> {
        let digest = BlobDigest::of(text.as_bytes());
        std::fs::write(folder.join(digest.to_hex()), text)?;
        Ok((digest, text.len() as u64))
    };
    let ((layer, layer_size), (listing, listing_size)) = (blob("a layer")?, blob("a listing")?);
    let diff_id = DiffId::from_bytes([1; 32]);
    let output = Output {
        path: StorePath::new(TreeHash::from_bytes([1; 32]), "package-1.0"),
        diff_id,
        size: 10_240,
        layers: vec![Layer {
            compression: Compression::Store1,
            digest: layer,
            size: layer_size,
            diff_id,
        }],
        listing: ListingRef { digest: listing, size: listing_size },
        references: Vec::new(),
    };
    let mut shares = Vec::new();
    for number in 0..count {
        let mut input = [0; 32];
        input[..4].copy_from_slice(&number.to_le_bytes());
        let derivation = Derivation { outputs: vec!["data".into()], ..Derivation::new("deb", 1) }
            .with_inputs([TreeHash::from_bytes(input)]);
        let outputs = [("data".to_owned(), output.clone())].into();
        let attestation = Attestation {
            realisation: Realisation { derivation: derivation.id(), outputs },
            derivation,
            context: BuildContext { sandbox: SandboxMode::Unused, emulation: false },
        };
        shares.push(Share {
            envelope: attestation.sign(key)?,
            derivation: attestation.derivation.id(),
            outputs: attestation.realisation.outputs.into_values().collect(),
            is_pinned: false,
            is_whole: false,
            is_lost: false,
        });
    }
    let part = |digest: &BlobDigest| -> Option<PathBuf> { Some(folder.join(digest.to_hex())) };
    let subject = Subject { image: "filler".to_owned(), platform: "linux/amd64".to_owned() };
    let (subjects, public) = ([subject], key.public());
    let shared = runtime.block_on(share(cache, &shares, &part, &[], &subjects, &public));
    if let Some(why) = shared.failed.first() {
        return Err(why.clone().into());
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(shares.into_iter().map(|share| share.derivation).collect())
}

/// The request of a look-up: a manifest by its tag, which carries the attestation along.
async fn ask(place: &str, ids: &[DerivationId], key: KeyId) -> Outcome<()> {
    let (host, name) = place.split_once('/').ok_or("no repository")?;
    let client = reqwest::Client::new();
    let one = |id: &DerivationId| {
        let (client, tag) = (client.clone(), realisation_tag(id, Some(key)));
        let base = format!("http://{host}/v2/{name}");
        async move {
            let accept = "application/vnd.oci.image.manifest.v1+json";
            let request = client.get(format!("{base}/manifests/{tag}")).header("Accept", accept);
            request.send().await?.error_for_status()?.bytes().await?;
            Outcome::Ok(())
        }
    };
    let requests: Vec<_> = ids.iter().map(one).collect();
    let mut answers = futures_util::stream::iter(requests).buffer_unordered(AT_ONCE);
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(())
}
