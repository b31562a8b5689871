//! Names that are one and the same on a disk that doesn't tell upper from lower case, or that brings
//! Unicode into a normal form.

use patchwire_protocol::path::RelativePath;
use unicode_normalization::UnicodeNormalization;

/// Finds the entries of one directory that are the same for such a disk.
pub(super) fn within<'a>(
    entries: impl Iterator<Item = &'a RelativePath> + Clone,
) -> Vec<(RelativePath, RelativePath)> {
    // Of two such names one at least isn't folded.
    if entries.clone().all(|path| is_folded(path.name())) {
        return Vec::new();
    }
    let mut folded: Vec<(String, &RelativePath)> = entries
        .filter_map(|path| Some((fold(str::from_utf8(path.name()).ok()?), path)))
        .collect();
    folded.sort_unstable();
    let same = folded.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    same.map(|pair| (pair[0].1.clone(), pair[1].1.clone()))
        .collect()
}

/// Tells at a glance whether nothing about a name could be folded.
fn is_folded(name: &[u8]) -> bool {
    name.iter()
        .all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
}

/// Simple case folding, and the canonical composition.
fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    name.nfd().map(fold_char).nfc().collect()
}

/// By way of the upper case, which the variants of a letter share: `ς` and `σ` are `Σ`.
fn fold_char(char: char) -> char {
    fn only(mut chars: impl Iterator<Item = char>, otherwise: char) -> char {
        match (chars.next(), chars.next()) {
            (Some(char), None) => char,
            _ => otherwise,
        }
    }
    let upper = only(char.to_uppercase(), char);
    only(upper.to_lowercase(), upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_by_case_and_by_normal_form() {
        for (a, b) in [
            ("Makefile", "makefile"),
            ("ΟΔΟΣ", "οδος"),
            ("caf\u{e9}", "cafe\u{301}"),
            ("CAF\u{c9}", "cafe\u{301}"),
            ("\u{212a}", "k"),
        ] {
            assert_eq!(fold(a), fold(b), "{a} and {b}");
        }
        for (a, b) in [("a", "b"), ("straße", "strasse"), ("é", "e"), ("ı", "l")] {
            assert_ne!(fold(a), fold(b), "{a} and {b}");
        }
    }

    #[test]
    fn all_of_a_directory_are_compared() {
        let path = |name: &str| RelativePath::try_from(name).unwrap();
        let files = ["d/A", "d/README", "d/ReadMe", "d/b"].map(path);
        let directories = ["d/a", "d/c", "d/readme"].map(path);
        let found = within(files.iter().chain(&directories));
        let named = |a: &str, b: &str| (path(a), path(b));
        assert_eq!(
            found,
            [
                named("d/A", "d/a"),
                named("d/README", "d/ReadMe"),
                named("d/ReadMe", "d/readme"),
            ]
        );
        assert_eq!(within(files[..1].iter().chain(&directories[1..])), []);
    }
}
