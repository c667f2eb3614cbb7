//! `lock`: choose and pin packages without building; prove what is pinned.

use drystone_builder::lock::Lock;
use serde_json::json;

use crate::answer;
use crate::arguments::LockArguments;
use crate::commands::build::registries;
use crate::diagnostics::{Failure, Family};
use crate::explain::locked::read_lock;
use crate::locking::{Locking, moved, moved_text};
use crate::quantity::counted;
use crate::wiring::{Wiring, image_path, read_buildable, runtime};

/// Locks, or proves the lock.
pub fn run(wiring: &Wiring, arguments: &LockArguments) -> Result<(), Failure> {
    let image = read_buildable(&image_path(&arguments.image.path()))?;
    let settings = wiring.settings(&wiring.archive_flags(&arguments.archive), Some(&image))?;
    let registries = registries(&arguments.archive.insecure_registry)?;
    let locking = Locking {
        wiring,
        settings: &settings,
        registries: &registries,
        offline: arguments.archive.offline,
        locked: arguments.locked,
        display: &wiring.display,
    };
    let path = image.lock_path.display().to_string();
    let runtime = runtime()?;
    if arguments.verify {
        locking.allow_network("proving a lock needs its archives")?;
        let lock = read_lock(&image.lock_path)?;
        let unproved = locking.unproved(&runtime, &image, &lock)?;
        wiring.display.finish();
        let names: Vec<String> = unproved.iter().map(ToString::to_string).collect();
        if arguments.json {
            answer::json(&json!({ "lock": path, "unproved": names }))?;
        } else {
            names.iter().try_for_each(|name| answer::line(name))?;
        }
        return match names.len() {
            0 => {
                wiring.display.note(format!("every pin of {path} is proved"));
                Ok(())
            }
            count => Err(Failure::new(
                Family::Integrity,
                format!("{} of {path} cannot be proved", counted(count as u64, "pin")),
            )
            .hint("`drystone update PACKAGE` pins what the archive lists now")),
        };
    }
    let old = Lock::read(&image.lock_path)?;
    let new = locking.complete(&runtime, &image, &image.platforms, old.clone(), true)?;
    let old = old.unwrap_or_default();
    let moved = moved(&old, &new);
    wiring.display.finish();
    if arguments.json {
        let changed = old != new;
        return answer::json(&json!({ "lock": path, "changed": changed, "changes": moved }));
    }
    wiring.display.note(match moved.len() {
        0 => format!("{path} answers image.toml"),
        count => format!("{path}: {} changed", counted(count as u64, "pin")),
    });
    answer::print(&moved_text(&moved))
}
