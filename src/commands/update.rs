//! `update`: the only command that moves a pin.

use std::collections::BTreeSet;

use drystone_builder::lock::Lock;
use drystone_builder::resolve::Update;
use drystone_builder::spec::PackageName;
use serde_json::json;

use crate::answer;
use crate::arguments::UpdateArguments;
use crate::commands::build::registries;
use crate::diagnostics::Failure;
use crate::locking::{Locking, moved, moved_text};
use crate::quantity::counted;
use crate::wiring::{Wiring, image_path, read_buildable, runtime};

/// Moves pins, and prints which.
pub fn run(wiring: &Wiring, arguments: &UpdateArguments) -> Result<(), Failure> {
    let image = read_buildable(&image_path(&arguments.image.path()))?;
    let settings = wiring.settings(&wiring.archive_flags(&arguments.archive), Some(&image))?;
    let registries = registries(&arguments.archive.insecure_registry)?;
    let locking = Locking {
        wiring,
        settings: &settings,
        registries: &registries,
        offline: arguments.archive.offline,
        locked: false,
        display: &wiring.display,
    };
    locking.allow_network("newer versions are known to mirrors and registries only")?;
    let update = update(&arguments.packages)?;
    let previous = Lock::read(&image.lock_path)?;
    let share =
        locking.choose(&runtime()?, &image, &image.platforms, previous.as_ref(), &update)?;
    let old = previous.unwrap_or_default();
    let new = match arguments.dry_run {
        true => {
            let mut new = old.clone();
            new.merge(share)?;
            new
        }
        false => locking.merge(&image.lock_path, share)?.0,
    };
    let moved = moved(&old, &new);
    wiring.display.finish();
    let path = image.lock_path.display().to_string();
    if arguments.json {
        return answer::json(&json!({
            "lock": path,
            "changed": old != new,
            "dry_run": arguments.dry_run,
            "changes": moved,
        }));
    }
    wiring.display.note(match (moved.len(), arguments.dry_run) {
        (0, _) => "everything is up to date".to_owned(),
        (count, true) => format!("{} would change", counted(count as u64, "pin")),
        (count, false) => format!("{path}: {} changed", counted(count as u64, "pin")),
    });
    answer::print(&moved_text(&moved))
}

fn update(typed: &[String]) -> Result<Update, Failure> {
    if typed.is_empty() {
        return Ok(Update::All);
    }
    let names = typed.iter().map(|name| PackageName::new(name));
    let names: BTreeSet<PackageName> =
        names.collect::<Result<_, _>>().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Update::Packages(names))
}
