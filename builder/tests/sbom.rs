//! Bills of materials: the same bill gives the same bytes, each fact is where its format has it, and
//! the documents are what the formats' own schema and validator take.
//!
//! The schemas of CycloneDX stand in `tests/data/cyclonedx`. SPDX documents are checked by
//! `pyspdxtools`, SPDX's own program, where it is installed; without it that test says so and passes.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and its helpers are no `#[test]` functions"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use drystone_builder::sbom::licence::Licence;
use drystone_builder::sbom::source::Source;
use drystone_builder::sbom::{Bill, File, Package, cyclonedx, spdx};
use drystone_store::digest::BlobDigest;
use serde_json::{Value, json};

/// Two packages, one of which needs the other, two files, and two sources of a recipe.
fn bill() -> Bill {
    let package = |name: &str, licence: &str, needs: &[&str]| Package {
        name: name.to_owned(),
        version: "1:2.0-1+b1".to_owned(),
        architecture: "amd64".to_owned(),
        source: "source".to_owned(),
        source_version: "2.0-1".to_owned(),
        vendor: "debian".to_owned(),
        distribution: Some("bookworm".to_owned()),
        sha256: BlobDigest::of(name.as_bytes()),
        maintainer: Some("Some Team <team@example.org>".to_owned()),
        homepage: Some("https://example.org/".to_owned()),
        summary: Some("does things".to_owned()),
        licence: Licence::from_copyright(licence),
        needs: needs.iter().map(|name| (*name).to_owned()).collect(),
    };
    let own = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
               Files: *\nCopyright: x\nLicense: own\n Do what you like.\n";
    let file = |path: &str, url: Option<&str>| File {
        path: path.to_owned(),
        sha256: BlobDigest::of(path.as_bytes()),
        url: url.map(str::to_owned),
    };
    let source = |name: &str, purl: Option<&str>, licence: Option<&str>| Source {
        recipe: "app".to_owned(),
        name: name.to_owned(),
        version: purl.map(|_| "1.2.0".to_owned()),
        purl: purl.map(str::to_owned),
        url: Some(format!("https://example.org/{name}")),
        sha256: Some(BlobDigest::of(name.as_bytes())),
        licence: licence.map(str::to_owned),
    };
    Bill {
        name: "hello".to_owned(),
        tag: "latest".to_owned(),
        platform: "linux/amd64".to_owned(),
        manifest: Some(BlobDigest::of(b"manifest")),
        created: 1_700_000_000,
        packages: vec![package("app", "prose", &["libc++1"]), package("libc++1", own, &[])],
        files: vec![file("/a b", None), file("/x", Some("https://example.org/x"))],
        sources: vec![
            source("@scope/left-pad", Some("pkg:npm/%40scope/left-pad@1.2.0"), Some("MIT OR ISC")),
            source("source.tar.gz", None, None),
        ],
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn documents_depend_on_the_bill_alone() {
    for document in [spdx::document, cyclonedx::document] {
        assert_eq!(document(&bill()), document(&bill()));
        let mut other = bill();
        other.manifest = Some(BlobDigest::of(b"other"));
        let (one, other) = (parse(&document(&bill())), parse(&document(&other)));
        for name in ["documentNamespace", "serialNumber"] {
            assert!(one[name].is_null() || one[name] != other[name], "{name}");
        }
    }
}

#[test]
fn spdx_has_every_fact() {
    let document = parse(&spdx::document(&bill()));
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
    assert_eq!(document["creationInfo"]["created"], "2023-11-14T22:13:20Z");
    let packages = document["packages"].as_array().unwrap();
    assert_eq!(packages.len(), 7);
    let source = packages.iter().find(|it| it["name"] == "@scope/left-pad").unwrap();
    assert_eq!(source["primaryPackagePurpose"], "SOURCE");
    assert_eq!(source["licenseDeclared"], "MIT OR ISC");
    assert_eq!(source["externalRefs"][0]["referenceLocator"], "pkg:npm/%40scope/left-pad@1.2.0");
    let library = packages.iter().find(|it| it["name"] == "libc++1").unwrap();
    assert_eq!(library["SPDXID"], "SPDXRef-Package-libc-2b--2b-1-amd64");
    assert_eq!(library["licenseDeclared"], "LicenseRef-Debian-own");
    assert_eq!(library["supplier"], "Organization: Some Team (team@example.org)");
    assert_eq!(
        library["externalRefs"][0]["referenceLocator"],
        "pkg:deb/debian/libc%2B%2B1@1:2.0-1%2Bb1?arch=amd64&distro=bookworm"
    );
    let app = packages.iter().find(|it| it["name"] == "app").unwrap();
    assert_eq!(app["licenseDeclared"], "NOASSERTION");
    let info = &document["hasExtractedLicensingInfos"][0];
    assert_eq!(info["extractedText"], "Do what you like.");
    let relations = document["relationships"].as_array().unwrap();
    let depends: Vec<_> =
        relations.iter().filter(|it| it["relationshipType"] == "DEPENDS_ON").collect();
    assert_eq!(depends.len(), 1);
    assert_eq!(depends[0]["relatedSpdxElement"], library["SPDXID"]);
    // Every element that is named exists, once.
    let mut ids: Vec<&str> = packages.iter().map(|it| it["SPDXID"].as_str().unwrap()).collect();
    ids.push("SPDXRef-DOCUMENT");
    let all: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(all.len(), ids.len());
    for relation in relations {
        for end in ["spdxElementId", "relatedSpdxElement"] {
            assert!(all.contains(relation[end].as_str().unwrap()), "{relation}");
        }
    }
    for id in ids {
        let legal = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
        assert!(id.chars().all(legal), "{id}");
    }
}

#[test]
fn cyclonedx_has_every_fact() {
    let document = parse(&cyclonedx::document(&bill()));
    assert_eq!(document["specVersion"], "1.5");
    assert_eq!(document["metadata"]["component"]["name"], "hello");
    let components = document["components"].as_array().unwrap();
    assert_eq!(components.len(), 6);
    assert_eq!(components[4]["purl"], "pkg:npm/%40scope/left-pad@1.2.0");
    assert_eq!(components[5]["externalReferences"][0]["type"], "distribution");
    assert_eq!(components[1]["licenses"][0]["expression"], "LicenseRef-Debian-own");
    assert_eq!(components[3]["externalReferences"][0]["url"], "https://example.org/x");
    let dependencies = document["dependencies"].as_array().unwrap();
    assert_eq!(dependencies[0]["dependsOn"].as_array().unwrap().len(), 6);
    assert_eq!(dependencies[1]["dependsOn"][0], components[1]["bom-ref"]);
}

fn schema(file: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cyclonedx");
    parse(&std::fs::read_to_string(folder.join(file)).unwrap())
}

#[test]
fn cyclonedx_matches_its_schema() {
    let root = schema("bom-1.5.SNAPSHOT.schema.json");
    let check = |document: &Value| Validator { root: &root }.check(&root, document, "");
    let mut empty = bill();
    empty.packages.clear();
    empty.files.clear();
    empty.sources.clear();
    empty.manifest = None;
    for bill in [bill(), empty] {
        let document = parse(&cyclonedx::document(&bill));
        check(&document).unwrap_or_else(|error| panic!("{error}\n{document:#}"));
    }
    let good = parse(&cyclonedx::document(&bill()));
    let wrong = |change: &dyn Fn(&mut Value)| {
        let mut document = good.clone();
        change(&mut document);
        assert!(check(&document).is_err(), "the validator validates: {document:#}");
    };
    wrong(&|it| it["serialNumber"] = json!("1"));
    wrong(&|it| it["unknown"] = json!("1"));
    wrong(&|it| it["components"][0]["type"] = json!("package"));
    wrong(&|it| it["components"][0]["hashes"][0]["content"] = json!("12"));
    wrong(&|it| it["components"][0]["hashes"][0]["alg"] = json!("CRC"));
    wrong(&|it| it["components"][1]["licenses"][0] = json!({ "licence": "x" }));
    wrong(&|it| drop(it["components"][0].as_object_mut().unwrap().remove("name")));
    wrong(&|it| it["dependencies"][0]["dependsOn"] = json!(["a", "a"]));
}

#[test]
fn spdx_is_what_its_own_program_takes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bill.spdx.json");
    let run = |document: &str| {
        std::fs::write(&path, document).unwrap();
        let output = Command::new("pyspdxtools").arg("-i").arg(&path).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    };
    let document = spdx::document(&bill());
    let Some((is_good, text)) = run(&document) else {
        eprintln!("skipped: pyspdxtools is not installed (pip install spdx-tools)");
        return;
    };
    assert!(is_good, "{text}\n{document}");
    let mut wrong = parse(&document);
    wrong["packages"][1]["licenseDeclared"] = json!("no such licence (");
    let wrong = run(&wrong.to_string()).unwrap();
    assert!(!wrong.0, "the validator validates");
}

/// As much of JSON Schema (draft 7) as applies to these documents; other keywords are an error.
struct Validator<'a> {
    root: &'a Value,
}

impl Validator<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let Some(rules) = schema.as_object() else {
            return match schema {
                Value::Bool(true) => Ok(()),
                _ => Err(format!("{at}: nothing may be here")),
            };
        };
        if let Some(reference) = rules.get("$ref") {
            return self.follow(reference.as_str().unwrap(), value, at);
        }
        for (keyword, rule) in rules {
            self.keyword(schema, keyword, rule, value, at)?;
        }
        Ok(())
    }

    fn keyword(
        &self,
        schema: &Value,
        keyword: &str,
        rule: &Value,
        value: &Value,
        at: &str,
    ) -> Result<(), String> {
        let options = || rule.as_array().unwrap().iter();
        let fitting = || options().filter(|it| self.check(it, value, at).is_ok()).count();
        let number = || rule.as_u64().unwrap() as usize;
        let holds = match keyword {
            "$schema" | "$id" | "$comment" | "title" | "description" | "definitions"
            | "default" | "examples" | "format" | "meta:enum" => true,
            "type" => has_type(rule.as_str().unwrap(), value),
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_f64() >= rule.as_f64(),
            "maximum" => value.as_f64() <= rule.as_f64(),
            "minLength" => value.as_str().is_none_or(|it| it.chars().count() >= number()),
            "maxLength" => value.as_str().is_none_or(|it| it.chars().count() <= number()),
            "minItems" => value.as_array().is_none_or(|it| it.len() >= number()),
            "maxItems" => value.as_array().is_none_or(|it| it.len() <= number()),
            "uniqueItems" => value.as_array().is_none_or(|items| {
                let all: BTreeSet<String> = items.iter().map(ToString::to_string).collect();
                all.len() == items.len()
            }),
            "pattern" => value.as_str().is_none_or(|it| matches(rule.as_str().unwrap(), it)),
            "required" => value
                .as_object()
                .is_none_or(|it| options().all(|key| it.contains_key(key.as_str().unwrap()))),
            "oneOf" => fitting() == 1,
            "anyOf" => fitting() >= 1,
            "allOf" => fitting() == options().count(),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    let rule = if rule.is_array() { &rule[index] } else { rule };
                    self.check(rule, item, &format!("{at}/{index}"))?;
                }
                true
            }
            "additionalItems" => {
                let most = schema["items"].as_array().map_or(usize::MAX, Vec::len);
                value.as_array().is_none_or(|items| items.len() <= most)
            }
            "properties" => {
                for (key, rule) in rule.as_object().unwrap() {
                    if let Some(found) = value.get(key) {
                        self.check(rule, found, &format!("{at}/{key}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = |key: &String| schema["properties"].get(key).is_some();
                let others = value.as_object().into_iter().flatten();
                for (key, found) in others.filter(|(key, _)| !known(key)) {
                    self.check(rule, found, &format!("{at}/{key}"))?;
                }
                true
            }
            other => panic!("the validator does not know {other:?}"),
        };
        match holds {
            true => Ok(()),
            false => Err(format!("{at}: {value} breaks {keyword} {rule}")),
        }
    }

    fn follow(&self, reference: &str, value: &Value, at: &str) -> Result<(), String> {
        let (file, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        if file.is_empty() {
            return self.check(self.root.pointer(pointer).unwrap(), value, at);
        }
        let root = schema(file);
        Validator { root: &root }.check(root.pointer(pointer).unwrap(), value, at)
    }
}

fn has_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the validator does not know the type {other:?}"),
    }
}

/// The patterns that can meet these documents, told apart by what they begin with.
fn matches(pattern: &str, text: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if pattern.starts_with("^([a-fA-F0-9]{32}|") {
        return hex(text) && [32, 40, 64, 96, 128].contains(&text.len());
    }
    if pattern.starts_with("^urn:uuid:") {
        let Some(uuid) = text.strip_prefix("urn:uuid:") else { return false };
        let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
        return lengths == [8, 4, 4, 4, 12] && uuid.split('-').all(hex);
    }
    if pattern.starts_with("^urn:cdx:") {
        return text.starts_with("urn:cdx:");
    }
    panic!("the validator does not know the pattern {pattern:?}")
}
