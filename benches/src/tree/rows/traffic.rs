//! What goes over the wire for a few edits, by a server that runs already.

use super::{Field, Row, ours};
use crate::{
    compare::verify,
    noise::Noise,
    tree::{
        peers::RSYNC_Z,
        report::{Floor, Measured},
        sample::{Series, traffic},
    },
};

/// How many files are edited in a round, and how many bytes both ways that may take.
const QUESTIONS: [(usize, u64); 2] = [(1, 2 << 10), (20, 16 << 10)];

pub(super) fn measure(field: &Field<'_>) -> anyhow::Result<Vec<Measured>> {
    let files = field.sizes.small();
    let forest = field.plant("traffic", files)?;
    let source = &forest.root;
    let deployment = field.site.deploy("traffic")?;
    let rsync = field.rsync()?;
    let target = field.target("traffic");
    let mut server = deployment.serve(source)?;
    deployment.push_by(&mut server)?;
    rsync.push(source, &target, &["-z"])?;

    let mut noise = Noise::new(3);
    let mut all = Vec::new();
    for (edits, at_most) in QUESTIONS {
        let (mut ours, mut theirs) = (ours(), Series::new(RSYNC_Z));
        for round in field.rounds() {
            field.show(&format!("traffic: {edits} edits, round {round}"));
            forest.edit(edits, &mut noise)?;
            let pushed = deployment.push_by(&mut server)?;
            let synced = rsync.push(source, &target, &["-z"])?;
            verify(source, &deployment.root)?;
            verify(source, &target)?;
            if round > 0 {
                ours.samples.push(pushed);
                theirs.samples.push(synced);
            }
        }
        let floor = Floor::bytes("bytes both ways", ours.spread(traffic), at_most);
        all.push(Measured {
            row: format!("{}-{edits}", Row::Traffic.name()),
            what: format!("a server that runs already, files with an edited line: {edits}"),
            files,
            series: vec![ours, theirs],
            floors: vec![floor],
            notes: Vec::new(),
        });
    }
    drop(server);
    deployment.remove()?;
    std::fs::remove_dir_all(target)?;
    std::fs::remove_dir_all(source)?;
    Ok(all)
}
