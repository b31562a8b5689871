//! The messages, one module per conversation.

#[cfg(feature = "push")]
pub mod inner;
#[cfg(feature = "push")]
pub mod push;
pub mod relay;
#[cfg(feature = "push")]
pub mod status;
#[cfg(feature = "push")]
pub mod value;

#[cfg(all(test, feature = "push"))]
mod golden;
