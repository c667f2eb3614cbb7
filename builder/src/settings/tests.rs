//! Which level wins, and what is said about wrong values.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::document::{Diagnostics, SourceText, Style};
use crate::spec::Image;

const HOST: Host = Host { root: false, processors: 6 };
const KEY: &str = "builder-1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[derive(Default)]
struct World {
    flags: Flags,
    variables: BTreeMap<&'static str, &'static str>,
    user: Option<&'static str>,
    system: Option<&'static str>,
    image: Option<&'static str>,
}

impl World {
    fn resolve(&self) -> Result<Settings, Diagnostics> {
        let environment = |name: &str| match (self.variables.get(name), name) {
            (Some(value), _) => Some((*value).to_owned()),
            (None, "HOME") => Some("/home/me".to_owned()),
            (None, _) => None,
        };
        let files = ConfigFiles {
            user: self.user.map(|text| SourceText::new("/home/me/c/config.toml", text)),
            system: self.system.map(|text| SourceText::new("/etc/drystone/config.toml", text)),
        };
        let image = self.image.map(|text| Image::parse(Path::new("image.toml"), text).unwrap());
        Settings::resolve(&self.flags, &environment, &files, image.as_ref(), HOST)
    }
}

const IMAGE: &str = "name = \"a\"\n[debian]\nsuite = \"bookworm\"\npackages = [\"redis-tools\"]\nmirror = \"http://image.example.com/\"\n[image]\ncompression = \"zstd\"\n[cache]\nread = [\"registry.example.com/project\", \"registry.example.com/team\"]\n";

#[test]
fn each_level_hides_the_ones_below_it() {
    let mut world = World { image: Some(IMAGE), ..World::default() };
    let mirror = |world: &World| {
        let setting = world.resolve().unwrap().mirror.unwrap();
        (setting.value.host_str().unwrap().to_owned(), setting.origin.to_string())
    };
    let expect = |host: &str, origin: &str| (format!("{host}.example.com"), origin.to_owned());
    assert_eq!(mirror(&world), expect("image", "image.toml:2"));
    world.system = Some("mirror = \"http://system.example.com\"");
    assert_eq!(mirror(&world), expect("system", "/etc/drystone/config.toml:1"));
    world.user = Some("jobs = 2\nmirror = \"http://user.example.com\"");
    assert_eq!(mirror(&world), expect("user", "/home/me/c/config.toml:2"));
    world.variables.insert("DRYSTONE_MIRROR", "http://variable.example.com");
    assert_eq!(mirror(&world), expect("variable", "DRYSTONE_MIRROR"));
    world.flags.mirror = Some("http://flag.example.com".to_owned());
    assert_eq!(mirror(&world), expect("flag", "--mirror"));
}

#[test]
fn nothing_set_gives_the_defaults() {
    let settings = World::default().resolve().unwrap();
    assert_eq!(settings.store.value, Path::new("/home/me/.local/share/drystone"));
    assert_eq!((settings.jobs.value, settings.threshold.value), (6, 1));
    assert_eq!(settings.compression.value.as_str(), "gzip");
    assert!(settings.mirror.is_none() && settings.source_date_epoch.is_none());
    let variables = [("XDG_DATA_HOME", "/data"), ("DRYSTONE_MIRROR", "")].into();
    let settings = World { variables, ..World::default() }.resolve().unwrap();
    assert_eq!(settings.store.value, Path::new("/data/drystone"));
    assert!(settings.mirror.is_none(), "an empty variable is not set");
}

#[test]
fn the_store_of_root_is_the_systems_and_without_a_home_it_must_be_named() {
    let none = |_: &str| None;
    let host = Host { root: true, processors: 1 };
    let resolve =
        |host| Settings::resolve(&Flags::default(), &none, &ConfigFiles::default(), None, host);
    assert_eq!(resolve(host).unwrap().store.value, Path::new("/var/lib/drystone"));
    let problems = resolve(HOST).unwrap_err().to_string();
    assert!(problems.contains("DRYSTONE_STORE"), "{problems}");
}

#[test]
fn the_projects_caches_follow_the_users_own() {
    let mut world = World { image: Some(IMAGE), ..World::default() };
    world.variables.insert("DRYSTONE_CACHE", "registry.example.com/team http://127.0.0.1:5000/c");
    let caches = |world: &World| -> Vec<String> {
        let settings = world.resolve().unwrap();
        settings.caches.iter().map(|cache| cache.value.to_string()).collect()
    };
    let all =
        ["registry.example.com/team", "http://127.0.0.1:5000/c", "registry.example.com/project"];
    assert_eq!(caches(&world), all);
    world.flags.no_project_caches = true;
    assert_eq!(caches(&world), all[..2]);
    world.flags.cache = vec!["flag.example.com/c".to_owned()];
    assert_eq!(caches(&world), ["flag.example.com/c"]);
}

#[test]
fn keys_are_paths_or_themselves_and_never_shown() {
    let mut world = World {
        user: Some("signing-key = \"keys/me.key\"\ntrusted-keys = [\"team.pub\"]"),
        ..World::default()
    };
    let settings = world.resolve().unwrap();
    let file = SigningKey::File("/home/me/c/keys/me.key".into());
    assert_eq!(settings.signing_key.unwrap().value, file, "relative to the config file");
    assert_eq!(settings.trusted_keys.unwrap().value.files, [Path::new("/home/me/c/team.pub")]);
    world.variables.insert("DRYSTONE_SIGNING_KEY", KEY);
    world.variables.insert("DRYSTONE_TRUSTED_KEYS", KEY);
    let settings = world.resolve().unwrap();
    let key = settings.signing_key.unwrap().value;
    assert_eq!(key, SigningKey::Literal(KEY.to_owned()));
    assert!(!format!("{key:?}").contains("AAEC"), "{key:?}");
    assert_eq!(settings.trusted_keys.unwrap().value.lines, [KEY]);
}

#[test]
fn keys_may_have_conditions_and_revocations_of_all_levels_hold() {
    let line = format!("{KEY};not-after=2027-01-01");
    let flags = Flags { trusted_keys: vec![line.clone()], ..Flags::default() };
    let world = World {
        flags,
        user: Some("revoked-keys = [\"old.pub\"]"),
        system: Some("revoked-keys = [\"older.pub\"]\ntrusted-keys = [\"hidden.pub\"]"),
        variables: [("DRYSTONE_REVOKED_KEYS", KEY)].into(),
        ..World::default()
    };
    let settings = world.resolve().unwrap();
    assert_eq!(settings.trusted_keys.unwrap().value.lines, [line]);
    let revoked: Vec<_> = settings.revoked_keys.iter().map(|level| &level.value).collect();
    assert_eq!(revoked[0].lines, [KEY]);
    assert_eq!(revoked[1].files, [Path::new("/home/me/c/old.pub")]);
    assert_eq!(revoked[2].files, [Path::new("/etc/drystone/older.pub")]);
}

#[test]
fn a_secret_key_is_not_trusted_and_not_shown() {
    let secret = data_encoding::BASE64.encode(&[7; 64]);
    let flags = Flags { trusted_keys: vec![format!("me:{secret}")], ..Flags::default() };
    let problems = World { flags, ..World::default() }.resolve().unwrap_err();
    let problems = problems.render(Style::Plain);
    assert!(problems.contains("secret key") && !problems.contains(&secret[..8]), "{problems}");
}

#[test]
fn the_epoch_is_whole_seconds() {
    let epoch = |text| {
        let variables = [("SOURCE_DATE_EPOCH", text)].into();
        World { variables, ..World::default() }.resolve()
    };
    assert_eq!(epoch("0").unwrap().source_date_epoch.unwrap().value, 0);
    assert_eq!(epoch("1700000000").unwrap().source_date_epoch.unwrap().value, 1_700_000_000);
    assert!(epoch("").unwrap().source_date_epoch.is_none());
    for bad in
        ["-1", "+1", "1.5", "now", " 1", "1e9", "0x10", "999999999999999", "99999999999999999999"]
    {
        let problems = epoch(bad).unwrap_err().to_string();
        assert!(problems.contains("SOURCE_DATE_EPOCH"), "{bad}: {problems}");
    }
}

#[test]
fn every_wrong_value_of_every_level_is_told() {
    let variables = [
        ("DRYSTONE_JOBS", "0"),
        ("DRYSTONE_COMPRESSION", "xz"),
        ("DRYSTONE_CACHE", "cache"),
        ("SOURCE_DATE_EPOCH", "yesterday"),
    ];
    let world = World {
        flags: Flags { threshold: Some("none".to_owned()), ..Flags::default() },
        variables: variables.into(),
        user: Some("jobs = \"many\"\nmirorr = \"x\"\n"),
        system: Some("mirror = \"https://me:hunter2@example.com\"\nlog = 3\n"),
        ..World::default()
    };
    let problems = world.resolve().unwrap_err().render(Style::Plain);
    assert!(!problems.contains("hunter2"), "{problems}");
    insta::assert_snapshot!("wrong_settings", problems);
}

#[test]
fn the_config_file_is_found_where_xdg_puts_it() {
    let path = |pairs: &[(&str, &str)]| {
        let environment = |name: &str| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        ConfigFiles::user_path(&environment).map(|path| path.display().to_string())
    };
    let expected = |text: &str| Some(text.to_owned());
    assert_eq!(path(&[]), None);
    assert_eq!(path(&[("HOME", "/h")]), expected("/h/.config/drystone/config.toml"));
    let both = [("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")];
    assert_eq!(path(&both), expected("/x/drystone/config.toml"));
    let relative = [("HOME", "/h"), ("XDG_CONFIG_HOME", "x")];
    assert_eq!(path(&relative), expected("/h/.config/drystone/config.toml"));
    assert_eq!(path(&[("DRYSTONE_CONFIG", "c.toml")]), expected("c.toml"));
    let missing = |name: &str| (name == "DRYSTONE_CONFIG").then(|| "/no/such/file".to_owned());
    let problems = ConfigFiles::read(&missing).unwrap_err().to_string();
    assert!(problems.contains("/no/such/file"), "{problems}");
}

#[test]
fn every_key_has_a_variable_and_an_example() {
    for key in config::CONFIG.keys {
        let document: toml::Table = key.example.parse().unwrap();
        assert!(document.contains_key(key.name), "{}", key.example);
        let variable = format!("DRYSTONE_{}", key.name.to_uppercase().replace('-', "_"));
        assert!(resolve::VARIABLES.iter().any(|(name, it)| *name == key.name && *it == variable));
    }
}
