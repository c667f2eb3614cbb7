//! `log`: what a build step wrote while it ran.

use std::io::ErrorKind;

use drystone_builder::build::last_build;
use drystone_store::digest::DerivationId;
use drystone_store::store::Store;

use crate::answer;
use crate::arguments::LogArguments;
use crate::commands::derivation::find;
use crate::diagnostics::Failure;
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
