//! The contract of `Repository`, held by every implementation.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod suite;

use std::sync::Arc;

use drystone_cache::folder::Folder;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_keeps_the_contract() {
    let parent = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicUsize::new(0);
    let make = || {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(Folder::new(parent.path().join(format!("deep/{number}")))) as suite::Shared
    };
    suite::holds(&make, suite::Abilities { deletes: true }).await;
}
