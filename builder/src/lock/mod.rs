//! `image.lock`: what was resolved, pinned.
