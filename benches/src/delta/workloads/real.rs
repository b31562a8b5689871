//! Real files: what of them is installed on this machine.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use bytesize::ByteSize;

use crate::noise::Noise;

/// The content of many files, one behind the other.
#[derive(Debug)]
pub(super) struct Real {
    pub(super) bytes: Vec<u8>,
    /// Says so where there were too few files.
    pub(super) note: Option<String>,
}

/// Programs and libraries: `len` bytes of ELF files.
pub(super) fn binaries(len: usize) -> Real {
    let mut roots = vec![PathBuf::from("/usr/lib"), PathBuf::from("/usr/bin")];
    roots.extend(toolchain());
    let bytes = collect(roots, len, |path| {
        let mut file = File::open(path).ok()?;
        let mut bytes = vec![0; ELF_MAGIC.len()];
        file.read_exact(&mut bytes).ok()?;
        if bytes != ELF_MAGIC {
            return None;
        }
        file.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    });
    fill(bytes, len, "binaries", |noise, bytes| {
        // Code, tables and gaps, as far as a search for blocks can tell.
        bytes.extend(noise.bytes(6000));
        for entry in 0..200u32 {
            bytes.extend((0x40_0000 + entry * 24).to_le_bytes());
            bytes.extend([0; 12]);
        }
        bytes.extend([0; 700]);
    })
}

/// Sources and documents: `len` bytes of text files.
pub(super) fn texts(len: usize) -> Real {
    let roots = ["/usr/include", "/usr/lib", "/usr/share"].map(PathBuf::from);
    let roots = roots.into_iter().chain(toolchain()).collect();
    let bytes = collect(roots, len, |path| {
        let extension = path.extension()?.to_str()?;
        if !TEXTS.contains(&extension) {
            return None;
        }
        let text = fs::read_to_string(path).ok()?;
        (!text.contains('\0')).then_some(text.into_bytes())
    });
    fill(bytes, len, "texts", |noise, bytes| {
        bytes.extend(line(noise).into_bytes());
    })
}

/// A line as in a text.
pub(super) fn line(noise: &mut Noise) -> String {
    let indent = " ".repeat(4 * noise.within(0..4));
    let words: Vec<&str> = (0..noise.within(1..12))
        .map(|_| *noise.pick(WORDS))
        .collect();
    format!("{indent}{} {}\n", words.join(" "), noise.within(0..1000))
}

/// What texts and tables that nobody has written consist of.
pub(super) const WORDS: &[&str] = &[
    "basis",
    "block",
    "copy",
    "delta",
    "fn",
    "for",
    "hash",
    "if",
    "let",
    "literal",
    "match",
    "of",
    "offset",
    "pub",
    "return",
    "self",
    "signature",
    "target",
    "the",
    "while",
    "window",
    "with",
];

const ELF_MAGIC: [u8; 4] = *b"\x7FELF";

const TEXTS: &[&str] = &[
    "c", "cc", "cpp", "css", "h", "hpp", "html", "js", "json", "md", "pl", "pm", "py", "rb", "rs",
    "rst", "sh", "tcl", "toml", "txt", "xml",
];

/// Where the Rust toolchain is, if there is one.
fn toolchain() -> Option<PathBuf> {
    let said = Command::new("rustc").args(["--print", "sysroot"]).output();
    let said = said.ok().filter(|said| said.status.success())?;
    let path = String::from_utf8(said.stdout).ok()?;
    Some(PathBuf::from(path.trim()))
}

/// Puts files together in the order of the roots and of the paths below each, until there are `len`
/// bytes; what can't be read is not there.
fn collect(roots: Vec<PathBuf>, len: usize, read: impl Fn(&Path) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    let mut paths = roots;
    paths.reverse();
    while bytes.len() < len
        && let Some(path) = paths.pop()
    {
        let Ok(kind) = fs::symlink_metadata(&path).map(|of| of.file_type()) else {
            continue;
        };
        if kind.is_file() {
            bytes.extend(read(&path).unwrap_or_default());
        } else if kind.is_dir()
            && let Ok(entries) = fs::read_dir(&path)
        {
            let mut below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            below.sort_unstable_by(|one, other| other.cmp(one));
            paths.append(&mut below);
        }
    }
    bytes.truncate(len);
    bytes
}

/// Fills up what is missing.
fn fill(
    mut bytes: Vec<u8>,
    len: usize,
    kind: &str,
    mut more: impl FnMut(&mut Noise, &mut Vec<u8>),
) -> Real {
    let found = bytes.len();
    let mut noise = Noise::new(len as u64);
    while bytes.len() < len {
        more(&mut noise, &mut bytes);
    }
    bytes.truncate(len);
    let note = (found < len).then(|| {
        let found = ByteSize(found as u64);
        format!("only {found} of {kind} are on this machine, the rest is made up")
    });
    Real { bytes, note }
}
