//! Runs [`patchwire_fuzz::message::listing`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::message::listing(data));
