//! A command of its own, after a few edits.

use super::{Field, Row, ours};
use crate::{
    compare::verify,
    noise::Noise,
    tree::{
        peers::RSYNC,
        report::{Floor, Measured},
        sample::{Series, wall},
    },
};

/// The files that are edited in a round.
const EDITS: usize = 20;

pub(super) fn measure(field: &Field<'_>) -> anyhow::Result<Measured> {
    let files = field.sizes.small();
    let forest = field.plant("edits", files)?;
    let source = &forest.root;
    let deployment = field.site.deploy("edits")?;
    let rsync = field.rsync()?;
    let target = field.target("edits");
    deployment.push(source)?;
    rsync.push(source, &target, &[])?;

    let (mut ours, mut theirs) = (ours(), Series::new(RSYNC));
    let mut noise = Noise::new(1);
    for round in field.rounds() {
        field.show(&format!("edits: round {round}"));
        forest.edit(EDITS, &mut noise)?;
        field.site.settle()?;
        let pushed = deployment.push(source)?;
        verify(source, &deployment.root)?;
        field.site.settle()?;
        let synced = rsync.push(source, &target, &[])?;
        verify(source, &target)?;
        if round > 0 {
            ours.samples.push(pushed);
            theirs.samples.push(synced);
        }
    }
    deployment.remove()?;
    std::fs::remove_dir_all(target)?;
    std::fs::remove_dir_all(source)?;

    let floor = Floor::ratio("wall, times rsync", ours.ratio(&theirs, wall), 0.5);
    Ok(Measured {
        row: Row::Edits.name(),
        what: format!("a command of its own, after {EDITS} edits"),
        files,
        series: vec![ours, theirs],
        floors: vec![floor],
        notes: Vec::new(),
    })
}
