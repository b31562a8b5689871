//! Values that messages are made of.

use patchwire_delta::Digest;

use crate::{
    codec::{self, Decode, Decoder, Encode, Encoder},
    limits,
};

/// A digest on the wire: its 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireDigest(pub Digest);

impl Encode for WireDigest {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), codec::error::Encode> {
        self.0.as_bytes().encode(encoder)
    }
}

impl<Context> Decode<Context> for WireDigest {
    fn decode<D: Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, codec::error::Decode> {
        Ok(Self(Digest::from_bytes(<[u8; 32]>::decode(decoder)?)))
    }
}

codec::impl_borrow_decode!(WireDigest);

/// A text that a person or a program wrote: at most [`limits::TEXT`] bytes of UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Text(String);

impl Text {
    /// Takes a text, and cuts it at a character when it is over [`limits::TEXT`].
    #[must_use]
    pub fn cut(text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(limits::TEXT));
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<Context> Decode<Context> for Text {
    fn decode<D: Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, codec::error::Decode> {
        Ok(Self(codec::decode_text(decoder, limits::TEXT)?))
    }
}

codec::impl_borrow_decode!(Text);
