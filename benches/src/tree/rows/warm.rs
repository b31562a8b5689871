//! A server that runs already, after one edit.

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

pub(super) fn measure(field: &mut Field<'_>) -> anyhow::Result<Measured> {
    let forest = field.take_large()?;
    let source = &forest.root;
    let deployment = field.site.deploy("warm")?;
    let rsync = field.rsync()?;
    let target = field.target("warm");
    field.show("warm: pushing for the first time");
    let mut server = deployment.serve(source)?;
    deployment.push_by(&mut server)?;
    rsync.push(source, &target, &[])?;

    let (mut ours, mut theirs) = (ours(), Series::new(RSYNC));
    let mut noise = Noise::new(2);
    for round in field.rounds() {
        field.show(&format!("warm: round {round}"));
        field.site.settle()?;
        forest.edit(1, &mut noise)?;
        let pushed = deployment.push_by(&mut server)?;
        let synced = rsync.push(source, &target, &[])?;
        verify(source, &deployment.root)?;
        verify(source, &target)?;
        if round > 0 {
            ours.samples.push(pushed);
            theirs.samples.push(synced);
        }
    }
    drop(server);
    deployment.remove()?;
    std::fs::remove_dir_all(target)?;

    let floor = Floor::ratio("wall, times rsync", ours.ratio(&theirs, wall), 0.05);
    let measured = Measured {
        row: Row::Warm.name(),
        what: "a server that runs already, one edited line, from the call to the answer".to_owned(),
        files: field.sizes.files,
        series: vec![ours, theirs],
        floors: vec![floor],
        notes: Vec::new(),
    };
    field.large = Some(forest);
    Ok(measured)
}
