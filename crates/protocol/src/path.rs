//! Paths inside a tree.

use std::{
    borrow::Borrow, cmp::Ordering, ffi::OsStr, fmt, os::unix::ffi::OsStrExt, path::Path, sync::Arc,
};

use crate::{
    codec::{self, Decode, Decoder, Encode},
    limits,
};

/// The top-level name that holds the agent's own state, and that no tree may contain.
pub const RESERVED: &[u8] = b".patchwire";

/// A path relative to the root of a tree: one or more components joined by `/`.
///
/// Names are bytes. A value of this type never holds an empty component, `.`, `..`, NUL or a
/// control character, is never absolute, and stays within [`limits::PATH`], [`limits::COMPONENT`]
/// and [`limits::DEPTH`]. Its first component is never [`RESERVED`]. That a path *is* such a value
/// does not make it safe to hand to the system as a string: a directory on the way may be a link
/// by then. Walk it component by component instead.
///
/// Ordered by bytes, so that a directory comes before what it holds. Clones share the bytes.
#[derive(Clone, PartialEq, Eq, Hash, Encode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct RelativePath(Arc<[u8]>);

/// Why bytes are not a [`RelativePath`]. Messages name the path escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No bytes at all.
    #[error("an empty path")]
    Empty,
    /// The path begins with `/`.
    #[error("“{path}” is an absolute path")]
    Absolute {
        /// The path, escaped.
        path: String,
    },
    /// A component is empty, `.` or `..`.
    #[error("“{path}” has “{component}” as a component")]
    Component {
        /// The path, escaped.
        path: String,
        /// The component, escaped.
        component: String,
    },
    /// A name holds NUL or another control character.
    #[error("“{path}” has a control character in its name: rename or ignore it")]
    Control {
        /// The path, escaped.
        path: String,
    },
    /// The path, one of its components or their number is over its limit.
    #[error("“{path}” is too long: {what} is {len}, the most is {limit}")]
    TooLong {
        /// The path's beginning, escaped.
        path: String,
        /// What is too long.
        what: &'static str,
        /// How long it is.
        len: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The path lies in the directory that is reserved for the agent's own state.
    #[error("“{path}” lies in .patchwire, which is reserved")]
    Reserved {
        /// The path, escaped.
        path: String,
    },
}

impl RelativePath {
    /// Parses a path.
    ///
    /// # Errors
    ///
    /// [`PathError`] says what is wrong with it.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let bytes = bytes.as_ref();
        check(bytes)?;
        Ok(Self(bytes.into()))
    }

    /// The path's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as the standard library's, for showing and for joining to a developer's own root.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The components, first to last; never none.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => &self.0[slash + 1..],
            None => &self.0,
        }
    }

    /// The directory that holds this path, or `None` if that is the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|byte| *byte == b'/')?;
        Some(Self(self.0[..slash].into()))
    }

    /// The path of `name` inside this directory.
    ///
    /// # Errors
    ///
    /// [`PathError`] if the result is not a path.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        let path = [&self.0, &b"/"[..], name].concat();
        // Of the rest it is known.
        check_component(&path, name)?;
        check_size(&path)?;
        Ok(Self(path.into()))
    }

    /// Tells whether this path lies somewhere inside the directory `ancestor`.
    #[must_use]
    pub fn is_inside(&self, ancestor: &Self) -> bool {
        self.0
            .strip_prefix(&*ancestor.0)
            .is_some_and(|rest| rest.first() == Some(&b'/'))
    }
}

fn check(bytes: &[u8]) -> Result<(), PathError> {
    if bytes.is_empty() {
        return Err(PathError::Empty);
    }
    check_size(bytes)?;
    let path = || escape(bytes).to_string();
    if bytes[0] == b'/' {
        return Err(PathError::Absolute { path: path() });
    }
    bytes
        .split(|byte| *byte == b'/')
        .try_for_each(|component| check_component(bytes, component))?;
    if bytes.split(|byte| *byte == b'/').next() == Some(RESERVED) {
        return Err(PathError::Reserved { path: path() });
    }
    Ok(())
}

/// Checks what there is of a path in all.
fn check_size(path: &[u8]) -> Result<(), PathError> {
    if path.len() > limits::PATH {
        return Err(too_long(
            path,
            "its length in bytes",
            path.len(),
            limits::PATH,
        ));
    }
    let depth = 1 + path.iter().filter(|byte| **byte == b'/').count();
    if depth > limits::DEPTH {
        return Err(too_long(path, "its depth", depth, limits::DEPTH));
    }
    Ok(())
}

/// Checks a component of a path.
fn check_component(path: &[u8], component: &[u8]) -> Result<(), PathError> {
    if matches!(component, b"" | b"." | b"..") || component.contains(&b'/') {
        return Err(PathError::Component {
            path: escape(path).to_string(),
            component: escape(component).to_string(),
        });
    }
    if has_control(component) {
        return Err(PathError::Control {
            path: escape(path).to_string(),
        });
    }
    if component.len() > limits::COMPONENT {
        return Err(too_long(
            path,
            "a component",
            component.len(),
            limits::COMPONENT,
        ));
    }
    Ok(())
}

fn too_long(path: &[u8], what: &'static str, len: usize, limit: usize) -> PathError {
    PathError::TooLong {
        path: escape(&path[..path.len().min(80)]).to_string(),
        what,
        len,
        limit,
    }
}

/// Tells whether a name holds a control character: C0, DEL or C1, as UTF-8 or as a lone byte.
fn has_control(bytes: &[u8]) -> bool {
    if bytes.is_ascii() {
        return bytes.iter().any(u8::is_ascii_control);
    }
    bytes.utf8_chunks().any(|chunk| {
        chunk.valid().chars().any(char::is_control)
            || chunk
                .invalid()
                .iter()
                .any(|byte| (0x80..=0x9f).contains(byte))
    })
}

/// Shows bytes as text on one line: what isn't printable UTF-8 becomes `\xNN`, a backslash `\\`.
///
/// Safe for terminals and logs, and the form of such names in JSON.
pub fn escape(bytes: &[u8]) -> impl fmt::Display + '_ {
    struct Escaped<'a>(&'a [u8]);
    impl fmt::Display for Escaped<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            use fmt::Write;
            let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
                bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
            };
            for chunk in self.0.utf8_chunks() {
                for char in chunk.valid().chars() {
                    match char {
                        '\\' => f.write_str("\\\\")?,
                        char if char.is_control() => {
                            hex(f, char.encode_utf8(&mut [0; 4]).as_bytes())?;
                        }
                        char => f.write_char(char)?,
                    }
                }
                hex(f, chunk.invalid())?;
            }
            Ok(())
        }
    }
    Escaped(bytes)
}

impl Ord for RelativePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // In trees made from one another most paths are clones, and memory is slow.
        match Arc::ptr_eq(&self.0, &other.0) {
            true => Ordering::Equal,
            false => self.0.cmp(&other.0),
        }
    }
}

impl PartialOrd for RelativePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(&self.0).fmt(f)
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "“{self}”")
    }
}

impl Borrow<[u8]> for RelativePath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&str> for RelativePath {
    type Error = PathError;

    fn try_from(path: &str) -> Result<Self, PathError> {
        Self::new(path.as_bytes())
    }
}

impl<Context> Decode<Context> for RelativePath {
    fn decode<D: Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, codec::error::Decode> {
        Self::new(codec::decode_bytes(decoder, limits::PATH)?).map_err(codec::invalid)
    }
}

codec::impl_borrow_decode!(RelativePath);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_are_paths_whatever_their_bytes() {
        for good in [
            &b"a"[..],
            b"a/b.py",
            b"...",
            b".hidden/..x",
            "größe/日本".as_bytes(),
            b"latin-\xe9",
            b"a\\b",
            b"x/.patchwire",
            b".patchwireignore",
        ] {
            assert_eq!(RelativePath::new(good).unwrap().as_bytes(), good);
        }
    }

    #[test]
    fn what_could_leave_the_root_or_fool_a_terminal_is_refused() {
        use PathError as E;
        let err = |bytes: &[u8]| RelativePath::new(bytes).unwrap_err();
        assert_eq!(err(b""), E::Empty);
        assert!(matches!(err(b"/etc/passwd"), E::Absolute { .. }));
        for bad in [
            &b".."[..],
            b"a/../b",
            b"a/..",
            b"./a",
            b"a//b",
            b"a/",
            b"a/.",
        ] {
            assert!(matches!(err(bad), E::Component { .. }), "{bad:?}");
        }
        for bad in [
            &b"a\0b"[..],
            b"a\nb",
            b"\x1b[2J",
            b"a\x7f",
            "a\u{9b}31m".as_bytes(),
            b"a\x9b",
        ] {
            assert!(matches!(err(bad), E::Control { .. }), "{bad:?}");
        }
        assert!(matches!(err(b".patchwire"), E::Reserved { .. }));
        assert!(matches!(err(b".patchwire/journal"), E::Reserved { .. }));
        assert!(matches!(err(&[b'a'; 256]), E::TooLong { .. }));
        assert!(matches!(err(&b"a/".repeat(3000)), E::TooLong { .. }));
        assert!(matches!(
            err(&[&b"a/".repeat(128)[..], b"a"].concat()),
            E::TooLong { .. }
        ));
    }

    #[test]
    fn errors_name_the_path_escaped() {
        assert_eq!(
            RelativePath::new(*b"a\x1b]0;\xff").unwrap_err().to_string(),
            r"“a\x1b]0;\xff” has a control character in its name: rename or ignore it"
        );
    }

    #[test]
    fn parents_names_and_ancestors() {
        let path = RelativePath::try_from("a/b/c").unwrap();
        assert_eq!(path.name(), b"c");
        assert_eq!(path.parent(), Some(RelativePath::try_from("a/b").unwrap()));
        assert_eq!(RelativePath::try_from("a").unwrap().parent(), None);
        assert!(path.is_inside(&RelativePath::try_from("a").unwrap()));
        assert!(!path.is_inside(&path));
        assert!(
            !RelativePath::try_from("ab")
                .unwrap()
                .is_inside(&"a".try_into().unwrap())
        );
    }

    proptest! {
        #[test]
        fn decoding_gives_only_valid_paths(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(path) = codec::decode::<RelativePath>(&codec::encode(&bytes)) {
                prop_assert_eq!(path.as_bytes(), &bytes[..]);
                prop_assert!(path.components().all(|c| !matches!(c, b"" | b"." | b"..")));
                prop_assert_eq!(codec::encode(&path), codec::encode(&bytes));
            }
        }
    }
}
