//! `why`: the way from image.toml to a package or a file.

use std::collections::BTreeSet;

use drystone_builder::build::last_build;
use drystone_builder::configure::recorded_attribution;
use drystone_builder::lock::Lock;
use drystone_builder::spec::{Image, Platform};
use drystone_source::debian::deb::imported;
use drystone_store::realisation::Output;
use drystone_store::store::{Root as StoreRoot, Store, root_name};
use drystone_store::tree::{Entry, Kind, TreePath};
use serde_json::{Value, json};

use crate::answer;
use crate::arguments::WhyArguments;
use crate::diagnostics::Failure;
use crate::explain::locked::{of_image, read_lock};
use crate::explain::packages::{Packages, Root};
use crate::wiring::{Wiring, absolute, image_path, platform, read_image};

/// Top-level folders that merged /usr moves.
const MERGED: [&str; 5] = ["bin/", "sbin/", "lib/", "lib32/", "lib64/"];
/// So many packages that need one are named; the rest is counted.
const NAMED: usize = 10;

/// Explains a package or a path.
pub fn run(wiring: &Wiring, arguments: &WhyArguments) -> Result<(), Failure> {
    let path = image_path(&arguments.image.path());
    let image = read_image(&path)?;
    let settings = wiring.settings(&wiring.flags(), Some(&image))?;
    if !arguments.subject.starts_with('/') {
        // Without a lock there is nothing to explain, whatever the store has.
        read_lock(&image.lock_path)?;
    }
    let store = wiring.existing_store(&settings)?;
    let (text, object) = match arguments.subject.starts_with('/') {
        true => of_path(&store, &image, arguments)?,
        false => of_package(&store, &image, arguments)?,
    };
    match arguments.json {
        true => answer::json(&object),
        false => answer::print(&text),
    }
}

fn of_package(
    store: &Store,
    image: &Image,
    arguments: &WhyArguments,
) -> Result<(String, Value), Failure> {
    let lock = read_lock(&image.lock_path)?;
    let (_, locked) = of_image(&lock, image, arguments.platform.as_deref())?;
    let name = arguments.subject.as_str();
    if !locked.packages.iter().any(|key| key.name.as_str() == name) {
        let help = if locked.all().any(|key| key.name.as_str() == name) {
            "it is used while packages are configured, and does not enter the image"
        } else {
            "`drystone tree` shows what is in it"
        };
        let message = format!("package {name} is not in image {}", image.name);
        return Err(Failure::usage(message).hint(help));
    }
    let packages = Packages::read(store, &lock, locked, image)?;
    Ok((chain_text(&packages, name), chain_json(&packages, name)))
}

fn reason(root: &Root, package: &str) -> String {
    match root {
        Root::Asked(asked) if asked == package => format!("image.toml asks for {asked}"),
        Root::Asked(asked) => format!("image.toml asks for {asked}, which {package} provides"),
        Root::Essential => format!("{package} is Essential, and image.toml says essential = true"),
        Root::Recipe(recipe) => format!("recipe {recipe} needs {package} at run time"),
        Root::Base => format!("every image has {package}"),
    }
}

fn chain_text(packages: &Packages, name: &str) -> String {
    let Some((root, chain)) = packages.chain(name) else { return String::new() };
    let first = chain.first().map_or(name, |(node, _)| node.key.name.as_str());
    let mut text = format!("{}\n", reason(root, first));
    for (node, need) in &chain {
        if let Some(need) = need {
            let key = &node.key;
            let line = format!("{} {} {} {}", key.name, key.version, need.verb(), need.relation);
            text.push_str(&format!("{line}\n"));
            if !need.relation.split([' ', ':', '|']).any(|word| word == need.target) {
                text.push_str(&format!("  which {} provides\n", need.target));
            }
        }
    }
    let others = packages.dependants(name);
    if others.len() > 1 {
        let names: Vec<_> =
            others.iter().take(NAMED).map(|(node, _)| node.key.name.as_str()).collect();
        let more = match others.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        text.push_str(&format!(
            "needed directly by {} packages: {}{more}\n",
            others.len(),
            names.join(", ")
        ));
    }
    text
}

fn chain_json(packages: &Packages, name: &str) -> Value {
    let Some((root, chain)) = packages.chain(name) else { return Value::Null };
    let first = chain.first().map_or(name, |(node, _)| node.key.name.as_str());
    let steps: Vec<Value> = chain
        .iter()
        .map(|(node, need)| {
            json!({
                "package": node.key.name.as_str(),
                "version": node.key.version.as_str(),
                "field": need.map(|need| need.field),
                "relation": need.map(|need| &need.relation),
            })
        })
        .collect();
    let dependants: Vec<_> =
        packages.dependants(name).iter().map(|(node, _)| node.key.name.to_string()).collect();
    json!({
        "package": name,
        "reason": reason(root, first),
        "chain": steps,
        "dependants": dependants,
    })
}

/// One thing that sets a path.
struct Setter {
    kind: &'static str,
    name: String,
    detail: String,
    /// The packages whose scripts did it, where scripts did.
    makers: Vec<String>,
}

fn of_path(
    store: &Store,
    image: &Image,
    arguments: &WhyArguments,
) -> Result<(String, Value), Failure> {
    let subject = &arguments.subject;
    let wrong = |error: String| Failure::usage(format!("{subject}: {error}"));
    let path = TreePath::from_rooted(subject)
        .map_err(|error| wrong(error.to_string()))?
        .ok_or_else(|| wrong("the root itself belongs to nobody".to_owned()))?;
    let path = match is_merged(path.as_str()) {
        true => TreePath::new(format!("usr/{path}")).map_err(|error| wrong(error.to_string()))?,
        false => path,
    };
    let lock = Lock::read(&image.lock_path)?.unwrap_or_default();
    let typed = arguments.platform.as_deref().map(platform).transpose()?;
    let platform = typed.unwrap_or(image.platforms[0]);
    let mut setters = by_packages(store, &lock, image, platform, &path)?;
    setters.extend(by_recipes(store, image, platform, &path)?);
    setters.extend(by_files(image, &path));
    let name = root_name(&absolute(&image.path)?, platform.as_str());
    let root = store.roots()?.into_iter().find_map(|(known, root)| (known == name).then_some(root));
    if let Some(root) = &root {
        setters.extend(by_steps(store, root, &path)?);
    }
    if setters.is_empty() {
        let hint = match root {
            _ if image.from.is_some() => "what is in a base image is not looked up",
            Some(_) => {
                "the last build had no such path; links are not followed: name the path itself"
            }
            None => "build the image first: what scripts and recipes make is known only then",
        };
        let message = format!("nothing of image {} sets /{path}", image.name);
        return Err(Failure::usage(message).hint(hint));
    }
    let mut text = String::new();
    for setter in setters.iter().take(NAMED) {
        text.push_str(&format!("{} {}{}\n", setter.kind, setter.name, setter.detail));
    }
    if setters.len() > NAMED {
        text.push_str(&format!("… and {} more\n", setters.len() - NAMED));
    }
    let by_package = setters.iter().find(|setter| setter.kind == "package");
    let package = by_package.map(|setter| &setter.name);
    let package = package.or_else(|| setters.iter().find_map(|setter| setter.makers.first()));
    let mut chain = Value::Null;
    if let (Some(package), Some(locked)) = (package, lock.platform(&image.name, platform)) {
        let packages = Packages::read(store, &lock, locked, image)?;
        text.push_str(&chain_text(&packages, package));
        chain = chain_json(&packages, package);
    }
    let set_by: Vec<Value> = setters
        .iter()
        .map(|it| json!({ "kind": it.kind, "name": it.name, "scripts_of": it.makers }))
        .collect();
    let object = json!({ "path": format!("/{path}"), "set_by": set_by, "why": chain });
    Ok((text, object))
}

/// Whether a path is below a folder that merged /usr moves.
fn is_merged(path: &str) -> bool {
    MERGED.iter().any(|folder| path.starts_with(folder))
}

fn by_packages(
    store: &Store,
    lock: &Lock,
    image: &Image,
    platform: Platform,
    path: &TreePath,
) -> Result<Vec<Setter>, Failure> {
    let mut setters = Vec::new();
    for key in lock.platform(&image.name, platform).iter().flat_map(|locked| &locked.packages) {
        let Some(pin) = lock.packages.get(key) else { continue };
        let Some(deb) = imported(store, &pin.sha256)? else { continue };
        if let Some(kind) = found(store, &deb.data, path)? {
            let detail = format!(" {} ({kind})", key.version);
            let (kind, name) = ("package", key.name.to_string());
            setters.push(Setter { kind, name, detail, makers: Vec::new() });
        }
    }
    Ok(setters)
}

/// Entries of `[files]` at the path or above it.
fn by_files(image: &Image, path: &TreePath) -> Vec<Setter> {
    let below = |target: &str| {
        let target = target.trim_matches('/');
        target.is_empty()
            || path
                .as_str()
                .strip_prefix(target)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    image
        .files
        .iter()
        .filter(|entry| below(&entry.target.to_string()))
        .map(|entry| Setter {
            kind: "files",
            name: entry.target.to_string(),
            detail: format!(" (image.toml:{})", image.text.position(entry.place.start).0),
            makers: Vec::new(),
        })
        .collect()
}

/// Outputs of recipes that enter the image, as they were last built. They may write below `/bin`
/// and its like, which stand below `/usr` in the image.
fn by_recipes(
    store: &Store,
    image: &Image,
    platform: Platform,
    path: &TreePath,
) -> Result<Vec<Setter>, Failure> {
    let mut paths = vec![path.clone()];
    let unmerged = path.as_str().strip_prefix("usr/").filter(|rest| is_merged(rest));
    paths.extend(unmerged.and_then(|rest| TreePath::new(rest).ok()));
    let mut setters = Vec::new();
    for wanted in image.entering_recipes() {
        let Some(name) = image.output_name(&wanted) else { continue };
        let last = last_build(store, &image.path, wanted.recipe.as_str(), platform)?;
        let Some(id) = last else { continue };
        let Some(output) = store.realised_output(&id, name.as_str())? else { continue };
        for path in &paths {
            if let Some(kind) = found(store, &output, path)? {
                setters.push(Setter {
                    kind: "recipe",
                    name: wanted.to_string(),
                    detail: format!(" ({kind})"),
                    makers: Vec::new(),
                });
                break;
            }
        }
    }
    Ok(setters)
}

/// What the image's own steps made: configuration, accounts, the finish script.
fn by_steps(store: &Store, root: &StoreRoot, path: &TreePath) -> Result<Vec<Setter>, Failure> {
    let mut setters = Vec::new();
    for tree in &root.trees {
        let Some(output) = store.output(tree)? else { continue };
        let own = ["configured", "system", "finished", "merged-usr"];
        let name = output.path.name().to_owned();
        if own.iter().any(|prefix| name.starts_with(prefix))
            && let Some(kind) = found(store, &output, path)?
        {
            let makers = match name.starts_with("configured") {
                true => makers(store, root, path)?,
                false => Vec::new(),
            };
            let detail = match makers.is_empty() {
                true => format!(" ({kind})"),
                false => format!(" ({kind}), by scripts of {}", makers.join(", ")),
            };
            setters.push(Setter { kind: "step", name, detail, makers });
        }
    }
    Ok(setters)
}

/// The packages whose scripts touched a path when the image's packages were configured.
fn makers(store: &Store, root: &StoreRoot, path: &TreePath) -> Result<Vec<String>, Failure> {
    let mut makers = BTreeSet::new();
    for stage in &root.derivations {
        let attribution = recorded_attribution(store, stage).map_err(Failure::of)?;
        let paths = attribution.and_then(|mut made| made.paths.remove(path.as_str()));
        makers.extend(paths.into_iter().flatten());
    }
    Ok(makers.into_iter().collect())
}

/// What a tree has at a path; a deletion stands under a name of its own.
fn found(store: &Store, output: &Output, path: &TreePath) -> Result<Option<&'static str>, Failure> {
    let Some(listing) = store.listing(output)? else { return Ok(None) };
    let deletion = || Entry::deletion(path).ok().and_then(|entry| listing.find(&entry.path));
    Ok(listing.find(path).or_else(deletion).map(|found| match found.entry.kind {
        Kind::Directory => "directory",
        Kind::File { .. } => "file",
        Kind::Symlink { .. } => "symbolic link",
        Kind::HardLink { .. } => "hard link",
        Kind::Deletion => "deletion",
    }))
}
