//! Runs [`patchwire_fuzz::message::operations`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::message::operations(data));
