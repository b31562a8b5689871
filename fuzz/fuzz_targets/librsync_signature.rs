//! Runs [`patchwire_fuzz::delta::librsync_signature`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::delta::librsync_signature(data));
