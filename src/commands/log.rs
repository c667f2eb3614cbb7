//! `log`: what a build step wrote while it ran.

use std::io::ErrorKind;

use crate::answer;
use crate::arguments::LogArguments;
use crate::commands::derivation::find;
use crate::diagnostics::Failure;
use crate::wiring::Wiring;

/// Prints the log.
pub fn run(wiring: &Wiring, arguments: &LogArguments) -> Result<(), Failure> {
    let settings = wiring.settings(&wiring.flags(), None)?;
    let store = wiring.existing_store(&settings)?;
    // A step that failed has a log but no realisation, so its id need not be known.
    let ids = match arguments.subject.parse() {
        Ok(id) if store.log_path(&id).exists() => vec![id],
        _ => find(&store, &arguments.subject)?,
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
