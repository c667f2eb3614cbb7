//! The checked content of one image.toml.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::document::{self, Diagnostic, Diagnostics, Place, Shape, SourceText, Table, nearest};

use super::config::{self, Account, Config};
use super::debian::{self, Debian, Repository};
use super::files::{self, FileEntry, FileSource};
use super::names::{AccountName, ImageName, Name, Tag};
use super::options::{self, Finish, ImageOptions};
use super::platform::Platform;
use super::recipe::{Recipe, RecipeOutput, Recipes};
use super::recipe_file::ReadFile;
use super::reference::ImageReference;
use super::schema;
use super::users::{self, BASE_ACCOUNTS, Group, User};
use super::values::{CacheAddress, LocalPath};

/// The newest `schema` that this version reads.
pub const SCHEMA: i64 = 1;

/// One image as its image.toml describes it, checked. Lists whose order has no meaning are sorted.
#[derive(Debug, Clone)]
pub struct Image {
    /// The file, as given.
    pub path: PathBuf,
    /// The folder of the file, which all local paths start from.
    pub directory: PathBuf,
    /// The file's text, for messages about it.
    pub text: Arc<SourceText>,
    /// The file format's number.
    pub schema: i64,
    /// The image's name; no part of its digest.
    pub name: ImageName,
    /// The image's tag; no part of its digest.
    pub tag: Tag,
    /// The platforms that it is built for, in the order as written. Never empty.
    pub platforms: Vec<Platform>,
    /// The lock file.
    pub lock_path: PathBuf,
    /// The base image, if there is one, and where it stands.
    pub from: Option<(ImageReference, Place)>,
    /// What comes from Debian.
    pub debian: Option<Debian>,
    /// Repositories beside the main archive.
    pub repositories: BTreeMap<Name, Repository>,
    /// What is built from source.
    pub recipes: BTreeMap<Name, Recipe>,
    /// What enters from the project, sorted by target.
    pub files: Vec<FileEntry>,
    /// Accounts.
    pub users: BTreeMap<AccountName, User>,
    /// Groups.
    pub groups: BTreeMap<AccountName, Group>,
    /// The last script, if there is one.
    pub finish: Option<Finish>,
    /// How the image is run.
    pub config: Config,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// How the image is put together.
    pub image: ImageOptions,
    /// Binary caches that the project reads, after the user's own.
    pub cache_read: Vec<CacheAddress>,
    /// Where `[cache] read` stands.
    pub cache_place: Option<Place>,
}

impl Image {
    /// Reads and checks the text of an image.toml that stands at `path`.
    ///
    /// Touches no file: whether local sources exist is seen when they are read. Returns *all*
    /// problems of the text, in the order of their places.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Diagnostics> {
        let none = |_: &Path| Err(std::io::Error::other("no files are read here"));
        Self::parse_with(path, text, &none)
    }

    /// As [`Image::parse`], with a way to read the files of recipes that image.toml names.
    pub fn parse_with(
        path: &Path,
        text: &str,
        read_file: &ReadFile<'_>,
    ) -> Result<Self, Diagnostics> {
        let source = SourceText::new(path.display().to_string(), text);
        let format = document::Format { key: "schema", newest: SCHEMA };
        document::read(&source, &schema::TOP, Some(format), |top| {
            read(top, path, &source, read_file)
        })
    }

    /// A problem with something that stands at `place`, found after reading.
    pub fn problem(&self, place: Place, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(&self.text, place, message)
    }

    /// What this version reads but cannot build, each with its place.
    pub fn unsupported(&self) -> Option<Diagnostics> {
        let recipes = self.recipes.iter().filter(|_| self.debian.is_none());
        let recipes = recipes.map(|(name, recipe)| {
            self.problem(recipe.place, format!("recipe `{name}` needs [debian] to build with"))
                .with_help("add [debian] with a suite; `packages` may be left out")
        });
        let from = self.from.iter().filter(|_| self.debian.is_some()).map(|(_, place)| {
            let message = "packages of [debian] cannot be put over a base image: nobody knows \
                           which packages and accounts it has, and how they were configured";
            let help = "name the base's packages in [debian] instead of `from`: images of one \
                        suite share their layers by themselves";
            self.problem(*place, message).with_help(help)
        });
        Diagnostics::new(recipes.chain(from).collect())
    }

    /// The base image, where it is named by a tag, so that the lock must say what is meant.
    pub fn tagged_base(&self) -> Option<&ImageReference> {
        let (from, _) = self.from.as_ref()?;
        from.digest.is_none().then_some(from)
    }

    /// The recipes that are built for a platform.
    pub fn recipes_on(&self, platform: Platform) -> impl Iterator<Item = (&Name, &Recipe)> {
        self.recipes.iter().filter(move |(_, recipe)| recipe.is_for(platform))
    }

    /// The output that is meant: the one that is named, else the recipe's first.
    pub fn output_name<'a>(&'a self, wanted: &'a RecipeOutput) -> Option<&'a Name> {
        let first = || self.recipes.get(&wanted.recipe)?.outputs.first();
        wanted.output.as_ref().or_else(first)
    }

    /// The outputs of recipes that enter the image as such: those of `[image] recipes`, else the
    /// first output of each recipe that no other recipe and no entry of `[files]` uses.
    pub fn entering_recipes(&self) -> Vec<RecipeOutput> {
        if let Some(recipes) = &self.image.recipes {
            return recipes.clone();
        }
        let by_recipes = self.recipes.values().flat_map(|recipe| &recipe.recipes);
        let by_files = self.files.iter().filter_map(|file| match &file.source {
            FileSource::Recipe { output, .. } => Some(output),
            _ => None,
        });
        let used: BTreeSet<_> = by_recipes.chain(by_files).map(|output| &output.recipe).collect();
        let free = self.recipes.keys().filter(|name| !used.contains(name));
        free.map(|name| RecipeOutput { recipe: name.clone(), output: None }).collect()
    }
}

fn read(
    top: &Table<'_>,
    path: &Path,
    source: &Arc<SourceText>,
    read_file: &ReadFile<'_>,
) -> Option<Image> {
    let schema = top.get("schema").map(|value| value.integer(1, SCHEMA));
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let name = top.required("name").and_then(|value| value.text_as(ImageName::new));
    let tag = top.text_as("tag", Tag::new).unwrap_or_else(Tag::latest);
    let platforms = platforms(top);
    let lock = top.text_as("lock", LocalPath::new);
    let from = top.get("from");
    let from = from.and_then(|value| Some((value.text_as(ImageReference::new)?, value.place())));
    let debian = top.get("debian").map(|value| {
        let table = value.table(&schema::DEBIAN)?;
        debian::read(&table, &directory)
    });
    let recipes = Recipes::read(top, &directory, read_file);
    let files = files::read(top, &recipes);
    let (users, groups) = (users::users(top), users::groups(top));
    let finish = options::finish(top);
    let config = top.get("config").and_then(|value| value.table(&schema::CONFIG));
    let config = config.map(|table| config::read(&table)).unwrap_or_default();
    let annotations = annotations(top);
    let image = top.get("image").and_then(|value| value.table(&schema::IMAGE));
    let image = image.map(|table| options::image(&table, &recipes)).unwrap_or_default();
    let cache = top.get("cache").and_then(|value| value.table(&schema::CACHE));
    let cache_place = cache.as_ref().and_then(|table| table.get("read")).map(|value| value.place());
    let cache_read = cache
        .map(|table| table.texts_as("read", |text| CacheAddress::new(text, false)))
        .unwrap_or_default();
    let (debian, repositories) = match debian {
        Some(tables) => tables.map(|(debian, repositories)| (Some(debian), repositories))?,
        None => (None, BTreeMap::new()),
    };
    let image = Image {
        path: path.to_owned(),
        lock_path: lock.map_or_else(|| path.with_extension("lock"), |lock| lock.below(&directory)),
        directory,
        text: Arc::clone(source),
        schema: schema.unwrap_or(Some(SCHEMA))?,
        name: name?,
        tag,
        platforms,
        from,
        debian,
        repositories,
        recipes: recipes.all,
        files,
        users,
        groups,
        finish,
        config,
        annotations,
        image,
        cache_read,
        cache_place,
    };
    check_accounts(top, &image);
    check_content(top, &image);
    Some(image)
}

fn platforms(top: &Table<'_>) -> Vec<Platform> {
    let Some(value) = top.get("platforms") else { return vec![Platform::default_platform()] };
    let items = value.items().unwrap_or_default();
    if items.is_empty() && matches!(value.shape(), Shape::List) {
        value.problem("`platforms` is empty").help("leave it out for linux/amd64").record();
    }
    let mut platforms = Vec::new();
    for item in &items {
        let Some(platform) = item.text_as(Platform::new) else { continue };
        if platforms.contains(&platform) {
            item.problem(format!("platform {platform} is named twice")).record();
        }
        platforms.push(platform);
    }
    platforms
}

fn annotations(top: &Table<'_>) -> BTreeMap<String, String> {
    const CREATED: &str = "org.opencontainers.image.created";
    for entry in top.entries("annotations") {
        if entry.name == CREATED {
            top.problem_at(entry.place, format!("`{CREATED}` comes from the lock's date"))
                .help("set SOURCE_DATE_EPOCH to choose another time")
                .record();
        }
    }
    config::texts(top, "annotations")
}

/// Names in `[config] user` and `[users]` must be made by something: packages may make any
/// account, so only an image without packages is judged here, the others when they are configured.
fn check_accounts(top: &Table<'_>, image: &Image) {
    let made_later = image.debian.is_some() || image.from.is_some() || image.finish.is_some();
    let users = image.users.keys().map(AccountName::as_str);
    let groups = image.groups.keys().map(AccountName::as_str);
    let base = BASE_ACCOUNTS.iter().map(|(name, _)| *name);
    let known_users: Vec<_> = users.clone().chain(base.clone()).collect();
    let known_groups: Vec<_> = groups.chain(users).chain(base).collect();
    let check = |name: &str, known: &[&str], table: &str, place: Place| {
        if made_later || known.contains(&name) {
            return;
        }
        let help = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add a [{table}.{name}]"),
        };
        let message = format!("nothing in this image makes the name `{name}`");
        top.problem_at(place, message).help(help).record();
    };
    if let (Some(user), Some(place)) = (&image.config.user, image.config.user_place) {
        if let Account::Name(name) = &user.user {
            check(name, &known_users, "users", place);
        }
        if let Some(Account::Name(name)) = &user.group {
            check(name, &known_groups, "groups", place);
        }
    }
    for user in image.users.values() {
        user.groups
            .iter()
            .for_each(|name| check(name.as_str(), &known_groups, "groups", user.place));
    }
    for (name, group) in &image.groups {
        let own = image.users.get(name.as_str());
        if let Some(user) = own.filter(|user| user.gid != group.gid) {
            let message =
                format!("user `{name}` has gid {} and group `{name}` {}", user.gid, group.gid);
            let help = format!("add gid = {} to [users.{name}]", group.gid);
            top.problem_at(group.place, message).help(help).record();
        }
    }
}

fn check_content(top: &Table<'_>, image: &Image) {
    let empty = image.debian.is_none()
        && image.from.is_none()
        && image.recipes.is_empty()
        && image.files.is_empty();
    if empty && ["debian", "recipe", "files", "from"].iter().all(|key| !top.has(key)) {
        top.problem("the image would be empty")
            .help("add [debian] with a suite and packages, or [files]")
            .record();
    }
    let Some(debian) = &image.debian else {
        if let Some(finish) = &image.finish {
            let message = "[finish] needs [debian]: its script runs with the Essential packages";
            top.problem_at(finish.place, message).record();
        }
        return;
    };
    for repository in image.repositories.values() {
        let served = &repository.architectures;
        let useless = !served.is_empty()
            && image.platforms.iter().all(|platform| !served.contains(platform.debian_name()));
        if useless {
            let message = "the repository serves none of the image's platforms";
            top.problem_at(repository.place, message).record();
        }
    }
    if debian.packages.is_empty() && !debian.essential && image.recipes.is_empty() {
        top.problem_at(debian.place, "[debian] asks for no package")
            .help("add packages = [\"…\"], or essential = true for the base system alone")
            .record();
    }
}
