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
//! eight. See the header of the output for the rule.

mod package_index;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;

use drystone_builder::image::order::DEFAULT_CLASS;
use package_index::{Package, UPSTREAM_UPDATES, count_updates, read_index};

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

/// For each package, how many packages need it, itself included.
fn count_dependants(base: &[Package]) -> Vec<usize> {
    let edges = package_index::edges(base);
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

/// Half of all packages need one of level 0 or 1; levels fall by halves.
fn level(total: usize, dependants: usize) -> u32 {
    (total / dependants.max(1)).max(1).ilog2()
}

/// The class of a package whose source has had no update.
fn quiet_class(level: u32) -> u8 {
    match level {
        0..=3 => 0,
        4..=6 => 1,
        _ => DEFAULT_CLASS,
    }
}

/// The class of the packages of a source that has had updates.
///
/// When something changes, all above it is unpacked again. So what changes often but is small belongs
/// above what is large and changes less: by updates per byte (two neighbours are in the right order
/// if the lower one has fewer).
fn restless_class(updates: u32, mean_size: u64) -> u8 {
    match u64::from(updates) * 1_000_000 / mean_size.max(1) {
        0..4 => 3,
        4..16 => 4,
        16..64 => 5,
        _ => 6,
    }
}

/// The mean size in bytes of each source's packages.
fn mean_sizes(base: &[Package]) -> BTreeMap<&str, u64> {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for package in base {
        let (sum, count) = sums.entry(&package.source).or_default();
        *sum += package.size;
        *count += 1;
    }
    sums.into_iter().map(|(source, (sum, count))| (source, sum / count)).collect()
}

fn write_table(
    suite: &str,
    base: &[Package],
    dependants: &[usize],
    updates: &BTreeMap<String, u32>,
) -> Result<(), Box<dyn Error>> {
    let sizes = mean_sizes(base);
    let mut sources: BTreeMap<&str, u8> = BTreeMap::new();
    let mut packages: BTreeMap<&str, u8> = BTreeMap::new();
    for (package, &count) in base.iter().zip(dependants) {
        let source = package.source.as_str();
        match updates.get(source) {
            Some(&updates) if updates > 0 => {
                sources.insert(source, restless_class(updates, sizes[source]));
            }
            _ => {
                let class = quiet_class(level(base.len(), count));
                if class != DEFAULT_CLASS {
                    packages.insert(&package.name, class);
                }
            }
        }
    }

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
         # size    mean size of the source's packages\n\
         #\n\
         # class 0  no updates, level 0..3     common and quiet\n\
         # class 1  no updates, level 4..6\n\
         # class {DEFAULT_CLASS}  no updates, level 7..      not listed here\n\
         # class 3  less than 4 updates per MB\n\
         # class 4  4 to 15\n\
         # class 5  16 to 63\n\
         # class 6  64 and more                small and restless\n\
         # class 7  packages of other repositories, whatever their names\n"
    )
}
