//! The last layer: accounts, loader cache, package status; and the checks of a finished image.
//!
//! Everything here is a function of values: files come in through [`root_view::RootView`] or as
//! bytes, results go out as values. Nothing is run and nothing is written.

pub mod accounts;
pub mod loader_cache;
pub mod private_keys;
pub mod root_view;
pub mod shebang;
pub mod status;
