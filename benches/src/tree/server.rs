//! `patchwire mcp`, as an editor drives it.

use std::time::Instant;

use anyhow::{Context, ensure};
use rustix::process::Pid;
use serde_json::{Value, json};

use super::site::PATIENCE;
use crate::child::Dialogue;

/// A running server, which ends with this value.
#[derive(Debug)]
pub(crate) struct Server {
    dialogue: Dialogue,
    id: Pid,
    requests: u64,
}

impl Server {
    /// Greets a server that was just started.
    pub(crate) fn greet(dialogue: Dialogue) -> anyhow::Result<Self> {
        let id = dialogue.running().id()?;
        let mut server = Self {
            dialogue,
            id,
            requests: 0,
        };
        let client = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "patchwire-benches", "version": env!("CARGO_PKG_VERSION")},
        });
        server.request("initialize", &client)?;
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        server.dialogue.say(initialized.to_string().into_bytes())?;
        Ok(server)
    }

    pub(crate) const fn id(&self) -> Pid {
        self.id
    }

    /// Calls the tool that pushes, and gives its report.
    pub(crate) fn push(&mut self) -> anyhow::Result<Value> {
        let call = json!({"name": "push_changes", "arguments": {}});
        let mut result = self.request("tools/call", &call)?;
        ensure!(result["isError"] != true, "a push has failed: {result:#}");
        Ok(result["structuredContent"].take())
    }

    fn request(&mut self, method: &str, params: &Value) -> anyhow::Result<Value> {
        self.requests += 1;
        let id = self.requests;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.dialogue.say(request.to_string().into_bytes())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.dialogue.hear(deadline)?;
            let line = line.with_context(|| format!("no answer to {method}"))?;
            let mut message: Value = serde_json::from_slice(&line)?;
            // Notices have no id.
            if message["id"] == id {
                ensure!(
                    message["error"].is_null(),
                    "{method} has failed: {message:#}"
                );
                return Ok(message["result"].take());
            }
        }
    }
}
