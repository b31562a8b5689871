//! Writes the seeds that the corpora begin with: small, real values of everything that is decoded.
//!
//! The same bytes every time. What fuzzing found stands beside them under its own name.

use std::{fs, io, path::Path};

use patchwire_delta::{
    BlockSize, Delta, DiffOptions, Digest, FirstRound, Regions, Seed, Signature, SignatureOptions,
    diff, librsync,
};
use patchwire_fuzz::{
    delta::{basis, target},
    session::{at, directory, failure, file, link, operations, push, put, root, tree},
};
use patchwire_protocol::{
    app::{AppState, Exit},
    codec::{self, Encode},
    frame, limits,
    listing::{Digests, Kept, Listing},
    manifest::{Entry, Manifest},
    message::{
        inner::{
            AgentMessage, DeveloperMessage, Greeting, Rebase, SignRequest, SignWhat, SignaturePart,
        },
        push::{
            AgentTimings, Answer, AppOptions, Base, ConflictWith, Environment, OfferId, Patterns,
            Phase, Push, PushId, PushStatus,
        },
        relay::{
            Hello, Incoming, Notice, Open, OpenReply, PeerName, PresentedKey, PublicKey, Refusal,
            RelayReply, Role, Signature as HelloSignature,
        },
        status::{LastPush, LogLine, LogsRequest, Status},
        value::Text,
    },
    name::Name,
    operation::{Operation, Source, stream},
    sketch::Sketch,
    version::{CURRENT, VersionRange},
};
use patchwire_transport::{DeploymentLink, Pin, RelayKey, RelayLink};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    delta()?;
    messages()?;
    trees()?;
    sessions()?;
    texts()
}

/// Writes one seed of a target.
fn seed(target: &str, name: &str, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    fs::create_dir_all(corpus.join(target))?;
    fs::write(corpus.join(target).join(name), bytes)
}

fn delta() -> Result<(), Error> {
    let (basis, target) = (basis(), target());
    let signature = |basis: &[u8], block_size: u32| -> Result<Signature, Error> {
        let options = SignatureOptions {
            block_size: Some(BlockSize::try_from(block_size)?),
            ..SignatureOptions::new(Seed(7))
        };
        Ok(Signature::of(basis, options))
    };
    let small = signature(&basis, 64)?;
    let anchored = signature(&basis, 512)?;
    seed("signature", "blocks-of-64", small.encode())?;
    seed("signature", "blocks-of-512", anchored.encode())?;
    seed(
        "signature",
        "whole-blocks",
        signature(&basis[..1024], 256)?.encode(),
    )?;
    seed(
        "signature",
        "equal-blocks",
        signature(&[0; 640], 64)?.encode(),
    )?;
    seed(
        "signature",
        "without-anchors",
        signature(&[0; 1500], 700)?.encode(),
    )?;
    seed("signature", "empty", signature(&[], 64)?.encode())?;
    let followed = [anchored.encode(), b"more of the stream".to_vec()].concat();
    seed("signature", "followed", followed)?;

    seed("delta", "both-kinds", diff(&small, &target).encode())?;
    seed("delta", "anchored", diff(&anchored, &target).encode())?;
    seed("delta", "same", diff(&small, &basis).encode())?;
    seed("delta", "empty", diff(&small, &[]).encode())?;
    seed("delta", "whole", Delta::whole(&target[..300]).encode())?;
    let unrelated = diff(&small, b"nothing of the basis");
    seed("delta", "literal", unrelated.encode())?;
    let followed = [unrelated.encode(), b"more of the stream".to_vec()].concat();
    seed("delta", "followed", followed)?;

    // The length of the basis, the basis, the limit, and operations on it or a whole delta.
    let on = |name: &str, basis: &[u8], limit: u8, ops: &[u8]| -> Result<(), Error> {
        let len = u16::try_from(basis.len())?.to_be_bytes();
        let bytes = [&len[..], &[limit], basis, ops].concat();
        Ok(seed("patch", name, bytes)?)
    };
    let short = &basis[..200];
    let copies = [
        1, 100, 50, 1, 0, 0xC8, 1, 2, 3, b'n', b'e', b'w', 1, 199, 1, 1,
    ];
    on("copies", short, 0, &copies)?;
    on("too-long", short, 0, &copies[..6].repeat(3))?;
    on("outside", short, 0, &[2, 1, b'x', 1, 150, 1, 60])?;
    on("no-basis", b"", 0, &[2, 3, b'n', b'e', b'w'])?;
    on("nothing", short, 0, b"")?;
    let small = signature(short, 64)?;
    on("delta", short, 1, &diff(&small, &target[..300]).encode())?;
    on("whole", short, 0, &Delta::whole(b"new").encode())?;

    seed("regions", "none", Regions::none().encode())?;
    let round = FirstRound::of(&anchored, &target, DiffOptions::default());
    seed("regions", "asked-for", round.regions().encode())?;
    seed("regions", "two", b"PWR\x02\x40\x02\x00\x10\x20\x81\x01")?;

    // See `patchwire_fuzz::delta::roundtrip` for what the bytes mean. Basis: noise, something given,
    // and a period. Target: noise inserted, a part moved, one deleted, one repeated.
    let old = [
        &[8, 0, 0x80, 0, 0, 0, 0, 5][..],
        b"given",
        &[16 + 64, 0, 0x41, 0],
    ]
    .concat();
    let edits = [
        10 + 32,
        99,
        0,
        77,
        4,
        20,
        0x50,
        0,
        3,
        200,
        0,
        99,
        5,
        10,
        0x60,
        0,
    ];
    let script = |name: &str, block_size: u8, steps: &[&[u8]]| {
        let bytes = [&[block_size, 9], &steps.concat()[..]].concat();
        seed("roundtrip", name, bytes)?;
        let bytes = [&[block_size, 4, 0, 0, 1, 0], &steps.concat()[..]].concat();
        seed("rounds", name, bytes)
    };
    script("every-edit", 0, &[&old, &edits])?;
    script("every-edit-of-512", 3, &[&old, &edits])?;
    script("every-edit-of-2048", 6, &[&old, &edits])?;
    script("without-anchors", 3, &[&[24, 0, 0x80, 0], &edits])?;
    script("zeros", 5, &[&[16, 0, 0x80, 0], &edits])?;
    script("changed", 4, &[&[8, 0, 0xFF, 0], &[6, 128, 0, 0]])?;
    script("cut", 3, &[&[8, 0, 0x50, 0], &[7, 50, 0, 0]])?;
    script("empty-basis", 0, &[&[2, 0, 0, 3], b"new"])?;
    script("empty-target", 0, &[&[8, 0, 0, 99], &[7, 0, 0, 0]])?;

    let small = librsync::signature(&basis, 64)?;
    seed("librsync_signature", "blocks-of-64", &small)?;
    seed(
        "librsync_signature",
        "blocks-of-512",
        librsync::signature(&basis, 512)?,
    )?;
    seed(
        "librsync_signature",
        "equal-blocks",
        librsync::signature(&[0; 640], 64)?,
    )?;
    seed("librsync_signature", "empty", librsync::signature(&[], 64)?)?;
    seed(
        "librsync_delta",
        "both-kinds",
        librsync::diff(&small, &target)?,
    )?;
    seed("librsync_delta", "same", librsync::diff(&small, &basis)?)?;
    seed("librsync_delta", "empty", librsync::diff(&small, &[])?)?;
    Ok(())
}

fn messages() -> Result<(), Error> {
    let mut stream = vec![4, 2];
    for body in [&b"one"[..], b"", &[7; 64]] {
        stream.extend(frame::header(body.len(), limits::FRAME)?);
        stream.extend(body);
    }
    seed("frame", "three", &stream)?;
    seed("frame", "cut", &stream[..stream.len() - 1])?;
    seed("frame", "too-long", [1, 0, 255, 255, 255, 255])?;

    for (name, message) in developer_messages()? {
        seed("developer_message", name, codec::encode(&message))?;
    }
    for (name, message) in agent_messages() {
        seed("agent_message", name, codec::encode(&message))?;
    }
    for (name, answer) in answers() {
        seed("answer", name, codec::encode(&answer))?;
    }

    let relay = |kind: u8, name, bytes: Vec<u8>| {
        seed("relay_message", name, [&[kind][..], &bytes].concat())
    };
    let peer = || PeerName::nearest("web-1");
    relay(0, "hello", codec::encode(&hello()?))?;
    relay(
        1,
        "welcome",
        codec::encode(&RelayReply::Welcome { version: CURRENT }),
    )?;
    let refused = RelayReply::Refused(Refusal::Version {
        supported: VersionRange::SUPPORTED,
    });
    relay(1, "refused", codec::encode(&refused))?;
    relay(
        2,
        "replaced",
        codec::encode(&Notice::Replaced { name: peer() }),
    )?;
    let drain = Notice::Drain {
        retry_after_ms: 250,
        jitter_ms: 1000,
    };
    relay(2, "drain", codec::encode(&drain))?;
    relay(3, "open", codec::encode(&Open::Newest))?;
    relay(
        4,
        "opened",
        codec::encode(&OpenReply::Opened { agent: peer() }),
    )?;
    relay(
        4,
        "no-agent",
        codec::encode(&OpenReply::Refused(Refusal::NoAgent)),
    )?;
    relay(
        5,
        "incoming",
        codec::encode(&Incoming { developer: peer() }),
    )?;
    Ok(())
}

fn developer_messages() -> Result<Vec<(&'static str, DeveloperMessage)>, Error> {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let app = AppOptions {
        reload: Some("signal:HUP".parse()?),
        ready: Some("http://127.0.0.1:8000/health".parse()?),
        ready_timeout_ms: Some(30_000),
        environment: Environment::new(vec![variable("MODE", "dev"), variable("EMPTY", "")])?,
    };
    let request = |path, what| SignRequest {
        path: at(path),
        what,
    };
    let full = Push {
        mirror: Some(Patterns::new(
            vec!["*.sqlite3".to_owned()],
            vec!["dist/app.css".to_owned()],
        )?),
        message: Text::cut("fix the cart"),
        expires_ms: 120_250,
        app,
        ..push(1, Base::Committed(root()), 5)
    };
    Ok(vec![
        ("push", DeveloperMessage::Push(Box::new(full))),
        (
            "push-unknown",
            DeveloperMessage::Push(Box::new(push(1, Base::Unknown, 0))),
        ),
        ("content", DeveloperMessage::Content(b"content".to_vec())),
        ("content-end", DeveloperMessage::ContentEnd),
        (
            "sign",
            DeveloperMessage::Sign(vec![
                request("a", SignWhat::Whole),
                request("d/b", SignWhat::FirstRound),
                request("d/b", SignWhat::Regions(vec![1, 2, 3])),
            ]),
        ),
        ("abort", DeveloperMessage::Abort),
        ("status", DeveloperMessage::Status),
        ("alive", DeveloperMessage::Alive),
        ("follow", DeveloperMessage::Follow),
        (
            "logs",
            DeveloperMessage::Logs(LogsRequest {
                lines: 50,
                follow: true,
            }),
        ),
    ])
}

fn agent_messages() -> Vec<(&'static str, AgentMessage)> {
    let [(_, done), ..] = answers();
    let greeting = Greeting {
        name: Text::cut("box"),
        epoch: 7,
        root: Some(root()),
    };
    let rebase = Rebase {
        epoch: 7,
        managed: true,
        offer: OfferId(0x0102_0304_0506_0708),
        listing: 300,
    };
    let part = SignaturePart {
        index: 0,
        bytes: vec![1, 2, 3],
        last: true,
    };
    let status = Status {
        name: Text::cut("box"),
        version: Text::cut("0.1.0"),
        epoch: 7,
        root: Some(root()),
        entries: 4,
        app: done.app,
        verified: true,
        last_push: Some(LastPush {
            push_id: PushId([1; 16]),
            author: Text::cut("ana@laptop"),
            message: Text::default(),
            at_ms: 1_763_600_000_000,
            last_result: Some((PushId([2; 16]), PushStatus::RolledBack)),
        }),
    };
    let line = LogLine {
        at_ms: 1_763_600_000_000,
        stderr: true,
        text: b"Traceback (most recent call last):".to_vec(),
    };
    vec![
        ("greeting", AgentMessage::Greeting(greeting)),
        ("rebase", AgentMessage::Rebase(rebase)),
        ("listing", AgentMessage::Listing(vec![1, 2, 3])),
        ("received", AgentMessage::Received(1 << 20)),
        ("signature", AgentMessage::Signature(part)),
        ("progress", AgentMessage::Progress(Phase::Reloading)),
        ("answer", AgentMessage::Answer(Box::new(done))),
        ("status", AgentMessage::Status(Box::new(status))),
        ("log-lines", AgentMessage::LogLines(vec![line])),
        (
            "misunderstood",
            AgentMessage::Misunderstood(Text::cut("what?")),
        ),
    ]
}

fn answers() -> [(&'static str, Answer); 3] {
    let done = Answer {
        push_id: PushId([1; 16]),
        status: PushStatus::Done,
        failure: None,
        epoch: 7,
        root: Some(root()),
        timings: AgentTimings {
            commit_us: 800,
            reload_us: 2_000,
            ready_us: 90_000,
        },
        app: Some(AppState {
            running: true,
            pid: Some(4711),
            exit: None,
            restarts: 0,
        }),
        verified: true,
        log_tail: Vec::new(),
        drift: vec![at("a")],
        warnings: vec![Text::cut("a warning")],
        conflict: None,
    };
    let rolled_back = Answer {
        status: PushStatus::RolledBack,
        failure: Some(failure()),
        app: Some(AppState {
            running: false,
            pid: None,
            exit: Some(Exit::Signal(9)),
            restarts: 3,
        }),
        log_tail: vec![Text::cut("ZeroDivisionError")],
        ..done.clone()
    };
    let conflict = Answer {
        status: PushStatus::Conflict,
        conflict: Some(ConflictWith {
            author: Text::cut("bob@desk"),
            at_ms: 1_763_600_000_000,
            push_id: PushId([9; 16]),
            paths: vec![at("d/b")],
        }),
        ..done.clone()
    };
    [
        ("done", done),
        ("rolled-back", rolled_back),
        ("conflict", conflict),
    ]
}

fn hello() -> Result<Hello, Error> {
    Ok(Hello {
        versions: VersionRange::SUPPORTED,
        role: Role::Agent,
        relay_key: PresentedKey([0x11; 32]),
        app: "shop".parse()?,
        deployment: "dev-ana".parse()?,
        developer: PublicKey([0x22; 32]),
        agent: PublicKey([0x33; 32]),
        name: PeerName::nearest("web-1"),
        signature: HelloSignature([0x44; 64]),
    })
}

fn trees() -> Result<(), Error> {
    let entries = vec![
        file(".env", ""),
        directory("app"),
        file("app/main.py", "print()"),
        directory("app/static"),
        file("app.toml", "x"),
        directory("empty"),
        link("latest", "app/main.py"),
    ];
    let deep = Manifest::from_unsorted(entries)?;
    seed("manifest", "small", codec::encode(&tree()))?;
    seed("manifest", "deep", codec::encode(&deep))?;
    seed("manifest", "empty", codec::encode(&Manifest::default()))?;

    // The layout of a `CommitRecord`, some of whose fields are its crate's own: sequence number, push,
    // what the caller wants remembered, manifest, verified, and the mtimes of what is gone.
    let gone = vec![(at("gone"), (1_763_600_000i64, 5u32))];
    let record = (3u64, PushId([1; 16]), b"meta".to_vec(), root(), true, gone);
    let entries = tree().entries().to_vec().into_iter();
    let changes: Vec<_> = entries.map(|e| (e.path, Some(e.entry))).collect();
    seed("commit_record", "whole", codec::encode(&(&record, changes)))?;
    let changes = vec![(at("a"), None::<Entry>)];
    seed("commit_record", "gone", codec::encode(&(&record, changes)))?;

    let on = |name, base: Manifest, operations: Vec<Operation>| {
        seed("operations", name, codec::encode(&(base, operations)))
    };
    on("every-kind", tree(), operations().to_vec())?;
    on("none", deep, Vec::new())?;
    on(
        "on-nothing",
        Manifest::default(),
        operations()[3..4].to_vec(),
    )?;
    let file_for_directory = vec![
        Operation::Delete { path: at("d/b") },
        operations()[2].clone(),
        put(file("d", "now a file"), Source::Whole { kept: 0 }),
    ];
    on("file-for-directory", tree(), file_for_directory)?;

    let mut sorted = operations().to_vec();
    sorted.sort_by(|a, b| a.path().cmp(b.path()));
    let stream = |operations: &[Operation]| {
        let count = u8::try_from(operations.len())?;
        Ok::<_, Error>([&[count][..], &stream::write(operations)].concat())
    };
    seed("operation_stream", "every-kind", stream(&sorted)?)?;
    seed("operation_stream", "none", stream(&[])?)?;
    let kept = Kept {
        digest: Digest::of(b"one"),
        len: 3,
        have: 2,
    };
    let offer = OfferId(7);
    for (name, digests) in [("short", Digests::Short), ("whole", Digests::Whole)] {
        let listing = Listing::encode(&tree(), &[kept], offer, digests, None);
        seed("listing", name, listing)?;
    }
    let sketch = Sketch::of(&tree(), 7);
    let same = Listing::encode(&tree(), &[kept], offer, Digests::Short, Some(&sketch));
    seed("listing", "same", same)?;
    let nothing = Listing::encode(&Manifest::default(), &[], offer, Digests::Short, None);
    seed("listing", "nothing", nothing)?;
    Ok(())
}

/// Scripts: see `patchwire_fuzz::receiver` and `patchwire_fuzz::sender` for what a step means.
fn sessions() -> io::Result<()> {
    // A committed base, one whole file, its content and end, then work that succeeds.
    let [push, operations, content] = [[0, 5], [2, 40], [3, 9]];
    let [end, sign, abort, work, wait] = [[4, 0], [5, 2], [6, 0], [8, 0], [10, 0]];
    let accepted = [push, work, operations, content, end];
    let script = |name, steps: &[&[[u8; 2]]]| seed("receiver", name, steps.concat().concat());
    script("done", &[&accepted, &[work; 3]])?;
    script("rolled-back", &[&accepted, &[work, [8, 0], [8, 1], [8, 1]]])?;
    script("not-committed", &[&accepted, &[work, [8, 3]]])?;
    script("not-staged", &[&accepted, &[[8, 3]]])?;
    script("aborted", &[&accepted, &[abort]])?;
    script("stalled", &[&accepted[..3], &[wait]])?;
    script(
        "heartbeats",
        &[&accepted, &[wait, work, wait, work, wait, work]],
    )?;
    let offered = [[0, 0], [8, 2], sign, work, [8, 1], work];
    script("offered-and-signed", &[&offered, &accepted, &[work; 3]])?;
    let moved = [[8, 2], content, end];
    script("base-moved", &[&accepted, &moved, &accepted, &[work; 3]])?;
    let never = [[0, 0], [8, 2]].repeat(6);
    script("never-settles", &[&never])?;
    script("answered-before", &[&[push, [8, 3]]])?;
    script("no-operations", &[&[[0, 1], work], &[work; 3]])?;
    script("another-push", &[&[[0, 0], [8, 2], [0, 129]]])?;
    script("too-much-content", &[&accepted[..3], &[[3, 255]]])?;

    // Remembered (first byte 1) or asked for (0).
    let [rebase, listing, last, answer] = [[0, 3], [1, 2], [2, 0], [4, 0]];
    let [plan, read, read_end, silence] = [[7, 4], [7, 0], [7, 2], [10, 0]];
    let sent = [plan, read, read, read_end];
    let script = |name, first: u8, steps: &[&[[u8; 2]]]| {
        seed(
            "sender",
            name,
            [&[first][..], steps.concat().as_flattened()].concat(),
        )
    };
    script("remembered", 1, &[&sent, &[[3, 0], answer]])?;
    script("no-operations", 1, &[&[[7, 0], answer]])?;
    script("asked", 0, &[&[rebase, listing], &sent, &[answer]])?;
    script(
        "signed",
        0,
        &[&[rebase, listing, [7, 1], last], &sent, &[answer]],
    )?;
    let parts = [[7, 17], [2, 1], last, [2, 16]];
    script(
        "signed-in-parts",
        0,
        &[&[rebase, listing], &parts, &sent, &[answer]],
    )?;
    script(
        "interrupted",
        1,
        &[&sent[..2], &[rebase, listing], &sent, &[answer]],
    )?;
    script("changed", 1, &[&sent[..2], &[[7, 3]]])?;
    script("silent", 1, &[&sent, &[silence]])?;
    script("misunderstood", 1, &[&sent, &[[5, 0]]])?;
    script("another-answer", 1, &[&sent, &[[4, 200]]])?;
    script("too-long", 0, &[&[rebase, [1, 7]]])?;
    script("too-many", 0, &[&[[0, 255]]])?;
    let again = [rebase, listing, [7, 0]].repeat(6);
    script("never-settles", 0, &[&again])?;
    script("another-epoch", 3, &[&[rebase, listing], &sent, &[answer]])
}

fn texts() -> Result<(), Error> {
    let deep = [&b"d/".repeat(limits::DEPTH - 1)[..], b"f"].concat();
    for (name, path) in [
        ("plain", &b"app/static/main.css"[..]),
        ("hidden", b".hidden/..x"),
        ("unicode", "größe/日本".as_bytes()),
        ("latin", b"latin-\xe9"),
        ("backslash", b"a\\b"),
        ("climbing", b"a/../../b"),
        ("absolute", b"/etc/passwd"),
        ("control", b"\x1b]0;title\x07"),
        ("c1", "a\u{9b}31m".as_bytes()),
        ("reserved", b".patchwire/journal"),
        ("not-reserved", b"x/.patchwire"),
        ("deep", &deep),
        ("long", &[b'a'; limits::COMPONENT]),
    ] {
        seed("path", name, path)?;
    }
    seed("path", "encoded", codec::encode(&at("a/b.py")))?;

    for (name, text) in [
        ("plain", "dev-ana"),
        ("every-sign", "0a.b_c-d"),
        ("longest", &"x".repeat(Name::MAX)),
        ("peer", "Ana's laptop (größe)"),
        ("push-id", "0199c0de-0000-7000-8000-000000000001"),
    ] {
        seed("name", name, text)?;
    }
    seed("name", "encoded", encoded(&"shop".parse::<Name>()?))?;
    seed("name", "encoded-peer", encoded(&PeerName::nearest("größe")))?;

    for (name, text) in [
        ("restart", "restart"),
        ("signal", "signal:sigusr1"),
        ("command", "command:kill -HUP $(cat app.pid)"),
        ("http", "http://127.0.0.1:8000/health?deep=1"),
        ("http-bare", "http://localhost"),
        ("http-query", "http://[::1]?x"),
        ("http-v6", "http://[2001:db8::1]:8080/"),
        ("tcp", "tcp:5432"),
        ("alive", "alive:1m 30s"),
        ("alive-short", "alive:1ms 5us 7ns"),
        ("auto", "auto"),
    ] {
        seed("app", name, text)?;
    }
    seed("app", "encoded", encoded(&"none".to_owned()))?;
    let host = "h".repeat(limits::TEXT - "http://".len());
    seed("app", "http-longest", format!("http://{host}"))?;

    let relay = RelayLink::new(
        "relay.example".parse()?,
        Pin::new([1; 32]),
        RelayKey::new([2; 32]),
    );
    seed("link", "relay", relay.expose().as_bytes())?;
    // Written out, as a new link would have another secret every time.
    let (pin, key, secret) = (
        "AQEB".repeat(10) + "AQE",
        "AgIC".repeat(10) + "AgI",
        "AwMD".repeat(10) + "AwM",
    );
    let text =
        format!("patchwire://relay.example:4433/shop/dev-ana#v1.{pin}.{key}.{secret}.UpuudRw6");
    seed("link", "deployment", &text)?;
    let link: DeploymentLink = text.parse()?;
    seed("link", "agent", link.narrow().expose().as_bytes())?;
    let shorter = text.replace(":4433", "").replace("relay", "RELAY");
    seed("link", "typed-otherwise", shorter)?;

    for (name, text) in [
        ("name", "relay.example:4433"),
        ("typed", "Relay.Example.:1"),
        ("container", "my_relay"),
        ("v4", "127.0.0.1:65535"),
        ("v6", "[2001:DB8::1]"),
        ("v6-port", "[::1]:80"),
        ("v4-mapped", "[::ffff:1.2.3.4]:80"),
        ("mistyped", "1.2.3.256"),
    ] {
        seed("address", name, text)?;
    }
    let longest = [
        "a".repeat(63),
        "b".repeat(63),
        "c".repeat(63),
        "d".repeat(61),
    ]
    .join(".");
    seed("address", "longest", longest)?;
    Ok(())
}

fn encoded<T: Encode>(value: &T) -> Vec<u8> {
    codec::encode(value)
}
