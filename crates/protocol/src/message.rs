//! The messages, one module per conversation.

pub mod relay;
