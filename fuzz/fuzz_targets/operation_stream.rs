//! Runs [`patchwire_fuzz::message::operation_stream`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::message::operation_stream(data));
