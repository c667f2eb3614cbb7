#![no_main]

use std::sync::OnceLock;

use drystone_store::store::Store;

#[allow(dead_code)]
#[path = "../../source/tests/fuzz/targets.rs"]
mod targets;

static STORE: OnceLock<Store> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let store = STORE.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("drystone-fuzz-{}", std::process::id()));
        Store::open(&folder).expect("the store for fuzzing can be made")
    });
    targets::data_tar(store, bytes);
});
