//! Runs [`patchwire_fuzz::message::relay_message`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::message::relay_message(data));
