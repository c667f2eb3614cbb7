//! From what was typed to what holds.

use std::path::{Path, PathBuf};

use crate::document::{Diagnostic, Diagnostics, Place, ValueError};
use crate::spec::{CacheAddress, Compression, Image, address};

use super::config::{MOST_JOBS, MOST_KEYS, Typed, typed};
use super::keys::{SigningKey, TrustedKeys};
use super::origin::{Origin, Setting};
use super::{ConfigFiles, Flags, Host, Settings};

/// 9999-12-31T23:59:59Z: later times have no text form in an image's config (RFC 3339).
const LATEST: i64 = 253_402_300_799;

impl Settings {
    /// Resolves all settings; reports every wrong value of every level at once.
    ///
    /// `image` gives the levels below the user's: mirrors, keyring, compression, caches.
    pub fn resolve(
        flags: &Flags,
        environment: &dyn Fn(&str) -> Option<String>,
        files: &ConfigFiles,
        image: Option<&Image>,
        host: Host,
    ) -> Result<Self, Diagnostics> {
        let mut levels = Levels { environment, files: Vec::new(), problems: Vec::new() };
        for source in [&files.user, &files.system].into_iter().flatten() {
            match typed(source) {
                Ok(entries) => levels.files.push(entries),
                Err(problems) => levels.problems.extend(problems.iter().cloned()),
            }
        }
        let settings = Self::from_levels(flags, &mut levels, image, host);
        match (Diagnostics::new(levels.problems), settings) {
            (None, Some(settings)) => Ok(settings),
            (Some(problems), _) => Err(problems),
            (None, None) => unreachable!("only a missing store is refused, with a problem"),
        }
    }

    fn from_levels(
        flags: &Flags,
        levels: &mut Levels<'_>,
        image: Option<&Image>,
        host: Host,
    ) -> Option<Self> {
        let debian = image.and_then(|image| image.debian.as_ref());
        let below = |place: fn(&Image) -> Option<Place>| {
            image.map_or(Origin::Default, |image| in_image(image, place(image)))
        };
        let in_debian = || below(|image| image.debian.as_ref().map(|debian| debian.place));
        let mirror =
            levels.one("mirror", "--mirror", flags.mirror.clone(), |text, _| address(text));
        let security_flag = flags.security_mirror.clone();
        let security =
            levels.one("security-mirror", "--security-mirror", security_flag, |text, _| {
                address(text)
            });
        let keyring_flag = flags.keyring.as_deref().map(text_of);
        let keyring = levels.one("keyring", "--keyring", keyring_flag, path);
        let compression_flag = flags.compression.clone();
        let compression =
            levels.one("compression", "--compression", compression_flag, |text, _| {
                Compression::new(text)
            });
        let signing_flag = flags.signing_key.clone();
        let settings = Self {
            store: levels.store(flags, host)?,
            mirror: mirror.or_else(|| {
                let mirror = debian?.mirror.clone()?;
                Some(Setting::new(mirror, in_debian()))
            }),
            security_mirror: security.or_else(|| {
                let mirror = debian?.security_mirror.clone()?;
                Some(Setting::new(mirror, in_debian()))
            }),
            caches: levels.caches(flags, image),
            signing_key: levels.one("signing-key", "--signing-key", signing_flag, SigningKey::new),
            trusted_keys: levels.trusted_keys(flags),
            revoked_keys: levels.revoked_keys(),
            threshold: levels
                .one("threshold", "--threshold", flags.threshold.clone(), |text, _| {
                    count(text, MOST_KEYS)
                })
                .unwrap_or(Setting::new(1, Origin::Default)),
            jobs: levels
                .one("jobs", "--jobs", flags.jobs.clone(), |text, _| count(text, MOST_JOBS))
                .unwrap_or(Setting::new(host.processors.max(1), Origin::Default)),
            log: levels
                .one("log", "--log", flags.log.clone(), |text, _| Ok(text.to_owned()))
                .unwrap_or(Setting::new("warn".to_owned(), Origin::Default)),
            keyring: keyring.or_else(|| {
                let keyring = debian?.keyring.clone()?;
                Some(Setting::new(keyring, in_debian()))
            }),
            compression: compression
                .or_else(|| {
                    let compression = image?.image.compression?;
                    Some(Setting::new(compression, below(|image| image.image.compression_place)))
                })
                .unwrap_or(Setting::new(Compression::default(), Origin::Default)),
            source_date_epoch: levels.source_date_epoch(),
        };
        Some(settings)
    }
}

fn in_image(image: &Image, place: Option<Place>) -> Origin {
    let line = place.map_or(1, |place| image.text.position(place.start).0);
    Origin::File { file: image.text.name().to_owned(), line }
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn path(text: &str, base: &Path) -> Result<PathBuf, ValueError> {
    match text.contains('\0') {
        true => Err(ValueError::new("path", text, "it has a NUL byte")),
        false => Ok(base.join(text)),
    }
}

fn count(text: &str, most: i64) -> Result<usize, ValueError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && (1..=most).contains(number));
    match number.and_then(|number: i64| usize::try_from(number).ok()) {
        Some(count) => Ok(count),
        None => Err(ValueError::new("number", text, format!("it must lie between 1 and {most}"))),
    }
}

/// The variable of each key.
pub(super) const VARIABLES: [(&str, &str); 12] = [
    ("store", "DRYSTONE_STORE"),
    ("mirror", "DRYSTONE_MIRROR"),
    ("security-mirror", "DRYSTONE_SECURITY_MIRROR"),
    ("cache", "DRYSTONE_CACHE"),
    ("signing-key", "DRYSTONE_SIGNING_KEY"),
    ("trusted-keys", "DRYSTONE_TRUSTED_KEYS"),
    ("revoked-keys", "DRYSTONE_REVOKED_KEYS"),
    ("threshold", "DRYSTONE_THRESHOLD"),
    ("jobs", "DRYSTONE_JOBS"),
    ("log", "DRYSTONE_LOG"),
    ("keyring", "DRYSTONE_KEYRING"),
    ("compression", "DRYSTONE_COMPRESSION"),
];

/// All levels from the flags down to the system's file, and the problems found in them.
struct Levels<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    files: Vec<Vec<(&'static str, Typed)>>,
    problems: Vec<Diagnostic>,
}

impl Levels<'_> {
    /// An empty variable is one that is not set, as for most tools.
    fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    /// All that was typed for a key, from the strongest level to the weakest.
    fn typed(&self, key: &'static str, flag: &'static str, flags: Vec<String>) -> Vec<Typed> {
        let plain = |texts, origin| Typed { texts, origin, base: PathBuf::new(), place: None };
        let mut typed = Vec::new();
        if !flags.is_empty() {
            typed.push(plain(flags, Origin::Flag(flag)));
        }
        let variable = VARIABLES.iter().find(|(name, _)| *name == key);
        if let Some((_, variable)) = variable
            && let Some(value) = self.variable(variable)
        {
            let texts = match key {
                "cache" | "trusted-keys" | "revoked-keys" => {
                    value.split_whitespace().map(str::to_owned).collect()
                }
                _ => vec![value],
            };
            typed.push(plain(texts, Origin::Variable(variable)));
        }
        let in_files = self.files.iter().flatten().filter(|(name, _)| *name == key);
        typed.extend(in_files.map(|(_, typed)| typed.clone()));
        typed
    }

    fn refuse(&mut self, typed: &Typed, error: &ValueError) {
        let problem = match &typed.place {
            Some((source, place)) => {
                Diagnostic::at(source, *place, error.to_string()).hidden_if(error)
            }
            None => Diagnostic::nowhere(format!("{}: {error}", typed.origin)),
        };
        self.problems.push(match error.help() {
            Some(help) => problem.with_help(help),
            None => problem,
        });
    }

    /// The strongest value of a key. Weaker ones are checked too: a slip in a file is told before
    /// the flag that hides it is gone.
    fn one<T>(
        &mut self,
        key: &'static str,
        flag: &'static str,
        typed_flag: Option<String>,
        parse: impl Fn(&str, &Path) -> Result<T, ValueError>,
    ) -> Option<Setting<T>> {
        let mut found = None;
        for typed in self.typed(key, flag, typed_flag.into_iter().collect()) {
            for text in &typed.texts {
                match parse(text, &typed.base) {
                    Ok(value) => {
                        found.get_or_insert(Setting::new(value, typed.origin.clone()));
                    }
                    Err(error) => self.refuse(&typed, &error),
                }
            }
        }
        found
    }

    fn store(&mut self, flags: &Flags, host: Host) -> Option<Setting<PathBuf>> {
        let flag = flags.store.as_deref().map(text_of);
        let store = self.one("store", "--store", flag, path);
        if store.is_some() {
            return store;
        }
        let default = |path: PathBuf| Some(Setting::new(path, Origin::Default));
        if host.root {
            return default(PathBuf::from("/var/lib/drystone"));
        }
        let absolute = |path: String| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
        if let Some(folder) = self.variable("XDG_DATA_HOME").and_then(absolute) {
            return default(folder.join("drystone"));
        }
        if let Some(home) = self.variable("HOME").and_then(absolute) {
            return default(home.join(".local/share/drystone"));
        }
        let problem = Diagnostic::nowhere("there is no place for the store: HOME is not set");
        self.problems.push(problem.with_help("set DRYSTONE_STORE, or give --store FOLDER"));
        None
    }

    fn caches(&mut self, flags: &Flags, image: Option<&Image>) -> Vec<Setting<CacheAddress>> {
        let mut own = None;
        for typed in self.typed("cache", "--cache", flags.cache.clone()) {
            let mut caches = Vec::new();
            for text in &typed.texts {
                match CacheAddress::new(text, true) {
                    Ok(cache) => caches.push(Setting::new(cache, typed.origin.clone())),
                    Err(error) => self.refuse(&typed, &error),
                }
            }
            own.get_or_insert(caches);
        }
        let mut caches = own.unwrap_or_default();
        let project = image.filter(|_| !flags.no_project_caches);
        for (image, cache) in project
            .into_iter()
            .flat_map(|image| image.cache_read.iter().map(move |cache| (image, cache)))
        {
            if caches.iter().all(|known| known.value.address != cache.address) {
                caches.push(Setting::new(cache.clone(), in_image(image, image.cache_place)));
            }
        }
        caches
    }

    fn trusted_keys(&mut self, flags: &Flags) -> Option<Setting<TrustedKeys>> {
        let flags = flags.trusted_keys.clone();
        self.keys("trusted-keys", "--trusted-key", flags).into_iter().next()
    }

    /// Revocations of all levels hold: none can be hidden by a stronger level.
    fn revoked_keys(&mut self) -> Vec<Setting<TrustedKeys>> {
        self.keys("revoked-keys", "--revoked-key", Vec::new())
    }

    /// The keys of each level, from the strongest to the weakest.
    fn keys(
        &mut self,
        key: &'static str,
        flag: &'static str,
        flags: Vec<String>,
    ) -> Vec<Setting<TrustedKeys>> {
        let mut levels = Vec::new();
        for typed in self.typed(key, flag, flags) {
            let mut keys = TrustedKeys::default();
            for text in &typed.texts {
                if let Err(error) = keys.add(text, &typed.base) {
                    self.refuse(&typed, &error);
                }
            }
            levels.push(Setting::new(keys, typed.origin));
        }
        levels
    }

    /// The variable of the reproducible-builds specification: whole seconds since 1970. Garbage is
    /// an error: ignoring it would date the image by something else than was asked.
    fn source_date_epoch(&mut self) -> Option<Setting<i64>> {
        const NAME: &str = "SOURCE_DATE_EPOCH";
        let text = self.variable(NAME)?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(seconds) if digits && seconds <= LATEST => {
                Some(Setting::new(seconds, Origin::Variable(NAME)))
            }
            _ => {
                let error = ValueError::new("time", &text, "it must be whole seconds since 1970");
                let problem = Diagnostic::nowhere(format!("{NAME}: {error}"));
                self.problems
                    .push(problem.with_help(format!("run `unset {NAME}`, or set a number")));
                None
            }
        }
    }
}
