//! `store`: verify, collect, measure, list.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use drystone_builder::progress::{Event, Progress};
use drystone_builder::sandbox::{IdMap, Session};
use drystone_store::store::{
    GcOptions, GcReport, PathInfo, Problem, Root, Store, StoreUsage, VerifyOptions, VerifyReport,
};
use serde_json::{Value, json};

use crate::answer;
use crate::arguments::{
    DuArguments, GcArguments, LsArguments, PathInfoArguments, StoreCommand, VerifyArguments,
};
use crate::commands::build;
use crate::diagnostics::{Failure, Family};
use crate::interrupt;
use crate::quantity::{Bytes, counted};
use crate::wiring::{Wiring, has_store, now};

/// Runs one of the store's commands.
pub fn run(wiring: &Wiring, command: &StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Verify(arguments) => verify(wiring, arguments),
        StoreCommand::Gc(arguments) => gc(wiring, arguments),
        StoreCommand::Du(arguments) => du(wiring, arguments),
        StoreCommand::Ls(arguments) => ls(wiring, arguments),
        StoreCommand::PathInfo(arguments) => path_info(wiring, arguments),
    }
}

/// The store; `None` where there is none, which is an empty one that looking must not make.
fn open(wiring: &Wiring) -> Result<Option<Store>, Failure> {
    let settings = wiring.settings(&wiring.flags(), None)?;
    if !has_store(&settings) {
        let path = settings.store.value.display();
        wiring.display.note(format!("there is no store in {path} yet"));
        return Ok(None);
    }
    wiring.store(&settings).map(Some)
}

/// Removes a folder that may belong to subordinate ids, which only a user namespace may touch.
struct Remover {
    session: OnceLock<Session>,
}

impl Remover {
    const fn new() -> Self {
        Self { session: OnceLock::new() }
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            other => return other,
        }
        let other = |error| std::io::Error::other(error);
        if self.session.get().is_none() {
            let session = IdMap::discover().and_then(|map| Session::start(&map)).map_err(other)?;
            let _ = self.session.set(session);
        }
        let session = self.session.get().expect("it was set above, if not before");
        session.remove(path).map_err(other)
    }
}

fn verify(wiring: &Wiring, arguments: &VerifyArguments) -> Result<(), Failure> {
    let mut problems: Vec<Value> = Vec::new();
    let (report, again) = match open(wiring)? {
        Some(store) => {
            let roots = store.roots().unwrap_or_default();
            let report = examine(wiring, store, arguments.repair, &mut problems)?;
            let again = match arguments.repair {
                true => make_again(wiring, &roots, &report)?,
                false => BTreeMap::new(),
            };
            (report, again)
        }
        None => (VerifyReport::default(), BTreeMap::new()),
    };
    wiring.display.finish();
    if arguments.json {
        let report = serde_json::to_value(&report).unwrap_or_default();
        let again: Vec<Value> = again
            .iter()
            .map(|(image, is_made)| json!({ "image": image, "made_again": is_made }))
            .collect();
        answer::json(&json!({ "problems": problems, "report": report, "images": again }))?;
    } else {
        answer::print(&verified(&report, arguments.repair, &again))?;
    }
    judge(&report, arguments.repair)
}

/// Builds the images that stand on what was lost; for each whether that went well.
fn make_again(
    wiring: &Wiring,
    roots: &[(String, Root)],
    report: &VerifyReport,
) -> Result<BTreeMap<String, bool>, Failure> {
    let trees: BTreeSet<_> = report.lost.iter().map(|lost| *lost.tree.hash()).collect();
    let derivations: BTreeSet<_> = report.lost.iter().flat_map(|lost| &lost.derivations).collect();
    let stands_on_lost = |root: &Root| {
        root.trees.iter().any(|tree| trees.contains(tree))
            || root.derivations.iter().any(|derivation| derivations.contains(derivation))
    };
    let mut again = BTreeMap::new();
    for (_, root) in roots.iter().filter(|(_, root)| stands_on_lost(root)) {
        let Some(image) = root.image.as_deref().filter(|image| image.exists()) else { continue };
        interrupt::check().map_err(Failure::of)?;
        let made = build::make_again(wiring, image, &root.platform);
        if let Err(failure) = &made {
            let why = failure.messages().unwrap_or_default().join(": ");
            wiring.display.warn(format!("{} is not made again: {why}", image.display()));
        }
        again.insert(format!("{} ({})", image.display(), root.platform), made.is_ok());
    }
    Ok(again)
}

fn examine(
    wiring: &Wiring,
    mut store: Store,
    repair: bool,
    problems: &mut Vec<Value>,
) -> Result<VerifyReport, Failure> {
    let total = store.usage().map_or(0, |usage| usage.total_bytes);
    let (hashed, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let remover = Remover::new();
    let remove = |path: &Path| remover.remove(path);
    let options =
        VerifyOptions { repair, remove: &remove, progress: &hashed, ..VerifyOptions::default() };
    wiring.display.event(Event::Expected { bytes: total });
    let report = std::thread::scope(|scope| {
        scope.spawn(|| watch(&wiring.display, &hashed, &ended));
        let result = store.verify(&options, &mut |problem: &Problem| {
            problems.push(json!({ "problem": problem.to_string(), "mend": problem.mend() }));
            wiring.display.warn(problem.to_string());
        });
        ended.store(true, Ordering::Relaxed);
        result
    });
    Ok(report?)
}

/// Passes the number of hashed bytes on to the display.
fn watch(display: &impl Progress, hashed: &AtomicU64, ended: &AtomicBool) {
    let mut told = 0;
    while !ended.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
        let now = hashed.load(Ordering::Relaxed);
        if now > told {
            display.event(Event::Received { bytes: now - told });
            told = now;
        }
    }
}

fn verified(report: &VerifyReport, repair: bool, again: &BTreeMap<String, bool>) -> String {
    let mut text = format!(
        "{} ({}), {}, {}, {}: {}\n",
        counted(report.blobs, "blob"),
        Bytes(report.bytes),
        counted(report.trees, "tree"),
        counted(report.derivations, "derivation"),
        counted(report.checkouts, "checkout"),
        counted(report.problems, "problem"),
    );
    if report.unreferenced > 0 {
        text.push_str(&format!(
            "{} that nothing names; `drystone store gc` removes them\n",
            counted(report.unreferenced, "file")
        ));
    }
    for repair in &report.repaired {
        text.push_str(&format!("{repair}\n"));
    }
    for lost in &report.lost {
        let what = if repair { "forgotten" } else { "its bytes are lost" };
        text.push_str(&format!("{}: {what}\n", lost.tree));
    }
    for (image, is_made) in again {
        let what = if *is_made { "made again" } else { "what it lacks is made by its next build" };
        text.push_str(&format!("{image}: {what}\n"));
    }
    text
}

fn judge(report: &VerifyReport, repair: bool) -> Result<(), Failure> {
    let left = if repair { report.unrepairable } else { report.problems };
    match left {
        0 => Ok(()),
        _ => {
            let message = format!("the store has {}", counted(left, "problem"));
            let failure = Failure::new(Family::Integrity, message);
            Err(match repair {
                true => failure,
                false => failure.hint("run `drystone store verify --repair`"),
            })
        }
    }
}

/// `store gc`, and `gc`.
pub fn gc(wiring: &Wiring, arguments: &GcArguments) -> Result<(), Failure> {
    let remover = Remover::new();
    let remove = |path: &Path| remover.remove(path);
    let options = GcOptions {
        keep_days: arguments.keep_days,
        max_size: arguments.max_size.map(|size| size.0),
        dry_run: arguments.dry_run,
        remove: &remove,
        ..GcOptions::default()
    };
    let report = match open(wiring)? {
        Some(mut store) => store.gc(&options, now())?,
        None => GcReport { dry_run: arguments.dry_run, ..GcReport::default() },
    };
    for left in &report.left {
        wiring.display.warn(format!("{} stays: {}", left.path.display(), left.problem));
    }
    match arguments.json {
        true => answer::json(&report),
        false => answer::print(&collected(&report)),
    }
}

fn collected(report: &GcReport) -> String {
    let verb = if report.dry_run { "would free" } else { "freed" };
    format!(
        "{verb} {}: {}, {}, {}, {}\nkept {}: {}, {}\n",
        Bytes(report.bytes),
        counted(report.blobs, "blob"),
        counted(report.trees, "tree"),
        counted(report.checkouts, "checkout"),
        counted(report.roots.len() as u64, "abandoned root"),
        Bytes(report.kept_bytes),
        counted(report.kept_blobs, "blob"),
        counted(report.kept_trees, "tree"),
    )
}

fn du(wiring: &Wiring, arguments: &DuArguments) -> Result<(), Failure> {
    let usage = match open(wiring)? {
        Some(store) => store.usage()?,
        None => StoreUsage::default(),
    };
    match arguments.json {
        true => answer::json(&usage),
        false => answer::print(&used(&usage)),
    }
}

fn used(usage: &StoreUsage) -> String {
    let kinds = [
        ("layers", usage.layers),
        ("listings", usage.listings),
        ("archives", usage.archives),
        ("checkouts", usage.checkouts),
        ("logs", usage.logs),
        ("database", usage.database),
    ];
    let mut text = String::new();
    for (name, kind) in kinds {
        text.push_str(&format!("{:>12}  {name} ({})\n", Bytes(kind.bytes), kind.count));
    }
    text.push_str(&format!("{:>12}  in all\n", Bytes(usage.total_bytes)));
    text.push_str(&format!("{:>12}  shared by several images\n", Bytes(usage.shared_bytes)));
    text.push_str(&format!("{:>12}  needed by no image\n", Bytes(usage.unrooted_bytes)));
    for root in &usage.roots {
        let name = root.image.as_ref().map_or_else(
            || root.name.clone(),
            |image| format!("{} {}", image.display(), root.platform),
        );
        text.push_str(&format!(
            "{:>12}  {name} ({} its own)\n",
            Bytes(root.bytes),
            Bytes(root.own_bytes)
        ));
    }
    text
}

fn ls(wiring: &Wiring, arguments: &LsArguments) -> Result<(), Failure> {
    let trees = match open(wiring)? {
        Some(store) => store.list()?,
        None => Vec::new(),
    };
    if arguments.json {
        return answer::json(&json!({ "trees": trees }));
    }
    let mut text = String::new();
    for tree in &trees {
        let mark = if tree.is_rooted { ' ' } else { '-' };
        text.push_str(&format!("{:>12} {mark} {}\n", Bytes(tree.layer_bytes), tree.path));
    }
    answer::print(&text)
}

fn path_info(wiring: &Wiring, arguments: &PathInfoArguments) -> Result<(), Failure> {
    let settings = wiring.settings(&wiring.flags(), None)?;
    let info = wiring.existing_store(&settings)?.path_info(&arguments.path)?;
    match arguments.json {
        true => answer::json(&info),
        false => answer::print(&told(&info)),
    }
}

fn told(info: &PathInfo) -> String {
    let mut text = format!(
        "{}\n  tar       {} ({} entries)\n  diff id   {}\n  listing   {}\n",
        info.path,
        Bytes(info.size),
        info.entries.map_or_else(|| "?".to_owned(), |count| count.to_string()),
        info.diff_id,
        info.listing,
    );
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<9} {value}\n"));
    for layer in &info.layers {
        let missing = if layer.is_present { "" } else { " (missing)" };
        let size = Bytes(layer.size);
        line("layer", format!("{} {} {size}{missing}", layer.compression, layer.digest));
    }
    if let Some(checkout) = &info.checkout {
        line("checkout", checkout.display().to_string());
    }
    for maker in &info.makers {
        line("made by", format!("{} {} ({})", maker.builder, maker.derivation, maker.output));
    }
    info.references.iter().for_each(|tree| line("needs", tree.to_string()));
    info.referrers.iter().for_each(|path| line("needed by", path.to_string()));
    info.consumers.iter().for_each(|id| line("input of", id.to_string()));
    info.roots.iter().for_each(|root| line("kept by", root.clone()));
    text
}
