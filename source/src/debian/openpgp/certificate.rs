//! One certificate: a primary key, its user ids and subkeys, and what their signatures permit.
//!
//! Whether a key may sign is judged by its newest valid self-signature, as gpg does, at two
//! moments: when the document was signed and now. Revocations count whenever they were made.

use std::sync::OnceLock;

use pgp::packet::{PublicKey, PublicSubkey, Signature, SignatureType, SubpacketData, UserId};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails, PublicParams, Tag, VerifyingKey};

use super::{Rejection, sound};

/// Which key of a certificate is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Component {
    Primary,
    /// By position.
    Subkey(usize),
}

/// A part of a certificate with the signatures that follow it.
#[derive(Debug, Clone)]
struct Part<T> {
    value: T,
    signatures: Vec<Signature>,
}

/// The part that signatures being read belong to. One that is given to the wrong part (after a
/// packet that was not understood) does no harm: it does not verify there.
#[derive(Debug, Clone, Copy)]
enum Open {
    Primary,
    User,
    Subkey,
}

#[derive(Debug, Clone)]
pub(super) struct Certificate {
    primary: Part<PublicKey>,
    users: Vec<Part<UserId>>,
    subkeys: Vec<Part<PublicSubkey>>,
    open: Open,
    proven: OnceLock<Proven>,
}

impl Certificate {
    pub(super) fn new(key: PublicKey) -> Self {
        let primary = Part { value: key, signatures: Vec::new() };
        Self {
            primary,
            users: Vec::new(),
            subkeys: Vec::new(),
            open: Open::Primary,
            proven: OnceLock::new(),
        }
    }

    pub(super) fn add_user(&mut self, value: UserId) {
        self.users.push(Part { value, signatures: Vec::new() });
        self.open = Open::User;
    }

    pub(super) fn add_subkey(&mut self, value: PublicSubkey) {
        self.subkeys.push(Part { value, signatures: Vec::new() });
        self.open = Open::Subkey;
    }

    /// Adds a signature to the part that is being read, unless another key made it.
    pub(super) fn add_signature(&mut self, signature: Signature) {
        if !names_issuer(&self.primary.value, &signature) {
            return;
        }
        let signatures = match self.open {
            Open::Primary => Some(&mut self.primary.signatures),
            Open::User => self.users.last_mut().map(|part| &mut part.signatures),
            Open::Subkey => self.subkeys.last_mut().map(|part| &mut part.signatures),
        };
        if let Some(signatures) = signatures {
            signatures.push(signature);
        }
    }

    pub(super) fn components(&self) -> impl Iterator<Item = Component> + use<> {
        std::iter::once(Component::Primary).chain((0..self.subkeys.len()).map(Component::Subkey))
    }

    pub(super) fn fingerprint(&self, component: Component) -> String {
        match component {
            Component::Primary => format!("{:X}", self.primary.value.fingerprint()),
            Component::Subkey(at) => format!("{:X}", self.subkeys[at].value.fingerprint()),
        }
    }

    pub(super) fn is_issuer(&self, component: Component, signature: &Signature) -> bool {
        match component {
            Component::Primary => names_issuer(&self.primary.value, signature),
            Component::Subkey(at) => names_issuer(&self.subkeys[at].value, signature),
        }
    }

    /// Checks a signature over `data`, by arithmetic alone.
    pub(super) fn verify_data(
        &self,
        component: Component,
        signature: &Signature,
        data: &[u8],
    ) -> Result<(), Rejection> {
        match component {
            Component::Primary => signature.verify(&self.primary.value, data),
            Component::Subkey(at) => signature.verify(&self.subkeys[at].value, data),
        }
        .map_err(|_| Rejection::Mismatch)
    }

    /// Whether the key may have signed a document at `made`, and may still now.
    pub(super) fn may_sign(
        &self,
        component: Component,
        made: i64,
        now: i64,
    ) -> Result<(), Rejection> {
        let proven = self.proven.get_or_init(|| Proven::of(self));
        if has_kind(&proven.primary, SignatureType::KeyRevocation) {
            return Err(Rejection::KeyRevoked);
        }
        let own = proven.newest_self_signature(now).ok_or(Rejection::Unbound)?;
        in_force(&self.primary.value, own, made, now)?;
        let Component::Subkey(at) = component else { return permits_signing(own, true) };
        let signatures = &proven.subkeys[at];
        if has_kind(signatures, SignatureType::SubkeyRevocation) {
            return Err(Rejection::KeyRevoked);
        }
        let binding = newest(signatures, now, |_| true).ok_or(Rejection::Unbound)?;
        in_force(&self.subkeys[at].value, binding, made, now)?;
        permits_signing(binding, false)?;
        // Without the subkey's own consent anybody could claim another's signing key.
        let consent = binding.embedded_signature().ok_or(Rejection::Unbound)?;
        sound(consent, now).map(|_| ()).map_err(|_| Rejection::Unbound)
    }
}

/// The signatures of a certificate that its own keys have really made. Proving them costs several
/// public key operations and depends on no time, so it is done once, when first needed.
#[derive(Debug, Clone)]
struct Proven {
    primary: Vec<Signature>,
    users: Vec<Vec<Signature>>,
    /// Bindings for signing are here only with the subkey's valid consent.
    subkeys: Vec<Vec<Signature>>,
}

impl Proven {
    fn of(certificate: &Certificate) -> Self {
        let primary = &certificate.primary.value;
        let user = |part: &Part<UserId>| {
            part.proven(|one| one.verify_certification(primary, Tag::UserId, &part.value).is_ok())
        };
        let subkey = |part: &Part<PublicSubkey>| {
            part.proven(|one| {
                let consent = one.embedded_signature();
                let consents = || {
                    consent.is_some_and(|consent| {
                        consent.verify_primary_key_binding(&part.value, primary).is_ok()
                    })
                };
                one.verify_subkey_binding(primary, &part.value).is_ok()
                    && (!one.key_flags().sign() || consents())
            })
        };
        Self {
            primary: certificate.primary.proven(|one| one.verify_key(primary).is_ok()),
            users: certificate.users.iter().map(user).collect(),
            subkeys: certificate.subkeys.iter().map(subkey).collect(),
        }
    }

    /// The newest sound signature of the primary key about itself: over it, or over a user id that
    /// is not revoked.
    fn newest_self_signature(&self, now: i64) -> Option<&Signature> {
        let over_users = self.users.iter().filter_map(|signatures| {
            let certification = newest(signatures, now, |one| !revokes_user(one))?;
            let mut revocations = signatures.iter().filter(|one| revokes_user(one));
            let revoked = revocations.any(|one| one.created() >= certification.created());
            (!revoked).then_some(certification)
        });
        let direct = newest(&self.primary, now, |one| one.typ() == Some(SignatureType::Key));
        direct.into_iter().chain(over_users).max_by_key(|signature| signature.created())
    }
}

impl<T> Part<T> {
    fn proven(&self, holds: impl Fn(&Signature) -> bool) -> Vec<Signature> {
        self.signatures.iter().filter(|signature| holds(signature)).cloned().collect()
    }
}

fn has_kind(signatures: &[Signature], kind: SignatureType) -> bool {
    signatures.iter().any(|signature| signature.typ() == Some(kind))
}

fn revokes_user(signature: &Signature) -> bool {
    signature.typ() == Some(SignatureType::CertRevocation)
}

fn newest(
    signatures: &[Signature],
    now: i64,
    wanted: impl Fn(&Signature) -> bool,
) -> Option<&Signature> {
    let sound = signatures.iter().filter(|one| wanted(one) && sound(one, now).is_ok());
    sound.max_by_key(|signature| signature.created())
}

fn names_issuer(key: &impl KeyDetails, signature: &Signature) -> bool {
    let prints = signature.issuer_fingerprint();
    if prints.is_empty() {
        let key_id = key.legacy_key_id();
        return signature.issuer_key_id().contains(&&key_id);
    }
    let fingerprint = key.fingerprint();
    prints.contains(&&fingerprint)
}

/// Checks strength and lifetime of a key, as its newest self-signature states the latter.
fn in_force(
    key: &impl VerifyingKey,
    own: &Signature,
    made: i64,
    now: i64,
) -> Result<(), Rejection> {
    if is_weak(key.public_params()) {
        return Err(Rejection::WeakKey);
    }
    let created = i64::from(key.created_at().as_secs());
    if made < created {
        return Err(Rejection::OlderThanKey);
    }
    match own.key_expiration_time().map(|lifetime| i64::from(lifetime.as_secs())) {
        Some(lifetime) if lifetime != 0 && created + lifetime <= now.max(made) => {
            Err(Rejection::KeyExpired(created + lifetime))
        }
        _ => Ok(()),
    }
}

/// RSA below 2048 bits and DSA, as apt sees it.
fn is_weak(params: &PublicParams) -> bool {
    match params {
        // Two length-prefixed numbers: a modulus of 2048 bits takes 258 bytes.
        PublicParams::RSA(rsa) => rsa.write_len() < 258 + 3,
        PublicParams::DSA(_) => true,
        _ => false,
    }
}

/// Whether a self-signature lets its key sign documents. A primary key without any flags is of
/// the time before flags, and may.
fn permits_signing(own: &Signature, without_flags: bool) -> Result<(), Rejection> {
    let has_flags = own.config().is_some_and(|config| {
        let mut subpackets = config.hashed_subpackets();
        subpackets.any(|subpacket| matches!(subpacket.data, SubpacketData::KeyFlags(_)))
    });
    let permitted = if has_flags { own.key_flags().sign() } else { without_flags };
    if permitted { Ok(()) } else { Err(Rejection::NotForSigning) }
}
