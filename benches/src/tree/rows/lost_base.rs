//! An agent that knows nothing of the root it is given, as in a new container of the same image.

use super::{Field, Row, ours};
use crate::{
    compare::verify,
    noise::Noise,
    tree::{
        report::{Floor, Measured},
        sample::sent,
    },
};

/// The lines that are new.
const LINES: usize = 10;

/// What may be sent beside them: the header, the operation, the handshakes.
const BESIDE: u64 = 4 << 10;

/// What may be sent for a file that both sides have: an operation that says so, and no content.
const FOR_EACH_FILE: u64 = 8;

pub(super) fn measure(field: &Field<'_>) -> anyhow::Result<Measured> {
    let files = field.sizes.small();
    let forest = field.plant("lost-base", files)?;
    let source = &forest.root;
    let mut deployment = field.site.deploy("lost-base")?;
    deployment.push(source)?;
    let mut ours = ours();
    let mut noise = Noise::new(5);
    let mut longest = 0;
    for round in 1..=field.sizes.rounds {
        field.show(&format!("lost-base: round {round}"));
        deployment.lose_base()?;
        longest = forest.insert(LINES, &mut noise)?.max(longest);
        ours.samples.push(deployment.push(source)?);
        verify(source, &deployment.root)?;
    }
    deployment.remove()?;
    std::fs::remove_dir_all(source)?;

    let most = longest + BESIDE + FOR_EACH_FILE * files as u64;
    let floor = Floor::bytes("bytes sent", ours.spread(sent), most);
    Ok(Measured {
        row: Row::LostBase.name(),
        what: format!("{LINES} new lines for an agent that lost its state"),
        files,
        series: vec![ours],
        floors: vec![floor],
        notes: vec![format!(
            "the lines have {longest} bytes at most, the tree {}",
            forest.content_len
        )],
    })
}
