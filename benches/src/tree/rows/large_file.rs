//! A large file that is renamed, and one that gets a byte at its front.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use super::{Field, Row, ours};
use crate::{
    compare::verify,
    noise::Noise,
    tree::{
        forest::Forest,
        peers::{RSYNC_Z, git},
        report::{Floor, Measured},
        sample::{Series, sent, traffic},
    },
};

/// The files of the directory that is renamed, of as many in the large tree.
const RENAMED: usize = 1000;

pub(super) fn measure_renames(field: &Field<'_>) -> anyhow::Result<Measured> {
    let files = RENAMED.min(field.sizes.files);
    let (root, deployment) = (
        field.site.dir.join("renames"),
        field.site.deploy("renames")?,
    );
    Forest::plant(&root.join("directory"), files, 4, &field.site.interruption)?;
    write_noise(&root.join("large"), field.sizes.large_file)?;
    git(field.site, &root, &["init", "--quiet"])?;
    let (rsync, target) = (field.rsync()?, field.target("renames"));
    field.show("renames: pushing for the first time");
    deployment.push(&root)?;
    rsync.push(&root, &target, &["-z"])?;

    field.show("renames: pushing again");
    fs::rename(root.join("directory"), root.join("renamed"))?;
    fs::rename(root.join("large"), root.join("large.renamed"))?;
    let pushed = deployment.push(&root)?;
    verify(&root, &deployment.root)?;
    let synced = rsync.push(&root, &target, &["-z"])?;
    verify(&root, &target)?;
    deployment.remove()?;
    fs::remove_dir_all(target)?;
    fs::remove_dir_all(root)?;

    let (ours, theirs) = (ours().with(pushed), Series::new(RSYNC_Z).with(synced));
    let floor = Floor::bytes("bytes sent", ours.spread(sent), 64 << 10);
    Ok(Measured {
        row: Row::Renames.name(),
        what: format!(
            "a file of {} bytes and a directory are renamed",
            field.sizes.large_file
        ),
        files,
        series: vec![ours, theirs],
        floors: vec![floor],
        notes: Vec::new(),
    })
}

pub(super) fn measure_insert(field: &Field<'_>) -> anyhow::Result<Vec<Measured>> {
    let (root, deployment) = (field.site.dir.join("insert"), field.site.deploy("insert")?);
    fs::create_dir_all(&root)?;
    write_noise(&root.join("large"), field.sizes.large_file)?;
    git(field.site, &root, &["init", "--quiet"])?;
    let (rsync, target) = (field.rsync()?, field.target("insert"));
    field.show("insert: pushing for the first time");
    deployment.push(&root)?;
    rsync.push(&root, &target, &["-z"])?;

    let mut all = Vec::new();
    for (name, is_forgotten) in [("remembered", false), ("forgotten", true)] {
        field.show(&format!("insert, {name}: pushing again"));
        if is_forgotten {
            deployment.forget()?;
        }
        insert_in_front(&root.join("large"))?;
        let pushed = deployment.push(&root)?;
        verify(&root, &deployment.root)?;
        let synced = rsync.push(&root, &target, &["-z"])?;
        verify(&root, &target)?;
        let (ours, theirs) = (ours().with(pushed), Series::new(RSYNC_Z).with(synced));
        let floor = Floor::bytes("bytes both ways", ours.spread(traffic), 1 << 20);
        let memory = if is_forgotten { "removed" } else { "there" };
        all.push(Measured {
            row: format!("{}-{name}", Row::Insert.name()),
            what: format!(
                "one byte in front of {}, the developer's memory is {memory}",
                field.sizes.large_file
            ),
            files: 1,
            series: vec![ours, theirs],
            floors: vec![floor],
            notes: Vec::new(),
        });
    }
    deployment.remove()?;
    fs::remove_dir_all(target)?;
    fs::remove_dir_all(root)?;
    Ok(all)
}

/// Writes a file that doesn't compress.
pub(super) fn write_noise(path: &Path, len: u64) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    let mut noise = Noise::new(len);
    let mut left = usize::try_from(len)?;
    while left > 0 {
        let piece = noise.bytes(left.min(PIECE));
        file.write_all(&piece)?;
        left -= piece.len();
    }
    Ok(())
}

fn insert_in_front(path: &Path) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(b"!")?;
    io::copy(&mut File::open(path)?, &mut file)?;
    Ok(fs::rename(new, path)?)
}

const PIECE: usize = 1 << 20;
