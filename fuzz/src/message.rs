//! What peers say to each other and to the relay, and what an agent says to itself.

use std::{fmt::Debug, time::Duration};

use patchwire_protocol::{
    codec::{self, Decode, Encode},
    frame::{self, FrameDecoder},
    limits,
    listing::{Digests, Listing},
    manifest::{Entry, Manifest},
    message::{
        inner::{AgentMessage, DeveloperMessage},
        push::{Answer, OfferId},
        relay::{Hello, Incoming, Notice, Open, OpenReply, RelayReply},
    },
    operation::{self, Operation, stream},
    path::RelativePath,
    sketch::Sketch,
};
use patchwire_tree::CommitRecord;

use crate::session::tree;

/// A stream cut into frames: the same frames however it came, and the same bytes again.
///
/// The first byte chooses the limit, the second the pieces.
pub fn frame(data: &[u8]) {
    let [limit, piece, stream @ ..] = data else {
        return;
    };
    let limit = usize::from(*limit) * 16;
    let whole = frames(stream, stream.len().max(1), limit);
    let (bodies, end) = &whole;
    assert_eq!(&frames(stream, 1 + usize::from(*piece), limit), &whole);

    let mut again = Vec::new();
    for body in bodies {
        assert!(body.len() <= limit);
        again.extend(frame::header(body.len(), limit).expect("the body was within the limit"));
        again.extend(body);
    }
    assert!(stream.starts_with(&again));
    assert_eq!(end.is_ok(), again.len() == stream.len());
}

fn frames(
    stream: &[u8],
    piece: usize,
    limit: usize,
) -> (Vec<Vec<u8>>, Result<(), frame::FrameError>) {
    let mut decoder = FrameDecoder::new(limit);
    let mut bodies = Vec::new();
    for piece in stream.chunks(piece) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(body)) => bodies.push(body),
                Ok(None) => break,
                Err(error) => return (bodies, Err(error)),
            }
        }
    }
    (bodies, decoder.finish())
}

/// What a developer says to an agent.
pub fn developer_message(data: &[u8]) {
    recode::<DeveloperMessage>(data);
}

/// What an agent says to a developer.
pub fn agent_message(data: &[u8]) {
    recode::<AgentMessage>(data);
}

/// How a push ended: also what an agent keeps.
pub fn answer(data: &[u8]) {
    recode::<Answer>(data);
}

/// What peers and relay say; the first byte chooses the message.
pub fn relay_message(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    match kind {
        0 => {
            if let Ok(hello) = codec::decode::<Hello>(data) {
                // It holds a secret, so that it can't be compared as it is.
                let encoded = codec::encode(&hello);
                let again: Hello = codec::decode(&encoded).expect("what was decoded decodes again");
                assert_eq!(codec::encode(&again), encoded);
                assert_eq!(again.signed(&[0; 32]), hello.signed(&[0; 32]));
                assert_eq!(again.own_key(), hello.own_key());
                let _ = hello.versions.agree(again.versions);
                assert!(encoded.len() <= limits::FRAME_UNAUTHENTICATED);
            }
        }
        1 => drop(recode::<RelayReply>(data)),
        2 => {
            if let Some(notice) = recode::<Notice>(data) {
                let delay = notice.retry_delay(u64::MAX);
                assert!(delay.is_none_or(|delay| delay <= Duration::from_secs(60)));
            }
        }
        3 => drop(recode::<Open>(data)),
        4 => drop(recode::<OpenReply>(data)),
        5 => drop(recode::<Incoming>(data)),
        _ => {}
    }
}

/// A manifest: sorted, every entry in a directory of it, and named by its root.
pub fn manifest(data: &[u8]) {
    let Some(manifest) = recode::<Manifest>(data) else {
        return;
    };
    check_tree(&manifest);
    let mut backwards = manifest.entries().to_vec();
    backwards.reverse();
    assert_eq!(
        Manifest::from_unsorted(backwards).as_ref(),
        Ok(&manifest),
        "the order of entries means nothing"
    );
    let _ = manifest.content_len();
}

/// What a commit changed, as it stands in an agent's state behind a digest.
pub fn commit_record(data: &[u8]) {
    type Change = (CommitRecord, Vec<(RelativePath, Option<Entry>)>);
    let Some((_, changes)) = recode::<Change>(data) else {
        return;
    };
    if let Ok(tree) = Manifest::default().with_changes(&changes.into_iter().collect()) {
        check_tree(&tree);
    }
}

/// A push's operations on a tree: the tree that they say, or an error.
pub fn operations(data: &[u8]) {
    let Some((base, operations)) = recode::<(Manifest, Vec<Operation>)>(data) else {
        return;
    };
    let Ok(target) = operation::apply(&base, &base, &operations) else {
        return;
    };
    check_tree(&target);
    for operation in &operations {
        let expected = match operation {
            Operation::Delete { .. } => None,
            Operation::Put { entry, .. } => Some(entry),
        };
        assert_eq!(target.get(operation.path()), expected);
    }
    let named = |path| operations.iter().any(|operation| operation.path() == path);
    for kept in base.entries().iter().filter(|entry| !named(&entry.path)) {
        assert_eq!(target.get(&kept.path), Some(&kept.entry));
    }
    assert!(target.len() <= base.len() + operations.len());
}

/// The operations that a content stream begins with, on the tree of the scripts: they are written
/// and read again the same. The first byte says how many.
pub fn operation_stream(data: &[u8]) {
    let Some((count, mut stream)) = data.split_first() else {
        return;
    };
    let count = u64::from(*count);
    let Ok(operations) = stream::read(&mut stream, count, &tree(), true) else {
        return;
    };
    assert_eq!(operations.len() as u64, count);
    let again = stream::write(&operations);
    let again = stream::read(&mut &again[..], count, &tree(), true);
    assert_eq!(
        again.expect("what was read is written and read"),
        operations
    );
}

/// What an agent offers to a developer that has the tree of the scripts.
pub fn listing(data: &[u8]) {
    let id = OfferId(7);
    let sketch = Sketch::of(&tree(), 7);
    let Ok(listing) = Listing::decode(data, id, &tree(), Some(&sketch)) else {
        return;
    };
    check_tree(&listing.manifest);
    assert!(listing.kept.iter().all(|kept| kept.have <= kept.len));
    let again = Listing::encode(&listing.manifest, &listing.kept, id, Digests::Whole, None);
    let again = Listing::decode(&again, id, &tree(), None);
    assert_eq!(again.expect("what was read is written and read"), listing);
}

pub(crate) fn check_tree(manifest: &Manifest) {
    for entry in manifest.entries() {
        assert_eq!(manifest.get(&entry.path), Some(&entry.entry));
        if let Some(parent) = entry.path.parent() {
            assert!(manifest.get(&parent).is_some_and(Entry::is_directory));
            assert!(manifest.inside(&parent).contains(entry));
        }
    }
    assert!(
        manifest
            .entries()
            .is_sorted_by(|before, after| before.path < after.path)
    );
}

/// Decodes untrusted bytes. What they decode to must be the same after encoding and decoding.
pub(crate) fn recode<T>(data: &[u8]) -> Option<T>
where
    T: Encode + Decode<()> + PartialEq + Debug,
{
    let value: T = codec::decode(data).ok()?;
    let encoded = codec::encode(&value);
    match codec::decode::<T>(&encoded) {
        Ok(again) => assert_eq!(again, value),
        Err(error) => panic!("{value:?} does not decode again: {error:?}"),
    }
    Some(value)
}
