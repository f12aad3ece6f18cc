#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| builder_core::fuzzing::blob(data));
