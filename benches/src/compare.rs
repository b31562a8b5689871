//! Whether files and directories hold the same.

use std::{
    ffi::OsString,
    fs::{self, DirEntry, File},
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

/// What stands at the top of a root and is no part of the tree: git's, and the agent's own.
const NOT_OF_THE_TREE: [&str; 2] = [".git", ".patchwire"];

/// How much of two files is compared at a time.
const PIECE: usize = 256 << 10;

/// Checks that two directories hold the same names, with the same modes and contents.
pub(crate) fn verify(source: &Path, target: &Path) -> anyhow::Result<()> {
    let differs = compare(source, target)
        .with_context(|| format!("can't compare {} with its source", target.display()))?;
    ensure!(
        differs.is_none(),
        "{} is not what {} is: they differ at {}",
        target.display(),
        source.display(),
        differs.unwrap_or_default().display()
    );
    Ok(())
}

/// Whether two files hold the same bytes. Memory: two buffers.
pub(crate) fn are_equal(one: &Path, other: &Path) -> io::Result<bool> {
    hold_the_same([one, other], &mut [vec![0; PIECE], vec![0; PIECE]])
}

/// The first path at which two directories differ.
pub(crate) fn compare(one: &Path, other: &Path) -> io::Result<Option<PathBuf>> {
    let mut buffers = [vec![0; PIECE], vec![0; PIECE]];
    compare_directories([one, other], Path::new(""), &mut buffers)
}

fn compare_directories(
    roots: [&Path; 2],
    below: &Path,
    buffers: &mut [Vec<u8>; 2],
) -> io::Result<Option<PathBuf>> {
    let [one, other] = roots.map(|root| entries(&root.join(below)));
    let [one, other] = [one?, other?];
    for index in 0..one.len().max(other.len()) {
        let (Some((name, entry)), Some((other_name, other_entry))) =
            (one.get(index), other.get(index))
        else {
            let extra = one.get(index).or(other.get(index));
            return Ok(extra.map(|(name, _)| below.join(name)));
        };
        let path = below.join(name);
        if name != other_name {
            return Ok(Some(path));
        }
        let (one, other) = (entry.metadata()?, other_entry.metadata()?);
        let kind = one.file_type();
        let is_same = kind == other.file_type()
            // Of a link it says nothing.
            && (kind.is_symlink()
                || (one.permissions().mode() ^ other.permissions().mode()) & 0o777 == 0);
        let is_same = is_same
            && match () {
                () if kind.is_symlink() => {
                    fs::read_link(entry.path())? == fs::read_link(other_entry.path())?
                }
                () if kind.is_file() => {
                    one.size() == other.size()
                        && hold_the_same([&entry.path(), &other_entry.path()], buffers)?
                }
                () => true,
            };
        if !is_same {
            return Ok(Some(path));
        }
        if kind.is_dir()
            && let Some(differs) = compare_directories(roots, &path, buffers)?
        {
            return Ok(Some(differs));
        }
    }
    Ok(None)
}

fn entries(directory: &Path) -> io::Result<Vec<(OsString, DirEntry)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !NOT_OF_THE_TREE.iter().any(|other| name == *other) {
            entries.push((name, entry));
        }
    }
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(entries)
}

fn hold_the_same(paths: [&Path; 2], buffers: &mut [Vec<u8>; 2]) -> io::Result<bool> {
    let [one, other] = paths.map(File::open);
    let (mut one, mut other) = (one?, other?);
    let [of_one, of_other] = buffers;
    loop {
        let len = read_full(&mut one, of_one)?;
        if read_full(&mut other, of_other)? != len || of_one[..len] != of_other[..len] {
            return Ok(false);
        }
        if len < PIECE {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends, and says how much that was.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_kinds_modes_and_contents_count() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        for root in [&one, &other] {
            fs::create_dir_all(root.join("d/e")).unwrap();
            fs::write(root.join("d/f"), vec![1; PIECE + 1]).unwrap();
            fs::write(root.join("g"), "g").unwrap();
            symlink("g", root.join("l")).unwrap();
        }
        fs::create_dir(one.join(".git")).unwrap();
        let differs = || compare(&one, &other).unwrap();
        assert_eq!(differs(), None);

        let mut content = vec![1; PIECE + 1];
        content[PIECE] = 2;
        fs::write(one.join("d/f"), &content).unwrap();
        assert_eq!(differs(), Some("d/f".into()));
        fs::write(other.join("d/f"), &content).unwrap();

        fs::set_permissions(one.join("g"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(differs(), Some("g".into()));
        fs::set_permissions(other.join("g"), fs::Permissions::from_mode(0o700)).unwrap();

        fs::remove_file(one.join("l")).unwrap();
        assert_eq!(differs(), Some("l".into()));
        symlink("h", one.join("l")).unwrap();
        assert_eq!(differs(), Some("l".into()));
        fs::remove_file(one.join("l")).unwrap();
        fs::write(one.join("l"), "g").unwrap();
        assert_eq!(differs(), Some("l".into()));
        for root in [&one, &other] {
            fs::remove_file(root.join("l")).unwrap();
        }

        fs::remove_dir(one.join("d/e")).unwrap();
        assert_eq!(differs(), Some("d/f".into()));
        assert!(verify(&one, &other).is_err());
    }
}
