//! The object of `build --json` and `--metadata-file`; `docs/json.md` describes it.

use drystone_builder::build::Built;
use drystone_builder::image;
use drystone_builder::output::ImageName;
use drystone_builder::spec::Image;
use drystone_cache::traffic::Counts;
use serde_json::{Value, json};

use crate::caching::CacheReport;

use super::outputs::{Written, shown};

/// What is reported.
pub struct Report<'a> {
    /// `NAME:TAG@sha256:…`.
    pub reference: &'a str,
    /// The name.
    pub name: &'a ImageName,
    /// The image.toml.
    pub image: &'a Image,
    /// What was built.
    pub built: &'a Built,
    /// Where it went.
    pub written: &'a [Written],
    /// What went over the network to registries and caches.
    pub exchanged: &'a Exchanged,
    /// Whether the lock file changed.
    pub lock_changed: bool,
    /// What the user should know.
    pub warnings: &'a [String],
}

/// What went over the network to registries and caches.
pub struct Exchanged {
    /// Requests to registries, and the bytes that they moved.
    pub traffic: Counts,
    /// What binary caches gave and got.
    pub cached: CacheReport,
}

impl Report<'_> {
    /// The object.
    pub fn to_json(&self) -> Value {
        let set = &self.built.set;
        json!({
            "reference": self.reference,
            "name": self.name.repository(),
            "tag": self.name.tag(),
            "digest": set.digest(),
            "media_type": set.descriptor().media_type,
            "unchanged": false,
            "lock": {
                "path": shown(&self.image.lock_path),
                "changed": self.lock_changed,
            },
            "outputs": self.written,
            "registry": self.exchanged.traffic,
            "cache": self.exchanged.cached,
            "platforms": set.images().iter().map(platform).collect::<Vec<_>>(),
            "ignored_files": self.built.ignored_files,
            "warnings": self.warnings,
        })
    }
}

fn platform(image: &image::Image) -> Value {
    let layers: Vec<Value> = image
        .layers
        .iter()
        .map(|layer| {
            json!({
                "digest": layer.digest,
                "diff_id": layer.diff_id,
                "size": layer.size,
                "uncompressed_size": layer.uncompressed_size,
                "media_type": layer.media_type,
                "title": layer.title,
            })
        })
        .collect();
    json!({
        "platform": image.platform.to_string(),
        "digest": image.manifest.digest,
        "config": image.config.digest,
        "size": image.layers.iter().map(|layer| layer.size).sum::<u64>(),
        "layers": layers,
    })
}
