//! A developer with a valid link who does not keep to the protocol.

mod deployed;

use std::{fs, io::Write, os::unix::fs::symlink};

use patchwire_delta::Digest;
use patchwire_protocol::{
    codec, limits,
    listing::Listing,
    manifest::{Manifest, ManifestEntry},
    message::{
        inner::DeveloperMessage,
        push::{Base, FailureCode, OfferId, Push, PushStatus},
        value::{Text, WireDigest},
    },
    operation::{self, Operation, Source},
    sketch::Sketch,
};
use tokio::io::AsyncWriteExt;

use self::deployed::{Deployed, Ended, INVALID, Refused};
use super::{
    frame,
    words::{compress, content, directory, file, link, push_frame, put, raw_put, stream, zeros},
};
use crate::world::tree;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_that_lead_elsewhere_are_refused() {
    let mut deployed = Deployed::new().await;
    let (new, text) = (file("new", b"new\n"), b"new\n");
    // That the raw form below is what a real push sends, but for the path.
    let typed = operation::stream::write(&[put(new.clone(), Source::Whole { kept: 0 })]);
    assert_eq!(raw_put(b"new", 0o644, text), typed);
    let raw = |operation: Vec<u8>| content(&compress(&operation));

    let escaped = deployed.world.path("escaped");
    let absolute = escaped.as_os_str().as_encoded_bytes();
    let paths: [&[u8]; 13] = [
        b"../escaped",
        b"d/../../escaped",
        b"..",
        b".",
        b"",
        b"d//escaped",
        b"/patchwire-escaped",
        absolute,
        b".patchwire/push_id",
        b".patchwire",
        b"new\nline",
        b"red\x1b[31m",
        b"nul\0",
    ];
    let operations = [put(new.clone(), Source::Whole { kept: 0 })];
    let header = push_frame(&deployed.header(&deployed.with(&[new]), &operations).await);
    for path in paths {
        let case = path.escape_ascii().to_string();
        // As what is to be made or to be deleted, and as what another is to be made from.
        let make = raw_put(path, 0o644, text);
        let delete = codec::encode(&(0_u16, path.to_vec(), 0_u32));
        let from = (0_u16, path.to_vec());
        let copy = codec::encode(&(0_u16, b"new".to_vec(), 7_u32, 0o644_u16, from));
        for operation in [make, delete, copy] {
            let frames = [vec![header.clone()], raw(operation)].concat();
            let ended = deployed.say(&frames).await;
            ended.expect(&case, &INVALID);
            deployed.settled().await;
            deployed.assert_untouched(&case);
        }
        // As what is to be signed.
        let sign = frame(&(3_u32, vec![(path.to_vec(), 0_u32)]));
        let ended = deployed.say(&[header.clone(), sign]).await;
        ended.expect(&case, &Refused::Misunderstood(""));
    }
    // A mode that would make a program run as its owner.
    let frames = [vec![header], raw(raw_put(b"new", 0o4755, text))].concat();
    deployed.say(&frames).await.expect("setuid", &INVALID);
    deployed.settled().await;
    deployed.assert_untouched("a mode");
    deployed.assert_pushes_work();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_lead_nobody_out_of_the_root() {
    let mut deployed = Deployed::new().await;
    let leaves = Refused::Answered(PushStatus::Failed, FailureCode::LinkLeavesRoot);
    for target in ["../escaped", "/etc", "d/../../escaped"] {
        let entry = link("link", target.as_bytes());
        let puts = [put(entry.clone(), Source::None)];
        let push = deployed.header(&deployed.with(&[entry]), &puts).await;
        let frames = [vec![push_frame(&push)], stream(&puts, b"")].concat();
        deployed.say(&frames).await.expect(target, &leaves);
        deployed.assert_untouched(target);
    }
    // A file inside of what is a link in the same push.
    let puts = [
        put(link("link", b"d"), Source::None),
        put(file("link/inside", b"new\n"), Source::Whole { kept: 0 }),
    ];
    let target = deployed.with(&[link("link", b"d")]);
    let push = deployed.header(&target, &puts).await;
    let frames = [vec![push_frame(&push)], stream(&puts, &compress(b"new\n"))].concat();
    deployed
        .say(&frames)
        .await
        .expect("inside a link", &INVALID);
    deployed.assert_untouched("inside a link");

    // A directory that someone on the other side has made a link in the meantime.
    let elsewhere = deployed.world.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("x"), "not to be touched\n").unwrap();
    let d = deployed.agent.root.join("d");
    fs::remove_dir_all(&d).unwrap();
    symlink(&elsewhere, &d).unwrap();
    fs::write(deployed.source.join("d/x"), "changed\n").unwrap();
    let pushed = deployed.world.push(&deployed.link, &deployed.source);
    pushed.expect("done");
    assert_eq!(
        fs::read(elsewhere.join("x")).unwrap(),
        b"not to be touched\n"
    );
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    deployed.assert_pushes_work();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_that_contradict_themselves_are_refused() {
    let mut deployed = Deployed::new().await;
    let text = b"new content\n";
    let new = file("new", text);
    let whole = put(new.clone(), Source::Whole { kept: 0 });
    let delete = |path: &str| Operation::Delete {
        path: path.try_into().unwrap(),
    };
    let target = deployed.with(std::slice::from_ref(&new));
    let good = compress(text);
    let garbage = crate::world::noise(1000);
    let bomb = zeros(256 << 20);
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(&crate::world::noise(200_000)).unwrap();
    let wide = wide.finish().unwrap();

    // What is announced, what is sent, and the content.
    let delta = |basis: &str| Source::Delta {
        basis: basis.try_into().unwrap(),
    };
    let copy = |from: &str| Source::Copy {
        from: from.try_into().unwrap(),
    };
    let cases: Vec<(&str, Vec<Operation>, &[u8])> = vec![
        ("nothing there to delete", vec![delete("nothing")], b""),
        ("a directory that is not empty", vec![delete("d")], b""),
        (
            "two for one path",
            vec![whole.clone(), whole.clone()],
            &good,
        ),
        (
            "made and deleted",
            vec![
                delete("keep"),
                put(file("keep", text), Source::Whole { kept: 0 }),
            ],
            &good,
        ),
        (
            "no directory",
            vec![put(file("no/new", text), Source::Whole { kept: 0 })],
            &good,
        ),
        (
            "inside a file",
            vec![put(file("keep/new", text), Source::Whole { kept: 0 })],
            &good,
        ),
        (
            "a file without content",
            vec![put(new.clone(), Source::None)],
            b"",
        ),
        (
            "a directory with content",
            vec![put(directory("new"), Source::Whole { kept: 0 })],
            &good,
        ),
        (
            "another root",
            vec![put(file("other", text), Source::Whole { kept: 0 })],
            &good,
        ),
        (
            "a copy of nothing",
            vec![put(new.clone(), copy("nothing"))],
            b"",
        ),
        (
            "a copy of something else",
            vec![put(new.clone(), copy("keep"))],
            b"",
        ),
        (
            "a delta on nothing",
            vec![put(new.clone(), delta("nothing"))],
            &good,
        ),
        (
            "a delta on a directory",
            vec![put(new.clone(), delta("d"))],
            &good,
        ),
        (
            "a delta that is none",
            vec![put(new.clone(), delta("keep"))],
            &good,
        ),
        ("no content", vec![whole.clone()], b""),
        ("content that is garbage", vec![whole.clone()], &garbage),
        (
            "content cut in its middle",
            vec![whole.clone()],
            &good[..good.len() / 2],
        ),
        ("a bomb", vec![whole.clone()], &bomb),
        (
            "a bomb for a delta",
            vec![put(new.clone(), delta("keep"))],
            &bomb,
        ),
        ("a window that is too wide", vec![whole.clone()], &wide),
    ];
    let (short, long, other) = (
        compress(&text[..5]),
        compress(b"new content\nand more"),
        compress(b"NEW CONTENT\n"),
    );
    let cases = cases.into_iter().chain([
        ("content too short", vec![whole.clone()], &short[..]),
        ("content too long", vec![whole.clone()], &long),
        ("other content", vec![whole.clone()], &other),
    ]);
    for (case, sent, content) in cases {
        let mut push = deployed.header(&target, &sent).await;
        push.force = true;
        let frames = [vec![push_frame(&push)], stream(&sent, content)].concat();
        deployed.say(&frames).await.expect(case, &INVALID);
        deployed.settled().await;
        deployed.assert_untouched(case);
    }
    let peak = peak_memory(deployed.agent.process.child.id());
    assert!(peak < 256 << 20, "{peak} bytes");
    deployed.assert_pushes_work();
}

/// The most memory that a process ever had, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kilobytes = line.split_whitespace().nth(1).unwrap();
    kilobytes.parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_may_not_be_are_refused() {
    let mut deployed = Deployed::new().await;
    let text = b"new content\n";
    let new = file("new", text);
    let sent = [put(new.clone(), Source::Whole { kept: 0 })];
    let push = deployed.header(&deployed.with(&[new]), &sent).await;
    let other = WireDigest(Digest::of(b"another"));
    let failed = |code| Refused::Answered(PushStatus::Failed, code);
    let conflict = || Refused::Answered(PushStatus::Conflict, FailureCode::Conflict);
    let with = |change: &dyn Fn(&mut Push)| {
        let mut push = push.clone();
        change(&mut push);
        push
    };
    let cases = [
        (
            "expired",
            with(&|push| push.expires_ms = 0),
            failed(FailureCode::Expired),
        ),
        (
            "another's push id",
            with(&|push| push.push_id = deployed.push_id),
            failed(FailureCode::PushIdTaken),
        ),
        (
            "another base",
            with(&|push| push.base = Base::Committed(other)),
            conflict(),
        ),
        ("another epoch", with(&|push| push.epoch ^= 1), conflict()),
        (
            "nothing was offered",
            with(&|push| push.base = Base::Offered(OfferId(9))),
            conflict(),
        ),
        (
            "operations on nothing",
            with(&|push| push.base = Base::Unknown),
            INVALID,
        ),
        (
            "too many operations",
            with(&|push| push.operations = u64::MAX),
            INVALID,
        ),
        (
            "fewer operations than come",
            with(&|push| push.operations = 0),
            Refused::Misunderstood("content"),
        ),
    ];
    for (case, push, expected) in cases {
        let frames = [vec![push_frame(&push)], stream(&sent, &compress(text))].concat();
        let ended = deployed.say(&frames).await;
        match (case, &ended) {
            // Refused as soon as its header is read, or once its content comes.
            ("fewer operations than come", Ended::Answered(answer)) => {
                assert_eq!(answer.status, PushStatus::Failed);
            }
            _ => ended.expect(case, &expected),
        }
        deployed.settled().await;
        deployed.assert_untouched(case);
    }
    deployed.assert_pushes_work();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_is_answered_and_ends_the_stream() {
    let mut deployed = Deployed::new().await;
    let new = file("new", b"new\n");
    let sent = [put(new.clone(), Source::Whole { kept: 0 })];
    let push = push_frame(&deployed.header(&deployed.with(&[new]), &sent).await);
    let list = stream(&sent, b"").swap_remove(0);
    let noise = crate::world::noise(limits::CONTENT_PART + 1);
    let large = frame(&DeveloperMessage::Content(noise));
    let trailing = frame(&(DeveloperMessage::Status, 0_u8));
    let end = frame(&DeveloperMessage::ContentEnd);
    let empty = frame(&DeveloperMessage::Content(Vec::new()));
    let unknown = frame(&200_u32);
    // As many elements as 64 bits hold, of which none is there.
    let announced = frame(&(1_u32, u64::MAX));
    let cases: Vec<(&str, Vec<&Vec<u8>>)> = vec![
        ("content first", vec![&large]),
        ("an end first", vec![&end]),
        ("operations first", vec![&list]),
        ("a message nobody knows", vec![&unknown]),
        ("the same in a push", vec![&push, &unknown]),
        (
            "an element count beyond all bounds",
            vec![&push, &announced],
        ),
        ("two pushes in one", vec![&push, &push]),
        ("operations of nothing", vec![&push, &empty]),
        ("more than fits", vec![&push, &list, &large]),
        ("content of nothing", vec![&push, &list, &empty]),
    ];
    for (case, frames) in cases {
        let frames: Vec<_> = frames.into_iter().cloned().collect();
        let ended = deployed.say(&frames).await;
        ended.expect(case, &Refused::Misunderstood(""));
        deployed.settled().await;
        deployed.assert_untouched(case);
    }
    let raw: [(&str, Vec<u8>, &str); 4] = [
        (
            "a frame of 4 GiB",
            u32::MAX.to_be_bytes().to_vec(),
            "4294967295",
        ),
        ("an empty frame", vec![0; 4], "message"),
        ("a byte too much", trailing, "message"),
        (
            "a message that is cut",
            [&[0, 0, 0, 2][..], &list[4..6]].concat(),
            "message",
        ),
    ];
    for (case, bytes, words) in raw {
        for frames in [vec![bytes.clone()], vec![push.clone(), bytes.clone()]] {
            let ended = deployed.say(&frames).await;
            ended.expect(case, &Refused::Misunderstood(words));
            deployed.settled().await;
            deployed.assert_untouched(case);
        }
    }
    deployed.assert_pushes_work();
}

/// What two contents with one short digest would come to: a plan that takes one for the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_short_digests_misled_is_made_again_from_whole_ones() {
    let new = file("new", b"not what is kept\n");
    let copy = Source::Copy {
        from: "keep".try_into().unwrap(),
    };
    let gone = "gone".try_into().unwrap();
    for misled in [put(new.clone(), copy), Operation::Delete { path: gone }] {
        assert_planned_again(&new, misled).await;
    }
}

/// A plan of one operation that can't give the target.
async fn assert_planned_again(new: &ManifestEntry, misled: Operation) {
    let mut deployed = Deployed::new().await;
    let target = deployed.with(std::slice::from_ref(new));
    let mut push = deployed.header(&target, &[]).await;
    (push.base, push.force) = (Base::Unknown, true);
    // A sketch of what stands here: nothing of it is listed.
    push.sketch = Some(Sketch::of(&deployed.tree, 7));
    let (mut conversation, _) = deployed.open().await;
    conversation.write(&push_frame(&push)).await.unwrap();
    for is_whole in [false, true] {
        let (rebase, listing) = conversation.offered().await;
        // That it is whole is told by what nobody here has.
        let listing = Listing::decode(
            &listing,
            rebase.offer,
            &Manifest::default(),
            push.sketch.as_ref(),
        )
        .unwrap();
        assert_eq!(listing.manifest.is_empty(), !is_whole);
        assert_eq!(listing.manifest == deployed.tree, is_whole);
        let misled = std::slice::from_ref(&misled);
        let mut again = push.clone();
        (again.base, again.operations) = (Base::Offered(rebase.offer), 1);
        again.sketch = None;
        conversation.write(&push_frame(&again)).await.unwrap();
        for frame in stream(misled, b"") {
            conversation.write(&frame).await.unwrap();
        }
    }
    // Whole ones mislead nobody.
    conversation.end().await.expect("misled twice", &INVALID);
    deployed.settled().await;
    deployed.assert_untouched("a plan that was misled");
    deployed.assert_pushes_work();
}

/// What a real push says, in the end of which the tree is `target`.
async fn recorded(deployed: &Deployed) -> (Manifest, Vec<u8>) {
    let text = b"a new file\n";
    let entries = [directory("sub"), file("sub/new", text)];
    let target = deployed.with(&entries);
    let [sub, new] = entries;
    let sent = [put(sub, Source::None), put(new, Source::Whole { kept: 0 })];
    let mut push = deployed.header(&target, &sent).await;
    push.author = Text::cut("eve");
    let frames = [vec![push_frame(&push)], stream(&sent, &compress(text))].concat();
    (target, frames.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_is_cut_anywhere_leaves_nothing() {
    let mut deployed = Deployed::new().await;
    let (_, bytes) = recorded(&deployed).await;
    for len in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
        let (mut stream, _) = deployed.open().await;
        stream.write(&bytes[..len]).await.unwrap();
        stream.writer.shutdown().await.unwrap();
        // Nobody is left to be told anything but that it makes no sense.
        let ended = stream.end().await;
        let told = matches!(ended, Ended::Silently | Ended::Misunderstood(_));
        assert!(told, "{len}: {ended:?}");
        assert_eq!(deployed.settled().await, deployed.tree.root(), "{len}");
        deployed.assert_untouched(&format!("{len} bytes"));
    }
    // The control: whole, it is a push.
    let (target, bytes) = recorded(&deployed).await;
    let ended = deployed.say(&[bytes]).await;
    assert!(
        matches!(&ended, Ended::Answered(answer) if answer.status == PushStatus::Done),
        "{ended:?}"
    );
    assert_eq!(deployed.settled().await, target.root());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_with_any_bit_flipped_is_refused_or_gives_its_target_wholly() {
    const STEP: usize = 5;
    let mut deployed = Deployed::new().await;
    let old = tree(&deployed.agent.root);
    let (mut refused, mut applied) = (0, 0);
    let (_, length) = recorded(&deployed).await;
    for at in (0..length.len()).step_by(STEP) {
        let (target, mut bytes) = recorded(&deployed).await;
        bytes[at] ^= 1 << (at / STEP % 8);
        // Whatever it announces now comes to an end: called off, or filled up with what is no frame.
        let end = [frame(&DeveloperMessage::Abort), vec![0; limits::FRAME]].concat();
        let ended = deployed.say(&[bytes, end]).await;
        assert!(!matches!(ended, Ended::Silently), "{at}: without a word");
        let stands = deployed.settled().await;
        deployed.assert_nothing_outside(&format!("a flip at {at}"));
        deployed.agent.process.assert_well();
        if stands == deployed.tree.root() {
            refused += 1;
            assert_eq!(tree(&deployed.agent.root), old, "{at}");
            continue;
        }
        // Another author, time or id makes it another push, and a valid one.
        assert_eq!(stands, target.root(), "{at}: {ended:?}");
        applied += 1;
        let new = tree(&deployed.agent.root);
        assert_eq!(new.len(), old.len() + 2, "{at}");
        assert!(
            old.iter().all(|(path, node)| new.get(path) == Some(node)),
            "{at}"
        );
        let back = deployed
            .world
            .push_with(&deployed.link, &deployed.source, &["--force"]);
        back.expect("done");
        assert_eq!(tree(&deployed.agent.root), old, "{at}");
    }
    assert!(refused > 20, "{refused} refused, {applied} applied");
    deployed.assert_pushes_work();
}
