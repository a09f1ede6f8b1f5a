#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (mirror_tests::fuzz::MANIFESTS.run)(input));
