//! From `image.toml` to an image: specification, lock, graph, realisation, image, outputs.

pub mod base;
pub mod build;
pub mod check;
pub mod configure;
pub mod document;
pub mod finish;
pub mod image;
pub mod lock;
pub mod output;
pub mod progress;
pub mod realise;
pub mod recipe;
pub mod resolve;
pub mod sandbox;
pub mod sbom;
pub mod settings;
pub mod spec;
pub mod stack;
