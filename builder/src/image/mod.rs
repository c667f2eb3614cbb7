//! The OCI image: layer order, packing, configuration and manifest.
//!
//! ```text
//! store paths --order--> one stable sequence --pack--> layer plan   (names, classes, sizes: no bytes)
//! layer plan  --store--> LayerRef...         --Image::assemble--> config + manifest  (their bytes are identity)
//! ```
//!
//! Everything here is a pure function of values: no file, clock or environment is read, and no map
//! with a random order is serialised, so equal inputs give equal bytes on every machine.

pub mod config;
mod error;
mod inherit;
mod layer;
pub mod manifest;
pub mod order;
pub mod pack;

pub use config::{Healthcheck, ImageConfig, Platform, Port, Protocol, UserIds};
pub use error::ImageError;
pub use layer::{Compression, LayerRef};
pub use manifest::{Image, ImageSet, JsonBlob};
pub use order::{OrderKey, OrderTable};
pub use pack::{LayerPlan, LayersOption, PackItem, plan_layers};
