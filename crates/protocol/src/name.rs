//! Names of apps and deployments.

use std::{fmt, str::FromStr};

use crate::codec::{self, Decode, Decoder, Encode};

/// The name of an app or of a deployment: `[a-z0-9][a-z0-9._-]{0,62}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "“{}” is not a name: 1 to 63 of a-z, 0-9, “.”, “_” and “-”, the first a letter or a digit",
    name.escape_debug()
)]
pub struct NameError {
    name: String,
}

impl Name {
    /// The longest name, in bytes.
    pub const MAX: usize = 63;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = name.len() <= Self::MAX
            && name.bytes().next().is_some_and(plain)
            && name
                .bytes()
                .all(|byte| plain(byte) || b"._-".contains(&byte));
        if valid {
            Ok(Self(name.to_owned()))
        } else {
            Err(NameError {
                name: name.chars().take(80).collect(),
            })
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<Context> Decode<Context> for Name {
    fn decode<D: Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, codec::error::Decode> {
        codec::decode_text(decoder, Self::MAX)?
            .parse()
            .map_err(codec::invalid)
    }
}

codec::impl_borrow_decode!(Name);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_not_repaired() {
        for good in ["shop", "0", "a.b_c-d", &"x".repeat(63)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            ".a",
            "Shop",
            "a/b",
            "a b",
            "ä",
            "a\n",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
            assert!(
                codec::decode::<Name>(&codec::encode(&bad.to_owned())).is_err(),
                "{bad:?}"
            );
        }
    }
}
