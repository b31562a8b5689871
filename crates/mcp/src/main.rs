//! The `patchwire` command line.

fn main() {}
