//! `[recipe.NAME]`: what is built from source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use drystone_store::digest::BlobDigest;
use url::Url;

use crate::document::{Place, Shape, Table, Value, ValueError, nearest};
use crate::recipe::language::{self, Dependency};

use super::config::environment;
use super::names::{Name, PackageName, Suite};
use super::platform::Platform;
use super::recipe_file::{self, ReadFile};
use super::schema;
use super::values::{LocalPath, address, duration, sha256, size};
use crate::sandbox::Resources;

/// The output that a recipe has when it names none.
pub const DEFAULT_OUTPUT: &str = "out";

/// One recipe, read and checked.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What runs it.
    pub builder: RecipeBuilder,
    /// The recipe whose output is its builder's toolchain; Debian's otherwise.
    pub toolchain: Option<RecipeOutput>,
    /// What it starts from.
    pub source: Option<RecipeSource>,
    /// Patches, applied in the order as written.
    pub patches: Vec<LocalPath>,
    /// Debian packages that the build needs.
    pub debian: Vec<PackageName>,
    /// Outputs of other recipes that the build needs.
    pub recipes: Vec<RecipeOutput>,
    /// Debian packages that the result needs beyond what is found in it.
    pub runtime: Vec<PackageName>,
    /// The build script.
    pub script: Option<String>,
    /// Variables of the build.
    pub env: BTreeMap<String, String>,
    /// The outputs, in the order as written; the first is the default.
    pub outputs: Vec<Name>,
    /// How long its script may run.
    pub time_limit: Option<Duration>,
    /// How long its script may print nothing.
    pub silence_limit: Option<Duration>,
    /// What else its script may use up.
    pub resources: Resources,
    /// The platforms that it is built for; all of the image's when empty.
    pub platforms: Vec<Platform>,
    /// The file of its own that it was read from, if it was.
    pub file: Option<LocalPath>,
    /// Where it stands.
    pub place: Place,
}

impl Recipe {
    /// The Debian packages that its build asks for: those of `debian`, the toolchain of its builder
    /// in a suite, and what its patches need.
    pub fn build_packages(&self, suite: &Suite) -> BTreeSet<PackageName> {
        let mut packages: BTreeSet<PackageName> = self.debian.iter().cloned().collect();
        let named: Vec<&str> = self.debian.iter().map(PackageName::as_str).collect();
        let toolchain = match &self.toolchain {
            Some(_) => &[],
            None => language::packages(self.builder, suite.as_str(), &named),
        };
        let names = toolchain.iter().map(|name| PackageName::new(name).expect("a valid name"));
        packages.extend(names);
        if !self.patches.is_empty() {
            packages.insert(PackageName::new("patch").expect("a valid name"));
        }
        let package = self.unpacked_inside().and_then(ArchiveKind::package);
        packages.extend(package.map(|name| PackageName::new(name).expect("a valid name")));
        packages
    }

    /// The kind of archive that its build unpacks, if there is one. Of a project with a lockfile the
    /// archive is unpacked before: what it pins must be known by then.
    pub fn unpacked_inside(&self) -> Option<ArchiveKind> {
        match &self.source {
            Some(RecipeSource::Download { unpack, .. })
                if self.builder == RecipeBuilder::Script =>
            {
                *unpack
            }
            _ => None,
        }
    }

    /// The archive whose lockfile says what to fetch, if there is one.
    pub fn unpacked_before(&self) -> Option<&BlobDigest> {
        match &self.source {
            Some(RecipeSource::Download { sha256, unpack: Some(_), .. })
                if self.builder != RecipeBuilder::Script =>
            {
                Some(sha256)
            }
            _ => None,
        }
    }

    /// Whether it is built for a platform.
    pub fn is_for(&self, platform: Platform) -> bool {
        self.platforms.is_empty() || self.platforms.contains(&platform)
    }
}

/// What runs a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipeBuilder {
    /// A shell script.
    Script,
    /// Rust, from Cargo.lock.
    Cargo,
    /// Node, from package-lock.json.
    Npm,
    /// Python, from its lock file.
    Python,
}

impl RecipeBuilder {
    /// The name as written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Script => "script",
            Self::Cargo => "cargo",
            Self::Npm => "npm",
            Self::Python => "python",
        }
    }

    fn new(text: &str) -> Result<Self, ValueError> {
        let all = [Self::Script, Self::Cargo, Self::Npm, Self::Python];
        all.into_iter().find(|builder| builder.as_str() == text).ok_or_else(|| {
            ValueError::new("builder", text, "it is not known")
                .with_help("known: script, cargo, npm, python")
        })
    }
}

/// What a recipe starts from.
#[derive(Debug, Clone)]
pub enum RecipeSource {
    /// A folder of the project.
    Folder {
        /// The folder.
        path: LocalPath,
        /// Patterns of what is taken; everything when empty.
        include: Vec<String>,
        /// Patterns of what is left out.
        exclude: Vec<String>,
    },
    /// An archive that is downloaded.
    Download {
        /// Its address.
        url: Url,
        /// Its digest.
        sha256: BlobDigest,
        /// What kind of archive is unpacked; the file is taken as it is when absent.
        unpack: Option<ArchiveKind>,
    },
    /// A commit of a git repository.
    Git {
        /// The repository's address.
        url: Url,
        /// The full commit id.
        revision: String,
    },
    /// A published package.
    Package(Dependency),
}

/// An archive, by the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// tar, compressed or not: the program that it needs to be read, and its package.
    Tar(Option<&'static str>),
    /// zip.
    Zip,
}

impl ArchiveKind {
    /// The kind that a file's name means.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let kinds = [
            (&[".tar", ".tar.gz", ".tgz"][..], Self::Tar(None)),
            (&[".tar.xz", ".txz", ".tar.lzma"], Self::Tar(Some("xz-utils"))),
            (&[".tar.bz2", ".tbz2", ".tbz"], Self::Tar(Some("bzip2"))),
            (&[".tar.zst", ".tzst"], Self::Tar(Some("zstd"))),
            (&[".zip"], Self::Zip),
        ];
        let found = kinds.into_iter().find(|(ends, _)| ends.iter().any(|end| name.ends_with(end)));
        found.map(|(_, kind)| kind)
    }

    /// Whether this program can unpack it by itself.
    fn is_read_here(self) -> bool {
        !matches!(self, Self::Zip | Self::Tar(Some("bzip2")))
    }

    /// The Debian package that unpacks it, if that is not Essential.
    pub fn package(self) -> Option<&'static str> {
        match self {
            Self::Tar(package) => package,
            Self::Zip => Some("unzip"),
        }
    }
}

/// An output of a recipe: `NAME`, or `NAME:OUTPUT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecipeOutput {
    /// The recipe.
    pub recipe: Name,
    /// The output; the recipe's first when absent.
    pub output: Option<Name>,
}

impl RecipeOutput {
    /// Reads `NAME` or `NAME:OUTPUT`.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        match text.split_once(':') {
            Some((recipe, output)) => {
                Ok(Self { recipe: Name::new(recipe)?, output: Some(Name::new(output)?) })
            }
            None => Ok(Self { recipe: Name::new(text)?, output: None }),
        }
    }
}

impl std::fmt::Display for RecipeOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.output {
            Some(output) => write!(f, "{}:{output}", self.recipe),
            None => self.recipe.fmt(f),
        }
    }
}

/// The recipes of a file, and the references between them with their places.
#[derive(Default)]
pub(super) struct Recipes {
    pub(super) all: BTreeMap<Name, Recipe>,
    /// All names as written, also of recipes with problems: a reference to one is not another.
    names: Vec<String>,
}

impl Recipes {
    pub(super) fn read(top: &Table<'_>, directory: &Path, read_file: &ReadFile<'_>) -> Self {
        let entries = top.entries("recipe");
        let names = entries.iter().map(|entry| entry.name.to_owned()).collect();
        let mut recipes = Self { all: BTreeMap::new(), names };
        let mut references = Vec::new();
        for entry in &entries {
            let name = Name::new(entry.name);
            if let Err(error) = &name {
                top.problem_at(entry.place, error.to_string()).record();
            }
            let Some(table) = entry.value.table(&schema::RECIPE) else { continue };
            let recipe = match table.get("file") {
                None => {
                    let (recipe, needs) = recipe(&table, entry.place);
                    references.extend(needs);
                    recipe
                }
                Some(file) => {
                    let read = recipe_file::read(&table, &file, directory, read_file);
                    let Some((recipe, needs)) = read else { continue };
                    references.extend(needs.into_iter().map(|need| (need, file.clone())));
                    recipe
                }
            };
            if let Ok(name) = name {
                recipes.all.insert(name, recipe);
            }
        }
        for (output, value) in &references {
            recipes.check(output, value);
        }
        recipes.check_circles(top);
        recipes
    }

    /// Records a problem if there is no such recipe, or it has no such output.
    pub(super) fn check(&self, wanted: &RecipeOutput, value: &Value<'_>) {
        let name = wanted.recipe.as_str();
        if !self.names.iter().any(|known| known == name) {
            let help = match nearest(name, self.names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add a [recipe.{name}]"),
            };
            value.problem(format!("there is no recipe `{name}`")).help(help).record();
        } else if let (Some(output), Some(recipe)) = (&wanted.output, self.all.get(name))
            && !recipe.outputs.contains(output)
        {
            let known = recipe.outputs.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
            value
                .problem(format!("recipe `{name}` has no output `{output}`"))
                .help(format!("it has: {known}"))
                .record();
        }
    }

    /// Records a problem for each circle of recipes that need each other.
    fn check_circles(&self, top: &Table<'_>) {
        let mut settled: BTreeSet<&Name> = BTreeSet::new();
        for name in self.all.keys() {
            let Some(circle) = self.circle(name, &mut Vec::new(), &mut settled) else { continue };
            let mut names: Vec<&str> = circle.iter().map(|name| name.as_str()).collect();
            names.extend(names.first().copied());
            let place = self.all[circle[0]].place;
            let message = format!("recipes need each other in a circle: {}", names.join(" -> "));
            top.problem_at(place, message).help("break it where one needs the least").record();
            settled.extend(circle);
        }
    }

    /// The first circle that is met on the way from a recipe to what it needs.
    fn circle<'a>(
        &'a self,
        name: &'a Name,
        way: &mut Vec<&'a Name>,
        settled: &mut BTreeSet<&'a Name>,
    ) -> Option<Vec<&'a Name>> {
        if settled.contains(name) {
            return None;
        }
        if let Some(start) = way.iter().position(|earlier| *earlier == name) {
            return Some(way[start..].to_vec());
        }
        way.push(name);
        let needs = self.all.get(name).map_or(&[][..], |recipe| &recipe.recipes);
        let found = needs.iter().find_map(|need| self.circle(&need.recipe, way, settled));
        way.pop();
        settled.insert(name);
        found
    }

    /// Reads a list of outputs and checks each.
    pub(super) fn outputs(&self, table: &Table<'_>, key: &'static str) -> Vec<RecipeOutput> {
        output_list(table, key)
            .into_iter()
            .map(|(output, value)| {
                self.check(&output, &value);
                output
            })
            .collect()
    }
}

fn output_list<'a>(table: &Table<'a>, key: &'static str) -> Vec<(RecipeOutput, Value<'a>)> {
    let items = table.get(key).and_then(|value| value.items()).unwrap_or_default();
    items.into_iter().filter_map(|item| Some((item.text_as(RecipeOutput::new)?, item))).collect()
}

pub(super) fn recipe<'a>(
    table: &Table<'a>,
    place: Place,
) -> (Recipe, Vec<(RecipeOutput, Value<'a>)>) {
    let builder = table.text_as("builder", RecipeBuilder::new).unwrap_or(RecipeBuilder::Script);
    let script = table.get("script").and_then(|value| value.text()).map(str::to_owned);
    if builder == RecipeBuilder::Script && !table.has("script") && !table.has("builder") {
        table
            .problem_at(place, "the recipe has neither a `script` nor a `builder`")
            .help("add script = \"…\", or builder = \"cargo\", \"npm\" or \"python\"")
            .record();
    }
    let source = table.get("source").and_then(|value| Some((source(&value)?, value)));
    if let Some((RecipeSource::Download { unpack: Some(kind), .. }, value)) = &source
        && builder != RecipeBuilder::Script
        && !kind.is_read_here()
    {
        value
            .problem("a `builder` reads its lockfile in the archive, which it cannot in this one")
            .help("name the tar, tar.gz, tar.xz or tar.zst of the same source, or its `git`")
            .record();
    }
    let mut needs = output_list(table, "recipes");
    let toolchain =
        table.get("toolchain").and_then(|value| Some((value.text_as(RecipeOutput::new)?, value)));
    if builder == RecipeBuilder::Script
        && let Some((_, value)) = &toolchain
    {
        value.problem("`toolchain` goes with a `builder`").help("name it in `recipes`").record();
    }
    if let Some((output, value)) = &toolchain
        && needs.iter().all(|(need, _)| need != output)
    {
        needs.push((output.clone(), value.clone()));
    }
    let mut outputs = table.texts_as("outputs", Name::new);
    if outputs.is_empty() {
        outputs.push(Name::new(DEFAULT_OUTPUT).expect("a valid name"));
    }
    let mut debian = table.texts_as("debian", PackageName::new);
    debian.sort();
    let mut runtime = table.texts_as("runtime", PackageName::new);
    runtime.sort();
    let recipe = Recipe {
        builder,
        toolchain: toolchain.map(|(output, _)| output),
        source: source.map(|(source, _)| source),
        patches: table.texts_as("patches", LocalPath::new),
        debian,
        recipes: needs.iter().map(|(output, _)| output.clone()).collect(),
        runtime,
        script,
        env: environment(table, "env"),
        outputs,
        time_limit: table.text_as("time-limit", duration),
        silence_limit: table.text_as("silence-limit", duration),
        resources: resources(table),
        platforms: table.texts_as("platforms", Platform::new),
        file: None,
        place,
    };
    (recipe, needs)
}

fn resources(table: &Table<'_>) -> Resources {
    let count = |name, highest| {
        let count = table.get(name)?.integer(1, highest)?;
        u32::try_from(count).ok()
    };
    Resources {
        memory: table.text_as("memory-limit", size),
        disk: table.text_as("disk-limit", size),
        processes: count("process-limit", 4_194_304),
        cpu_time: table.text_as("cpu-time-limit", duration),
        cpus: count("cpu-limit", 8192),
    }
}

fn source(value: &Value<'_>) -> Option<RecipeSource> {
    if let Shape::Text(_) = value.shape() {
        let path = value.text_as(LocalPath::new)?;
        return Some(RecipeSource::Folder { path, include: Vec::new(), exclude: Vec::new() });
    }
    let table = value.table(&schema::RECIPE_SOURCE)?;
    let kinds: Vec<_> = ["path", "url", "git", "crate", "npm", "python"]
        .into_iter()
        .filter(|key| table.has(key))
        .collect();
    let [kind] = kinds.as_slice() else {
        table
            .problem("a source has one of `path`, `url`, `git`, `crate`, `npm` and `python`")
            .help("for example: source = { path = \"..\", include = [\"src/**\"] }")
            .record();
        return None;
    };
    let companions: &[&str] = match *kind {
        "path" => &["include", "exclude"],
        "url" => &["sha256", "unpack"],
        "crate" | "python" => &["version", "sha256"],
        "npm" => &["version", "integrity"],
        _ => &["revision"],
    };
    for key in ["include", "exclude", "sha256", "unpack", "revision", "version", "integrity"] {
        if table.has(key) && !companions.contains(&key) {
            let message = format!("`{key}` does not go with `{kind}`");
            table.problem(message).help("remove one of the two").record();
        }
    }
    match *kind {
        "path" => {
            let path = table.text_as("path", LocalPath::new);
            let include = table.texts_as("include", pattern);
            let exclude = table.texts_as("exclude", pattern);
            Some(RecipeSource::Folder { path: path?, include, exclude })
        }
        "url" => {
            let url = table.text_as("url", address);
            let digest = table.required("sha256").and_then(|value| value.text_as(sha256));
            let wanted = table.flag("unpack", true);
            let url = url?;
            let name = url.path().rsplit('/').next().unwrap_or_default();
            let unpack = ArchiveKind::of_name(name).filter(|_| wanted);
            Some(RecipeSource::Download { unpack, url, sha256: digest? })
        }
        "crate" | "npm" | "python" => published(&table, kind).map(RecipeSource::Package),
        _ => {
            let url = table.text_as("git", address);
            let revision = table.required("revision").and_then(|value| value.text_as(commit));
            Some(RecipeSource::Git { url: url?, revision: revision? })
        }
    }
}

/// Whether a text is what it should be.
type Rule = fn(&str) -> bool;

/// A published package, by name, version and hash.
fn published(table: &Table<'_>, kind: &'static str) -> Option<language::Dependency> {
    use language::{cargo, npm, python};
    let (is_name, is_version): (Rule, Rule) = match kind {
        "crate" => (cargo::is_name, cargo::is_version),
        "npm" => (npm::is_name, npm::is_version),
        _ => (python::is_name, python::is_version),
    };
    let name = table.text_as(kind, |text| checked(kind, text, is_name));
    let version = table.required("version");
    let version = version.and_then(|it| it.text_as(|text| checked("version", text, is_version)));
    if kind == "npm" {
        let integrity = table.required("integrity").and_then(|it| it.text_as(integrity));
        return Some(npm::published(name?, version?, integrity?));
    }
    let digest = table.required("sha256").and_then(|value| value.text_as(sha256));
    let publish = if kind == "crate" { cargo::published } else { python::published };
    Some(publish(name?, version?, &digest?))
}

fn integrity(text: &str) -> Result<language::Integrity, ValueError> {
    language::Integrity::from_sri(text).map_err(|error| {
        ValueError::new("hash", text, error.to_string())
            .with_help("write it as package-lock.json does: \"sha512-…\"")
    })
}

fn checked(
    what: &'static str,
    text: &str,
    is_right: impl Fn(&str) -> bool,
) -> Result<String, ValueError> {
    match is_right(text) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::new(what, text, "published packages have no such one")),
    }
}

fn pattern(text: &str) -> Result<String, ValueError> {
    match text.is_empty() || text.starts_with('/') || text.split('/').any(|part| part == "..") {
        true => Err(ValueError::new("pattern", text, "it must stay below the source's folder")),
        false => Ok(text.to_owned()),
    }
}

fn commit(text: &str) -> Result<String, ValueError> {
    let hexadecimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match hexadecimal && (text.len() == 40 || text.len() == 64) {
        true => Ok(text.to_owned()),
        false => {
            Err(ValueError::new("commit id", text, "it must have 40 (or 64) digits of 0-9, a-f")
                .with_help("branches and tags move; `git rev-parse NAME` prints the id"))
        }
    }
}
