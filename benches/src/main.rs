//! The benchmark harness of Patchwire.

fn main() {}
