//! A command of its own, where nothing has changed.

use std::{fs, path::Path};

use super::{Field, Row, ours, releases};
use crate::{
    compare::verify,
    tree::{
        peers::{GIT_STATUS, RSYNC, WALK, commit, count, git_status, replace, walk},
        report::{Floor, Measured},
        sample::{Series, wall},
    },
};

/// The tree of a real project that is measured, too.
const REAL: &str = "django";

pub(super) fn measure(field: &mut Field<'_>) -> anyhow::Result<Vec<Measured>> {
    let forest = field.take_large()?;
    let files = field.sizes.files;
    let mut all = vec![measure_on(field, "generated", &forest.root, files)?];
    field.large = Some(forest);
    if let Some(release) = releases::older(field, REAL)? {
        let source = field.site.dir.join("sources").join(REAL);
        replace(field.site, &source, &release, &["--times"])?;
        commit(field.site, &source)?;
        all.push(measure_on(field, REAL, &source, count(&source)?)?);
        fs::remove_dir_all(source)?;
    }
    Ok(all)
}

fn measure_on(
    field: &Field<'_>,
    name: &str,
    source: &Path,
    files: usize,
) -> anyhow::Result<Measured> {
    let deployment = field.site.deploy("unchanged")?;
    let rsync = field.rsync()?;
    let target = field.target("unchanged");
    field.show(&format!("unchanged, {name}: pushing for the first time"));
    deployment.push(source)?;
    rsync.push(source, &target, &[])?;
    field.site.settle()?;

    let mut ours = ours();
    let [mut theirs, mut status, mut walks] = [RSYNC, GIT_STATUS, WALK].map(Series::new);
    for round in field.rounds() {
        field.show(&format!("unchanged, {name}: round {round}"));
        let pushed = deployment.push(source)?;
        let synced = rsync.push(source, &target, &[])?;
        let said = git_status(field.site, source)?;
        let walked = walk(source)?;
        if round > 0 {
            ours.samples.push(pushed);
            theirs.samples.push(synced);
            status.samples.push(said);
            walks.samples.push(walked);
        }
    }
    verify(source, &deployment.root)?;
    verify(source, &target)?;
    deployment.remove()?;
    fs::remove_dir_all(target)?;

    Ok(Measured {
        row: format!("{}-{name}", Row::Unchanged.name()),
        what: "a command of its own, where nothing has changed".to_owned(),
        files,
        floors: vec![
            Floor::ratio("wall, times rsync", ours.ratio(&theirs, wall), 0.25),
            Floor::ratio("wall, times git status", ours.ratio(&status, wall), 1.0),
        ],
        series: vec![ours, theirs, status, walks],
        notes: Vec::new(),
    })
}
