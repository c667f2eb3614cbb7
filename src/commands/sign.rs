//! `sign` and `verify`: signatures of images in registries.

use std::sync::Arc;

use drystone_cache::attachment::{self, Attached, Vouched};
use drystone_cache::descriptor::{DOCKER_LIST_MEDIA_TYPE, Descriptor, INDEX_MEDIA_TYPE, Manifest};
use drystone_cache::error::RegistryError;
use drystone_cache::key::PublicKey;
use drystone_cache::reference::{Reference, Target};
use drystone_cache::repository::Repository;
use drystone_cache::trust::Trust;
use serde_json::{Value, json};

use super::build::pushing::registries;
use crate::answer;
use crate::arguments::{SignArguments, VerifyImageArguments};
use crate::diagnostics::{Failure, Family};
use crate::interrupt;
use crate::wiring::{Wiring, now, runtime, signing_key, trust};

/// The most platforms of an index that are looked at.
const MOST_PLATFORMS: usize = 100;

/// Signs an image and, of an index, every platform's manifest.
pub fn sign(wiring: &Wiring, arguments: &SignArguments) -> Result<(), Failure> {
    let mut flags = wiring.flags();
    flags.signing_key.clone_from(&arguments.signing_key);
    let settings = wiring.settings(&flags, None)?;
    let key = signing_key(&settings)?.ok_or_else(|| {
        Failure::usage("there is no signing key")
            .hint("name one with `--signing-key` or DRYSTONE_SIGNING_KEY")
    })?;
    let reference: Reference = arguments.reference.parse().map_err(Failure::of)?;
    let repository = registries(&arguments.insecure_registry)?.open(&reference.location);
    let (top, signed) = wait(async {
        let (top, subjects) = subjects(&repository, &reference).await?;
        let mut signed = Vec::new();
        // The one that the tag names last: whoever finds it signed finds all of it signed.
        for subject in subjects.iter().rev() {
            let is_new = attachment::sign(&repository, subject, &key).await?;
            signed.push((subject.digest, is_new));
        }
        Ok((top, signed))
    })?;
    wiring.display.finish();
    let reference = Reference { digest: Some(top.digest), ..reference };
    if arguments.json {
        let signed = signed.iter().map(|(digest, new)| json!({ "digest": digest, "new": new }));
        return answer::json(&json!({
            "reference": reference.to_string(),
            "key": key.public().id().to_string(),
            "signed": signed.collect::<Vec<_>>(),
        }));
    }
    answer::line(&reference.to_string())
}

/// Checks who signed an image.
pub fn verify(wiring: &Wiring, arguments: &VerifyImageArguments) -> Result<(), Failure> {
    let mut flags = wiring.flags();
    flags.trusted_keys.clone_from(&arguments.trusted_key);
    flags.threshold.clone_from(&arguments.threshold);
    let settings = wiring.settings(&flags, None)?;
    let trust = trust(&settings)?;
    if trust.keys().is_empty() {
        return Err(Failure::usage("no key is trusted").hint(
            "name one with `--trusted-key` or DRYSTONE_TRUSTED_KEYS, or `drystone key trust`",
        ));
    }
    let reference: Reference = arguments.reference.parse().map_err(Failure::of)?;
    let repository = registries(&arguments.insecure_registry)?.open(&reference.location);
    let verified = wait(read(&repository, &reference, &trust))?;
    wiring.display.finish();
    let reference = Reference { digest: Some(verified[0].subject.digest), ..reference };
    let top = &verified[0];
    if top.vouched.signers.len() < trust.threshold() {
        return Err(refused(&reference, top, &trust));
    }
    if arguments.json {
        return answer::json(&json!({
            "reference": reference.to_string(),
            "threshold": trust.threshold(),
            "manifests": verified.iter().map(Verified::to_json).collect::<Vec<_>>(),
        }));
    }
    let shown: String = verified.iter().map(Verified::shown).collect();
    answer::print(&format!("{reference}\n{shown}"))
}

fn refused(reference: &Reference, top: &Verified, trust: &Trust) -> Failure {
    let by = match top.vouched.signers.len() {
        0 => "no trusted key".to_owned(),
        count => format!("{count} of the {} trusted keys that must", trust.threshold()),
    };
    let mut why = top.vouched.refused.clone();
    why.sort();
    why.dedup();
    let why = match (top.vouched.signatures, why.is_empty()) {
        (0, _) => ": it is not signed".to_owned(),
        (_, true) => String::new(),
        (_, false) => format!(": {}", why.join("; ")),
    };
    Failure::new(Family::Integrity, format!("{reference} is signed by {by}{why}"))
}

/// A manifest, and all that stands for it.
struct Verified {
    subject: Descriptor,
    vouched: Vouched,
    attached: Vec<Attached>,
}

impl Verified {
    fn to_json(&self) -> Value {
        let key = |key: &PublicKey| json!({ "name": key.name(), "key": key.id().to_string() });
        let attached = self.attached.iter().map(|one| {
            let signers = one.signers.as_ref();
            json!({
                "artifact_type": one.descriptor.artifact_type,
                "digest": one.descriptor.digest,
                "signers": signers.map(|keys| keys.iter().map(key).collect::<Vec<_>>()),
            })
        });
        json!({
            "digest": self.subject.digest,
            "media_type": self.subject.media_type,
            "platform": self.subject.platform,
            "signers": self.vouched.signers.iter().map(key).collect::<Vec<_>>(),
            "signatures": self.vouched.signatures,
            "attached": attached.collect::<Vec<_>>(),
        })
    }

    fn shown(&self) -> String {
        let names = |keys: &mut dyn Iterator<Item = &PublicKey>| {
            let names: Vec<String> =
                keys.map(|key| format!("{} ({})", key.name(), key.id())).collect();
            if names.is_empty() { "no trusted key".to_owned() } else { names.join(", ") }
        };
        let what = match &self.subject.platform {
            Some(platform) => platform_name(platform),
            None => self.subject.digest.to_string(),
        };
        let mut text = format!("{what}: signed by {}\n", names(&mut self.vouched.signers.iter()));
        for one in &self.attached {
            let kind = one.descriptor.artifact_type.as_deref().unwrap_or("a document");
            let signed = match &one.signers {
                Some(keys) => format!("signed by {}", names(&mut keys.iter())),
                None => "not signed itself".to_owned(),
            };
            text.push_str(&format!("{what}: {kind} {}: {signed}\n", one.descriptor.digest));
        }
        text
    }
}

fn platform_name(platform: &Value) -> String {
    let part = |name: &str| platform[name].as_str().unwrap_or("unknown").to_owned();
    format!("{}/{}", part("os"), part("architecture"))
}

async fn read(
    from: &Arc<dyn Repository>,
    reference: &Reference,
    trust: &Trust,
) -> Result<Vec<Verified>, RegistryError> {
    let now = now();
    let (_, subjects) = subjects(from, reference).await?;
    let mut verified = Vec::new();
    for subject in subjects {
        let vouched = attachment::signers(from, &subject.digest, trust, now).await?;
        let attached = attachment::attached(from, &subject.digest, trust, now).await?;
        verified.push(Verified { subject, vouched, attached });
    }
    Ok(verified)
}

/// The manifest that a reference names, and after it those of an index's platforms.
async fn subjects(
    from: &Arc<dyn Repository>,
    reference: &Reference,
) -> Result<(Manifest, Vec<Descriptor>), RegistryError> {
    let found = from.manifest(&reference.target()).await?;
    let top = found.ok_or_else(|| RegistryError::Missing { place: reference.to_string() })?;
    let size = top.bytes.len() as u64;
    let mut subjects = vec![Descriptor::new(&top.media_type, top.digest, size)];
    if [INDEX_MEDIA_TYPE, DOCKER_LIST_MEDIA_TYPE].contains(&top.media_type.as_str()) {
        let json = top.json().map_err(|error| RegistryError::Malformed {
            place: reference.to_string(),
            reason: error.to_string(),
        })?;
        let entries = json["manifests"].as_array().map_or(&[][..], Vec::as_slice);
        for entry in entries.iter().take(MOST_PLATFORMS) {
            let Ok(descriptor) = serde_json::from_value::<Descriptor>(entry.clone()) else {
                continue;
            };
            // What is not here is another repository's: an index may be copied in parts.
            if from.manifest(&Target::Digest(descriptor.digest)).await?.is_some() {
                subjects.push(descriptor);
            }
        }
    }
    Ok((top, subjects))
}

fn wait<T>(work: impl Future<Output = Result<T, RegistryError>>) -> Result<T, Failure> {
    runtime()?.block_on(interrupt::or_cancelled(work)).map_err(Failure::of)?.map_err(Failure::of)
}
