//! Which family an error belongs to, and what would mend it.

use std::error::Error;
use std::io;

use drystone_builder::base::BaseError;
use drystone_builder::build::{BuildError, RemoteFileError};
use drystone_builder::configure::ConfigureError;
use drystone_builder::lock::LockError;
use drystone_builder::output::OutputError;
use drystone_builder::realise::CheckoutError;
use drystone_builder::recipe::git::GitError;
use drystone_builder::recipe::language::LanguageError;
use drystone_builder::recipe::language::registry::RegistryError as LanguageRegistryError;
use drystone_builder::recipe::{RecipeError, SourceError};
use drystone_builder::resolve::{ImportError, ResolveError};
use drystone_builder::sandbox::SandboxError;
use drystone_cache::agreement::AgreementError;
use drystone_cache::attestation::{SignError, VerifyError};
use drystone_cache::bundle::BundleError;
use drystone_cache::cosign::CosignError;
use drystone_cache::credentials::StoreError as CredentialError;
use drystone_cache::dsse::EnvelopeError;
use drystone_cache::error::RegistryError;
use drystone_cache::key::KeyError;
use drystone_cache::reference::ReferenceError;
use drystone_cache::trust::TrustError;
use drystone_source::debian::archive::ArchiveError;
use drystone_source::debian::mirror::MirrorError;
use drystone_source::debian::openpgp::SignatureError;
use drystone_source::fetch::FetchError;
use drystone_source::files::FilesError;
use drystone_store::store::StoreError;

use super::Family;

/// What an error means for the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opinion {
    pub(super) family: Family,
    pub(super) hint: Option<String>,
}

impl Opinion {
    const fn of(family: Family) -> Self {
        Self { family, hint: None }
    }

    fn with(family: Family, hint: &str) -> Self {
        Self { family, hint: Some(hint.to_owned()) }
    }
}

const VERIFY: &str = "run `drystone store verify --repair`, then build again";
const TRUST: &str = "somebody may be tampering with the mirror; if the archive has a new key, name it with `keyring`";
const NETWORK: &str =
    "check the network, or name another mirror with `--mirror`; `--offline` uses what is here";

/// A full or read-only disk, wherever in the chain; else the opinion of the outermost error that
/// has one; else the build failed.
pub(super) fn classify(error: &(dyn Error + 'static)) -> Opinion {
    let full = chain(error).filter_map(|error| error.downcast_ref()).find_map(disk);
    let opinion = full.or_else(|| chain(error).find_map(opinion));
    opinion.unwrap_or(Opinion::of(Family::Failed))
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn opinion(error: &(dyn Error + 'static)) -> Option<Opinion> {
    if let Some(error) = error.downcast_ref::<BuildError>() {
        return build(error);
    }
    if let Some(error) = error.downcast_ref::<BaseError>() {
        return base(error);
    }
    if let Some(error) = error.downcast_ref::<ConfigureError>() {
        return configure(error);
    }
    if let Some(error) = error.downcast_ref::<ResolveError>() {
        return Some(coded(error.exit_code(), error.hint()));
    }
    if let Some(error) = error.downcast_ref::<ImportError>() {
        return match error {
            ImportError::Store(error) => store(error),
            _ => Some(coded(error.exit_code(), error.hint())),
        };
    }
    if let Some(error) = error.downcast_ref::<FetchError>() {
        return fetch(error);
    }
    if let Some(error) = error.downcast_ref::<ArchiveError>() {
        return archive(error);
    }
    if error.is::<SignatureError>() {
        return Some(Opinion::with(Family::Integrity, TRUST));
    }
    if error.is::<MirrorError>() {
        return Some(Opinion::of(Family::Network));
    }
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return store(error);
    }
    if let Some(error) = error.downcast_ref::<RegistryError>() {
        return registry(error);
    }
    if error.is::<ReferenceError>() {
        return Some(Opinion::with(
            Family::Usage,
            "for example registry.example.com/team/app:1, localhost:5000/app, or file:DIR",
        ));
    }
    if error.is::<CredentialError>() {
        return Some(Opinion::with(
            Family::Host,
            "DOCKER_CONFIG names another folder for docker's config.json",
        ));
    }
    if let Some(error) = error.downcast_ref::<OutputError>() {
        return output(error);
    }
    if let Some(error) = error.downcast_ref::<SandboxError>() {
        return sandbox(error);
    }
    if let Some(error) = error.downcast_ref::<CheckoutError>() {
        return checkout(error);
    }
    if let Some(error) = error.downcast_ref::<LockError>() {
        return match error {
            LockError::Io { .. } => None,
            LockError::Text(_) | LockError::Conflict { .. } => Some(Opinion::of(Family::Usage)),
        };
    }
    if let Some(error) = error.downcast_ref::<FilesError>() {
        return files(error);
    }
    trust(error).or_else(|| error.downcast_ref::<io::Error>().and_then(system))
}

/// Keys, signatures and what builders say.
fn trust(error: &(dyn Error + 'static)) -> Option<Opinion> {
    if let Some(error) = error.downcast_ref::<KeyError>() {
        return match error {
            KeyError::Io { source, .. } => system(source).or(Some(Opinion::of(Family::Usage))),
            KeyError::Exists { .. } => {
                Some(Opinion::with(Family::Usage, "choose another file with `--output`"))
            }
            KeyError::Random(_) => Some(Opinion::of(Family::Host)),
            _ => Some(Opinion::of(Family::Usage)),
        };
    }
    if let Some(error) = error.downcast_ref::<TrustError>() {
        return match error {
            TrustError::Io { source, .. } => system(source).or(Some(Opinion::of(Family::Usage))),
            _ => Some(Opinion::of(Family::Usage)),
        };
    }
    if let Some(error) = error.downcast_ref::<AgreementError>() {
        return match error {
            AgreementError::Disagreement { .. } => Some(Opinion::with(
                Family::NotReproducible,
                "find out which builder is right, or trust only those that you believe",
            )),
            _ => Some(Opinion::of(Family::Integrity)),
        };
    }
    if error.is::<VerifyError>() {
        let hint = "`drystone key list` shows who is trusted; `drystone key trust` adds a builder";
        return Some(Opinion::with(Family::Integrity, hint));
    }
    let is_wrong = error.is::<EnvelopeError>() || error.is::<BundleError>();
    match is_wrong || error.is::<SignError>() || error.is::<CosignError>() {
        true => Some(Opinion::of(Family::Integrity)),
        false => None,
    }
}

/// A transparent error hides its kind from the chain, so each is taken apart here.
fn build(error: &BuildError) -> Option<Opinion> {
    match error {
        BuildError::Import(error) => opinion(error),
        BuildError::RemoteFile(error) => remote_file(error),
        BuildError::Base(error) => base(error),
        BuildError::Configure(error) => configure(error),
        BuildError::Recipe(error) => recipe(error),
        BuildError::Files(error) => files(error),
        BuildError::Output(error) => output(error),
        BuildError::Sandbox(error) => sandbox(error),
        BuildError::Checkout(error) => checkout(error),
        BuildError::Store(error) => store(error),
        BuildError::Finish { limit: Some(limit), .. } => {
            Some(Opinion::with(Family::Failed, &limit.option()))
        }
        BuildError::Image(_) | BuildError::Accounts(_) | BuildError::UnknownAccount { .. } => {
            Some(Opinion::of(Family::Usage))
        }
        BuildError::NotLocked { .. } => {
            Some(Opinion::with(Family::LockOutOfDate, "run `drystone lock`"))
        }
        BuildError::FinishNotReproducible { .. } => Some(Opinion::with(
            Family::NotReproducible,
            "let the script remove these files, or make them without the time and random numbers",
        )),
        BuildError::Foreign { .. } => Some(Opinion::with(
            Family::Host,
            "install qemu-user-static (before Linux 6.7 it must also be registered with the kernel, with \
             flag F, as systemd-binfmt does), or build on a host of that architecture",
        )),
        BuildError::PrivateKey { .. } => Some(Opinion::with(
            Family::Failed,
            "keep keys out of images: mount them when the container runs; if a package made it, \
             `remove-state` in [debian] leaves it out",
        )),
        _ => None,
    }
}

fn configure(error: &ConfigureError) -> Option<Opinion> {
    match error {
        ConfigureError::Sandbox(error) => sandbox(error),
        ConfigureError::Checkout(error) => checkout(error),
        ConfigureError::Store(error) => store(error),
        ConfigureError::NotReproducible { paths } => {
            Some(Opinion::with(Family::NotReproducible, &remove_state(paths)))
        }
        ConfigureError::Script { limit: Some(limit), .. } => {
            Some(Opinion::with(Family::Failed, &limit.option()))
        }
        ConfigureError::Preseed { .. } => Some(Opinion::of(Family::Usage)),
        _ => None,
    }
}

/// Lines for image.toml, ready to be copied: all paths, unless they are very many.
fn remove_state(paths: &[String]) -> String {
    const SHOWN: usize = 8;
    // What ucf knows of a file goes with the file.
    let (of_ucf, mut paths): (Vec<&String>, Vec<&String>) =
        paths.iter().partition(|path| path.starts_with("/var/lib/ucf/"));
    if paths.is_empty() {
        paths = of_ucf;
    }
    let mut hint = "if these files are state that no image may hold, write into [debian]:\n  \
                    remove-state = ["
        .to_owned();
    for path in paths.iter().take(SHOWN) {
        hint.push_str(&format!("\n    {{ path = {path:?}, reason = \"made anew each time\" }},"));
    }
    if paths.len() > SHOWN {
        hint.push_str("\n    # and so on; a folder stands for all below it");
    }
    hint + "\n  ]"
}

fn recipe(error: &RecipeError) -> Option<Opinion> {
    let family = match error {
        RecipeError::Sandbox(error) => return sandbox(error),
        RecipeError::Checkout(error) => return checkout(error),
        RecipeError::Store(error) => return store(error),
        RecipeError::Source(error) => return recipe_source(error),
        RecipeError::Language(error) => return language(error),
        RecipeError::Git(error) => return git(error),
        RecipeError::Unknown { .. } | RecipeError::OtherPlatform { .. } => Family::Usage,
        _ => Family::Failed,
    };
    Some(Opinion { family, hint: error.hint() })
}

fn git(error: &GitError) -> Option<Opinion> {
    let family = match error {
        GitError::Store(error) => return store(error),
        GitError::Io { source, .. } => return system(source),
        GitError::Program(_) => Family::Host,
        GitError::Offline { .. } | GitError::Fetch { .. } => Family::Network,
        GitError::Object { .. } => Family::Integrity,
        GitError::Submodule { .. } | GitError::LargeFile { .. } | GitError::Path { .. } => {
            Family::Usage
        }
        GitError::Tree(_) => Family::Failed,
    };
    Some(Opinion { family, hint: error.hint().map(str::to_owned) })
}

fn language(error: &LanguageError) -> Option<Opinion> {
    let family = match error {
        LanguageError::Store(error) => return store(error),
        LanguageError::Io { source, .. } => return system(source),
        LanguageError::Lockfile { .. } => Family::Usage,
        LanguageError::Mismatch { .. } | LanguageError::Unpack { .. } => Family::Integrity,
        LanguageError::Registry(error) => match error {
            LanguageRegistryError::Read { .. } | LanguageRegistryError::Configuration { .. } => {
                Family::Usage
            }
            _ => Family::Network,
        },
        LanguageError::Offline { .. } | LanguageError::Fetch { .. } => Family::Network,
        _ => Family::Failed,
    };
    let general = "check the network, and the registry that this host's tools are configured for";
    let hint = error.hint().or((family == Family::Network).then_some(general));
    Some(Opinion { family, hint: hint.map(str::to_owned) })
}

fn recipe_source(error: &SourceError) -> Option<Opinion> {
    match error {
        SourceError::Files { source, .. } => files(source),
        SourceError::Store(error) => store(error),
        SourceError::Read { source, .. } => system(source),
        SourceError::LargeFile { .. } => Some(Opinion::with(
            Family::Usage,
            "run `git lfs pull`, or leave the file out with `exclude`",
        )),
        SourceError::NoFolder { .. } => {
            Some(Opinion::with(Family::Usage, "name its folder, and the file with `include`"))
        }
        SourceError::Nothing { .. } => Some(Opinion::with(
            Family::Usage,
            "check `include` and `exclude`; git-ignored files are left out",
        )),
        SourceError::Changed { .. } => Some(Opinion::with(Family::Failed, "build again")),
        SourceError::Tree(_) => None,
    }
}

fn checkout(error: &CheckoutError) -> Option<Opinion> {
    match error {
        CheckoutError::Sandbox(error) => sandbox(error),
        CheckoutError::Store(error) => store(error),
        CheckoutError::Io { source, .. } => system(source),
        CheckoutError::Forbidden { .. } => Some(Opinion::of(Family::Failed)),
    }
}

/// The family that a library's own exit code means.
fn coded(code: u8, hint: Option<String>) -> Opinion {
    let families = [
        Family::Usage,
        Family::LockOutOfDate,
        Family::NotReproducible,
        Family::Unsolvable,
        Family::Network,
        Family::Integrity,
        Family::Host,
    ];
    let family = families.into_iter().find(|family| family.code() == code);
    let family = family.unwrap_or(Family::Failed);
    let general = (family == Family::Network).then(|| NETWORK.to_owned());
    Opinion { family, hint: hint.or(general) }
}

/// A disk that takes no more is to blame, whatever was being done.
fn disk(error: &io::Error) -> Option<Opinion> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Opinion::with(
            Family::Host,
            "free some space, for example with `drystone store gc`",
        )),
        io::ErrorKind::ReadOnlyFilesystem => {
            Some(Opinion::with(Family::Host, "choose a folder that can be written to"))
        }
        _ => None,
    }
}

/// What the kernel refuses whoever asks is the host's fault; all else is for others to judge.
fn system(error: &io::Error) -> Option<Opinion> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Some(Opinion::of(Family::Host)),
        _ => disk(error),
    }
}

fn fetch(error: &FetchError) -> Option<Opinion> {
    match error {
        _ if error.is_verification_failure() => Some(Opinion::with(
            Family::Integrity,
            "the mirror serves something else than is pinned: try another one with `--mirror`",
        )),
        FetchError::File { source, .. } => system(source),
        _ => Some(Opinion::with(Family::Network, NETWORK)),
    }
}

fn registry(error: &RegistryError) -> Option<Opinion> {
    let family = match error {
        _ if error.is_verification_failure() => Family::Integrity,
        RegistryError::File { source, .. } => {
            system(source).map_or(Family::Failed, |opinion| opinion.family)
        }
        RegistryError::NotALayout { .. } => Family::Usage,
        _ => Family::Network,
    };
    let general = (family == Family::Network).then(|| {
        "check the network and the name of the registry; what has arrived is not sent again"
            .to_owned()
    });
    Some(Opinion { family, hint: error.hint().or(general) })
}

fn remote_file(error: &RemoteFileError) -> Option<Opinion> {
    match error {
        RemoteFileError::Offline { .. } => {
            Some(Opinion::with(Family::Network, "run it once without --offline"))
        }
        RemoteFileError::Fetch { source, .. } => match &**source {
            error if error.is_verification_failure() => Some(Opinion::with(
                Family::Integrity,
                "if the new content is what you want, write its digest into image.toml as `sha256`",
            )),
            FetchError::File { source, .. } => system(source),
            FetchError::TooLarge { .. } | FetchError::Scheme { .. } => {
                Some(Opinion::of(Family::Network))
            }
            _ => Some(Opinion::with(
                Family::Network,
                "check the network, and the address in image.toml",
            )),
        },
        RemoteFileError::Damaged { .. } => {
            Some(Opinion::with(Family::Integrity, "check this host's disk and memory"))
        }
        RemoteFileError::Io { source, .. } => system(source),
        RemoteFileError::Store(error) => store(error),
        RemoteFileError::Worker(_) => None,
    }
}

fn base(error: &BaseError) -> Option<Opinion> {
    let family = match error {
        BaseError::Store(error) => return store(error),
        BaseError::Source { source, .. } => {
            return chain(source.as_ref()).find_map(opinion).or(Some(Opinion::of(Family::Network)));
        }
        BaseError::Offline { .. } | BaseError::Missing { .. } => Family::Network,
        BaseError::Mismatch { .. } | BaseError::Malformed { .. } => Family::Integrity,
        BaseError::Unsuitable { .. } | BaseError::Platform { .. } => Family::Usage,
        BaseError::NotPinned { .. } => Family::LockOutOfDate,
    };
    Some(Opinion { family, hint: error.hint().map(str::to_owned) })
}

fn archive(error: &ArchiveError) -> Option<Opinion> {
    match error {
        ArchiveError::Fetch { source, .. } => fetch(source),
        ArchiveError::NoRelease { .. } => Some(Opinion::with(
            Family::Network,
            "check the suite's name; the mirror may not carry it",
        )),
        ArchiveError::NoIndex { .. } => Some(Opinion::with(
            Family::Network,
            "check `components` and `platforms`: the archive does not carry this combination",
        )),
        ArchiveError::Signature { .. } => Some(Opinion::with(Family::Integrity, TRUST)),
        ArchiveError::Decompress { .. }
        | ArchiveError::TooLarge { .. }
        | ArchiveError::Content { .. } => Some(Opinion::with(Family::Integrity, TRUST)),
    }
}

fn store(error: &StoreError) -> Option<Opinion> {
    match error {
        StoreError::Io { source, .. } => system(source),
        StoreError::Newer { .. } => Some(Opinion::with(
            Family::Host,
            "use a newer drystone, or another store with `--store`",
        )),
        StoreError::Corrupt { .. }
        | StoreError::NoBlob(_)
        | StoreError::Mismatch { .. }
        | StoreError::Read { .. }
        | StoreError::Listing { .. } => Some(Opinion::with(Family::Integrity, VERIFY)),
        StoreError::InUse { .. } => {
            Some(Opinion::with(Family::Failed, "wait until the builds that use it have ended"))
        }
        StoreError::NoSuchPath { .. } => {
            Some(Opinion::with(Family::Usage, "`drystone store ls` lists what there is"))
        }
        StoreError::Ambiguous { .. } => {
            Some(Opinion::with(Family::Usage, "type more of the store path"))
        }
        StoreError::Root { .. } => {
            Some(Opinion::with(Family::Failed, "run `drystone store verify`"))
        }
        _ => None,
    }
}

fn output(error: &OutputError) -> Option<Opinion> {
    let family = match error {
        OutputError::Io { source, .. } | OutputError::Stream { source } => {
            system(source).map_or(Family::Failed, |opinion| opinion.family)
        }
        OutputError::BlobSize { .. } => Family::Integrity,
        OutputError::Name { .. } | OutputError::NotALayout { .. } => Family::Usage,
        OutputError::EngineMissing { .. } => Family::Host,
        _ => Family::Failed,
    };
    let own = error.hint().map(str::to_owned);
    let system = match error {
        OutputError::Io { source, .. } | OutputError::Stream { source } => system(source),
        _ => None,
    };
    Some(Opinion { family, hint: own.or_else(|| system.and_then(|opinion| opinion.hint)) })
}

fn sandbox(error: &SandboxError) -> Option<Opinion> {
    let family = if error.is_host() { Family::Host } else { Family::Failed };
    let mend = error.mend().map(str::to_owned);
    let doctor = || "run `drystone doctor`".to_owned();
    Some(Opinion { family, hint: mend.or_else(|| error.is_host().then(doctor)) })
}

/// A path that image.toml names: missing or of the wrong kind is the file's fault, what the kernel
/// refuses is the host's.
fn files(error: &FilesError) -> Option<Opinion> {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.and_then(system).or(Some(Opinion::of(Family::Usage)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot build")]
    struct Outer(#[source] StoreError);

    #[test]
    fn the_first_error_with_an_opinion_decides() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = StoreError::Io { action: "write", path: "/s".into(), source: full };
        assert_eq!(classify(&Outer(error)).family, Family::Host);
        let damaged = StoreError::Corrupt { what: "x".into() };
        let opinion = classify(&Outer(damaged));
        assert_eq!(opinion.family, Family::Integrity);
        assert!(opinion.hint.is_some_and(|hint| hint.contains("store verify")));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let file = FetchError::File { action: "write", path: "/s".into(), source: full };
        assert_eq!(classify(&file).family, Family::Host, "a full disk is no network");
        let other = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(classify(&other), Opinion::of(Family::Failed));
    }

    #[test]
    fn a_registry_that_lies_is_told_from_one_that_fails() {
        let digest = drystone_store::digest::BlobDigest::of(b"x");
        let place = || "registry.example.com/x".to_owned();
        let lie = RegistryError::Mismatch { place: place(), expected: digest, actual: digest };
        let lie = RegistryError::Source { place: place(), source: Box::new(lie) };
        assert_eq!(classify(&lie).family, Family::Integrity);
        let denied = RegistryError::Denied { place: place(), status: 401, message: String::new() };
        let opinion = classify(&denied);
        assert_eq!(opinion.family, Family::Network);
        assert!(opinion.hint.is_some_and(|hint| hint.contains("drystone login")));
    }

    #[test]
    fn wrong_bytes_are_told_from_no_bytes() {
        let gone = FetchError::NotFound { url: "http://127.0.0.1/x".into() };
        assert_eq!(classify(&gone).family, Family::Network);
        let size = FetchError::SizeMismatch { url: "u".into(), expected: 1, actual: 2 };
        assert_eq!(classify(&size).family, Family::Integrity);
        let wrapped = ArchiveError::Fetch { what: "InRelease".into(), source: size };
        assert_eq!(classify(&wrapped).family, Family::Integrity);
    }
}
