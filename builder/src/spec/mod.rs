//! `image.toml`: as written, and checked.
