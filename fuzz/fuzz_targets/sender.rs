//! Runs [`patchwire_fuzz::sender::sender`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::sender::sender(data));
