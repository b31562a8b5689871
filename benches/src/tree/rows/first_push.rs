//! The first push, to where there is nothing.

use std::fs::{self, File};

use rustix::fs::syncfs;

use super::{Field, Row, ours};
use crate::{
    compare::verify,
    measure::timed,
    tree::{
        peers::RSYNC,
        report::{Floor, Measured},
        sample::{Series, wall},
    },
};

pub(super) fn measure(field: &Field<'_>) -> anyhow::Result<Measured> {
    let files = field.sizes.small();
    let forest = field.plant("first-push", files)?;
    let source = &forest.root;
    let rsync = field.rsync()?;
    let target = field.target("first-push");
    let mut ours = ours();
    let [mut plain, mut synced, mut each] =
        [RSYNC, "rsync+sync-f", "rsync --fsync"].map(Series::new);
    for round in field.rounds() {
        field.show(&format!("first-push: round {round}"));
        let is_counted = round > 0;
        let deployment = field.site.deploy("first-push")?;
        field.site.settle()?;
        let pushed = deployment.push(source)?;
        verify(source, &deployment.root)?;
        deployment.remove()?;
        if is_counted {
            ours.samples.push(pushed);
        }
        for (series, more, is_synced) in [
            (&mut plain, &[][..], false),
            (&mut synced, &[], true),
            (&mut each, &["--fsync"], false),
        ] {
            field.site.settle()?;
            let mut sample = rsync.push(source, &target, more)?;
            if is_synced {
                let root = File::open(&target)?;
                let (done, cost) = timed(|| syncfs(root));
                done?;
                sample.wall = sample.wall.map(|wall| wall + cost.wall);
                sample.cpu = sample.cpu.map(|cpu| cpu + cost.cpu);
            }
            verify(source, &target)?;
            fs::remove_dir_all(&target)?;
            if is_counted {
                series.samples.push(sample);
            }
        }
    }
    fs::remove_dir_all(source)?;

    let floors = vec![
        Floor::ratio("wall, times rsync --fsync", ours.ratio(&each, wall), 1.0),
        Floor::ratio(
            "wall, times rsync, then sync -f",
            ours.ratio(&synced, wall),
            1.0,
        ),
    ];
    Ok(Measured {
        row: Row::FirstPush.name(),
        what: format!("the first push, {} bytes", forest.content_len),
        files,
        series: vec![ours, plain, synced, each],
        floors,
        notes: Vec::new(),
    })
}
