//! Makes a suite's table of layer classes (`builder/data/order/SUITE.tsv`) from Debian's indexes.
//!
//! ```text
//! make_order_table SUITE PACKAGES... [--history PACKAGES...] > builder/data/order/SUITE.tsv
//! ```
//!
//! The arguments are uncompressed `Packages` files, or files that apt keeps compressed, which
//! apt's own helper reads. The first is the suite's base index; further ones are its updates and
//! security indexes. Files after `--history` are those of an earlier suite, from which only the
//! number of updates of each source is taken: a young suite has not had its own yet.
//!
//! Commonness is the number of packages of the suite whose dependencies, followed to the end, need a
//! package. Restlessness is the number of times that a source was updated within a release: the N of
//! `+debXuN`, or for sources that take whole upstream releases (`~debXuN`, in the security index) at least
//! [`UPSTREAM_UPDATES`]. See the header of the output for the rule.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::io::Write;
use std::process::Command;

use drystone_builder::image::order::DEFAULT_CLASS;

/// The updates that a source has at least if security updates bring whole upstream releases.
const UPSTREAM_UPDATES: u32 = 8;

struct Package {
    name: String,
    source: String,
    version: String,
    /// Groups of alternatives, names only.
    depends: Vec<Vec<String>>,
    provides: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let suite = arguments
        .next()
        .ok_or("usage: make_order_table SUITE PACKAGES... [--history PACKAGES...]")?;
    let (mut own, mut history) = (Vec::new(), Vec::new());
    let mut is_history = false;
    for argument in arguments {
        if argument == "--history" {
            is_history = true;
        } else if is_history {
            history.push(read_index(&argument)?);
        } else {
            own.push(read_index(&argument)?);
        }
    }
    let base = own.first().ok_or("the suite's base index is missing")?;
    let dependants = count_dependants(base);
    let mut updates = BTreeMap::new();
    for indexes in [&own, &history] {
        count_updates(indexes, &mut updates);
    }
    write_table(&suite, base, &dependants, &updates)
}

fn read_index(path: &str) -> Result<Vec<Package>, Box<dyn Error>> {
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
    Some(Package {
        source: source.unwrap_or(&name).to_owned(),
        version: (*fields.get("Version")?).to_owned(),
        depends: groups.flat_map(|text| text.split(',')).map(alternatives).collect(),
        provides: fields
            .get("Provides")
            .map(|text| text.split(',').map(bare_name).collect())
            .unwrap_or_default(),
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

/// For each package, how many packages need it, itself included.
fn count_dependants(base: &[Package]) -> Vec<usize> {
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
    // The first alternative that exists is the one that apt takes for most images.
    let edges: Vec<Vec<usize>> = base
        .iter()
        .map(|package| {
            package.depends.iter().filter_map(|group| group.iter().find_map(find)).collect()
        })
        .collect();
    let mut dependants = vec![0; base.len()];
    let mut seen = vec![usize::MAX; base.len()];
    for start in 0..base.len() {
        let mut stack = vec![start];
        seen[start] = start;
        while let Some(package) = stack.pop() {
            dependants[package] += 1;
            for &needed in &edges[package] {
                if seen[needed] != start {
                    seen[needed] = start;
                    stack.push(needed);
                }
            }
        }
    }
    dependants
}

/// Raises each source's number of updates to what these indexes (base first) show.
fn count_updates(indexes: &[Vec<Package>], updates: &mut BTreeMap<String, u32>) {
    for (number, index) in indexes.iter().enumerate() {
        for package in index {
            let Some((sign, count)) = stable_update(&package.version) else { continue };
            // Only an index of security updates shows that upstream releases keep coming; a backported
            // upstream release in the base index may have been the only one.
            let count = if sign == '~' && number > 0 { count.max(UPSTREAM_UPDATES) } else { count };
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

/// Half of all packages need one of level 0 or 1; levels fall by halves.
fn level(total: usize, dependants: usize) -> u32 {
    (total / dependants.max(1)).max(1).ilog2()
}

fn class(level: u32, updates: u32) -> u8 {
    match (level, updates) {
        (0..=3, 0..=1) => 0,
        (0..=3, 2..=4) => 1,
        (0..=3, _) => 2,
        (4..=6, 0..=1) => 3,
        (_, 0..=1) => DEFAULT_CLASS,
        (_, 2..=4) => 5,
        _ => 6,
    }
}

fn write_table(
    suite: &str,
    base: &[Package],
    dependants: &[usize],
    updates: &BTreeMap<String, u32>,
) -> Result<(), Box<dyn Error>> {
    let updates_of = |source: &str| updates.get(source).copied().unwrap_or(0);
    let mut sources: BTreeMap<&str, u8> = BTreeMap::new();
    for package in base {
        let rare = class(u32::MAX, updates_of(&package.source));
        if rare != DEFAULT_CLASS {
            sources.insert(&package.source, rare);
        }
    }
    let mut packages: BTreeMap<&str, u8> = BTreeMap::new();
    for (package, &count) in base.iter().zip(dependants) {
        let class = class(level(base.len(), count), updates_of(&package.source));
        let listed = sources.get(package.source.as_str()).copied().unwrap_or(DEFAULT_CLASS);
        if class != listed {
            packages.insert(&package.name, class);
        }
    }
    // A source of which every package is listed needs no line of its own.
    let unlisted: BTreeSet<&str> = base
        .iter()
        .filter(|package| !packages.contains_key(package.name.as_str()))
        .map(|package| package.source.as_str())
        .collect();
    sources.retain(|source, _| unlisted.contains(source));

    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    write!(out, "{}", header(suite))?;
    for (name, class) in &packages {
        writeln!(out, "{name}\t{class}")?;
    }
    for (source, class) in &sources {
        writeln!(out, "src:{source}\t{class}")?;
    }
    out.flush()?;
    Ok(())
}

fn header(suite: &str) -> String {
    format!(
        "# Layer classes of Debian {suite}: NAME<TAB>CLASS, or src:NAME<TAB>CLASS for a source's other packages.\n\
         # Made by builder/examples/make_order_table.rs; never changed while the suite lives.\n\
         #\n\
         # level   floor(log2(packages in the suite / packages that need this one))\n\
         # updates the N of +debXuN of the source; at least {UPSTREAM_UPDATES} if security brings upstream releases\n\
         #\n\
         # class 0  level 0..3, updates 0..1    common and quiet\n\
         # class 1  level 0..3, updates 2..4\n\
         # class 2  level 0..3, updates 5..     common and restless\n\
         # class 3  level 4..6, updates 0..1\n\
         # class {DEFAULT_CLASS}  level 7..,  updates 0..1    not listed here\n\
         # class 5  level 4..,  updates 2..4\n\
         # class 6  level 4..,  updates 5..     rare and restless\n\
         # class 7  packages of other repositories, whatever their names\n"
    )
}
