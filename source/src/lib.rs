//! Where trees come from.

pub mod debian;
pub mod fetch;
pub mod files;
