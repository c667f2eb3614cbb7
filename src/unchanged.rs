//! "Nothing changed", told by `stat` alone: the way of a build that has nothing to do.
//!
//! After a build its *question* (which image.toml, which flags that shape the result) is remembered
//! in the store with a fingerprint of everything that was read and written, and its answer. The
//! next build that asks the same looks at the fingerprint first, before any thread, network or
//! library is started. The cost depends on the number of local files and on nothing else.
//!
//! What counts as unchanged is [`Fingerprint::unchanged`]'s rule, the racily-clean one of git's
//! index included. The program itself is part of the fingerprint: another version may build another
//! image. The store is not: the answer names a file that is there.

use std::path::{Path, PathBuf};

use drystone_builder::settings::ConfigFiles;
use drystone_source::files::Fingerprint;
use drystone_store::store::Store;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wiring::environment;

/// The kind of the store's facts that hold records.
const KIND: &str = "unchanged-build";
/// The settings of all users.
const SYSTEM_CONFIG: &str = "/etc/drystone/config.toml";
/// The version of records; others are ignored.
const FORMAT: u32 = 1;

/// All that decides a build's result beside the content of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Question {
    /// The image.toml, absolute.
    pub image: PathBuf,
    /// The working folder, which the stamps' paths start from.
    pub folder: PathBuf,
    /// Where the tarball goes, absolute, if that was typed.
    pub output: Option<PathBuf>,
    /// The name as typed.
    pub tag: Option<String>,
    /// The platforms as typed.
    pub platforms: Vec<String>,
    /// The compression as typed.
    pub compression: Option<String>,
    /// Variables that shape the result.
    pub variables: Vec<(&'static str, Option<String>)>,
    /// The version of this program.
    pub version: &'static str,
}

/// What was said when the build was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// `NAME:TAG@sha256:…`.
    pub reference: String,
    /// The object of `--json`.
    pub report: Value,
    /// Warnings, which hold as long as the image does.
    pub warnings: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    fingerprints: Vec<Fingerprint>,
    answer: Answer,
}

impl Question {
    /// The variables that shape an image.
    pub fn variables() -> Vec<(&'static str, Option<String>)> {
        let names = ["SOURCE_DATE_EPOCH", "DRYSTONE_COMPRESSION", "DRYSTONE_CONFIG"];
        names.into_iter().map(|name| (name, environment(name))).collect()
    }

    fn key(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| self.image.display().to_string())
    }

    /// The remembered answer, if nothing changed since. Any doubt means no; then `keep` gets the
    /// store, which has been opened.
    pub fn answer(&self, store: &Path, keep: impl FnOnce(Store)) -> Option<Answer> {
        if !store.join("db.sqlite").exists() {
            return None;
        }
        let store = Store::open(store).ok()?;
        let answer = self.remembered(&store);
        if answer.is_none() {
            keep(store);
        }
        answer
    }

    fn remembered(&self, store: &Store) -> Option<Answer> {
        let record: Record = serde_json::from_str(&store.fact(KIND, &self.key()).ok()??).ok()?;
        let good =
            record.format == FORMAT && record.fingerprints.iter().all(Fingerprint::unchanged);
        good.then_some(record.answer)
    }

    /// Remembers an answer. `written` is what this build wrote. A record that cannot be kept costs
    /// time at the next build, and nothing else.
    pub fn remember(&self, store: &Store, inputs: Inputs, written: &[PathBuf], answer: Answer) {
        let Some(mut fingerprints) = inputs.into_fingerprints() else { return };
        let Some(outputs) = stamped(written) else { return };
        fingerprints.push(outputs);
        let record = Record { format: FORMAT, fingerprints, answer };
        let result = match serde_json::to_string(&record) {
            Ok(text) => store.put_fact(KIND, &self.key(), &text).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = result {
            tracing::debug!(error, "the build is not remembered");
        }
    }
}

/// Stamps of what a build reads, each taken before it is read.
#[derive(Debug, Default)]
pub struct Inputs {
    fingerprint: Fingerprint,
    others: Vec<Fingerprint>,
    incomplete: bool,
}

impl Inputs {
    /// The program itself and the settings' files.
    pub fn surroundings() -> Self {
        let mut inputs = Self::default();
        let config = [ConfigFiles::user_path(&environment), Some(SYSTEM_CONFIG.into())];
        config.iter().flatten().for_each(|path| inputs.stamp(path));
        match std::env::current_exe() {
            Ok(program) => inputs.stamp(&program),
            Err(_) => inputs.incomplete = true,
        }
        inputs
    }

    /// Stamps one more path. What cannot be asked is not remembered.
    pub fn stamp(&mut self, path: &Path) {
        if let Err(error) = self.fingerprint.record(path) {
            tracing::debug!(path = %path.display(), %error, "not stamped");
            self.incomplete = true;
        }
    }

    /// Adds stamps that others have taken.
    pub fn extend(&mut self, fingerprint: Fingerprint) {
        self.others.push(fingerprint);
    }

    fn into_fingerprints(mut self) -> Option<Vec<Fingerprint>> {
        self.others.push(self.fingerprint);
        (!self.incomplete).then_some(self.others)
    }
}

/// Stamps what was written.
fn stamped(written: &[PathBuf]) -> Option<Fingerprint> {
    let mut fingerprint = Fingerprint::default();
    for path in written {
        // Something else than a file (a pipe, a terminal) is written anew each time.
        if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            return None;
        }
        fingerprint.record_written(path).ok()?;
    }
    Some(fingerprint)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn question(image: &Path) -> Question {
        Question {
            image: image.to_owned(),
            folder: PathBuf::from("/"),
            output: None,
            tag: None,
            platforms: Vec::new(),
            compression: None,
            variables: Vec::new(),
            version: "0",
        }
    }

    #[test]
    fn an_answer_holds_until_an_input_or_the_output_changes() {
        let directory = tempfile::tempdir().unwrap();
        let (image, output) = (directory.path().join("image.toml"), directory.path().join("x.tar"));
        fs::write(&image, "name = \"x\"").unwrap();
        fs::write(&output, "tar").unwrap();
        // Inputs are not racily clean, as somebody's are who typed a command.
        std::thread::sleep(std::time::Duration::from_millis(25));
        let root = directory.path().join("store");
        let question = question(&image);
        assert_eq!(question.answer(&root, drop), None);
        assert!(!root.exists(), "asking makes no store");
        let store = Store::open(&root).unwrap();
        let answer = Answer {
            reference: "x:latest@sha256:00".into(),
            report: json!({ "version": 1 }),
            warnings: vec!["w".into()],
        };
        let remember = || {
            let mut inputs = Inputs::default();
            inputs.stamp(&image);
            question.remember(&store, inputs, std::slice::from_ref(&output), answer.clone());
        };
        remember();
        assert_eq!(question.answer(&root, drop), Some(answer.clone()));
        let other = Question { tag: Some("y".into()), ..question.clone() };
        assert_eq!(other.answer(&root, drop), None);
        fs::write(&output, "tor").unwrap();
        assert_eq!(question.answer(&root, drop), None);
        remember();
        assert!(question.answer(&root, drop).is_some());
        fs::write(&image, "name = \"y\"").unwrap();
        assert_eq!(question.answer(&root, drop), None);
    }

    #[test]
    fn what_is_no_file_is_never_remembered() {
        let directory = tempfile::tempdir().unwrap();
        assert!(stamped(&["/dev/null".into()]).is_none());
        assert!(stamped(&[directory.path().to_owned()]).is_none());
        assert!(stamped(&[]).is_some());
    }
}
