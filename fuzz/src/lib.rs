//! What every decoder of Patchwire does with bytes that nobody should have sent.
//!
//! Each target is a plain function of bytes. It asserts more than the absence of a panic: what
//! decodes must survive being encoded and decoded again, two ways to do one thing must agree, and a
//! state machine must come to its end.
//!
//! On nightly, libFuzzer runs one target; finds go to the first directory, so that the committed
//! corpus stays as it is:
//!
//! ```text
//! mkdir -p /tmp/corpus/delta
//! cargo +nightly fuzz run --features libfuzzer delta /tmp/corpus/delta fuzz/corpus/delta -- -max_total_time=60 -rss_limit_mb=1024
//! ```
//!
//! On stable, the committed corpora and their mutations are replayed, without libFuzzer:
//!
//! ```text
//! cargo test --manifest-path fuzz/Cargo.toml
//! ```
//!
//! The corpora begin with what `cargo run --manifest-path fuzz/Cargo.toml --example seeds` writes.

pub mod delta;
pub mod message;
pub mod receiver;
pub mod sender;
pub mod session;
pub mod text;

/// A target: takes any bytes, and panics if a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its binary and of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("signature", delta::signature),
    ("delta", delta::delta),
    ("patch", delta::patch),
    ("regions", delta::regions),
    ("rounds", delta::rounds),
    ("roundtrip", delta::roundtrip),
    ("librsync_signature", delta::librsync_signature),
    ("librsync_delta", delta::librsync_delta),
    ("frame", message::frame),
    ("developer_message", message::developer_message),
    ("agent_message", message::agent_message),
    ("answer", message::answer),
    ("relay_message", message::relay_message),
    ("manifest", message::manifest),
    ("commit_record", message::commit_record),
    ("operations", message::operations),
    ("operation_stream", message::operation_stream),
    ("listing", message::listing),
    ("receiver", receiver::receiver),
    ("sender", sender::sender),
    ("path", text::path),
    ("name", text::name),
    ("app", text::app),
    ("link", text::link),
    ("address", text::address),
];
