//! `[image]`, `[cache]`, `[finish]`: how the image is put together.

use crate::document::{Place, Shape, Table, Value, ValueError};

use super::recipe::{RecipeOutput, Recipes};
use super::schema;

/// How the image is put together.
#[derive(Debug, Clone, Default)]
pub struct ImageOptions {
    /// The outputs of recipes that enter, if the file says so.
    pub recipes: Option<Vec<RecipeOutput>>,
    /// How store paths become layers.
    pub layers: Layers,
    /// How layers are compressed, if the file says so.
    pub compression: Option<Compression>,
    /// Where the compression stands.
    pub compression_place: Option<Place>,
}

/// How store paths become layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layers {
    /// By the cost model.
    #[default]
    Packed,
    /// One layer for each store path, as far as runtimes permit.
    Each,
    /// At most this many.
    Count(u32),
}

/// The most layers that an image may have: Docker, containers/storage and CRI-O stop between 125
/// and 128, and a tool that builds on the image needs some of them.
pub const MOST_LAYERS: u32 = 100;

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Compression {
    /// gzip: read by everything.
    #[default]
    Gzip,
    /// zstd: smaller and faster, for Docker 23 and newer.
    Zstd,
}

impl Compression {
    /// Reads `gzip` or `zstd`.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        match text {
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(ValueError::new("compression", text, "it is gzip or zstd")),
        }
    }

    /// The name as written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// `[finish]`: a last script over the whole root.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The script, run by `/bin/sh`.
    pub script: String,
    /// Where it stands.
    pub place: Place,
}

pub(super) fn image(table: &Table<'_>, recipes: &Recipes) -> ImageOptions {
    let compression = table.get("compression");
    ImageOptions {
        recipes: table.has("recipes").then(|| recipes.outputs(table, "recipes")),
        layers: table.get("layers").and_then(|value| layers(&value)).unwrap_or_default(),
        compression_place: compression.as_ref().map(Value::place),
        compression: compression.and_then(|value| value.text_as(Compression::new)),
    }
}

fn layers(value: &Value<'_>) -> Option<Layers> {
    match value.shape() {
        Shape::Text("packed") => Some(Layers::Packed),
        Shape::Text("each") => Some(Layers::Each),
        Shape::Integer(..) => {
            let count = value.integer(1, i64::from(MOST_LAYERS))?;
            u32::try_from(count).ok().map(Layers::Count)
        }
        _ => {
            value.wrong_type();
            None
        }
    }
}

pub(super) fn finish(top: &Table<'_>) -> Option<Finish> {
    let value = top.get("finish")?.table(&schema::FINISH)?.required("script")?;
    let script = value.text()?.to_owned();
    if script.trim().is_empty() {
        value.problem("`script` is empty").help("remove [finish]").record();
    }
    Some(Finish { script, place: value.place() })
}
