//! Whether a lock answers an image.toml: decided from the two alone, without any network.

use super::pins::pattern_matches;
use super::sources::MAIN;
use crate::lock::{Lock, LockedRequest};
use crate::spec::{Image, PackageRequest, Platform};

/// Whether a lock answers an image.toml on these platforms, so that nothing needs to be fetched or
/// chosen: it was made for the same request, and all that it names is pinned.
pub fn is_complete(lock: &Lock, image: &Image, platforms: &[Platform]) -> bool {
    let tag = image.tagged_base().map(ToString::to_string);
    let Some(locked) = lock.images.get(&image.name) else {
        return image.debian.is_none() && tag.is_none();
    };
    if locked.base.as_ref().map(|base| base.from.as_str()) != tag.as_deref() {
        return false;
    }
    if image.debian.is_none() {
        return locked.request.is_none() && locked.platforms.is_empty();
    }
    locked.request == LockedRequest::of(image)
        && platforms.iter().all(|&platform| is_locked(Some(lock), image, platform))
}

/// Whether a platform has its packages, as image.toml asks for them.
pub(super) fn is_locked(lock: Option<&Lock>, image: &Image, platform: Platform) -> bool {
    let Some(lock) = lock else { return false };
    let Some(content) = lock.platform(&image.name, platform) else { return false };
    let requests = image.debian.iter().flat_map(|debian| &debian.packages);
    !content.essential.is_empty()
        && image.recipes_on(platform).all(|(name, _)| content.recipes.contains_key(name))
        && content.found_by.keys().all(|found| content.packages.iter().any(|it| it.name == *found))
        && content.everything().all(|key| lock.packages.contains_key(key))
        && requests.into_iter().all(|request| is_answered(lock, image, platform, request))
}

/// Whether a requested package is there in a fitting version and from the right repository. A
/// virtual package's provider is not known to the lock: that one is believed.
fn is_answered(lock: &Lock, image: &Image, platform: Platform, request: &PackageRequest) -> bool {
    let content = lock.platform(&image.name, platform);
    let mut keys = content.into_iter().flat_map(|content| &content.packages);
    let Some(key) = keys.find(|key| key.name == request.name) else {
        return request.version.is_none() && request.from.is_none();
    };
    let version = request.version.as_ref();
    let fits = version.is_none_or(|it| pattern_matches(it.as_str(), key.version.as_str()));
    let from = request.from.as_ref().map_or(MAIN, |name| name.as_str());
    let archive = lock.packages.get(key).map(|pin| pin.archive.repository.as_str());
    fits && archive == Some(from)
}
