//! Pulls one platform's image from a registry into a folder, every blob verified: for benchmarks.
//!
//!     pull REFERENCE DIRECTORY

use std::path::PathBuf;
use std::sync::Arc;

use drystone_cache::credentials::Credentials;
use drystone_cache::descriptor::Descriptor;
use drystone_cache::folder::Folder;
use drystone_cache::reference::Reference;
use drystone_cache::registry::{Registries, Settings};
use drystone_cache::repository::{Repository, Upload};
use futures_util::{StreamExt as _, TryStreamExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(reference), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pull REFERENCE DIRECTORY".into());
    };
    let reference: Reference = reference.parse()?;
    let credentials = Credentials::from_environment(&|name| std::env::var(name).ok());
    let from = Registries::new(Settings { credentials, ..Settings::default() });
    let from = from.open(&reference.location);
    let to = Folder::new(PathBuf::from(folder));
    let manifest = from.manifest(&reference.target()).await?.ok_or("there is no such image")?;
    let document = manifest.json()?;
    let layers = document["layers"].as_array().ok_or("it is no image of one platform")?;
    let blobs = layers.iter().chain([&document["config"]]);
    let blobs: Vec<Descriptor> =
        blobs.map(|one| serde_json::from_value(one.clone())).collect::<Result<_, _>>()?;
    let copies = blobs.into_iter().map(|blob| {
        let (from, to) = (Arc::clone(&from), to.clone());
        async move { to.put_blob(&Upload::copy(blob.digest, blob.size, from)).await.map(drop) }
    });
    let copies: Vec<_> = copies.collect();
    futures_util::stream::iter(copies).buffered(8).try_collect::<()>().await?;
    to.put_manifest(&manifest, reference.tag.as_slice()).await?;
    Ok(())
}
