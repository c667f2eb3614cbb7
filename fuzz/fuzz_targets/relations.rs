#![no_main]

#[allow(dead_code)]
#[path = "../../source/tests/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    targets::relations(bytes);
});
