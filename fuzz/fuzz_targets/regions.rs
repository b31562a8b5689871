//! Runs [`patchwire_fuzz::delta::regions`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::delta::regions(data));
