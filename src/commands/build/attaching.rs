//! Attaching documents and signatures to what was pushed: bills of materials to each platform's
//! manifest, provenance to the manifest or index that the tag names, signatures to all of them.

use std::sync::Arc;

use drystone_builder::build::Built;
use drystone_builder::lock::{Lock, LockedPlatform};
use drystone_builder::progress::{Event, Progress as _};
use drystone_builder::sandbox::Isolation;
use drystone_builder::sbom::{Bill, cyclonedx, spdx};
use drystone_builder::settings::Settings;
use drystone_builder::spec::Platform;
use drystone_cache::attachment::{Attachment, attach, sign};
use drystone_cache::descriptor::{Descriptor, MANIFEST_MEDIA_TYPE};
use drystone_cache::error::RegistryError;
use drystone_cache::key::SecretKey;
use drystone_cache::provenance::{Asked, Decided, ImageProvenance, package, source};
use drystone_cache::repository::Repository;
use drystone_store::derivation::canonical_json;
use drystone_store::digest::BlobDigest;
use serde_json::Value;

use super::Work;
use super::pushing::Pushing;
use crate::arguments::{AttachArguments, Attachment as Kind};
use crate::commands::sbom::Gathering;
use crate::diagnostics::Failure;
use crate::interrupt;
use crate::quantity::counted;
use crate::wiring::signing_key;

/// Refuses what could not be done at the end, before anything is built.
pub fn check(
    arguments: &AttachArguments,
    settings: &Settings,
    is_pushed: bool,
    isolation: Isolation,
) -> Result<(), Failure> {
    if arguments.attach.is_empty() && !arguments.sign {
        return Ok(());
    }
    if !is_pushed {
        return Err(Failure::usage("attachments and signatures go to where an image is pushed")
            .hint("add `--push REFERENCE`"));
    }
    let needs_key = arguments.sign || arguments.attach.contains(&Kind::Provenance);
    if needs_key && isolation == Isolation::None {
        return Err(Failure::usage("what was built without a sandbox is not signed")
            .hint("leave out `--sign` and provenance, or `--sandbox=none`"));
    }
    match needs_key && signing_key(settings)?.is_none() {
        true => Err(Failure::usage("signatures and provenance need a signing key")
            .hint("name one with `--signing-key` or DRYSTONE_SIGNING_KEY")),
        false => Ok(()),
    }
}

/// What is attached to one manifest.
struct Attached {
    subject: Descriptor,
    documents: Vec<Attachment>,
}

/// Attaches what was asked for to every target.
pub fn run(
    work: &Work<'_>,
    arguments: &AttachArguments,
    pushing: &Pushing,
    built: &Built,
    lock: &Lock,
) -> Result<(), Failure> {
    if arguments.attach.is_empty() && !arguments.sign {
        return Ok(());
    }
    let key = signing_key(work.settings)?;
    let attached = documents(work, &arguments.attach, built, lock, key.as_ref())?;
    let signing = key.as_ref().filter(|_| arguments.sign);
    for target in pushing.targets() {
        let repository = pushing.registries().open(&target.location);
        let count = attached.iter().map(|one| one.documents.len()).sum::<usize>();
        let signed = if signing.is_some() { ", and sign it" } else { "" };
        let text = format!("attach {} to {target}{signed}", counted(count as u64, "document"));
        work.wiring.display.event(Event::Phase { name: "attach".to_owned(), text });
        let sent = interrupt::or_cancelled(send(&repository, &attached, signing));
        work.runtime.block_on(sent).map_err(Failure::of)?.map_err(Failure::of)?;
    }
    work.wiring.display.event(Event::Done { name: "attach".to_owned() });
    Ok(())
}

async fn send(
    to: &Arc<dyn Repository>,
    attached: &[Attached],
    key: Option<&SecretKey>,
) -> Result<(), RegistryError> {
    for one in attached {
        for document in &one.documents {
            attach(to, &one.subject, document).await?;
        }
        if let Some(key) = key {
            sign(to, &one.subject, key).await?;
        }
    }
    Ok(())
}

/// What is to be said of each manifest.
fn documents(
    work: &Work<'_>,
    kinds: &[Kind],
    built: &Built,
    lock: &Lock,
    key: Option<&SecretKey>,
) -> Result<Vec<Attached>, Failure> {
    let (mut all, mut bills) = (Vec::new(), Vec::new());
    for (image, part) in built.set.images().iter().zip(&built.platforms) {
        let manifest = image.manifest.digest;
        let bill = match kinds.is_empty() {
            true => None,
            false => Some(bill(work, lock, part.platform, manifest)?),
        };
        let mut documents = Vec::new();
        if let Some(bill) = &bill {
            if kinds.contains(&Kind::Spdx) {
                documents.push(Attachment::document(spdx::MEDIA_TYPE, spdx::document(bill)));
            }
            if kinds.contains(&Kind::Cyclonedx) {
                let document = cyclonedx::document(bill);
                documents.push(Attachment::document(cyclonedx::MEDIA_TYPE, document));
            }
        }
        bills.extend(bill);
        let size = image.manifest.bytes.len() as u64;
        all.push(Attached {
            subject: Descriptor::new(MANIFEST_MEDIA_TYPE, manifest, size),
            documents,
        });
    }
    let top = built.set.descriptor();
    if built.set.index().is_some() {
        let size = built.set.top().bytes.len() as u64;
        let subject = Descriptor::new(top.media_type, built.set.digest(), size);
        all.push(Attached { subject, documents: Vec::new() });
    }
    if let Some(key) = key.filter(|_| kinds.contains(&Kind::Provenance))
        && let Some(last) = all.last_mut()
    {
        let envelope = provenance(work, built, lock, &bills).sign(key);
        last.documents.push(Attachment::provenance(&envelope));
    }
    Ok(all)
}

/// The bill of the image with this manifest.
fn bill(
    work: &Work<'_>,
    lock: &Lock,
    platform: Platform,
    manifest: BlobDigest,
) -> Result<Bill, Failure> {
    let nothing = LockedPlatform::default();
    let gathering = Gathering {
        wiring: work.wiring,
        settings: work.settings,
        image: work.image,
        lock,
        locked: lock.platform(&work.image.name, platform).unwrap_or(&nothing),
        platform,
        store: Arc::clone(work.store).into(),
        offline: work.locking.offline,
    };
    gathering.bill(&work.runtime, Some(manifest))
}

fn provenance(work: &Work<'_>, built: &Built, lock: &Lock, bills: &[Bill]) -> ImageProvenance {
    let image = work.image;
    let parts: Vec<Value> = work
        .platforms
        .iter()
        .map(|platform| lock.canonical(&image.name, *platform).unwrap_or_default())
        .collect();
    let mut materials = Vec::new();
    for bill in bills {
        materials.extend(bill.packages.iter().map(|it| package(&it.purl(), &it.sha256)));
        materials.extend(bill.files.iter().map(|it| source(&it.path, &it.sha256)));
        let sources = bill.sources.iter();
        materials.extend(sources.filter_map(|it| Some(source(&it.name, it.sha256.as_ref()?))));
    }
    ImageProvenance {
        name: image.name.to_string(),
        manifest: built.set.digest(),
        asked: Asked {
            image: image.normalised(),
            lock: BlobDigest::of(canonical_json(&Value::Array(parts)).as_bytes()).to_hex(),
        },
        decided: Decided {
            compression: super::compression(work.settings.compression.value).id().to_owned(),
            platforms: work.platforms.iter().map(ToString::to_string).collect(),
        },
        materials,
    }
}
