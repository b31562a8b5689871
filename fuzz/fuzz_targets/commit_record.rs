//! Runs [`patchwire_fuzz::message::commit_record`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::message::commit_record(data));
