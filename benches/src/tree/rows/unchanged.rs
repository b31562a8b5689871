//! A command of its own, where nothing has changed.

use super::{Field, Row, ours};
use crate::tree::{
    compare::verify,
    peers::{GIT_STATUS, RSYNC, WALK, git_status, walk},
    report::{Floor, Measured},
    sample::{Series, wall},
};

pub(super) fn measure(field: &mut Field<'_>) -> anyhow::Result<Measured> {
    let forest = field.take_large()?;
    let source = &forest.root;
    let deployment = field.site.deploy("unchanged")?;
    let rsync = field.rsync()?;
    let target = field.target("unchanged");
    field.show("unchanged: pushing for the first time");
    deployment.push(source)?;
    rsync.push(source, &target, &[])?;
    field.site.settle()?;

    let mut ours = ours();
    let [mut theirs, mut status, mut walks] = [RSYNC, GIT_STATUS, WALK].map(Series::new);
    for round in field.rounds() {
        field.show(&format!("unchanged: round {round}"));
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
    std::fs::remove_dir_all(target)?;

    let floors = vec![
        Floor::ratio("wall, times rsync", ours.ratio(&theirs, wall), 0.25),
        Floor::ratio("wall, times git status", ours.ratio(&status, wall), 1.0),
    ];
    let measured = Measured {
        row: Row::Unchanged.name(),
        what: "a command of its own, where nothing has changed".to_owned(),
        files: field.sizes.files,
        series: vec![ours, theirs, status, walks],
        floors,
        notes: Vec::new(),
    };
    field.large = Some(forest);
    Ok(measured)
}
