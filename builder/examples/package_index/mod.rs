//! As much of Debian's `Packages` files as the tools about layers need: names, edges, sizes, updates.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::process::Command;

/// The updates that a source has at least if security updates bring whole upstream releases.
pub const UPSTREAM_UPDATES: u32 = 8;

/// One stanza of an index.
pub struct Package {
    pub name: String,
    pub source: String,
    pub version: String,
    /// The archive's size in bytes.
    pub size: u64,
    /// Groups of alternatives, names only.
    depends: Vec<Vec<String>>,
    provides: Vec<String>,
}

/// Reads an index, plain or as apt keeps it.
pub fn read_index(path: &str) -> Result<Vec<Package>, Box<dyn Error>> {
    let output = Command::new("/usr/lib/apt/apt-helper").args(["cat-file", path]).output()?;
    if !output.status.success() {
        return Err(format!("{path}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split("\n\n").filter_map(parse_stanza).collect())
}

fn parse_stanza(stanza: &str) -> Option<Package> {
    let fields: HashMap<&str, &str> = stanza
        .lines()
        .filter(|line| !line.starts_with([' ', '\t']))
        .filter_map(|line| line.split_once(": "))
        .collect();
    let name = (*fields.get("Package")?).to_owned();
    let source = fields.get("Source").and_then(|text| text.split(' ').next());
    let groups = ["Pre-Depends", "Depends"].iter().filter_map(|field| fields.get(field));
    let provides = fields.get("Provides").map(|text| text.split(',').map(bare_name).collect());
    Some(Package {
        source: source.unwrap_or(&name).to_owned(),
        version: (*fields.get("Version")?).to_owned(),
        size: fields.get("Size")?.parse().ok()?,
        depends: groups.flat_map(|text| text.split(',')).map(alternatives).collect(),
        provides: provides.unwrap_or_default(),
        name,
    })
}

fn alternatives(group: &str) -> Vec<String> {
    group.split('|').map(bare_name).collect()
}

/// The name of a relation without version and architecture.
fn bare_name(relation: &str) -> String {
    relation.trim().split([' ', '(', ':']).next().unwrap_or_default().to_owned()
}

/// For each package of a suite the packages that it depends on, as positions.
///
/// Of alternatives the first that exists counts: the one that apt takes for most images.
pub fn edges(base: &[Package]) -> Vec<Vec<usize>> {
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    let mut providers: HashMap<&str, usize> = HashMap::new();
    for (number, package) in base.iter().enumerate() {
        by_name.insert(&package.name, number);
        for provided in &package.provides {
            let first = providers.entry(provided).or_insert(number);
            if package.name < base[*first].name {
                *first = number;
            }
        }
    }
    let find = |name: &String| {
        by_name.get(name.as_str()).or_else(|| providers.get(name.as_str())).copied()
    };
    let of = |package: &Package| {
        package.depends.iter().filter_map(|group| group.iter().find_map(find)).collect()
    };
    base.iter().map(of).collect()
}

/// Raises each source's number of updates to what these indexes (base first) show.
pub fn count_updates(indexes: &[Vec<Package>], updates: &mut BTreeMap<String, u32>) {
    for (number, index) in indexes.iter().enumerate() {
        for package in index {
            let Some((sign, count)) = stable_update(&package.version) else { continue };
            // Only an index of security updates shows that upstream releases keep coming; a
            // backported upstream release in the base index may have been the only one.
            let is_upstream = sign == '~' && number > 0;
            let count = if is_upstream { count.max(UPSTREAM_UPDATES) } else { count };
            let known = updates.entry(package.source.clone()).or_default();
            *known = count.max(*known);
        }
    }
}

/// The sign and the number of `+debXuN` or `~debXuN` in a version.
fn stable_update(version: &str) -> Option<(char, u32)> {
    let start = version.rfind("deb")?;
    let sign = version[..start].chars().next_back().filter(|sign| "+~".contains(*sign))?;
    let (release, count) = version[start + 3..].split_once('u')?;
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    (digits(release) == release.len()).then_some(())?;
    Some((sign, count[..digits(count)].parse().ok()?))
}
