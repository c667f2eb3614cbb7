//! `key`: signing keys, and whom the user believes.

use std::path::Path;
use std::sync::Arc;

use drystone_builder::document::SourceText;
use drystone_builder::settings::{ConfigFiles, Flags, Settings};
use drystone_cache::cosign::public_key_pem;
use drystone_cache::key::{PublicKey, SecretKey};
use drystone_cache::trust::{Standing, TrustedKey};
use serde::Serialize;
use toml_edit::{Array, DocumentMut, Item, Value};

use super::edit::{push, replace};
use crate::answer;
use crate::arguments::{
    KeyCommand, KeyGenerateArguments, KeyListArguments, KeyPublicArguments, KeyRevokeArguments,
    KeyTrustArguments,
};
use crate::diagnostics::Failure;
use crate::wiring::{Wiring, environment, host, now, signing_key, trust};

/// Runs a command about keys.
pub fn run(wiring: &Wiring, command: &KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Generate(arguments) => generate(arguments),
        KeyCommand::Public(arguments) => public(wiring, arguments),
        KeyCommand::Trust(arguments) => add(wiring, arguments),
        KeyCommand::Revoke(arguments) => revoke(wiring, arguments),
        KeyCommand::List(arguments) => list(wiring, arguments),
    }
}

fn generate(arguments: &KeyGenerateArguments) -> Result<(), Failure> {
    let key = SecretKey::generate(&arguments.name).map_err(Failure::of)?;
    key.write_new(&arguments.output).map_err(Failure::of)?;
    answer::line(&key.public().to_string())
}

fn public(wiring: &Wiring, arguments: &KeyPublicArguments) -> Result<(), Failure> {
    let key = match &arguments.file {
        Some(file) => SecretKey::read(file).map_err(Failure::of)?,
        None => {
            let settings = wiring.settings(&wiring.flags(), None)?;
            signing_key(&settings)?.ok_or_else(|| {
                Failure::usage("there is no signing key")
                    .hint("name its file, or set DRYSTONE_SIGNING_KEY or `signing-key`")
            })?
        }
    };
    match arguments.pem {
        true => answer::print(&public_key_pem(&key.public())),
        false => answer::line(&key.public().to_string()),
    }
}

fn add(wiring: &Wiring, arguments: &KeyTrustArguments) -> Result<(), Failure> {
    let key: TrustedKey = arguments.line.parse().map_err(Failure::of)?;
    let settings = wiring.settings(&wiring.flags(), None)?;
    let is_revoked = trust(&settings)?.keys().iter().any(|it| it.key == key.key && it.revoked);
    if is_revoked && !key.revoked {
        return Err(Failure::usage(format!("the key {} is revoked", key.key.name()))
            .hint("trust a new key of that builder; a revocation is taken back only by hand"));
    }
    let hidden = settings.trusted_keys.filter(|keys| !is_of_user(&keys.origin.to_string()));
    let path = user_config()?;
    let has_changed = edit(&path, "trusted-keys", |keys| {
        let same = keys.iter().position(|item| names(item, &key.key));
        match same {
            Some(at) if keys.get(at).and_then(Value::as_str) == Some(&arguments.line) => {}
            Some(at) => {
                keys.replace(at, arguments.line.as_str());
            }
            None => push(keys, arguments.line.as_str().into()),
        }
    })?;
    match (has_changed, hidden) {
        (false, _) => wiring.display.note("nothing to do"),
        (true, None) => wiring.display.note(format!("{} has it now", path.display())),
        (true, Some(hidden)) => wiring.display.note(format!(
            "{} has it now; the trusted keys of {} are not joined to it: trust those that you \
             want there too",
            path.display(),
            hidden.origin,
        )),
    }
    Ok(())
}

/// Whether an origin is the user's config.toml, as `FILE:LINE`.
fn is_of_user(origin: &str) -> bool {
    let path = ConfigFiles::user_path(&environment);
    path.is_some_and(|path| origin.starts_with(&format!("{}:", path.display())))
}

fn revoke(wiring: &Wiring, arguments: &KeyRevokeArguments) -> Result<(), Failure> {
    let settings = wiring.settings(&wiring.flags(), None)?;
    let text = arguments.key.as_str();
    let keys = match text.parse::<TrustedKey>() {
        Ok(key) => vec![key.key],
        Err(error) if text.contains(':') => return Err(Failure::of(error)),
        Err(_) => {
            let trust = trust(&settings)?;
            let known = trust.keys().iter().map(|trusted| &trusted.key);
            let is_meant = |key: &&PublicKey| key.name() == text || key.id().to_string() == text;
            known.filter(is_meant).cloned().collect()
        }
    };
    let key = match keys.as_slice() {
        [key] => key,
        [] => {
            return Err(Failure::usage(format!("no trusted key is called {text}"))
                .hint("`drystone key list` shows them; a whole line NAME:BASE64 is taken too"));
        }
        _ => {
            return Err(Failure::usage(format!("several trusted keys are called {text}"))
                .hint("name one by its id, as `drystone key list` shows it"));
        }
    };
    let path = user_config()?;
    let has_changed = edit(&path, "revoked-keys", |keys| {
        if !keys.iter().any(|item| names(item, key)) {
            push(keys, key.to_string().into());
        }
    })?;
    wiring.display.note(match has_changed {
        true => format!("{} revokes it now", path.display()),
        false => "nothing to do".to_owned(),
    });
    Ok(())
}

/// A key as `key list` tells it.
#[derive(Serialize)]
struct Listed {
    name: String,
    id: String,
    key: String,
    standing: &'static str,
    not_before: Option<i64>,
    not_after: Option<i64>,
}

fn list(wiring: &Wiring, arguments: &KeyListArguments) -> Result<(), Failure> {
    let settings = wiring.settings(&wiring.flags(), None)?;
    let trust = trust(&settings)?;
    let now = now();
    let keys = trust.keys().iter().map(|trusted| Listed {
        name: trusted.key.name().to_owned(),
        id: trusted.key.id().to_string(),
        key: trusted.key.to_string(),
        standing: match trusted.standing(now) {
            Standing::Valid => "valid",
            Standing::NotYetValid => "not-yet-valid",
            Standing::Expired => "expired",
            Standing::Revoked => "revoked",
        },
        not_before: trusted.not_before,
        not_after: trusted.not_after,
    });
    let keys: Vec<Listed> = keys.collect();
    if arguments.json {
        let answer = serde_json::json!({ "threshold": trust.threshold(), "keys": keys });
        return answer::json(&answer);
    }
    let lines = keys.iter().map(|key| format!("{} {} {}\n", key.id, key.standing, key.key));
    answer::print(&lines.collect::<String>())
}

fn user_config() -> Result<std::path::PathBuf, Failure> {
    ConfigFiles::user_path(&environment).ok_or_else(|| {
        Failure::usage("there is no place for config.toml: HOME is not set")
            .hint("set DRYSTONE_CONFIG to a file")
    })
}

/// Whether an item of a list is this key, whatever its name and conditions.
fn names(item: &Value, key: &PublicKey) -> bool {
    let text = item.as_str().and_then(|text| text.split(';').next()).unwrap_or_default();
    text.trim().parse::<PublicKey>().is_ok_and(|it| it == *key)
}

/// Lets `change` work on a list of config.toml, checks the whole file, and replaces it; whether it
/// changed. Comments and layout stay; a file that does not exist is made.
fn edit(path: &Path, list: &str, change: impl FnOnce(&mut Array)) -> Result<bool, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::path("read", path, error)),
    };
    let mut document: DocumentMut =
        text.as_deref().unwrap_or_default().parse().map_err(Failure::of)?;
    let keys = document.entry(list).or_insert_with(|| Item::Value(Array::new().into()));
    let keys = keys
        .as_array_mut()
        .ok_or_else(|| Failure::usage(format!("`{list}` of {} is no list", path.display())))?;
    change(keys);
    let edited = document.to_string();
    if Some(&edited) == text.as_ref() {
        return Ok(false);
    }
    check(path, &edited)?;
    match text {
        Some(_) => replace(path, &edited)?,
        None => create(path, &edited)?,
    }
    Ok(true)
}

/// Refuses a config.toml that would not be read afterwards.
fn check(path: &Path, text: &str) -> Result<(), Failure> {
    let user: Arc<SourceText> = SourceText::new(path.display().to_string(), text);
    let files = ConfigFiles { user: Some(user), system: None };
    Settings::resolve(&Flags::default(), &environment, &files, None, host())?;
    Ok(())
}

/// Writes a new file whole, and its folder if need be.
fn create(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| Failure::path("write", path, error);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    // Made empty first, so that the one way of replacing a file is the only one; an empty
    // config.toml is a good one.
    std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    replace(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> PublicKey {
        SecretKey::from_seed("team", &[seed; 32]).unwrap().public()
    }

    #[test]
    fn editing_keeps_comments_and_makes_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/config.toml");
        let add =
            |seed| edit(&path, "trusted-keys", |keys| push(keys, key(seed).to_string().into()));
        assert!(add(1).unwrap());
        let text = format!("trusted-keys = [\"{}\"]\n", key(1));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let commented =
            format!("# mine\njobs = 2 # few\ntrusted-keys = [\n  # theirs\n  \"{}\",\n]\n", key(1));
        std::fs::write(&path, &commented).unwrap();
        assert!(add(2).unwrap());
        let expected = commented.replace("\n]\n", &format!("\n  \"{}\",\n]\n", key(2)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        assert!(!edit(&path, "trusted-keys", |_| {}).unwrap());
    }

    #[test]
    fn a_config_that_is_wrong_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        for wrong in ["jobs = 'many'\n", "trusted-keys = 'x'\n", "a = \n"] {
            std::fs::write(&path, wrong).unwrap();
            assert!(
                edit(&path, "trusted-keys", |keys| push(keys, key(1).to_string().into())).is_err()
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), wrong);
        }
    }

    #[test]
    fn keys_are_found_whatever_their_name_and_conditions() {
        let line = format!("{};not-after=2027-01-01", key(1)).replace("team", "other");
        assert!(names(&line.into(), &key(1)));
        assert!(!names(&key(2).to_string().into(), &key(1)));
        assert!(!names(&"team.pub".into(), &key(1)));
    }
}
