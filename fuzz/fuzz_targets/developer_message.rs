//! Runs [`patchwire_fuzz::message::developer_message`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::message::developer_message(data));
