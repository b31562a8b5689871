//! Runs [`patchwire_fuzz::text::link`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::text::link(data));
