//! A developer that follows the agent hears of every change, and of its end.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use patchwire_client::{Client, ConnectOptions, StatusStream};
use patchwire_protocol::{
    app::{AppState, Exit},
    message::{push::PushStatus, status::Status},
};
use rustix::process::Signal;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    project::edit,
    world::{Agent, Link, PATIENCE, Relay, World},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_a_push_a_crash_and_the_agents_end() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let source = source(&world);
    // Ends when it is told to, and is there again.
    let app = [
        "sh",
        "-c",
        "trap 'exit 3' USR1; while :; do sleep 0.05; done",
    ];
    let options = ["--ready", "alive:1ms"];
    let mut agent = Agent::start(&world, &link, &world.path("target"), &options, &app);

    let mut news = follow(&link).await;
    let first = next(&mut news).await;
    assert_eq!((first.root, first.last_push), (None, None));

    let pushed = world.push(&link, &source).expect("done");
    let status = until(&mut news, |status| {
        let result = status.last_push.as_ref().and_then(|push| push.last_result);
        status.verified && result.is_some()
    })
    .await;
    let push = status.last_push.unwrap();
    assert_eq!(push.push_id.to_string(), pushed.push_id());
    assert_eq!(push.last_result, Some((push.push_id, PushStatus::Done)));
    assert_eq!(status.root.unwrap().0.to_string(), pushed.json["root"]);

    let before = status.app.unwrap();
    let pid = i32::try_from(before.pid.unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, Signal::USR1).unwrap();
    let again = until(&mut news, |status| {
        status.app.is_some_and(|app| app.restarts > 0)
    })
    .await;
    let AppState {
        running,
        pid,
        exit,
        restarts,
    } = again.app.unwrap();
    assert_eq!((running, exit, restarts), (true, Some(Exit::Code(3)), 1));
    assert_ne!(pid, before.pid);

    agent.process.terminate();
    ended(&mut news).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_hears_that_the_agent_or_the_relay_was_killed() {
    let world = World::new();
    // It takes as long as connections may be silent: both at once.
    let [mut one, other] = ["one", "other"].map(|name| Relay::start_in(&world, name, 0));
    let mut agents = Vec::new();
    let mut followers = Vec::new();
    for (relay, app) in [(&one, "one"), (&other, "other")] {
        let link = world.link(relay, app, "dev");
        agents.push(Agent::idle(
            &world,
            &link,
            &world.path(&format!("{app}-target")),
        ));
        let mut news = follow(&link).await;
        next(&mut news).await;
        followers.push(news);
    }
    one.process.kill();
    agents[1].process.kill();
    for mut news in followers {
        ended(&mut news).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_follow_there_is_room_for_pushes() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let source = source(&world);
    let agent = Agent::idle(&world, &link, &world.path("target"));
    let client = client(&link);
    let mut followers = Vec::new();
    // One after the other, so that the last of them find no place.
    for _ in 0..40 {
        let mut news = client.follow().await.unwrap();
        next(&mut news).await;
        followers.push(news);
    }
    agent.process.wait_for("too many developers follow", 0);
    ended(followers.last_mut().unwrap()).await;
    let pushed = world.push(&link, &source).expect("done");
    let root = &pushed.json["root"];
    until(&mut followers[0], |status| {
        status.root.is_some_and(|at| *root == at.0.to_string())
    })
    .await;
    // Whoever leaves makes room, as soon as the agent has heard of it.
    drop(followers);
    let stays = async {
        loop {
            let mut news = client.follow().await.unwrap();
            next(&mut news).await;
            edit(&source.join("a"));
            world.push(&link, &source).expect("done");
            if news.next().await.unwrap().is_some() {
                break;
            }
        }
    };
    timeout(PATIENCE, stays).await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beside_a_follower_name_the_relay_that_is_away() {
    let world = World::new();
    let mut relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let _agent = Agent::idle(&world, &link, &world.path("target"));
    let options = ConnectOptions {
        wait: Duration::from_secs(2),
        ..ConnectOptions::default()
    };
    let client = Arc::new(Client::new(link.read(), options));
    let mut news = client.follow().await.unwrap();
    next(&mut news).await;
    // First it says nothing, then it isn't there.
    relay.process.signal(Signal::STOP);
    for is_killed in [false, true] {
        if is_killed {
            relay.process.kill();
        }
        // As a watch does: it asks again and again, and others ask meanwhile.
        let asking = (0..8).map(|_| {
            let client = Arc::clone(&client);
            async move {
                client.follow().await.map(drop).unwrap_err();
                client.status().await.unwrap_err()
            }
        });
        for error in asking.collect::<JoinSet<_>>().join_all().await {
            assert_eq!(error.code(), "relay-unreachable", "{is_killed}: {error}");
        }
    }
}

fn source(world: &World) -> PathBuf {
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), "as it was\n").unwrap();
    source
}

pub(crate) fn client(link: &Link) -> Client {
    let options = ConnectOptions {
        wait: PATIENCE,
        ..ConnectOptions::default()
    };
    Client::new(link.read(), options)
}

async fn follow(link: &Link) -> StatusStream {
    client(link).follow().await.unwrap()
}

async fn next(news: &mut StatusStream) -> Status {
    let status = timeout(PATIENCE, news.next()).await.unwrap();
    status.unwrap().unwrap()
}

async fn until(news: &mut StatusStream, wanted: impl Fn(&Status) -> bool) -> Status {
    loop {
        let status = next(news).await;
        if wanted(&status) {
            return status;
        }
    }
}

/// Waits until there is no more to come, said or not.
async fn ended(news: &mut StatusStream) {
    let last = async { while let Ok(Some(_)) = news.next().await {} };
    timeout(PATIENCE, last).await.unwrap();
}
