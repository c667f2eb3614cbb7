//! The configuration of an image that stands on another one: what it inherits, and what it sets.
//!
//! The rules are those of docker's `FROM`: values of the image itself win; environment, labels,
//! ports and volumes are merged by name; an entrypoint of its own makes the base's `Cmd` void,
//! since that was written for another program. Members that this program does not know stay as they
//! were written. What tells how the base itself was built goes, its instructions for builds upon it
//! (`OnBuild`) included.
//!
//! There is one history entry for each layer and none besides: some engines count them.

use drystone_store::derivation::canonical_json;
use serde_json::{Map, Value, json};

use super::config::{History, rfc3339};
use super::{ImageConfig, ImageError, LayerRef};

/// Members about the build of the base, or of an image format before docker 1.10.
const OF_THE_BUILD: [&str; 6] =
    ["container", "container_config", "docker_version", "id", "parent", "Size"];
/// Members of `config` of that kind.
const RUNTIME_OF_THE_BUILD: [&str; 2] = ["Image", "OnBuild"];

/// Serialises the configuration of an image that stands on a base, with members sorted by name.
///
/// `base` is the base's configuration; the first `below` of `layers` are the base's.
///
/// # Errors
/// As [`ImageConfig::to_json`].
pub fn inherited_json(
    base: &Map<String, Value>,
    below: usize,
    own: &ImageConfig,
    layers: &[LayerRef],
) -> Result<Vec<u8>, ImageError> {
    let created = rfc3339(own.created)?;
    let mut document = base.clone();
    for name in OF_THE_BUILD {
        document.remove(name);
    }
    let runtime = match document.remove("config") {
        Some(Value::Object(runtime)) => runtime,
        _ => Map::new(),
    };
    document.insert("config".to_owned(), Value::Object(own.over(runtime)?));
    document.insert("created".to_owned(), json!(created));
    document.insert("os".to_owned(), json!(own.platform.os));
    document.insert("architecture".to_owned(), json!(own.platform.architecture));
    if let Some(variant) = &own.platform.variant {
        document.insert("variant".to_owned(), json!(variant));
    }
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
    document.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": diff_ids }));
    let mut history = base_history(base, &layers[..below]);
    history.extend(layers[below..].iter().map(|layer| json!(History::of(layer, &created))));
    document.insert("history".to_owned(), Value::Array(history));
    Ok(canonical_json(&Value::Object(document)).into_bytes())
}

/// The base's history without the steps that made no layer; where it does not tell one entry for
/// each layer, as many that say what is known.
fn base_history(base: &Map<String, Value>, layers: &[LayerRef]) -> Vec<Value> {
    let told = base.get("history").and_then(Value::as_array).map(Vec::as_slice);
    let made_layer = |entry: &&Value| entry.get("empty_layer") != Some(&Value::Bool(true));
    let told: Vec<Value> = told.unwrap_or_default().iter().filter(made_layer).cloned().collect();
    if told.len() == layers.len() && told.iter().all(Value::is_object) {
        return told;
    }
    layers.iter().map(|layer| json!({ "created_by": layer.title })).collect()
}

impl ImageConfig {
    /// What a container runs, over what the base says.
    fn over(&self, base: Map<String, Value>) -> Result<Map<String, Value>, ImageError> {
        let mut runtime = base;
        runtime.retain(|name, value| {
            !value.is_null() && !RUNTIME_OF_THE_BUILD.contains(&name.as_str())
        });
        let env = self.env_over(&texts(runtime.get("Env")))?;
        runtime.insert("Env".to_owned(), json!(env));
        if let Some(ids) = self.user {
            runtime.insert("User".to_owned(), json!(format!("{}:{}", ids.uid, ids.gid)));
        }
        if self.entrypoint.is_some() {
            runtime.remove("Cmd");
        }
        for (name, command) in [("Entrypoint", &self.entrypoint), ("Cmd", &self.command)] {
            match command {
                Some(command) if command.is_empty() => drop(runtime.remove(name)),
                Some(command) => drop(runtime.insert(name.to_owned(), json!(command))),
                None => {}
            }
        }
        let nothing = || Value::Object(Map::new());
        let ports = self.exposed_ports.iter().map(|port| (port.to_string(), nothing()));
        merge(&mut runtime, "ExposedPorts", ports);
        let volumes = self.volumes.iter().map(|path| (path.clone(), nothing()));
        merge(&mut runtime, "Volumes", volumes);
        let labels = self.labels.iter().map(|(name, value)| (name.clone(), json!(value)));
        merge(&mut runtime, "Labels", labels);
        let single = [
            ("WorkingDir", self.working_directory.as_ref().map(|it| json!(it))),
            ("StopSignal", self.stop_signal.as_ref().map(|it| json!(it))),
            ("Healthcheck", self.healthcheck.as_ref().map(|it| json!(it))),
        ];
        for (name, value) in single {
            if let Some(value) = value {
                runtime.insert(name.to_owned(), value);
            }
        }
        Ok(runtime)
    }

    /// The base's variables in its order, those of the image in their places or behind.
    fn env_over(&self, base: &[String]) -> Result<Vec<String>, ImageError> {
        let name = |line: &str| line.split_once('=').map_or(line, |(name, _)| name).to_owned();
        let mut own = self.env.clone();
        let mut lines = Vec::new();
        for line in base {
            match own.remove(&name(line)) {
                Some(value) => lines.push(format!("{}={value}", name(line))),
                None => lines.push(line.clone()),
            }
        }
        let has_path = lines.iter().any(|line| name(line) == "PATH");
        let rest = Self::to_env_of(own, !has_path)?;
        lines.extend(rest);
        Ok(lines)
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Adds members to an object that may not be there.
fn merge(
    runtime: &mut Map<String, Value>,
    name: &str,
    more: impl Iterator<Item = (String, Value)>,
) {
    let mut members = match runtime.remove(name) {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    };
    members.extend(more);
    if !members.is_empty() {
        runtime.insert(name.to_owned(), Value::Object(members));
    }
}

#[cfg(test)]
mod tests {
    use drystone_store::digest::{BlobDigest, DiffId};

    use super::*;

    fn layer(number: u8) -> LayerRef {
        LayerRef {
            digest: BlobDigest::from_bytes([number; 32]),
            size: 1,
            diff_id: DiffId::from_bytes([number; 32]),
            uncompressed_size: None,
            media_type: "application/vnd.oci.image.layer.v1.tar",
            title: format!("layer {number}"),
        }
    }

    fn base() -> Map<String, Value> {
        let value = json!({
            "architecture": "amd64", "os": "linux", "os.features": ["x"], "author": "Ann",
            "container": "c0ffee", "docker_version": "20.10", "created": "2020-01-01T00:00:00Z",
            "config": {
                "Env": ["PATH=/opt/bin:/bin", "LANG=C", "ZONE=UTC"], "User": "app",
                "Entrypoint": ["/entry"], "Cmd": ["serve"], "WorkingDir": "/base",
                "Labels": { "a": "1", "b": "1" }, "ExposedPorts": { "80/tcp": {} },
                "Volumes": null, "OnBuild": ["RUN x"], "Image": "sha256:1", "Shell": ["/bin/bash"],
                "ArgsEscaped": true,
            },
            "rootfs": { "type": "layers", "diff_ids": ["sha256:…"] },
            "history": [{ "created_by": "ADD root" }, { "created_by": "ENV", "empty_layer": true }],
        });
        value.as_object().unwrap().clone()
    }

    fn config(own: &ImageConfig) -> Value {
        let json = inherited_json(&base(), 1, own, &[layer(1), layer(2)]).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    fn plain() -> ImageConfig {
        ImageConfig::new("linux/amd64".parse().unwrap(), 1_686_384_000)
    }

    /// Freezes the bytes that name images on a base. A change here changes their digests.
    #[test]
    fn golden_inherited_configuration() {
        let mut own = plain();
        own.env = [("ZONE", "CET"), ("APP", "1")].map(|(k, v)| (k.into(), v.into())).into();
        own.labels = [("b".to_owned(), "2".to_owned())].into();
        own.exposed_ports = ["8080".parse().unwrap()].into();
        own.command = Some(vec!["run".into()]);
        let json = inherited_json(&base(), 1, &own, &[layer(1), layer(2)]).unwrap();
        insta::assert_snapshot!(String::from_utf8(json).unwrap());
    }

    #[test]
    fn an_entrypoint_of_ones_own_makes_the_bases_command_void() {
        let inherited = &config(&plain())["config"];
        assert_eq!(inherited["Entrypoint"], json!(["/entry"]));
        assert_eq!(inherited["Cmd"], json!(["serve"]));
        assert_eq!(inherited["User"], "app");
        let mut own = plain();
        own.entrypoint = Some(vec!["/mine".into()]);
        let reset = &config(&own)["config"];
        assert_eq!((&reset["Entrypoint"], &reset["Cmd"]), (&json!(["/mine"]), &Value::Null));
        own.command = Some(vec!["x".into()]);
        assert_eq!(config(&own)["config"]["Cmd"], json!(["x"]));
        own.entrypoint = Some(Vec::new());
        assert_eq!(config(&own)["config"]["Entrypoint"], Value::Null, "an empty one takes it away");
    }

    #[test]
    fn one_history_entry_stands_for_each_layer() {
        let history = &config(&plain())["history"];
        assert_eq!(history[0], json!({ "created_by": "ADD root" }));
        assert_eq!(history.as_array().unwrap().len(), 2);
        let mut silent = base();
        silent.remove("history");
        let json = inherited_json(&silent, 2, &plain(), &[layer(1), layer(2)]).unwrap();
        let value: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["history"][1]["created_by"], "layer 2");
    }
}
