//! What `init` says: before it writes, and after.

use patchwire_client::{config::bifrost, links::LinkStore};
use patchwire_transport::DeploymentLink;

use super::{plan::Plan, start};
use crate::{context, failure::Failure};

impl Plan {
    /// What is going to be written, and where.
    pub(super) fn announced(
        &self,
        links: &LinkStore,
        link: &DeploymentLink,
    ) -> Result<String, Failure> {
        let mut lines = vec![String::new()];
        lines.extend(self.notes.iter().cloned());
        let file = self.file.display();
        match &self.settings {
            Some(_) => lines.push(format!("{file} is there and stays as it is.")),
            None => {
                lines.push(format!("{file} will be:"));
                let text = self.text()?;
                lines.extend(text.lines().map(|line| format!("    {line}")));
            }
        }
        let recorded = links.path(&self.project());
        lines.push(format!(
            "A link, {link}, will be recorded in {}.",
            recorded.display()
        ));
        Ok(lines.join("\n"))
    }

    /// What was done, and what is next.
    pub(super) fn told(&self, links: &LinkStore, link: &DeploymentLink, secret: bool) -> String {
        let mut lines = self.notes.clone();
        if self.bifrost.is_some() {
            lines.push(format!(
                "took over {}; Patchwire doesn't read it again",
                bifrost::FILE_NAME
            ));
        }
        for (variable, instead) in bifrost::VARIABLES {
            if context::is_set(variable) {
                lines.push(format!(
                    "{variable} is set and means nothing here: see {instead}"
                ));
            }
        }
        let file = self.file.display();
        lines.push(match &self.settings {
            Some(_) => format!("kept {file}"),
            None => format!("wrote {file}"),
        });
        let recorded = links.path(&self.project());
        lines.push(format!(
            "{} uses {link}, recorded in {}",
            self.root.display(),
            recorded.display()
        ));
        lines.push(String::new());
        let agent = self.agent_command();
        lines.push(match secret {
            true => format!(
                "\
ON THE APP'S MACHINE (this holds a SECRET: who has the link can be this
deployment's agent, though not push), in a shell, in the directory that the
app runs in:

(umask 077; cat > ~/agent.link) <<'END'
{}
END
{agent}

THEN, FROM HERE, AND LEFT RUNNING WHILE YOU EDIT:

patchwire watch
",
                *link.narrow().expose()
            ),
            false => format!(
                "\
For the agent, make a link that can't push, outside this directory, and take
it to the app's machine:
    (umask 077; patchwire link --agent > ~/agent.link)
There, start the app under the agent, in the directory it runs in:
    {agent}
Then, from here, and left running while you edit:
    patchwire watch
"
            ),
        });
        lines.join("\n")
    }

    /// What wraps the app's own command.
    fn agent_command(&self) -> String {
        let mut command = "patchwire-agent run --link @$HOME/agent.link --root .".to_owned();
        if let Some(ready) = &self.ready {
            command.push_str(" --ready ");
            command.push_str(&start::quoted(&ready.to_string()));
        }
        let app = self.command.as_deref().map(start::behind_dashes);
        command + " -- " + app.as_deref().unwrap_or("COMMAND…")
    }
}
