//! Clients of other people.

use super::*;

/// PyPI's client, run by the Python that `.ci/test-tools` installs.
const PYTHON_CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/mcp/client.py");

#[test]
fn the_client_from_pypi_is_content() {
    let Some(python) = test_tool("PATCHWIRE_TEST_PYTHON", "python/bin/python") else {
        return;
    };
    let site = Site::new();
    for mode in ["legacy", "auto"] {
        let mut client = site.world.command(&python);
        client.arg("-B").arg(PYTHON_CLIENT);
        client.arg(program("patchwire")).arg(&site.shop.source);
        let output = client.arg(mode).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let version = match mode {
            "legacy" => "2025-11-25",
            _ => "2026-07-28",
        };
        assert!(said(&output).contains(version), "{}", said(&output));
    }
}

#[test]
fn the_inspectors_command_line_is_content() {
    let modules = test_tool("PATCHWIRE_TEST_NODE_MODULES", "npm/node_modules");
    let Some(modules) = modules else {
        return;
    };
    let site = Site::new();
    let inspect = |arguments: &[&str]| -> Value {
        let mut inspector = site.world.command(modules.join(".bin/node"));
        inspector.arg(modules.join(".bin/mcp-inspector"));
        inspector.arg("--cli").arg(program("patchwire")).arg("mcp");
        inspector.args(arguments).args(["--format", "json"]);
        let output = inspector.current_dir(&site.shop.source).output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
    };
    // As the page says it, where an editor puts the project's directory in.
    let page = include_str!("../../../../../docs/mcp.md");
    let config = page.split("```json\n").nth(1).unwrap().split("```").next();
    let source = site.shop.source.display().to_string();
    let config = config.unwrap().replace("${workspaceFolder}", &source);
    let config_file = site.world.path("mcp.json");
    fs::write(&config_file, config).unwrap();
    let mut inspector = site.world.command(modules.join(".bin/node"));
    inspector.arg(modules.join(".bin/mcp-inspector"));
    inspector.arg("--cli").arg("--config").arg(config_file);
    inspector.args(["--server", "patchwire", "--format", "json"]);
    inspector.args(["--method", "tools/call", "--tool-name", "app_status"]);
    let path = std::env::var_os("PATH").unwrap();
    let own = program("patchwire").parent().unwrap().to_owned();
    let path = [own].into_iter().chain(std::env::split_paths(&path));
    inspector.env("PATH", std::env::join_paths(path).unwrap());
    let output = inspector.current_dir("/").output().unwrap();
    let answer = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    Called::of(&answer).says("nothing pushed yet");

    let listed = inspect(&["--method", "tools/list", "--strict"]);
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 3);
    assert!(!listed.to_string().contains("\"findings\""), "{listed:#}");
    let call = |tool: &str, arguments: &[&str]| {
        let call = ["--method", "tools/call", "--tool-name", tool];
        let more = arguments
            .iter()
            .flat_map(|argument| ["--tool-arg", argument]);
        let call: Vec<&str> = call.into_iter().chain(more).collect();
        Called::of(&inspect(&call))
    };
    call("push_changes", &["message=by the inspector"]).expect("done");
    call("app_status", &["app=shop"]).says("by the inspector");
    call("app_logs", &["lines=1"]).says("Hello from Patchwire");
    fs::write(site.shop.source.join("app.py"), CRASH).unwrap();
    let crashed = call("push_changes", &[]).expect("rolled-back");
    crashed.says("RuntimeError: does not start");
}
