//! CycloneDX 1.5, as JSON.

use std::collections::BTreeMap;

use drystone_store::derivation::canonical_json;
use serde_json::{Value, json};

use super::source::Source;
use super::{Bill, File, PROGRAM_VERSION, Package, timestamp, uuid};

/// The media type of the document.
pub const MEDIA_TYPE: &str = "application/vnd.cyclonedx+json";
/// The reference of the image's own component.
const IMAGE: &str = "image";

/// The document of a bill: canonical JSON.
pub fn document(bill: &Bill) -> String {
    let components = bill.packages.iter().map(package).chain(bill.files.iter().map(file));
    let components = components.chain(bill.sources.iter().map(source));
    let mut image = json!({
        "type": "container",
        "bom-ref": IMAGE,
        "name": bill.name,
        "version": bill.tag,
        "properties": [property("platform", &bill.platform)],
    });
    if let Some(manifest) = &bill.manifest {
        image["hashes"] = hashes(&manifest.to_hex());
    }
    let mut document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": timestamp(bill.created),
            "tools": { "components": [
                { "type": "application", "name": "drystone", "version": PROGRAM_VERSION },
            ] },
            "component": image,
        },
        "components": components.collect::<Vec<_>>(),
        "dependencies": dependencies(bill),
    });
    let uuid = uuid(MEDIA_TYPE, &canonical_json(&document));
    document["serialNumber"] = format!("urn:uuid:{uuid}").into();
    canonical_json(&document)
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": format!("drystone:{name}"), "value": value })
}

fn hashes(hex: &str) -> Value {
    json!([{ "alg": "SHA-256", "content": hex }])
}

fn package(package: &Package) -> Value {
    let purl = package.purl();
    let mut value = json!({
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "hashes": hashes(&package.sha256.to_hex()),
        "properties": [
            property("architecture", &package.architecture),
            property("source", &package.source),
            property("source-version", &package.source_version),
        ],
    });
    if let Some(expression) = &package.licence.expression {
        value["licenses"] = json!([{ "expression": expression }]);
    }
    if let Some(maintainer) = &package.maintainer {
        value["supplier"] = json!({ "name": maintainer });
    }
    if let Some(summary) = &package.summary {
        value["description"] = summary.as_str().into();
    }
    if let Some(homepage) = &package.homepage {
        value["externalReferences"] = json!([{ "type": "website", "url": homepage }]);
    }
    value
}

fn file_reference(file: &File) -> String {
    format!("file:{}", file.path)
}

fn file(file: &File) -> Value {
    let mut value = json!({
        "type": "file",
        "bom-ref": file_reference(file),
        "name": file.path,
        "hashes": hashes(&file.sha256.to_hex()),
    });
    if let Some(url) = &file.url {
        value["externalReferences"] = json!([{ "type": "distribution", "url": url }]);
    }
    value
}

fn source_reference(source: &Source) -> String {
    let version = source.version.as_deref().unwrap_or_default();
    format!("source:{}:{}@{version}", source.recipe, source.name)
}

fn source(source: &Source) -> Value {
    let mut value = json!({
        "type": "library",
        "bom-ref": source_reference(source),
        "name": source.name,
        "properties": [property("recipe", &source.recipe)],
    });
    if let Some(version) = &source.version {
        value["version"] = version.as_str().into();
    }
    if let Some(purl) = &source.purl {
        value["purl"] = purl.as_str().into();
    }
    if let Some(sha256) = &source.sha256 {
        value["hashes"] = hashes(&sha256.to_hex());
    }
    if let Some(licence) = &source.licence {
        value["licenses"] = json!([{ "expression": licence }]);
    }
    if let Some(url) = &source.url {
        value["externalReferences"] = json!([{ "type": "distribution", "url": url }]);
    }
    value
}

fn dependencies(bill: &Bill) -> Vec<Value> {
    let references: BTreeMap<&str, String> =
        bill.packages.iter().map(|package| (package.name.as_str(), package.purl())).collect();
    let packages = bill.packages.iter().map(Package::purl);
    let all: Vec<String> = packages
        .chain(bill.files.iter().map(file_reference))
        .chain(bill.sources.iter().map(source_reference))
        .collect();
    let image = json!({ "ref": IMAGE, "dependsOn": all });
    let packages = bill.packages.iter().map(|package| {
        let needed = package.needs.iter().filter_map(|name| references.get(name.as_str()));
        json!({ "ref": package.purl(), "dependsOn": needed.collect::<Vec<_>>() })
    });
    std::iter::once(image).chain(packages).collect()
}
