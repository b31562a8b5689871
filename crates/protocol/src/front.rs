//! Sorted paths, each as what it shares with the one before it, and the rest.

use crate::{
    codec::{self, Decode, Decoder, Encode},
    limits,
    path::RelativePath,
};

/// A path behind another one: how many of that one's bytes it begins with, and what follows them.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
#[bincode(crate = "crate::codec::bincode")]
pub(crate) struct Fronted {
    shared: u16,
    rest: Vec<u8>,
}

impl<Context> Decode<Context> for Fronted {
    fn decode<D: Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, codec::error::Decode> {
        Ok(Self {
            shared: u16::decode(decoder)?,
            rest: codec::decode_bytes(decoder, limits::PATH)?,
        })
    }
}

codec::impl_borrow_decode!(Fronted);

/// The path before, at both ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Front {
    last: Vec<u8>,
}

impl Front {
    /// The next path in terms of the one before it.
    pub(crate) fn shorten(&mut self, path: &RelativePath) -> Fronted {
        let bytes = path.as_bytes();
        let same = self.last.iter().zip(bytes).take_while(|(a, b)| a == b);
        let shared = same.count();
        self.last.truncate(shared);
        self.last.extend_from_slice(&bytes[shared..]);
        Fronted {
            shared: u16::try_from(shared).expect("no path is longer than its limit"),
            rest: bytes[shared..].to_vec(),
        }
    }

    /// The next path, from what [`Self::shorten`] made of it.
    pub(crate) fn restore(
        &mut self,
        fronted: &Fronted,
    ) -> Result<RelativePath, codec::error::Decode> {
        let shared = usize::from(fronted.shared);
        if shared > self.last.len() {
            return Err(codec::invalid(format_args!(
                "a path shares {shared} bytes with one of {}",
                self.last.len()
            )));
        }
        self.last.truncate(shared);
        self.last.extend_from_slice(&fronted.rest);
        RelativePath::new(&self.last).map_err(codec::invalid)
    }
}
