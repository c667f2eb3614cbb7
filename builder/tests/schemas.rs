//! The documents of an image against the OCI image specification's own JSON schemas, and against
//! what the specification says beyond them.
//!
//! The schemas are read from Debian's package `golang-github-opencontainers-image-spec-dev`, or from the directory
//! in `DRYSTONE_OCI_SCHEMAS`; without them that test says so and passes. The schemas allow unknown
//! fields, so the second test, which always runs, also compares the names of all fields.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and its helpers are no `#[test]` functions"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use drystone_builder::image::{self, Healthcheck, Image, ImageConfig, ImageSet, UserIds};
use drystone_builder::output::{Output, write_layout};
use serde_json::{Value, json};

#[path = "../src/output/testing.rs"]
mod testing;

use testing::{Blobs, image_set, noise};

/// An image that uses every field.
fn full_set(blobs: &Blobs) -> ImageSet {
    let mut config = ImageConfig::new("linux/arm/v7".parse().unwrap(), 1_686_384_000);
    config.user = Some(UserIds { uid: 1, gid: 2 });
    config.exposed_ports = ["80".parse().unwrap(), "53/udp".parse().unwrap()].into();
    config.env = [("A".to_owned(), "b".to_owned())].into();
    config.entrypoint = Some(vec!["/hello".into()]);
    config.command = Some(vec!["x".into()]);
    config.volumes = ["/data".to_owned()].into();
    config.working_directory = Some("/".into());
    config.labels = [("a".to_owned(), "b".to_owned())].into();
    config.stop_signal = Some("SIGTERM".into());
    config.healthcheck = Some(Healthcheck {
        test: vec!["NONE".into()],
        interval: 1,
        timeout: 2,
        start_period: 3,
        start_interval: 4,
        retries: 5,
    });
    let annotations = [("org.opencontainers.image.title".to_owned(), "x".to_owned())].into();
    let layers = vec![blobs.layer("a", b"a"), blobs.layer("b", &noise(1000))];
    let full = Image::assemble(&config, &annotations, layers).unwrap();
    let plain = image_set(&["linux/amd64"], &[blobs.layer("a", b"a")]).images()[0].clone();
    ImageSet::new(vec![full, plain]).unwrap()
}

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// The documents of the set and of a layout that holds it, with the schema of each.
fn documents() -> Vec<(&'static str, Value)> {
    let blobs = Blobs::new();
    let set = full_set(&blobs);
    let directory = tempfile::tempdir().unwrap();
    let name = "example.com/team/hello:1".parse().unwrap();
    let blob_path = |digest: &_| blobs.path(digest);
    write_layout(&Output { set: &set, name: &name, blob_path: &blob_path }, directory.path())
        .unwrap();
    let read = |name: &str| parse(&fs::read(directory.path().join(name)).unwrap());
    let mut documents = vec![
        ("image-layout-schema.json", read("oci-layout")),
        ("image-index-schema.json", read("index.json")),
        ("image-index-schema.json", parse(&set.index().unwrap().bytes)),
    ];
    for image in set.images() {
        documents.push(("config-schema.json", parse(&image.config.bytes)));
        documents.push(("image-manifest-schema.json", parse(&image.manifest.bytes)));
    }
    documents
}

#[test]
fn documents_match_the_specifications_schemas() {
    let installed = "/usr/share/gocode/src/github.com/opencontainers/image-spec/schema";
    let directory =
        std::env::var_os("DRYSTONE_OCI_SCHEMAS").map_or_else(|| installed.into(), PathBuf::from);
    if !directory.is_dir() {
        eprintln!("skipped: the OCI schemas are not installed ({installed})");
        return;
    }
    for (schema, document) in documents() {
        check(&directory, schema, &document)
            .unwrap_or_else(|error| panic!("{schema}: {error}\n{document:#}"));
    }
    let wrong = json!({"schemaVersion": 2, "config": {}, "layers": []});
    assert!(
        check(&directory, "image-manifest-schema.json", &wrong).is_err(),
        "the validator validates"
    );
}

fn check(directory: &Path, file: &str, value: &Value) -> Result<(), String> {
    let text = fs::read(directory.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let schema = parse(&text);
    Validator { directory, file, root: &schema }.check(&schema, value, "")
}

/// As much of JSON Schema (draft 4) as the specification uses; other keywords are an error.
struct Validator<'a> {
    directory: &'a Path,
    file: &'a str,
    root: &'a Value,
}

impl Validator<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let rules = schema.as_object().ok_or("a schema is no object")?;
        if let Some(reference) = rules.get("$ref") {
            return self.follow(reference.as_str().unwrap(), value, at);
        }
        for (keyword, rule) in rules {
            let holds = match keyword.as_str() {
                "description" | "$schema" | "id" | "definitions" | "format" => true,
                "type" => has_type(rule.as_str().unwrap(), value),
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_f64() >= rule.as_f64(),
                "maximum" => value.as_f64() <= rule.as_f64(),
                "minItems" => {
                    value.as_array().is_none_or(|list| list.len() as u64 >= rule.as_u64().unwrap())
                }
                "pattern" => {
                    value.as_str().is_some_and(|text| matches(rule.as_str().unwrap(), text))
                }
                "required" => rule
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|key| value.get(key.as_str().unwrap()).is_some()),
                "oneOf" => {
                    let fits = |option: &&Value| self.check(option, value, at).is_ok();
                    rule.as_array().unwrap().iter().filter(fits).count() == 1
                }
                "items" => {
                    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{at}/{number}"))?;
                    }
                    true
                }
                "properties" => {
                    for (key, rule) in rule.as_object().unwrap() {
                        if let Some(found) = value.get(key) {
                            self.check(rule, found, &format!("{at}/{key}"))?;
                        }
                    }
                    true
                }
                "patternProperties" => {
                    let rule = rule.get(".{1,}").expect("the only pattern for keys is any");
                    for (key, found) in value.as_object().into_iter().flatten() {
                        self.check(rule, found, &format!("{at}/{key}"))?;
                    }
                    true
                }
                other => panic!("the validator does not know {other:?}"),
            };
            if !holds {
                return Err(format!("{at}: {value} breaks {keyword} {rule}"));
            }
        }
        Ok(())
    }

    fn follow(&self, reference: &str, value: &Value, at: &str) -> Result<(), String> {
        let (file, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        if file.is_empty() {
            return self.check(self.root.pointer(pointer).unwrap(), value, at);
        }
        let root = parse(&fs::read(self.directory.join(file)).unwrap());
        let validator = Validator { directory: self.directory, file, root: &root };
        let rule =
            root.pointer(pointer).unwrap_or_else(|| panic!("{} has no {reference}", self.file));
        validator.check(rule, value, at)
    }
}

fn has_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the validator does not know the type {other:?}"),
    }
}

/// The specification's two patterns, told apart by what they must hold.
fn matches(pattern: &str, text: &str) -> bool {
    if pattern.contains('/') {
        let is_name = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c))
        };
        text.split_once('/').is_some_and(|(first, second)| is_name(first) && is_name(second))
    } else if pattern.contains(':') {
        text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64)
    } else {
        panic!("the validator does not know the pattern {pattern:?}")
    }
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn documents_have_the_specifications_fields_and_no_others() {
    for (schema, document) in documents() {
        match schema {
            "image-layout-schema.json" => {
                assert_eq!(document, json!({"imageLayoutVersion": "1.0.0"}))
            }
            "config-schema.json" => check_config(&document),
            _ => check_manifest(&document),
        }
    }
}

fn check_config(config: &Value) {
    let known = ["created", "architecture", "os", "variant", "config", "rootfs", "history"].into();
    assert!(keys(config).is_subset(&known), "{config}");
    // `Healthcheck` is docker's; see image-spec config.md and docker's image/spec.
    let known = [
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "Healthcheck",
    ];
    assert!(keys(&config["config"]).is_subset(&known.into()), "{config}");
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!(
        diff_ids.len(),
        config["history"].as_array().unwrap().len(),
        "some engines compare them"
    );
    for entry in config["history"].as_array().unwrap() {
        assert_eq!(keys(entry), ["created", "created_by", "comment"].into());
    }
}

fn check_manifest(document: &Value) {
    assert_eq!(document["schemaVersion"], 2);
    let known =
        ["schemaVersion", "mediaType", "config", "layers", "manifests", "annotations"].into();
    assert!(keys(document).is_subset(&known), "{document}");
    let lists =
        ["layers", "manifests"].iter().filter_map(|list| document[*list].as_array()).flatten();
    for descriptor in lists.chain(document.get("config")) {
        let known = ["mediaType", "digest", "size", "annotations", "platform"].into();
        assert!(keys(descriptor).is_subset(&known), "{descriptor}");
        let media_type = descriptor["mediaType"].as_str().unwrap();
        assert!(media_type.starts_with("application/vnd.oci.image."), "{media_type}");
    }
}

#[test]
fn documents_do_not_depend_on_the_process() {
    // Maps with random order differ from process to process; two fresh threads stand for two of them.
    let make = || std::thread::spawn(|| full_set(&Blobs::new()).digest()).join().unwrap();
    assert_eq!(make(), make());
}
