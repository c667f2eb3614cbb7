//! Keys as people and scripts handle them.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("drystone-keys-").tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drystone"));
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The answer of a command that must succeed.
    fn answer(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// What a command says that must fail with an exit code.
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", errors(&output));
        assert!(output.stdout.is_empty());
        errors(&output)
    }

    fn config(&self) -> String {
        fs::read_to_string(self.path(".config/drystone/config.toml")).unwrap()
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_key_is_made_once_and_its_public_line_printed_again() {
    let place = Place::new();
    let line = place.answer(&["key", "generate", "builder-1", "--output", "builder.key"]);
    assert!(line.starts_with("builder-1:"), "{line}");
    let mode = fs::metadata(place.path("builder.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(place.answer(&["key", "public", "builder.key"]), line);
    let secret = fs::read_to_string(place.path("builder.key")).unwrap();
    let again = place.refused(&["key", "generate", "other", "-o", "builder.key"], 2);
    assert!(again.contains("builder.key exists already"), "{again}");
    assert_eq!(fs::read_to_string(place.path("builder.key")).unwrap(), secret);
    let mut command = place.command(&["key", "public"]);
    let output = command.env("DRYSTONE_SIGNING_KEY", secret.trim()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), line, "the literal");
    let none = place.refused(&["key", "public"], 2);
    assert!(none.contains("DRYSTONE_SIGNING_KEY"), "{none}");
}

#[test]
fn mistakes_show_no_secret() {
    let place = Place::new();
    place.answer(&["key", "generate", "me", "-o", "me.key"]);
    let secret = fs::read_to_string(place.path("me.key")).unwrap();
    let encoded = secret.trim().split_once(':').unwrap().1;
    let said = place.refused(&["key", "trust", secret.trim()], 2);
    assert!(said.contains("secret key") && !said.contains(&encoded[..12]), "{said}");
    fs::write(place.path("cut.key"), &secret[..secret.len() - 9]).unwrap();
    let said = place.refused(&["key", "public", "cut.key"], 2);
    assert!(said.contains("cut.key") && !said.contains(&encoded[..12]), "{said}");
    place.refused(&["key", "generate", "no spaces", "-o", "x"], 2);
    place.refused(&["key", "public", "missing"], 2);
}

#[test]
fn trust_is_given_and_taken_in_the_users_configuration() {
    let place = Place::new();
    let one = place.answer(&["key", "generate", "one", "-o", "one.key"]);
    let two = place.answer(&["key", "generate", "two", "-o", "two.key"]);
    assert_eq!(place.answer(&["key", "list"]), "");
    place.answer(&["key", "trust", &one]);
    place.answer(&["key", "trust", &format!("{two};not-after=2001-01-01")]);
    let before = place.config();
    place.answer(&["key", "trust", &one]);
    assert_eq!(place.config(), before, "trusting twice changes nothing");
    let list = place.answer(&["key", "list"]);
    assert!(list.contains(&format!(" valid {one}")), "{list}");
    assert!(list.contains(&format!(" expired {two}")), "{list}");
    place.answer(&["key", "trust", &two]);
    assert!(place.answer(&["key", "list"]).contains(&format!(" valid {two}")));
    place.answer(&["key", "revoke", "two"]);
    assert!(place.answer(&["key", "list"]).contains(&format!(" revoked {two}")));
    let said = place.refused(&["key", "trust", &two], 2);
    assert!(said.contains("revoked"), "{said}");
    place.refused(&["key", "revoke", "nobody"], 2);
    // Neither a variable nor an image.toml brings a revoked key back.
    let mut command = place.command(&["key", "list", "--json"]);
    let output = command.env("DRYSTONE_TRUSTED_KEYS", &two).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["keys"][0]["standing"], "revoked");
    assert_eq!(answer["threshold"], 1);
}

#[test]
fn a_threshold_that_cannot_be_reached_is_told() {
    let place = Place::new();
    let one = place.answer(&["key", "generate", "one", "-o", "one.key"]);
    fs::write(place.path("config.toml"), format!("threshold = 2\ntrusted-keys = [\"{one}\"]\n"))
        .unwrap();
    let mut command = place.command(&["key", "list"]);
    let output = command.env("DRYSTONE_CONFIG", "config.toml").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = errors(&output);
    assert!(said.contains("2 keys must agree") && said.contains("config.toml:1"), "{said}");
}
