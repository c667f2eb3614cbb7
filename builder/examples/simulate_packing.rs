//! Compares ways to divide images into layers, by the cost model of `drystone_builder::image::pack`.
//!
//! ```text
//! simulate_packing SUITE PACKAGES...        (base index first, then updates and security)
//! ```
//!
//! A workload is a few images on one machine, which pulls all of them, then each again whenever it is rebuilt.
//! A source that the indexes show to have had N updates gets N, spread over the rebuilds: evenly, shifted by
//! a hash of the source's name, since indexes hold no dates. `three services` was used to choose the
//! constants of the packing, `six others` was not.
//!
//! Two kinds of client: one that downloads by digest (containerd, Podman) and one that downloads every
//! layer above the first that changed (docker 20.10). Both unpack every layer whose chain is new.
//!
//! The numbers of updates come from the same indexes as the classes, so the comparison knows
//! as much as the table does; sizes are those of the .deb archives.

mod package_index;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::error::Error;

use drystone_builder::image::pack::{BYTES_PER_SECOND, LAYER_LIMIT, LAYER_MILLISECONDS};
use drystone_builder::image::{LayersOption, OrderTable, PackItem, plan_layers};
use package_index::{Package, count_updates, edges, read_index};

/// Rebuilds over the time that the indexes cover: about one a fortnight.
const REBUILDS: u32 = 52;

/// The image's own layer: caches, package list, files; it changes whenever anything does.
const OWN_SIZE: u64 = 200_000;

type Workload = (&'static str, &'static [&'static [&'static str]]);

const WORKLOADS: [Workload; 2] = [
    (
        "three services",
        &[
            &["nginx", "ca-certificates", "curl", "tzdata"],
            &[
                "python3",
                "python3-flask",
                "python3-psycopg2",
                "python3-requests",
                "gunicorn",
                "ca-certificates",
            ],
            &[
                "php-fpm",
                "php-curl",
                "php-mysql",
                "php-gd",
                "php-xml",
                "php-mbstring",
                "nginx",
                "git",
                "imagemagick",
                "ca-certificates",
                "curl",
            ],
        ],
    ),
    (
        "six others",
        &[
            &["redis-server", "openssl"],
            &["postgresql-client", "python3", "python3-numpy"],
            &["apache2", "libapache2-mod-php"],
            &["default-jre-headless", "ca-certificates", "curl"],
            &["nodejs", "git"],
            &["ruby", "build-essential"],
        ],
    ),
];

/// One package of an image.
struct Member<'a> {
    package: &'a Package,
    updates: u32,
    class: u8,
    needs: Vec<usize>,
}

/// An image's members, and for an algorithm its layers: positions of members, lowest first.
type Layers = Vec<Vec<usize>>;
type Algorithm = fn(&[Member<'_>]) -> Layers;

const ALGORITHMS: [(&str, Algorithm); 8] = [
    ("one layer", one_layer),
    ("one per package", |members| drystone(members, LayersOption::Each)),
    ("popularity (dockerTools)", popularity),
    ("origin groups, 8 (apko)", |members| origins(members, 8)),
    ("origin groups, 10 (apko)", |members| origins(members, 10)),
    ("origin groups, 100", |members| origins(members, LAYER_LIMIT)),
    ("drystone, 20 layers", |members| {
        drystone(members, LayersOption::Count(std::num::NonZeroUsize::MIN.saturating_add(19)))
    }),
    ("drystone packed", |members| drystone(members, LayersOption::Packed)),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let suite = arguments.next().ok_or("usage: simulate_packing SUITE PACKAGES...")?;
    let indexes: Vec<Vec<Package>> =
        arguments.map(|path| read_index(&path)).collect::<Result<_, _>>()?;
    let base = indexes.first().ok_or("the suite's base index is missing")?;
    let mut updates = BTreeMap::new();
    count_updates(&indexes, &mut updates);
    let table = OrderTable::for_suite(&suite)?;
    for (workload, images) in WORKLOADS {
        let images: Vec<Vec<Member<'_>>> = images
            .iter()
            .map(|roots| closure(base, roots, &updates, &table))
            .collect::<Result<_, _>>()?;
        println!("\n{workload}, {REBUILDS} rebuilds");
        for members in &images {
            let size: u64 = members.iter().map(|member| member.package.size).sum();
            println!("  an image of {} packages, {:.1} MB", members.len(), size as f64 / 1e6);
        }
        println!(
            "{:26} {:>17} {:>17} {:>17}  layers",
            "", "first pulls", "by digest", "docker 20.10"
        );
        for (name, algorithm) in ALGORITHMS {
            report(name, &images, algorithm);
        }
        report_moves(&images, &indexes);
    }
    Ok(())
}

/// Says how many layers hold other packages when all packages have the sizes of their newest versions.
fn report_moves(images: &[Vec<Member<'_>>], indexes: &[Vec<Package>]) {
    let newest: HashMap<&str, &Package> =
        indexes.iter().flatten().map(|package| (package.name.as_str(), package)).collect();
    let (mut moved, mut total, mut changed) = (0, 0, 0);
    for members in images {
        let before = drystone(members, LayersOption::Packed);
        let updated: Vec<Member<'_>> = members
            .iter()
            .map(|member| Member {
                package: newest[member.package.name.as_str()],
                needs: Vec::new(),
                ..*member
            })
            .collect();
        changed += updated
            .iter()
            .zip(members)
            .filter(|(new, old)| new.package.size != old.package.size)
            .count();
        let after: HashSet<Vec<usize>> =
            drystone(&updated, LayersOption::Packed).into_iter().collect();
        total += before.len();
        moved += before.iter().filter(|layer| !after.contains(*layer)).count();
    }
    println!(
        "{moved} of {total} layers hold other packages after the {changed} updates that the indexes hold"
    );
}

/// What the roots need, in order of name.
fn closure<'a>(
    base: &'a [Package],
    roots: &[&str],
    updates: &BTreeMap<String, u32>,
    table: &OrderTable,
) -> Result<Vec<Member<'a>>, Box<dyn Error>> {
    let edges = edges(base);
    let mut stack = Vec::new();
    for root in roots {
        let found = base.iter().position(|package| package.name == *root);
        stack.push(found.ok_or_else(|| format!("the suite has no {root}"))?);
    }
    let mut seen: BTreeSet<usize> = stack.iter().copied().collect();
    while let Some(package) = stack.pop() {
        stack.extend(edges[package].iter().filter(|&&needed| seen.insert(needed)));
    }
    let mut chosen: Vec<usize> = seen.into_iter().collect();
    chosen.sort_by_key(|&package| &base[package].name);
    let position: HashMap<usize, usize> =
        chosen.iter().enumerate().map(|(new, &old)| (old, new)).collect();
    let member = |&number: &usize| {
        let package = &base[number];
        Member {
            package,
            updates: updates.get(&package.source).copied().unwrap_or(0),
            class: table.class(&package.source, &package.name),
            needs: edges[number].iter().map(|needed| position[needed]).collect(),
        }
    };
    Ok(chosen.iter().map(member).collect())
}

fn one_layer(members: &[Member<'_>]) -> Layers {
    vec![(0..members.len()).collect()]
}

fn drystone(members: &[Member<'_>], option: LayersOption) -> Layers {
    let items: Vec<PackItem> = members
        .iter()
        .map(|member| PackItem {
            name: member.package.name.clone(),
            source: member.package.source.clone(),
            class: member.class,
            compressed_size: member.package.size,
            is_own: false,
        })
        .collect();
    let plans = plan_layers(&items, option, 1).expect("one layer is reserved of a hundred");
    plans.into_iter().map(|plan| plan.members).collect()
}

/// Nix's dockerTools as published: count how often each path occurs when every dependency is followed, give
/// the most popular paths layers of their own, put the rest into the last.
fn popularity(members: &[Member<'_>]) -> Layers {
    let mut known: Vec<Option<BTreeMap<usize, u128>>> = vec![None; members.len()];
    let mut total: BTreeMap<usize, u128> = BTreeMap::new();
    for root in 0..members.len() {
        let contest = contest(members, root, &mut known, &mut HashSet::new());
        *total.entry(root).or_default() += 1;
        for (path, count) in contest {
            let sum = total.entry(path).or_default();
            *sum = sum.saturating_add(count.saturating_add(1));
        }
    }
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|member| (std::cmp::Reverse(total[member]), *member));
    let alone = order.len().min(LAYER_LIMIT - 2);
    let mut layers: Layers = order[..alone].iter().map(|&member| vec![member]).collect();
    if alone < order.len() {
        layers.push(order[alone..].to_vec());
    }
    layers
}

/// How popular a member makes everything below it. Debian's graph has cycles, Nix's has none: an edge that
/// closes one does not count.
fn contest(
    members: &[Member<'_>],
    member: usize,
    known: &mut Vec<Option<BTreeMap<usize, u128>>>,
    path: &mut HashSet<usize>,
) -> BTreeMap<usize, u128> {
    if let Some(counts) = &known[member] {
        return counts.clone();
    }
    path.insert(member);
    let mut counts: BTreeMap<usize, u128> = BTreeMap::new();
    for &needed in &members[member].needs {
        if path.contains(&needed) {
            continue;
        }
        *counts.entry(needed).or_default() += 1;
        for (below, count) in contest(members, needed, known, path) {
            let sum = counts.entry(below).or_default();
            *sum = sum.saturating_add(count.saturating_add(1));
        }
    }
    path.remove(&member);
    known[member] = Some(counts.clone());
    counts
}

/// apko's way: packages of one origin together, the largest groups in layers of their own, the rest in one.
fn origins(members: &[Member<'_>], budget: usize) -> Layers {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, member) in members.iter().enumerate() {
        groups.entry(&member.package.source).or_default().push(number);
    }
    let size =
        |group: &Vec<usize>| group.iter().map(|&member| members[member].package.size).sum::<u64>();
    let mut groups: Layers = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(size(group)));
    let alone = budget - 2;
    if groups.len() > alone {
        let rest = groups.split_off(alone).concat();
        groups.push(rest);
    }
    groups
}

/// How often a source was updated when the image is rebuilt for the `rebuild`th time.
fn updates_until(member: &Member<'_>, rebuild: u32) -> u32 {
    let hash = blake3::hash(member.package.source.as_bytes());
    let shift = u32::from(hash.as_bytes()[0]) * REBUILDS / 256;
    // Evenly spread, shifted by less than one interval.
    (rebuild * member.updates + shift * member.updates.min(1)) / REBUILDS.max(1)
}

/// A machine with a container engine, and what pulling has cost it.
#[derive(Default)]
struct Machine {
    chains: HashSet<String>,
    blobs: HashSet<String>,
    by_digest: f64,
    by_chain: f64,
}

impl Machine {
    fn pull(&mut self, layers: &[(String, u64)]) {
        let mut chain = String::new();
        for (digest, size) in layers {
            chain = blake3::hash(format!("{chain} {digest}").as_bytes()).to_string();
            let is_new_blob = self.blobs.insert(digest.clone());
            if self.chains.insert(chain.clone()) {
                let unpack = LAYER_MILLISECONDS as f64 / 1e3;
                let transfer = *size as f64 / BYTES_PER_SECOND as f64;
                self.by_chain += unpack + transfer;
                self.by_digest += unpack + if is_new_blob { transfer } else { 0.0 };
            }
        }
    }
}

fn report(name: &str, images: &[Vec<Member<'_>>], algorithm: Algorithm) {
    let plans: Vec<Layers> = images.iter().map(|members| algorithm(members)).collect();
    let counts: Vec<String> = plans.iter().map(|plan| (plan.len() + 1).to_string()).collect();
    let mut machine = Machine::default();
    let mut first = 0.0;
    for rebuild in 0..=REBUILDS {
        for (members, plan) in images.iter().zip(&plans) {
            machine.pull(&built(members, plan, rebuild));
        }
        if rebuild == 0 {
            first = machine.by_digest;
        }
    }
    let (by_digest, by_chain) = (machine.by_digest, machine.by_chain);
    let counts = counts.join(" ");
    println!("{name:26} {first:>15.1} s {by_digest:>15.1} s {by_chain:>15.1} s  {counts}");
}

/// The layers of an image at a rebuild, as digests and sizes.
fn built(members: &[Member<'_>], plan: &Layers, rebuild: u32) -> Vec<(String, u64)> {
    let mut layers = Vec::new();
    let mut all = String::new();
    for layer in plan {
        let mut identity = String::new();
        for &number in layer {
            let member = &members[number];
            identity.push_str(&format!(
                "{} {}\n",
                member.package.name,
                updates_until(member, rebuild)
            ));
        }
        let size = layer.iter().map(|&member| members[member].package.size).sum();
        all.push_str(&identity);
        layers.push((blake3::hash(identity.as_bytes()).to_string(), size));
    }
    layers.push((blake3::hash(format!("own {all}").as_bytes()).to_string(), OWN_SIZE));
    layers
}
