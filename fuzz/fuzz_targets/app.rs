//! Runs [`patchwire_fuzz::text::app`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::text::app(data));
