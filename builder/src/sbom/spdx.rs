//! SPDX 2.3, as JSON.
//!
//! The image is a package that contains the others. Files of the project are packages as well, of
//! the purpose FILE: SPDX asks for a SHA-1 of what it calls a file, and nobody should compute one.

use std::collections::BTreeMap;

use drystone_store::derivation::canonical_json;
use serde_json::{Map, Value, json};

use super::licence::NO_ASSERTION;
use super::source::Source;
use super::{Bill, File, PROGRAM_VERSION, Package, timestamp, uuid};

/// The media type of the document.
pub const MEDIA_TYPE: &str = "application/spdx+json";
/// The id of the image's own element.
const IMAGE: &str = "SPDXRef-Image";

/// The document of a bill: canonical JSON.
pub fn document(bill: &Bill) -> String {
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{}:{}", bill.name, bill.tag),
        "creationInfo": {
            "created": timestamp(bill.created),
            "creators": [format!("Tool: drystone-{PROGRAM_VERSION}")],
        },
        "documentDescribes": [IMAGE],
        "packages": packages(bill),
        "relationships": relationships(bill),
    });
    let texts = texts(bill);
    if !texts.is_empty() {
        document["hasExtractedLicensingInfos"] = Value::Array(texts);
    }
    let uuid = uuid(MEDIA_TYPE, &canonical_json(&document));
    let namespace = format!("https://spdx.org/spdxdocs/{}-{uuid}", id_text(&bill.name));
    document["documentNamespace"] = namespace.into();
    canonical_json(&document)
}

/// Text as ids may hold it: letters, digits, `.` and `-`.
fn id_text(text: &str) -> String {
    let legal = |c: char| match c {
        'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '-' => c.to_string(),
        other => format!("-{:x}-", u32::from(other)),
    };
    text.chars().map(legal).collect()
}

fn package_id(package: &Package) -> String {
    format!("SPDXRef-Package-{}-{}", id_text(&package.name), id_text(&package.architecture))
}

fn file_id(file: &File) -> String {
    format!("SPDXRef-File{}", id_text(&file.path))
}

fn source_id(source: &Source) -> String {
    let version = source.version.as_deref().unwrap_or_default();
    let text = format!("{}-{}-{version}", source.recipe, source.name);
    format!("SPDXRef-Source-{}", id_text(&text))
}

fn packages(bill: &Bill) -> Vec<Value> {
    let mut image = json!({
        "SPDXID": IMAGE,
        "name": bill.name,
        "versionInfo": bill.tag,
        "downloadLocation": NO_ASSERTION,
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "comment": format!("the image for {}", bill.platform),
        "licenseConcluded": NO_ASSERTION,
        "licenseDeclared": NO_ASSERTION,
        "copyrightText": NO_ASSERTION,
    });
    if let Some(manifest) = &bill.manifest {
        image["checksums"] = checksums(&manifest.to_hex());
    }
    let packages = bill.packages.iter().map(package);
    let files = bill.files.iter().map(file);
    let sources = bill.sources.iter().map(source);
    std::iter::once(image).chain(packages).chain(files).chain(sources).collect()
}

fn checksums(hex: &str) -> Value {
    json!([{ "algorithm": "SHA256", "checksumValue": hex }])
}

fn package(package: &Package) -> Value {
    let source = format!("built from source package {} {}", package.source, package.source_version);
    let licence = package.licence.expression.as_deref().unwrap_or(NO_ASSERTION);
    let mut value = json!({
        "SPDXID": package_id(package),
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": NO_ASSERTION,
        "filesAnalyzed": false,
        "primaryPackagePurpose": "LIBRARY",
        "sourceInfo": source,
        "checksums": checksums(&package.sha256.to_hex()),
        "licenseConcluded": NO_ASSERTION,
        "licenseDeclared": licence,
        "copyrightText": NO_ASSERTION,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package.purl(),
        }],
    });
    if let Some(maintainer) = &package.maintainer {
        value["supplier"] = supplier(maintainer).into();
    }
    if let Some(homepage) = &package.homepage {
        value["homepage"] = homepage.as_str().into();
    }
    if let Some(summary) = &package.summary {
        value["summary"] = summary.as_str().into();
    }
    value
}

/// A maintainer as SPDX names an organisation: `NAME <EMAIL>` becomes `NAME (EMAIL)`.
fn supplier(maintainer: &str) -> String {
    match maintainer.trim().strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        Some((name, email)) => format!("Organization: {} ({email})", name.trim()),
        None => format!("Organization: {}", maintainer.trim()),
    }
}

fn file(file: &File) -> Value {
    json!({
        "SPDXID": file_id(file),
        "name": file.path,
        "downloadLocation": file.url.as_deref().unwrap_or(NO_ASSERTION),
        "filesAnalyzed": false,
        "primaryPackagePurpose": "FILE",
        "checksums": checksums(&file.sha256.to_hex()),
        "licenseConcluded": NO_ASSERTION,
        "licenseDeclared": NO_ASSERTION,
        "copyrightText": NO_ASSERTION,
    })
}

fn source(source: &Source) -> Value {
    let licence = source.licence.as_deref().unwrap_or(NO_ASSERTION);
    let mut value = json!({
        "SPDXID": source_id(source),
        "name": source.name,
        "downloadLocation": source.url.as_deref().unwrap_or(NO_ASSERTION),
        "filesAnalyzed": false,
        "primaryPackagePurpose": "SOURCE",
        "sourceInfo": format!("built into recipe {}", source.recipe),
        "licenseConcluded": NO_ASSERTION,
        "licenseDeclared": licence,
        "copyrightText": NO_ASSERTION,
    });
    if let Some(version) = &source.version {
        value["versionInfo"] = version.as_str().into();
    }
    if let Some(sha256) = &source.sha256 {
        value["checksums"] = checksums(&sha256.to_hex());
    }
    if let Some(purl) = &source.purl {
        value["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl,
        }]);
    }
    value
}

fn relationships(bill: &Bill) -> Vec<Value> {
    let relation = |from: &str, kind: &str, to: &str| json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to });
    let ids: BTreeMap<&str, String> =
        bill.packages.iter().map(|package| (package.name.as_str(), package_id(package))).collect();
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
    relations.extend(bill.packages.iter().map(|it| relation(IMAGE, "CONTAINS", &package_id(it))));
    relations.extend(bill.files.iter().map(|it| relation(IMAGE, "CONTAINS", &file_id(it))));
    // What is built of them is in the image; they are not.
    let sources = bill.sources.iter();
    relations.extend(sources.map(|it| relation(IMAGE, "GENERATED_FROM", &source_id(it))));
    for package in &bill.packages {
        let needed = package.needs.iter().filter_map(|name| ids.get(name.as_str()));
        relations.extend(needed.map(|id| relation(&package_id(package), "DEPENDS_ON", id)));
    }
    relations
}

/// The texts of licences that SPDX has no name for. Two packages may mean different texts by one
/// name: then both are given.
fn texts(bill: &Bill) -> Vec<Value> {
    let mut texts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, text) in bill.packages.iter().flat_map(|package| &package.licence.texts) {
        let known = texts.entry(name).or_default();
        if !text.is_empty() && !known.contains(&text.as_str()) {
            known.push(text);
        }
    }
    let entries = texts.into_iter().map(|(name, texts)| {
        let text = match texts.is_empty() {
            true => NO_ASSERTION.to_owned(),
            false => texts.join("\n\n---\n\n"),
        };
        let mut entry = Map::new();
        entry.insert("licenseId".to_owned(), name.into());
        entry.insert("name".to_owned(), name.trim_start_matches("LicenseRef-Debian-").into());
        entry.insert("extractedText".to_owned(), text.into());
        Value::Object(entry)
    });
    entries.collect()
}
