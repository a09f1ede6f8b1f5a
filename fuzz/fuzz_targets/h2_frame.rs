#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (mirror_tests::fuzz::H2_FRAME.run)(input));
