//! The most memory that developer and agent have.

use super::{Field, Row, ours};
use crate::{
    compare::verify,
    noise::Noise,
    tree::{
        report::{Floor, Measured},
        sample::{Sample, Series, peak},
    },
};

/// What each may have.
const AT_MOST: u64 = 100_000_000;

pub(super) fn measure(field: &mut Field<'_>) -> anyhow::Result<Vec<Measured>> {
    let forest = field.take_large()?;
    let source = &forest.root;
    let mut deployment = field.site.deploy("memory")?;
    let mut all = Vec::new();
    for (name, what) in [("first", "the first push"), ("edit", "one edited line")] {
        field.show(&format!("memory: {what}"));
        let pushed = if name == "first" {
            deployment.push(source)?
        } else {
            // What the first one took is none of this.
            deployment.restart_agent()?;
            forest.edit(1, &mut Noise::new(6))?;
            deployment.push(source)?
        };
        let of_agent = Sample {
            peak_bytes: Some(deployment.agent_peak()?),
            ..Sample::default()
        };
        verify(source, &deployment.root)?;
        let ours = ours().with(pushed);
        let agent = Series::new("patchwire-agent").with(of_agent);
        all.push(Measured {
            row: format!("{}-{name}", Row::Memory.name()),
            what: format!("{what}, of the command and of the agent"),
            files: field.sizes.files,
            floors: vec![
                Floor::bytes("peak of the command", ours.spread(peak), AT_MOST),
                Floor::bytes("peak of the agent", agent.spread(peak), AT_MOST),
            ],
            series: vec![ours, agent],
            notes: Vec::new(),
        });
    }
    deployment.remove()?;
    field.large = Some(forest);
    Ok(all)
}
