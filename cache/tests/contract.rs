//! The contract of `Repository`, held by every implementation.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod suite;

use std::cell::Cell;
use std::sync::Arc;

use drystone_cache::folder::Folder;
use drystone_cache::reference::{Location, RepositoryName};
use drystone_cache::registry::{Registries, Settings};
use drystone_cache::repository::{Stored, Upload};
use suite::peer::DockerRegistry;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_keeps_the_contract() {
    let parent = tempfile::tempdir().unwrap();
    let number = Cell::new(0);
    let make = || {
        number.set(number.get() + 1);
        let folder = Folder::new(parent.path().join(format!("deep/{}", number.get())));
        Arc::new(folder) as suite::Shared
    };
    suite::holds(&make, suite::Abilities { deletes: true }).await;
}

fn settings() -> Settings {
    Settings { proxies: false, ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_registry_keeps_the_contract() {
    let Some(registry) = DockerRegistry::start("") else { return };
    let registries = Registries::new(settings());
    let number = Cell::new(0);
    let make = || {
        number.set(number.get() + 1);
        let location = format!("127.0.0.1:{}/team/r{}", registry.port, number.get());
        registries.open(&location.parse().unwrap())
    };
    suite::holds(&make, suite::Abilities { deletes: true }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_are_mounted_within_a_registry() {
    let Some(registry) = DockerRegistry::start("") else { return };
    let registries = Registries::new(settings());
    let open = |name: &str| -> suite::Shared {
        let location: Location = format!("127.0.0.1:{}/{name}", registry.port).parse().unwrap();
        registries.open(&location)
    };
    let (from, to, third) = (open("from/a"), open("to/b"), open("third"));
    let name = |name: &str| RepositoryName::new(name).unwrap();
    let upload = Upload::bytes("shared");
    assert!(!to.mount(&upload.digest, &name("from/a")).await.unwrap(), "it is nowhere");
    from.put_blob(&upload).await.unwrap();
    assert!(to.mount(&upload.digest, &name("from/a")).await.unwrap());
    assert_eq!(to.blob_size(&upload.digest).await.unwrap(), Some(6));
    let mounted = upload.clone().mounted_from(vec![name("nowhere"), name("from/a")]);
    let stored = third.put_blob(&mounted).await.unwrap();
    assert_eq!(stored, Stored::Mounted { from: name("from/a") });
    // What cannot be mounted is sent by the upload that was opened instead.
    let other = Upload::bytes("other").mounted_from(vec![name("from/a")]);
    assert_eq!(third.put_blob(&other).await.unwrap(), Stored::Pushed);
    assert_eq!(third.blob_bytes(&other.digest, 5).await.unwrap().unwrap(), "other");
}
