//! Edits faster than the clock of a cache: Python takes its bytecode for that of a source that has
//! the same length and the same modification time in seconds.

use std::{fs, os::unix::fs::MetadataExt};

use crate::world::{Agent, Relay, World, free_port, get};

const APP: &str = r#"
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import value


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(value.VALUE.encode())


HTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"#;

#[test]
fn edits_of_the_same_length_within_a_second_run_as_they_are() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "value", "dev");
    let (source, port) = (world.path("source"), free_port());
    fs::create_dir(&source).unwrap();
    fs::write(source.join("app.py"), APP).unwrap();
    let ready = format!("http://127.0.0.1:{port}/");
    let agent = Agent::start(
        &world,
        &link,
        &world.path("target"),
        &["--ready", &ready],
        &["python3", "app.py", &port.to_string()],
    );

    let versions = [
        ("VALUE = 'aaa'", "done", "aaa"),
        ("VALUE = 'bbb'", "done", "bbb"),
        ("VALUE = 'ccc'", "done", "ccc"),
        // It is compiled, and cached, before it fails.
        ("VALUE = 1 / 0", "rolled-back", "ccc"),
        ("VALUE = 'ddd'", "done", "ddd"),
        ("VALUE = 'aaa'", "done", "aaa"),
        ("VALUE = 2 / 0", "rolled-back", "aaa"),
        ("VALUE = 3 / 0", "rolled-back", "aaa"),
    ];
    let mut last = 0;
    for (version, status, served) in versions {
        fs::write(source.join("value.py"), version).unwrap();
        let pushed = world.push(&link, &source).expect(status);
        assert_eq!(get(port), served, "{pushed:#?}");
        // Without a cache that could be stale, nothing was tested.
        assert!(has_bytecode(&agent), "{version}");
        let second = fs::metadata(agent.root.join("value.py")).unwrap().mtime();
        assert!(second > last, "{second} after {last}: {version}");
        last = second;
    }
}

fn has_bytecode(agent: &Agent) -> bool {
    let cached = fs::read_dir(agent.root.join("__pycache__")).unwrap();
    cached.into_iter().any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_str()
            .is_some_and(|name| name.starts_with("value.") && name.ends_with(".pyc"))
    })
}
