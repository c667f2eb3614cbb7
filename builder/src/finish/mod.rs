//! The last layer: accounts, loader cache, package status.
