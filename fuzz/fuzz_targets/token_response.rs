#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bearer_auth::fuzzing::token_response(input));
