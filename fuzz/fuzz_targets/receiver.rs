//! Runs [`patchwire_fuzz::receiver::receiver`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchwire_fuzz::receiver::receiver(data));
