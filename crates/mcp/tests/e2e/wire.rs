//! What goes over the wire, and what of it is waited for.

use std::{
    error::Error,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use patchwire_client::{Progress, PushRequest, report::ReportStatus};
use patchwire_protocol::{
    limits,
    message::{
        inner::{AgentMessage, DeveloperMessage, Greeting},
        push::{Answer, Failure, FailureCode, Push, PushStatus},
        value::{Text, WireDigest},
    },
    session::answer::refusal,
};
use patchwire_transport::{InnerStream, RelayConnection, Role};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    follow::client,
    world::{Agent, PATIENCE, Relay, World, assert_same_tree, noise},
};

fn source(world: &World) -> PathBuf {
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    source
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_is_cut_sends_little_twice() {
    const CONTENT: u64 = 48 << 20;
    const CUT_AFTER: u64 = 20 << 20;
    const CUTS: u64 = 2;
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let agent = Agent::idle(&world, &link, &world.path("target"));
    let source = source(&world);
    // One that is whole when the connection is lost, and one that never is.
    let content = noise(48 << 20);
    let (whole, cut_off) = content.split_at(8 << 20);
    fs::write(source.join("a"), whole).unwrap();
    fs::write(source.join("b"), cut_off).unwrap();
    let request = PushRequest::new(&source, world.path("state"));

    let relay = Mutex::new((CUTS, Some(relay)));
    let cut = |progress| {
        let Progress::Sending { sent } = progress else {
            return;
        };
        let mut relay = relay.lock().unwrap();
        if sent >= CUT_AFTER && relay.0 > 0 {
            relay.0 -= 1;
            let mut running = relay.1.take().unwrap();
            running.process.kill();
            relay.1 = Some(running.restart(&world));
        }
    };
    let report = client(&link).push(&request, &cut).await.unwrap();
    assert_eq!(report.status, ReportStatus::Done, "{report:?}");
    assert_eq!(relay.lock().unwrap().0, 0);
    assert_same_tree(&source, &agent.root);
    let most = CONTENT + CUTS * (16 << 20);
    assert!(most < CONTENT + CUTS * CUT_AFTER);
    assert!(report.bytes.sent < most, "{report:?}");
}

/// Greets, hears one push, and answers that it is done, as an agent does.
async fn answer(
    stream: InnerStream,
    greeted: impl FnOnce(),
    heard: impl FnOnce(),
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (mut reader, mut writer) = stream.into_frames(limits::FRAME);
    let greeting = Greeting {
        name: Text::cut("played"),
        epoch: 1,
        root: None,
    };
    writer.send(&AgentMessage::Greeting(greeting)).await?;
    greeted();
    if let Some(DeveloperMessage::Push(push)) = reader.receive().await? {
        heard();
        let answer = AgentMessage::Answer(Box::new(done(&push)));
        writer.send(&answer).await?;
    }
    // Until the developer has heard it.
    while reader.receive::<DeveloperMessage>().await?.is_some() {}
    Ok(())
}

fn done(push: &Push) -> Answer {
    Answer {
        status: PushStatus::Done,
        failure: None,
        epoch: 1,
        root: Some(WireDigest(push.target.0)),
        ..refusal(push, Failure::new(FailureCode::Invalid, ""))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_on_has_its_next_stream_open_before_it_needs_it() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let deployment = link.read();
    let agent = RelayConnection::connect(&deployment, Role::Agent, "played", PATIENCE);
    let agent = agent.await.unwrap();
    let streams = Arc::new(AtomicU32::new(0));
    let (answered, mut pushes) = mpsc::unbounded_channel();
    let greeted = Arc::clone(&streams);
    tokio::spawn(async move {
        while let Ok(incoming) = agent.accept().await {
            let stream = incoming.handshake().await.unwrap();
            let (greeted, answered) = (Arc::clone(&greeted), answered.clone());
            tokio::spawn(async move {
                let number = AtomicU32::new(0);
                let count =
                    || number.store(greeted.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                let heard = || answered.send(number.load(Ordering::SeqCst)).unwrap();
                // A stream that is not used any more ends as it likes.
                let _ = answer(stream, count, heard).await;
            });
        }
    });

    let source = source(&world);
    let request = PushRequest::new(&source, world.path("state"));
    let client = client(&link);
    // Opened beside the push before, it is there in time sooner or later.
    for attempt in 0..1000 {
        fs::write(source.join("a"), format!("{attempt}\n")).unwrap();
        let open = streams.load(Ordering::SeqCst);
        let report = client.push(&request, &|_| ()).await.unwrap();
        assert_eq!(report.status, ReportStatus::Done);
        assert_eq!(report.agents[0].name, "played");
        let heard = timeout(PATIENCE, pushes.recv()).await.unwrap();
        if heard.unwrap() < open {
            return;
        }
    }
    panic!("every push opened a stream of its own");
}
