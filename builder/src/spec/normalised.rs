//! What of an image.toml decides the image's bytes, as canonical JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::config::{Config, Healthcheck};
use super::debian::{Debian, Repository};
use super::files::{FileEntry, FileSource};
use super::image::Image;
use super::recipe::{Recipe, RecipeSource};

impl Image {
    /// The content of the file that can influence the image's manifest, with sorted keys.
    ///
    /// Two files with the same value here and the same lock, sources and platform give the same
    /// manifest. Left out, because they change no byte or are named in the image's key by
    /// themselves: `name`, `tag`, `lock`, `platforms`, mirrors and keys (the lock pins what they
    /// led to), `check-valid-until`, `[cache]`, `[image] layers` and `compression` (the layer
    /// plan and the compression id), places, comments, and the order of lists without meaning.
    /// Local paths stand as written; the trees that they lead to are named in the key too.
    pub fn normalised(&self) -> Value {
        let mut content = Map::new();
        content.insert("schema".to_owned(), json!(self.schema));
        if let Some((from, _)) = &self.from {
            content.insert("from".to_owned(), json!(from.to_string()));
        }
        if let Some(debian) = &self.debian {
            content.insert("debian".to_owned(), debian_value(debian));
        }
        let tables = [
            ("repositories", object(&self.repositories, |name| name.to_string(), repository_value)),
            ("recipes", object(&self.recipes, |name| name.to_string(), recipe_value)),
            ("users", object(&self.users, |name| name.to_string(), user_value)),
            ("groups", object(&self.groups, |name| name.to_string(), |group| json!(group.gid))),
        ];
        for (key, value) in tables {
            content.insert(key.to_owned(), value);
        }
        let files = self.files.iter().map(file_value).collect::<Vec<_>>();
        content.insert("files".to_owned(), Value::Array(files));
        let finish = self.finish.as_ref().map(|finish| finish.script.as_str());
        content.insert("finish".to_owned(), json!(finish));
        content.insert("config".to_owned(), config_value(&self.config));
        content.insert("annotations".to_owned(), json!(self.annotations));
        let mut entering = self.entering_recipes();
        entering.sort();
        let entering = entering.iter().map(ToString::to_string).collect::<Vec<_>>();
        content.insert("entering".to_owned(), json!(entering));
        Value::Object(content)
    }
}

fn object<K: Ord, V>(
    map: &std::collections::BTreeMap<K, V>,
    key: impl Fn(&K) -> String,
    value: impl Fn(&V) -> Value,
) -> Value {
    Value::Object(map.iter().map(|(name, item)| (key(name), value(item))).collect())
}

fn debian_value(debian: &Debian) -> Value {
    let packages = debian.packages.iter().map(|request| {
        json!({
            "name": request.name.as_str(),
            "version": request.version.as_ref().map(|version| version.as_str()),
            "from": request.from.as_ref().map(|from| from.as_str()),
        })
    });
    let mut removed: Vec<_> =
        debian.remove_state.iter().map(|entry| entry.path.to_string()).collect();
    removed.sort();
    let exclude = debian.exclude.iter().map(|name| name.as_str());
    let mut components: Vec<_> = debian.components.iter().map(|name| name.as_str()).collect();
    components.sort_unstable();
    json!({
        "suite": debian.suite.as_str(),
        "components": components,
        "packages": packages.collect::<Vec<_>>(),
        "essential": debian.essential,
        "recommends": debian.recommends,
        "exclude": exclude.collect::<Vec<_>>(),
        "debconf": debian.debconf,
        "remove-state": removed,
    })
}

/// Only what says which packages are meant: the address and the key are the lock's to prove.
fn repository_value(repository: &Repository) -> Value {
    let mut components: Vec<_> = repository.components.iter().map(|name| name.as_str()).collect();
    components.sort_unstable();
    json!({ "suite": repository.suite.as_str(), "components": components })
}

fn recipe_value(recipe: &Recipe) -> Value {
    let source = recipe.source.as_ref().map(|source| match source {
        RecipeSource::Folder { path, include, exclude } => {
            json!({ "path": path.as_str(), "include": include, "exclude": exclude })
        }
        RecipeSource::Download { sha256, .. } => json!({ "sha256": sha256.to_hex() }),
        RecipeSource::Git { revision, .. } => json!({ "revision": revision }),
        RecipeSource::Package(package) => json!({ "package": package.integrity.to_string() }),
    });
    let texts = |names: &[super::PackageName]| -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    };
    let mut recipes: Vec<_> = recipe.recipes.iter().map(ToString::to_string).collect();
    recipes.sort();
    json!({
        "builder": recipe.builder.as_str(),
        "source": source,
        "patches": recipe.patches.iter().map(|path| path.as_str()).collect::<Vec<_>>(),
        "debian": texts(&recipe.debian),
        "recipes": recipes,
        "runtime": texts(&recipe.runtime),
        "script": recipe.script,
        "env": recipe.env,
        "outputs": recipe.outputs.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "platforms": recipe.platforms.iter().map(|it| it.as_str()).collect::<Vec<_>>(),
    })
}

fn file_value(file: &FileEntry) -> Value {
    let source = match &file.source {
        FileSource::Local(path) => json!({ "source": path.as_str() }),
        FileSource::Text(text) => json!({ "text": text }),
        FileSource::Recipe { output, path } => {
            json!({ "recipe": output.to_string(), "path": path.to_string() })
        }
        FileSource::Download { sha256, .. } => json!({ "sha256": sha256.to_hex() }),
        FileSource::Symlink { target } => json!({ "symlink": target }),
        FileSource::Directory => json!({ "directory": true }),
    };
    json!({
        "target": file.target.to_string(),
        "content": source,
        "mode": file.mode,
        "uid": file.uid,
        "gid": file.gid,
    })
}

fn user_value(user: &super::User) -> Value {
    let mut groups: Vec<_> = user.groups.iter().map(|name| name.as_str()).collect();
    groups.sort_unstable();
    json!({
        "uid": user.uid,
        "gid": user.gid,
        "groups": groups,
        "home": user.home.to_string(),
        "shell": user.shell.to_string(),
        "comment": user.comment,
    })
}

fn config_value(config: &Config) -> Value {
    json!({
        "entrypoint": config.entrypoint,
        "cmd": config.cmd,
        "env": config.env,
        "workdir": config.workdir.as_ref().map(ToString::to_string),
        "user": config.user.as_ref().map(ToString::to_string),
        "ports": config.ports.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "volumes": config.volumes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "labels": config.labels,
        "stop-signal": config.stop_signal,
        "healthcheck": config.healthcheck.as_ref().map(healthcheck_value),
    })
}

fn healthcheck_value(check: &Healthcheck) -> Value {
    // Spans are read as whole milliseconds and bounded by a year, so the number is exact.
    let milliseconds = |span: Option<Duration>| {
        span.map(|span| u64::try_from(span.as_millis()).expect("at most a year"))
    };
    json!({
        "cmd": check.cmd,
        "interval": milliseconds(check.interval),
        "timeout": milliseconds(check.timeout),
        "start-period": milliseconds(check.start_period),
        "start-interval": milliseconds(check.start_interval),
        "retries": check.retries,
    })
}
