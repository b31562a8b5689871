//! Relay, agent and others that come and go beside a server.

use super::*;

#[test]
fn what_was_pushed_is_pushed_again_when_the_agent_comes_back_without_it() {
    let mut site = Site::new();
    let mut server = site.server();
    push(&mut server).expect("done");
    site.shop.edit("Kept");
    push(&mut server).expect("done");

    site.replace_agent("second");
    server.complains("it was pushed again at");
    assert_same_tree(&site.shop.source, &site.shop.agent.root);
    site.shop.serves("Kept");
    // The next result says so, and no other.
    let status = server.call("app_status", &json!({}));
    status.says("ready").says("warning: the agent came back");
    let status = server.call("app_status", &json!({}));
    assert!(!status.text.contains("warning"), "{status:#?}");

    // And again.
    site.replace_agent("third");
    server.complains("it was pushed again at");
    site.shop.serves("Kept");
    let logs = server.call("app_logs", &json!({"lines": 1}));
    logs.says("warning: the agent came back");

    // An edit that nobody called finished is not pushed.
    site.shop.edit("Half an edit");
    site.replace_agent("fourth");
    server.complains("it was not pushed again, as the directory had changed");
    assert_eq!(tree(&site.shop.agent.root), BTreeMap::new());
    let done = push(&mut server).expect("done");
    assert!(
        done.structured["warnings"][0]
            .as_str()
            .unwrap()
            .contains("had changed"),
        "{done:#?}"
    );
    site.shop.serves("Half an edit");

    // What doesn't come up again is tried once.
    site.shop.agent.process.terminate();
    let target = site.world.path("fifth");
    let app = ["sh", "-c", "echo no python here; exit 1"];
    let (world, link) = (&site.world, &site.shop.link);
    let agent = Agent::start(world, link, &target, &["--ready", "alive:1s"], &app);
    server.complains("which ended as failed: the app ended before it was ready");
    let status = server.call("app_status", &json!({}));
    status.says("not seen ready").says("which ended as failed");
    drop(agent);
    assert!(server.end().0.success());
}

#[test]
fn what_others_pushed_is_not_pushed_over_when_the_agent_comes_back() {
    let mut site = Site::new();
    let other = site.world.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("app.py"), format!("# Ben's\n{APP}")).unwrap();
    let mut server = Server::greeted(&site.world, &site.shop.source, &["-v", "--wait", "5s"]);
    push(&mut server).expect("done");

    // While the server looks: what is there is not what it knows, and the agent's end ends it.
    let force = |site: &Site| {
        let forced = site.world.push_with(&site.shop.link, &other, &["--force"]);
        forced.expect("done");
    };
    force(&site);
    site.replace_agent("second");
    server.complains("another push took the place of what was kept");
    assert_eq!(tree(&site.shop.agent.root), BTreeMap::new());

    // While it looks away.
    push(&mut server).expect("done");
    server.signal(Signal::STOP);
    site.replace_agent("third");
    force(&site);
    server.signal(Signal::CONT);
    server.complains("which ended as conflict");
    assert_same_tree(&other, &site.shop.agent.root);
    assert!(server.end().0.success());
}

#[test]
fn a_server_outlives_relay_and_agent() {
    let Site {
        world,
        relay,
        mut shop,
    } = Site::new();
    let mut server = Server::greeted(&world, &shop.source, &["--wait", "1s"]);
    push(&mut server).expect("done");

    // The relay goes, and comes back.
    let (name, port) = ("relay", relay.port);
    drop(relay);
    shop.edit("While there was no relay");
    // What is asked notices it; a push sent before would be one whose answer is not known.
    let status = server.call("app_status", &json!({}));
    status.expect_error("relay-unreachable");
    push(&mut server).expect_error("relay-unreachable");
    let attached = shop.agent.process.output().len();
    let relay = Relay::start_in(&world, name, port);
    shop.agent
        .process
        .wait_for("attached to the relay", attached);
    push(&mut server).expect("done");
    shop.serves("While there was no relay");

    // The agent goes, and another comes with a tree of its own.
    shop.agent.process.terminate();
    push(&mut server).expect_error("no-agent");
    let target = world.path("elsewhere");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("app.py"), "# nothing like it\n").unwrap();
    shop.agent = Shop::agent(&world, &shop.link, &target, shop.port);
    server.complains("it was pushed again");
    push(&mut server).expect("no-changes");
    assert_same_tree(&shop.source, &target);
    shop.serves("While there was no relay");

    // The server is stopped for so long that the relay gives it up.
    server.signal(Signal::STOP);
    relay
        .process
        .wait_for("detached", relay.process.output().len());
    shop.edit("After a long sleep");
    server.signal(Signal::CONT);
    push(&mut server).expect("done");
    shop.serves("After a long sleep");

    // Again, and meanwhile the relay is started anew: it knows of no connection.
    server.signal(Signal::STOP);
    let attached = shop.agent.process.output().len();
    let relay = relay.restart(&world);
    shop.agent
        .process
        .wait_for("attached to the relay", attached);
    shop.edit("After another sleep");
    server.signal(Signal::CONT);
    push(&mut server).expect("done");
    shop.serves("After another sleep");

    // The root is renamed, and back.
    let renamed = world.path("renamed");
    let root = json!({"root": shop.source});
    fs::rename(&shop.source, &renamed).unwrap();
    let gone = server.call("push_changes", &root).expect_error("config");
    gone.says("can't be pushed");
    push(&mut server).expect_error("no-link").says("renamed");
    fs::rename(&renamed, &shop.source).unwrap();
    shop.edit("Back where it was");
    server.call("push_changes", &root).expect("done");
    push(&mut server).expect("no-changes");
    shop.serves("Back where it was");
    assert!(server.end().0.success());
    drop(relay);
}
