//! Runs [`patchwire_fuzz::delta::librsync_delta`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::delta::librsync_delta(data));
