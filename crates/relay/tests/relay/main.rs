//! The relay with real sockets on the loopback interface.

mod binary;
mod common;
mod hostile;
mod lifecycle;
mod refusals;
mod streams;
