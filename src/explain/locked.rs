//! Which lock, which image of it, which platform: what every explanation starts from.

use std::path::Path;

use drystone_builder::lock::{Lock, LockedImage, LockedPlatform};
use drystone_builder::spec::{Image, ImageName, Platform};

use crate::diagnostics::Failure;
use crate::wiring::platform;

/// Reads a lock that must be there.
pub fn read_lock(path: &Path) -> Result<Lock, Failure> {
    Lock::read(path)?.ok_or_else(|| {
        Failure::usage(format!("there is no {}", path.display())).hint("run `drystone lock`")
    })
}

/// What the lock says of an image on a platform: the one that was typed, else its first.
pub fn of_image<'a>(
    lock: &'a Lock,
    image: &Image,
    typed: Option<&str>,
) -> Result<(Platform, &'a LockedPlatform), Failure> {
    let wanted = match typed {
        Some(text) => platform(text)?,
        None => image.platforms[0],
    };
    match lock.platform(&image.name, wanted) {
        Some(locked) => Ok((wanted, locked)),
        None => {
            let message = format!(
                "{} has no packages of image {} for {wanted}",
                image.lock_path.display(),
                image.name
            );
            Err(Failure::usage(message).hint("run `drystone lock`"))
        }
    }
}

/// The image of a lock that was named, or its only one.
pub fn only_image<'a>(
    lock: &'a Lock,
    path: &Path,
    typed: Option<&str>,
) -> Result<(&'a ImageName, &'a LockedImage), Failure> {
    let names = || lock.images.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut images = lock.images.iter();
    match (typed, images.next(), images.next()) {
        (Some(typed), ..) => {
            lock.images.iter().find(|(name, _)| name.as_str() == typed).ok_or_else(|| {
                let message = format!("{} has no image {typed}", path.display());
                Failure::usage(message).hint(format!("it has: {}", names()))
            })
        }
        (None, Some(image), None) => Ok(image),
        (None, None, _) => Err(Failure::usage(format!("{} has no image", path.display()))),
        (None, ..) => Err(Failure::usage(format!("{} has several images", path.display()))
            .hint(format!("choose one with `--image`: {}", names()))),
    }
}
