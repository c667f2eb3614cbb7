#![no_main]

#[allow(dead_code)]
#[path = "../../cache/tests/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    targets::statement(bytes);
});
