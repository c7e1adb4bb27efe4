#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walhalla_fuzz::frame(data));
