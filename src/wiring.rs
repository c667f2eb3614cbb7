//! From what was typed to what works: settings, the store, downloads, the runtime.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use drystone_builder::settings::{
    ConfigFiles, Flags, Host, Setting, Settings, SigningKey, TrustedKeys,
};
use drystone_builder::spec::{Image, Platform};
use drystone_cache::key::SecretKey;
use drystone_cache::trust::{Trust, TrustedKey};
use drystone_source::fetch::{self, Credentials, Downloader};
use drystone_store::store::{Store, StoreError};
use tracing_subscriber::EnvFilter;

use crate::arguments::{ArchiveArguments, GlobalArguments};
use crate::diagnostics::{Failure, Family};
use crate::interrupt;
use crate::progress::Display;

/// The folder of apt's configuration, which knows mirrors and credentials.
pub const APT: &str = "/etc/apt";

/// What every command works with.
pub struct Wiring {
    global: GlobalArguments,
    /// Where progress and messages go.
    pub display: Display,
    /// A store that was opened to look something up, and is mostly the one that follows.
    opened: Mutex<Option<Store>>,
}

impl Wiring {
    /// Wires up nothing yet: what a command does not ask for is not made.
    pub const fn new(global: GlobalArguments, display: Display) -> Self {
        Self { global, display, opened: Mutex::new(None) }
    }

    /// The settings as typed in flags that every command has.
    pub fn flags(&self) -> Flags {
        let log = match self.global.verbose {
            0 => self.global.log.clone(),
            // A target is matched by what it begins with, so these are all of our crates.
            1 => Some("drystone=info".to_owned()),
            2 => Some("drystone=debug".to_owned()),
            _ => Some("trace".to_owned()),
        };
        Flags { store: self.global.store.clone(), log, ..Flags::default() }
    }

    /// The settings as typed in flags, those about the archive included.
    pub fn archive_flags(&self, arguments: &ArchiveArguments) -> Flags {
        Flags {
            mirror: arguments.mirror.clone(),
            security_mirror: arguments.security_mirror.clone(),
            keyring: arguments.keyring.clone(),
            jobs: arguments.jobs.clone(),
            ..self.flags()
        }
    }

    /// The settings as they hold; starts the log.
    pub fn settings(&self, flags: &Flags, image: Option<&Image>) -> Result<Settings, Failure> {
        let files = ConfigFiles::read(&environment)?;
        let settings = Settings::resolve(flags, &environment, &files, image, host())?;
        self.start_log(&settings)?;
        Ok(settings)
    }

    /// Opens the store, and makes it where there is none.
    pub fn store(&self, settings: &Settings) -> Result<Store, Failure> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(store) = opened.filter(|it| it.root() == settings.store.value) {
            return Ok(store);
        }
        let store = Store::open(&settings.store.value).map_err(|error| {
            // Whatever the kernel answers, a store that cannot be opened is this host's matter.
            let is_host = matches!(error, StoreError::Io { .. } | StoreError::Database { .. });
            let mut failure = Failure::from(error);
            if is_host && failure.family == Family::Failed {
                failure.family = Family::Host;
            }
            failure.hint(format!(
                "the store is {} ({}); choose another folder with `--store` or DRYSTONE_STORE",
                settings.store.value.display(),
                settings.store.origin,
            ))
        })?;
        interrupt::remove_at_exit(store.temporary_directory().to_owned());
        Ok(store)
    }

    /// Opens a store that must be there: looking must not make one.
    pub fn existing_store(&self, settings: &Settings) -> Result<Store, Failure> {
        if !has_store(settings) {
            let message = format!("there is no store in {}", settings.store.value.display());
            return Err(Failure::usage(message)
                .hint("`drystone build` makes it; `--store` or DRYSTONE_STORE name another one"));
        }
        self.store(settings)
    }

    /// Keeps a store open for [`Wiring::store`].
    pub fn keep_open(&self, store: Store) {
        interrupt::remove_at_exit(store.temporary_directory().to_owned());
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(store);
    }

    fn start_log(&self, settings: &Settings) -> Result<(), Failure> {
        let log = &settings.log;
        let filter = EnvFilter::try_new(&log.value).map_err(|error| {
            Failure::usage(format!("{}: {:?} is no filter: {error}", log.origin, log.value))
                .hint("for example `info`, or `drystone_builder=debug`")
        })?;
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(self.display.clone())
            .with_ansi(self.display.terminal().coloured && std::io::stderr().is_terminal())
            .without_time()
            .finish();
        // A second command in one process (there is none) would find the log started.
        let _ = tracing::subscriber::set_global_default(subscriber);
        Ok(())
    }
}

/// Whether there is a store already.
pub fn has_store(settings: &Settings) -> bool {
    settings.store.value.join("db.sqlite").exists()
}

/// A downloader; nothing is opened before the first download.
pub fn downloader(settings: &Settings) -> Downloader {
    let netrc = environment("NETRC").map(PathBuf::from);
    let netrc = netrc.or_else(|| Some(Path::new(&environment("HOME")?).join(".netrc")));
    Downloader::new(fetch::Settings {
        parallel: settings.jobs.value.max(8),
        credentials: Credentials::load(Path::new(APT), netrc.as_deref()),
        ..fetch::Settings::default()
    })
}

/// Whom the user believes: reads the files of keys that settings name.
pub fn trust(settings: &Settings) -> Result<Trust, Failure> {
    let mut keys = match &settings.trusted_keys {
        Some(level) => public_keys(level)?,
        None => Vec::new(),
    };
    for level in &settings.revoked_keys {
        let revoked = public_keys(level)?;
        keys.extend(revoked.into_iter().map(|key| TrustedKey { revoked: true, ..key }));
    }
    let threshold = &settings.threshold;
    Trust::new(keys, threshold.value).map_err(|error| {
        Failure::of(error).hint(format!("`threshold` is set by {}", threshold.origin))
    })
}

fn public_keys(level: &Setting<TrustedKeys>) -> Result<Vec<TrustedKey>, Failure> {
    let failed = |error| Failure::of(error).hint(format!("it is named by {}", level.origin));
    let mut keys = Vec::new();
    for line in &level.value.lines {
        keys.push(line.parse().map_err(failed)?);
    }
    for file in &level.value.files {
        keys.extend(TrustedKey::read_all(file).map_err(failed)?);
    }
    Ok(keys)
}

/// The key to sign with, if the user named one.
pub fn signing_key(settings: &Settings) -> Result<Option<SecretKey>, Failure> {
    let Some(setting) = &settings.signing_key else { return Ok(None) };
    let key = match &setting.value {
        SigningKey::File(path) => SecretKey::read(path),
        SigningKey::Literal(line) => line.parse(),
    };
    let hint = |error| Failure::of(error).hint(format!("it is named by {}", setting.origin));
    key.map(Some).map_err(hint)
}

/// The runtime of everything that waits for the network.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start the network's threads", error))
}

/// Bounds the threads of hashing and compression. Results do not depend on it.
pub fn bound_threads(settings: &Settings) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(settings.jobs.value);
    // Only a second call in one process fails, and then the first one's bound holds.
    let _ = pool.build_global();
}

/// Seconds since 1970, for judging signatures and expiry; no output depends on it.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A variable of the environment that is set to text.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What the host itself decides of the settings.
pub fn host() -> Host {
    Host {
        root: rustix::process::geteuid().is_root(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The image.toml that a path means: the file, or the one in a folder.
pub fn image_path(typed: &Path) -> PathBuf {
    if typed.is_dir() { typed.join("image.toml") } else { typed.to_owned() }
}

/// Reads the text of an image.toml.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::usage(format!("there is no {}", path.display()))
            .hint("run `drystone init` to make one, or name another file"),
        _ => Failure::path("read", path, error),
    })?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("{} is not UTF-8 text", path.display())))
}

/// Checks the text of an image.toml, and reads the files that its recipes stand in.
pub fn parse_image(path: &Path, text: &str) -> Result<Image, Failure> {
    Ok(Image::parse_with(path, text, &|path| std::fs::read_to_string(path))?)
}

/// Reads and checks an image.toml.
pub fn read_image(path: &Path) -> Result<Image, Failure> {
    parse_image(path, &read_text(path)?)
}

/// Reads an image.toml for building: what this version cannot build is refused with its place.
pub fn read_buildable(path: &Path) -> Result<Image, Failure> {
    let image = read_image(path)?;
    match image.unsupported() {
        Some(problems) => Err(problems.into()),
        None => Ok(image),
    }
}

/// The platforms that were typed, else the image's.
pub fn platforms(typed: &[String], image: &Image) -> Result<Vec<Platform>, Failure> {
    if typed.is_empty() {
        return Ok(image.platforms.clone());
    }
    let mut platforms = Vec::new();
    for text in typed {
        let platform = platform(text)?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// A platform as typed.
pub fn platform(text: &str) -> Result<Platform, Failure> {
    Platform::new(text.trim()).map_err(|error| {
        let failure = Failure::usage(format!("--platform: {error}"));
        match error.help() {
            Some(help) => failure.hint(help),
            None => failure,
        }
    })
}

/// An absolute path, for names that outlive the working folder. Links are not followed.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::path("find", path, error))
}

/// A failure that is the lock's: `--locked` forbids to change it.
pub fn lock_out_of_date(message: impl Into<String>) -> Failure {
    Failure::new(Family::LockOutOfDate, message)
        .hint("run `drystone lock` (or build without `--locked`) and commit image.lock")
}
