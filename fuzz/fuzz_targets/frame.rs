//! Runs [`patchwire_fuzz::message::frame`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::message::frame(data));
