//! Runs [`patchwire_fuzz::text::path`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::text::path(data));
