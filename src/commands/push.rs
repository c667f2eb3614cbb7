//! `push`: a build whose image goes to registries and nowhere else.

use crate::arguments::{BuildArguments, ImageFile, PushArguments};
use crate::commands::build;
use crate::diagnostics::Failure;
use crate::wiring::Wiring;

/// Builds and pushes.
pub fn run(wiring: &Wiring, arguments: PushArguments) -> Result<(), Failure> {
    let arguments = BuildArguments {
        image: ImageFile { file: None, option: arguments.image },
        platform: arguments.platform,
        push: arguments.references,
        locked: arguments.locked,
        compression: arguments.compression,
        json: arguments.json,
        metadata_file: arguments.metadata_file,
        verify: arguments.verify,
        attachments: arguments.attachments,
        caches: arguments.caches,
        substitute_only: arguments.substitute_only,
        archive: arguments.archive,
        ..BuildArguments::default()
    };
    build::run(wiring, &arguments)
}
