//! `diff`: what changed between two locks or images.

use crate::answer;
use crate::arguments::DiffArguments;
use crate::diagnostics::Failure;
use crate::explain::content::Side;
use crate::explain::difference::Difference;
use crate::wiring::{Wiring, has_store, platform};

/// Prints the differences.
pub fn run(wiring: &Wiring, arguments: &DiffArguments) -> Result<(), Failure> {
    let image = arguments.image.as_deref();
    let (old, new) = (Side::open(&arguments.old)?, Side::open(&arguments.new)?);
    let platform = match &arguments.platform {
        Some(text) => platform(text)?.to_string(),
        None => common(&old.platforms(image)?, &new.platforms(image)?)?,
    };
    let settings = wiring.settings(&wiring.flags(), None)?;
    // Without a store the files of locks are not known; that is no failure.
    let exists = has_store(&settings);
    let store = if exists { Some(wiring.store(&settings)?) } else { None };
    let old = old.content(image, &platform, store.as_ref())?;
    let new = new.content(image, &platform, store.as_ref())?;
    let difference = Difference::between(&old, &new);
    match arguments.json {
        true => answer::json(&difference),
        false => answer::print(&difference.text()),
    }
}

fn common(old: &[String], new: &[String]) -> Result<String, Failure> {
    old.iter().find(|platform| new.contains(platform)).cloned().ok_or_else(|| {
        Failure::usage(format!(
            "the sides have no platform in common: {} and {}",
            old.join(", "),
            new.join(", ")
        ))
    })
}
