//! `patchwire mcp`: what an editor's agent gets to see of a push.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    thread,
};

use patchwire_protocol::{
    limits,
    message::{
        inner::{AgentMessage, DeveloperMessage, Greeting},
        status::LogLine,
        value::Text,
    },
};
use patchwire_transport::{RelayConnection, Role};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::{
    APP, Agent, Link, PATIENCE, Relay, World, assert_same_tree, at, free_port, get, noise, program,
    test_tool, tree, wait_until,
};
use server::{Called, Server};

mod away;
mod clients;
mod server;

const CRASH: &str = "raise RuntimeError('does not start')\n";

/// A relay, and a root with an app, its agent and its recorded link.
struct Site {
    world: World,
    relay: Relay,
    shop: Shop,
}

/// A root with its app, whose link is recorded.
struct Shop {
    source: PathBuf,
    agent: Agent,
    port: u16,
    link: Link,
}

impl Site {
    fn new() -> Self {
        let world = World::new();
        let relay = Relay::start(&world);
        let shop = Shop::open(&world, &relay, "shop");
        Self { world, relay, shop }
    }

    fn server(&self) -> Server {
        Server::greeted(&self.world, &self.shop.source, &["--wait", "5s"])
    }

    /// Ends the agent, and starts another with an empty root.
    fn replace_agent(&mut self, root: &str) {
        let shop = &mut self.shop;
        shop.agent.process.terminate();
        shop.agent = Shop::agent(&self.world, &shop.link, &self.world.path(root), shop.port);
    }
}

impl Shop {
    fn open(world: &World, relay: &Relay, app: &str) -> Self {
        let link = world.link(relay, app, "dev");
        let source = world.path(app);
        fs::create_dir(&source).unwrap();
        fs::write(source.join("app.py"), APP).unwrap();
        join(world, &source, &link);
        let port = free_port();
        let agent = Self::agent(world, &link, &world.path(&format!("{app}-target")), port);
        Self {
            source,
            agent,
            port,
            link,
        }
    }

    fn agent(world: &World, link: &Link, root: &Path, port: u16) -> Agent {
        let ready = format!("http://127.0.0.1:{port}/");
        let app = ["python3", "app.py", &port.to_string()];
        Agent::start(world, link, root, &["--ready", &ready], &app)
    }

    /// Makes the app say something else.
    fn edit(&self, message: &str) {
        let app = APP.replace("Hello from Patchwire", message);
        fs::write(self.source.join("app.py"), app).unwrap();
    }

    #[track_caller]
    fn serves(&self, message: &str) {
        let page = get(self.port);
        assert!(page.contains(message), "{page}");
    }
}

/// Records a link for a root.
fn join(world: &World, root: &Path, link: &Link) {
    let mut join = world.patchwire();
    join.args(["join", "--root"]).arg(root).arg(at(&link.full));
    let joined = join.output().unwrap();
    assert!(joined.status.success(), "{}", said(&joined));
}

fn push(server: &mut Server) -> Called {
    server.call("push_changes", &json!({}))
}

#[test]
fn an_agent_pushes_sees_progress_and_reads_why_a_push_was_rolled_back() {
    let site = Site::new();
    let mut server = Server::start(&site.world, &site.shop.source, &["--wait", "5s"]);
    let greeting = server.greet();
    assert_eq!(greeting["serverInfo"]["name"], "patchwire");
    assert_eq!(greeting["serverInfo"]["version"], env!("CARGO_PKG_VERSION"));
    let instructions = greeting["instructions"].as_str().unwrap();
    let tools = server.request("tools/list", &json!({}))["result"]["tools"].take();
    let tools = tools.as_array().unwrap();
    let names: Vec<_> = tools.iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["push_changes", "app_status", "app_logs"]);
    for name in ["push_changes", "app_status", "app_logs"] {
        assert!(instructions.contains(name), "{instructions}");
    }

    let none = server.call("app_status", &json!({}));
    assert!(!none.is_error);
    none.says("nothing pushed yet");

    let first = push(&mut server).expect("done").says("ready (pid ");
    let push_id = first.structured["push_id"].as_str().unwrap().to_owned();
    assert!(get(site.shop.port).contains(&push_id));
    // What `patchwire push --json` prints.
    for field in [
        "push_id",
        "status",
        "error",
        "root",
        "files",
        "bytes",
        "timings_ms",
        "agents",
        "drift",
        "warnings",
    ] {
        assert!(first.structured.get(field).is_some(), "{field}");
    }
    assert_progress(&server.notices, &["scanning", "sending", "the app reloads"]);

    site.shop.edit("Edited by an agent");
    let dry = server.call("push_changes", &json!({"dry_run": true}));
    dry.expect("no-changes").says("would push 1 file");
    site.shop.serves("Hello from Patchwire");
    let second = server.call("push_changes", &json!({"message": "friendlier"}));
    let second = second.expect("done").says("1 changed");
    site.shop.serves("Edited by an agent");
    push(&mut server).expect("no-changes");

    fs::write(site.shop.source.join("app.py"), CRASH).unwrap();
    let third = push(&mut server).expect("rolled-back");
    assert_eq!(third.structured["error"]["code"], "app-exited");
    let tail = third.structured["agents"][0]["log_tail"].to_string();
    for said in [&third.text, &tail] {
        assert!(said.contains("Traceback"), "{third:#?}");
        assert!(said.contains("RuntimeError: does not start"), "{third:#?}");
    }
    assert_progress(&server.notices, &["the previous tree comes back"]);
    site.shop.serves("Edited by an agent");

    let status = server.call("app_status", &json!({"app": "shop", "deployment": "dev"}));
    let last = &status.structured["last_push"];
    assert_eq!(last["push_id"], second.structured["push_id"]);
    assert_eq!(last["message"], "friendlier");
    assert_eq!(last["last_result"]["status"], "rolled-back");
    status.says("ended as rolled-back");

    let logs = server.call("app_logs", &json!({}));
    assert!(!logs.is_error);
    let logs = logs.says("serving 'Edited by an agent'");
    assert_eq!(logs.structured["left_out"], 0);
    let all = logs.structured["lines"].as_array().unwrap();
    let stderr = |line: &&Value| line["stream"] == "stderr";
    assert!(all.iter().filter(stderr).count() > 0, "{logs:#?}");
    let last = server.call("app_logs", &json!({"lines": 1}));
    assert_eq!(last.structured["lines"], json!(all[all.len() - 1..]));

    let (status, said) = server.end();
    assert!(status.success(), "{said}");
    assert_eq!(said, "", "nothing to complain of");
    // All of that took one connection, which came and went.
    let relay = &site.relay.process;
    relay.wait_for("detached", 0);
    assert_eq!(relay.output().matches("role=developer").count(), 2);
}

/// Checks that notices of one call came, that they grow, and tell these in this order.
#[track_caller]
fn assert_progress(notices: &[(Value, f64, String)], stages: &[&str]) {
    assert!(
        notices.windows(2).all(|pair| pair[0].1 < pair[1].1),
        "{notices:?}"
    );
    assert!(notices.iter().all(|notice| notice.0 == notices[0].0));
    let mut rest = notices.iter();
    for stage in stages {
        assert!(
            rest.any(|(_, _, message)| message.contains(stage)),
            "{stage}: {notices:?}"
        );
    }
}

#[test]
fn what_goes_wrong_before_a_push_is_a_result_that_says_what_to_do() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("app.py"), APP).unwrap();
    let mut server = Server::greeted(&world, &source, &["--wait", "1s"]);

    push(&mut server)
        .expect_error("no-link")
        .says("patchwire join");
    join(&world, &source, &link);
    for tool in ["push_changes", "app_status", "app_logs"] {
        let called = server.call(tool, &json!({}));
        called.expect_error("no-agent").says("patchwire-agent run");
        let other = server.call(tool, &json!({"app": "blog"}));
        let other = other.expect_error("other-deployment");
        other.says("“blog”").says("“shop”");
        let other = server.call(tool, &json!({"deployment": "prod"}));
        let other = other.expect_error("other-deployment");
        other.says("“prod”").says("“dev”");
        let gone = server.call(tool, &json!({"root": "nowhere"}));
        gone.expect_error("config").says("nowhere");
        let wrong = server.call(tool, &json!({"rot": "nowhere"}));
        wrong.expect_error("usage").says("“rot”").says("`root`");
        let wrong = server.call(tool, &json!({"root": 1}));
        wrong.expect_error("usage").says("“root”");
    }
    for lines in [0, 1001] {
        let wrong = server.call("app_logs", &json!({"lines": lines}));
        wrong.expect_error("usage").says("between 1 and 1000");
    }
    fs::write(source.join("patchwire.toml"), "app = \"blog\"\n").unwrap();
    push(&mut server)
        .expect_error("config")
        .says("patchwire.toml");
    fs::remove_file(source.join("patchwire.toml")).unwrap();
    drop(relay);
    push(&mut server).expect_error("relay-unreachable");

    // What is no call of a tool is the protocol's business.
    let unknown = server.request("tools/call", &json!({"name": "rm", "arguments": {}}));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown:#}");
    assert!(unknown["error"]["message"].as_str().unwrap().contains("rm"));
    let unknown = server.request("no/such", &json!({}));
    assert_eq!(unknown["error"]["code"], -32601, "{unknown:#}");
    assert!(server.end().0.success());
}

#[test]
fn one_server_works_for_many_roots_and_never_mixes_them_up() {
    let site = Site::new();
    let blog = Shop::open(&site.world, &site.relay, "blog");
    let third = site.world.path("third");
    fs::create_dir(&third).unwrap();
    // Its link is given, and not the one that is recorded: it is for the server's own root alone.
    let other = site.world.link(&site.relay, "shop", "other");
    let link = format!("@{}", other.full.display());
    let mut server = Server::greeted(
        &site.world,
        &site.world.path(""),
        &["--root", "shop", "--link", &link, "--wait", "1s"],
    );
    let no_agent = server.call("app_status", &json!({"deployment": "other"}));
    no_agent.expect_error("no-agent").says("shop/other");
    let same = server.call("app_status", &json!({"root": site.shop.source}));
    same.expect_error("no-agent").says("shop/other");
    let none = server.call("push_changes", &json!({"root": third}));
    none.expect_error("no-link").says("its own root alone");
    let own = server.call("push_changes", &json!({"root": "../blog", "app": "blog"}));
    own.expect("done");
    assert_same_tree(&blog.source, &blog.agent.root);
    assert!(server.end().0.success());

    // Without one, each root has its own. Two calls for each at once are both right.
    let mut server = Server::greeted(&site.world, &third, &["--wait", "5s"]);
    site.shop.edit("Changed in shop");
    blog.edit("Changed in blog");
    let roots = ["../shop", "../blog"].repeat(2);
    let asked: Vec<u64> = roots
        .iter()
        .map(|root| {
            server.ask(
                "tools/call",
                &json!({
                    "name": "push_changes", "arguments": {"root": root},
                }),
            )
        })
        .collect();
    let mut answers: Vec<Value> = asked.iter().map(|_| server.receive()).collect();
    answers.sort_by_key(|answer| answer["id"].as_u64());
    let ids: Vec<_> = answers
        .iter()
        .map(|answer| answer["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, asked);
    let called: Vec<Called> = answers.iter().map(Called::of).collect();
    for pair in [[0, 2], [1, 3]] {
        let mut statuses = pair.map(|index| called[index].structured["status"].to_string());
        statuses.sort();
        assert_eq!(statuses, ["\"done\"", "\"no-changes\""], "{called:#?}");
    }
    site.shop.serves("Changed in shop");
    blog.serves("Changed in blog");
    assert!(server.end().0.success());
}

#[test]
fn files_and_links_are_read_anew_at_every_call() {
    let site = Site::new();
    let mut server = site.server();
    push(&mut server).expect("done");

    // A file of the replaced system, in a directory above the root.
    let file = site.world.path(".bifrost.json");
    fs::write(
        &file,
        r#"{"app_id": "Shop", "deployment_id": "prod", "app_root": "shop"}"#,
    )
    .unwrap();
    push(&mut server)
        .expect_error("config")
        .says(".bifrost.json");
    fs::write(&file, r#"{"app_id": "Shop", "app_root": "shop"}"#).unwrap();
    push(&mut server).expect("no-changes");
    let by_file = server.call("push_changes", &json!({"root": ".."}));
    by_file.expect("no-changes");

    // Another deployment.
    let other = site.world.link(&site.relay, "shop", "other");
    join(&site.world, &site.shop.source, &other);
    let status = server.call("app_status", &json!({}));
    status.expect_error("no-agent").says("shop/other");
    let target = site.world.path("other-target");
    let _agent = Agent::idle(&site.world, &other, &target);
    push(&mut server).expect("done");
    assert_same_tree(&site.shop.source, &target);
    assert!(server.end().0.success());
}

#[test]
fn what_is_no_message_is_passed_over() {
    let site = Site::new();
    let mut server = Server::start(&site.world, &site.shop.source, &["--wait", "5s"]);
    let garbage: [&[u8]; 8] = [
        b"hello\n",
        b"\n",
        b"\xff\xfe\x00\n",
        b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":7}}\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}\n",
        b"[]\n",
        b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/no-such\"}\n",
        b"{\"id\":",
    ];
    let write = |server: &mut Server| {
        for line in garbage {
            server.write(line);
        }
        server.write(b"\n");
        // A line that never seems to end.
        server.write(
            &noise(17 << 20)
                .iter()
                .map(|byte| byte | 0x80)
                .collect::<Vec<_>>(),
        );
        server.write(b"\n");
    };
    write(&mut server);
    // Answers to garbage are errors without an id.
    let id = server.ask("ping", &json!({}));
    let mut next = server.receive();
    while next["id"] != id {
        assert!(
            next["error"].is_object() && next["id"].is_null(),
            "{next:#}"
        );
        next = server.receive();
    }
    server.greet();
    write(&mut server);
    let id = server.ask("ping", &json!({}));
    while server.receive()["id"] != id {}
    push(&mut server).expect("done");
    assert!(server.end().0.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_prints_without_end_is_heard_for_the_lines_that_were_asked_for() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let source = world.path("shop");
    fs::create_dir(&source).unwrap();
    join(&world, &source, &link);
    let link = link.read();
    let agent = RelayConnection::connect(&link, Role::Agent, "mallory", PATIENCE);
    let agent = agent.await.unwrap();
    tokio::spawn(async move {
        let incoming = agent.accept().await.unwrap();
        let stream = incoming.handshake().await.unwrap();
        let (mut reader, mut writer) = stream.into_frames(limits::FRAME);
        let greeting = AgentMessage::Greeting(Greeting {
            name: Text::cut("mallory"),
            epoch: 1,
            root: None,
        });
        writer.send(&greeting).await.unwrap();
        let asked = reader.receive::<DeveloperMessage>().await;
        assert!(matches!(asked, Ok(Some(DeveloperMessage::Logs(_)))));
        let lines = AgentMessage::LogLines(vec![
            LogLine {
                at_ms: 0,
                stderr: false,
                text: b"on and on".to_vec(),
            };
            2
        ]);
        while writer.send(&lines).await.is_ok() {}
    });
    let mut server = Server::greeted(&world, &source, &["--wait", "5s"]);
    let logs = server.call("app_logs", &json!({"lines": 3}));
    assert!(!logs.is_error, "{}", logs.text);
    assert_eq!(logs.text.matches("on and on").count(), 3, "{}", logs.text);
    assert!(server.end().0.success());
}

#[test]
fn a_client_of_the_newest_revision_needs_no_greeting() {
    let site = Site::new();
    let mut server = Server::start(&site.world, &site.shop.source, &["--wait", "5s"]);
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": 7,
    });
    let found = server.request("server/discover", &json!({"_meta": meta}));
    let versions = found["result"]["supportedVersions"].as_array().unwrap();
    for version in ["2026-07-28", "2025-11-25"] {
        assert!(versions.contains(&json!(version)), "{found:#}");
    }
    let listed = server.request("tools/list", &json!({"_meta": meta}));
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 3);
    let call = json!({"name": "push_changes", "arguments": {}, "_meta": meta});
    let answer = server.request("tools/call", &call);
    assert_eq!(answer["result"]["resultType"], "complete");
    Called::of(&answer).expect("done");
    assert_progress(&server.notices, &["scanning", "the app reloads"]);
    assert_eq!(server.notices[0].0, 7);

    fs::write(site.shop.source.join("app.py"), CRASH).unwrap();
    let answer = server.request("tools/call", &call);
    Called::of(&answer).expect("rolled-back").says("Traceback");
    assert!(server.end().0.success());
}

#[test]
fn the_protocol_has_standard_output_for_itself_however_much_is_logged() {
    let site = Site::new();
    for (arguments, variables) in [
        (vec!["-v"], vec![("CLICOLOR_FORCE", "1")]),
        (vec!["-vv"], vec![]),
        (vec![], vec![("RUST_LOG", "trace")]),
    ] {
        // Whatever comes is checked to be a message.
        let source = &site.shop.source;
        let mut server = Server::start_under(&site.world, source, &arguments, &variables);
        server.greet();
        fs::write(source.join("app.py"), CRASH).unwrap();
        let crashed = push(&mut server);
        assert!(crashed.is_error);
        assert!(!crashed.text.contains('\x1b'), "{crashed:#?}");
        site.shop
            .edit(&format!("after {arguments:?}").replace('"', ""));
        push(&mut server).expect("done");
        server.call("app_logs", &json!({}));
        let (status, said) = server.end();
        assert!(status.success());
        assert!(said.contains("INFO"), "it was logged elsewhere: {said}");
        let link = site.shop.link.read();
        let secret = link.expose();
        let secret = secret.rsplit('.').nth(1).unwrap();
        assert!(!said.contains(secret), "no secret is logged");
    }
}

#[test]
fn the_end_of_standard_input_lets_calls_end_and_a_signal_interrupts_them() {
    let site = Site::new();
    let mut server = site.server();
    let id = server.ask_for("push_changes", &json!({}));
    server.hang_up();
    server.called(id).expect("done");
    assert!(server.end().0.success());
    site.shop.serves("Hello from Patchwire");

    let elsewhere = site.world.link(&site.relay, "shop", "nobody");
    join(&site.world, &site.shop.source, &elsewhere);
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::greeted(&site.world, &site.shop.source, &["--wait", "1h"]);
        let id = server.ask_for("push_changes", &json!({}));
        server.wait_for_notice("connecting");
        // It says so again and again while nothing moves.
        server.wait_for_notice("connecting (");
        server.signal(signal);
        let called = server.called(id);
        called.expect_error("interrupted").says("app_status");
        assert!(server.end().0.success());
    }
    // Before anyone has greeted it, too.
    let mut server = Server::start(&site.world, &site.shop.source, &["--wait", "1h"]);
    server.request("ping", &json!({}));
    server.signal(Signal::TERM);
    assert!(server.end().0.success());
}

#[test]
fn a_call_that_is_cancelled_leaves_the_agent_as_it_was_and_is_not_answered() {
    let site = Site::new();
    let mut server = site.server();
    push(&mut server).expect("done");
    // Another developer's push has its turn for as long as its app stands at the gate.
    let (gate, other) = (site.world.path("gate"), site.world.path("other"));
    fs::create_dir(&other).unwrap();
    let waits = format!(
        "import os, time\nprint('at the gate', flush=True)\n\
         while not os.path.exists({gate:?}): time.sleep(0.01)\n{APP}"
    );
    fs::write(other.join("app.py"), waits).unwrap();
    let agent = &site.shop.agent.process;
    thread::scope(|scope| {
        let force = || site.world.push_with(&site.shop.link, &other, &["--force"]);
        let holds = scope.spawn(force);
        agent.wait_for("at the gate", 0);

        site.shop.edit("After a change of mind");
        let id = server.ask_for("push_changes", &json!({}));
        server.wait_for_notice("waiting for another push to end");
        let cancelled = json!({"requestId": id, "reason": "the user changed their mind"});
        server.send(&json!({
            "jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled,
        }));
        // It was taken in before this, which is answered, and the push is not.
        assert_eq!(server.request("ping", &json!({}))["result"], json!({}));
        agent.wait_for("the developer left before the push was here", 0);
        fs::write(&gate, "").unwrap();
        holds.join().unwrap().expect("done");
    });
    assert_same_tree(&other, &site.shop.agent.root);

    let conflict = push(&mut server).expect("conflict");
    conflict.says("the argument `force`");
    let forced = server.call("push_changes", &json!({"force": true}));
    forced.expect("done").says("1 changed");
    site.shop.serves("After a change of mind");
    assert!(server.end().0.success());
}

#[test]
fn a_server_that_nobody_can_hear_ends() {
    let world = World::new();
    let mut mcp = world.patchwire();
    mcp.arg("mcp").current_dir(world.path(""));
    mcp.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = mcp.spawn().unwrap();
    // Standard input stays open.
    let mut stdin = server.stdin.take().unwrap();
    stdin
        .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n")
        .unwrap();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    assert_eq!(server.try_wait().unwrap(), None);
    drop(stdout);
    wait_until("its end", || server.try_wait().unwrap().is_some());
    assert!(server.wait().unwrap().success());
}

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
