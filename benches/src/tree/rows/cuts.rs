//! A first push whose relay goes down again and again.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::{Field, Row, large_file::write_noise, ours};
use crate::{
    compare::verify,
    noise::Noise,
    tree::{
        peers::git,
        relay::CutRelay,
        report::{Floor, Measured},
        sample::{Sample, sent},
        site::PATIENCE,
    },
};

/// What may be sent again for each cut.
const PER_CUT: u64 = 16 << 20;

/// The files beside the large one.
const PIECES: u64 = 64;

/// How long one look at the developer takes.
const GLANCE: Duration = Duration::from_millis(20);

pub(super) fn measure(field: &Field<'_>) -> anyhow::Result<Measured> {
    let content = field.sizes.cut_content;
    let cuts = field.sizes.cuts;
    let root = field.site.dir.join("cuts");
    fs::create_dir_all(&root)?;
    // Half of it in one file, half in many.
    write_noise(&root.join("large"), content / 2)?;
    for piece in 0..PIECES {
        // No two are the same.
        let len = content / 2 / PIECES + piece;
        write_noise(&root.join(format!("piece-{piece}")), len)?;
    }
    git(field.site, &root, &["init", "--quiet"])?;
    let mut noise = Noise::new(7);
    let most = usize::try_from(content)?;
    let mut places: Vec<u64> = (0..cuts).map(|_| noise.within(1..most) as u64).collect();
    places.sort_unstable();

    let mut relay = CutRelay::start(field.site, 0, distance(&places, 0))?;
    let deployment = field.site.deploy_at("cuts", &relay.link_file)?;
    let started = Instant::now();
    let (mut carried, mut done, mut starts) = (0, 0, 1);
    let mut push = deployment.start_push(&root)?;
    // What can't resume may never arrive, and that is a result.
    let has_arrived = loop {
        field.show(&format!("cuts: {done} of {cuts}"));
        if started.elapsed() > PATIENCE {
            break false;
        }
        if let Some(ended) = push.wait(&field.site.interruption, Instant::now() + GLANCE)? {
            if ended.status.success() {
                break true;
            }
            // It has given up, and whoever waits for it begins again.
            if starts == 3 * (cuts + 1) {
                break false;
            }
            starts += 1;
            push = deployment.start_push(&root)?;
        }
        if done < cuts
            && let Some(bytes) = relay.went_down(Instant::now())?
        {
            carried += bytes;
            done += 1;
            let port = relay.port;
            // The port is free once it has ended.
            drop(relay);
            relay = CutRelay::start(field.site, port, distance(&places, done))?;
        }
    };
    let took = started.elapsed().as_secs_f64();
    let mut sample = Sample::default();
    if has_arrived {
        ensure!(done == cuts, "it was cut {done} times only");
        sample.sent = Some(carried + relay.carried()?);
        verify(&root, &deployment.root)?;
    }
    deployment.remove()?;
    fs::remove_dir_all(root)?;

    let ours = ours().with(sample);
    let floor = Floor::bytes(
        "bytes sent, as the relay counts them",
        ours.spread(sent),
        content + PER_CUT * cuts as u64,
    );
    let arrived = if has_arrived {
        "arrived"
    } else {
        "did not arrive"
    };
    Ok(Measured {
        row: Row::Cuts.name(),
        what: format!("a first push of {content} bytes, cut {cuts} times"),
        files: usize::try_from(PIECES)? + 1,
        series: vec![ours],
        floors: vec![floor],
        notes: vec![format!(
            "it {arrived} within {took:.1} s, with {starts} starts of the command"
        )],
    })
}

/// How far it is from one cut to the next; there is none behind the last.
fn distance(places: &[u64], done: usize) -> u64 {
    let before = done.checked_sub(1).map_or(0, |last| places[last]);
    places
        .get(done)
        .map_or(u64::MAX, |next| (next - before).max(1))
}
