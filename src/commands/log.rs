//! `log`: what a build step wrote while it ran.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use drystone_builder::build::last_build;
use drystone_store::digest::DerivationId;
use drystone_store::store::Store;

use crate::answer;
use crate::arguments::LogArguments;
use crate::commands::derivation::find;
use crate::diagnostics::Failure;
use crate::interrupt;
use crate::wiring::{Wiring, absolute, image_path, read_image};

/// Prints the log.
pub fn run(wiring: &Wiring, arguments: &LogArguments) -> Result<(), Failure> {
    let settings = wiring.settings(&wiring.flags(), None)?;
    let store = wiring.existing_store(&settings)?;
    // A step that failed has a log but no realisation, so its id need not be known.
    let ids = match arguments.subject.parse() {
        Ok(id) if store.log_path(&id).exists() => vec![id],
        _ => match recipe(&store, arguments)? {
            Some(id) => vec![id],
            None => find(&store, &arguments.subject)?,
        },
    };
    let mut found = false;
    for id in ids {
        let path = store.log_path(&id);
        if arguments.follow {
            found |= follow(&store, &id, &path)?;
            continue;
        }
        match std::fs::read(&path) {
            Ok(bytes) => answer::print(&String::from_utf8_lossy(&bytes))?,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(Failure::path("read", &path, error)),
        }
        found = true;
    }
    if found {
        return Ok(());
    }
    Err(Failure::usage(format!("{} has no log", arguments.subject)).hint(
        "only steps that run a program have one, and `store gc` removes old ones; \
         `drystone derivation show` prints the step",
    ))
}

/// How often a log is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Prints a log as it grows, until nobody makes the step any more; whether there is one.
fn follow(store: &Store, id: &DerivationId, path: &Path) -> Result<bool, Failure> {
    let (mut file, mut place): (Option<File>, u64) = (None, 0);
    loop {
        // Before reading: what was written until then is all of it.
        let is_last = !store.is_being_made(id)?;
        if file.is_none() {
            file = match File::open(path) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(Failure::path("read", path, error)),
            };
        }
        if let Some(file) = &mut file {
            let read = |error| Failure::path("read", path, error);
            // A build that begins anew begins its log anew.
            if file.metadata().map_err(read)?.len() < place {
                place = file.seek(SeekFrom::Start(0)).map_err(read)?;
            }
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(read)?;
            place += bytes.len() as u64;
            answer::print(&String::from_utf8_lossy(&bytes))?;
            let _ = std::io::stdout().flush();
        }
        if is_last {
            return Ok(file.is_some());
        }
        interrupt::check().map_err(Failure::of)?;
        std::thread::sleep(POLL);
    }
}

/// The last build of a recipe of this name, on the first platform that has one.
fn recipe(store: &Store, arguments: &LogArguments) -> Result<Option<DerivationId>, Failure> {
    let path = image_path(&arguments.image.path());
    if !path.exists() {
        return Ok(None);
    }
    let image = read_image(&path)?;
    for platform in &image.platforms {
        let id = last_build(store, &absolute(&path)?, &arguments.subject, *platform)?;
        if id.is_some() {
            return Ok(id);
        }
    }
    Ok(None)
}
