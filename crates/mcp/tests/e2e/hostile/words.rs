//! What is said, made from what it means.

use std::io::Write;

use patchwire_delta::Digest;
use patchwire_protocol::{
    codec, limits,
    manifest::{Entry, LinkTarget, ManifestEntry, Mode},
    message::{inner::DeveloperMessage, push::Push},
    operation::{Operation, Source, stream},
};

use super::frame;

pub(super) fn file(path: &str, content: &[u8]) -> ManifestEntry {
    let entry = Entry::File {
        mode: Mode::from_bits(0o644),
        len: content.len() as u64,
        digest: Digest::of(content),
    };
    ManifestEntry {
        path: path.try_into().unwrap(),
        entry,
    }
}

pub(super) fn directory(path: &str) -> ManifestEntry {
    let entry = Entry::Directory {
        mode: Mode::from_bits(0o755),
    };
    ManifestEntry {
        path: path.try_into().unwrap(),
        entry,
    }
}

pub(super) fn link(path: &str, target: &[u8]) -> ManifestEntry {
    let target = LinkTarget::new(target).unwrap();
    ManifestEntry {
        path: path.try_into().unwrap(),
        entry: Entry::Symlink { target },
    }
}

pub(super) fn put(entry: ManifestEntry, source: Source) -> Operation {
    Operation::Put {
        path: entry.path,
        entry: entry.entry,
        source,
    }
}

/// One `Put` of a whole file as it stands in the content stream, whatever its path and mode.
pub(super) fn raw_put(path: &[u8], mode: u16, content: &[u8]) -> Vec<u8> {
    let digest = *Digest::of(content).as_bytes();
    let file = (mode, content.len() as u64, digest);
    codec::encode(&(0_u16, path.to_vec(), 3_u32, file))
}

/// The content stream of these operations: they, then `stream`, compressed by whoever made it.
pub(super) fn stream(operations: &[Operation], content_stream: &[u8]) -> Vec<Vec<u8>> {
    let operations = compress(&stream::write(operations));
    content(&[&operations, content_stream].concat())
}

pub(super) fn push_frame(push: &Push) -> Vec<u8> {
    frame(&DeveloperMessage::Push(Box::new(push.clone())))
}

/// The content stream in as many messages as it takes, and its end.
pub(super) fn content(compressed: &[u8]) -> Vec<Vec<u8>> {
    let pieces = compressed.chunks(limits::CONTENT_PART);
    let pieces = pieces.map(|piece| frame(&DeveloperMessage::Content(piece.to_vec())));
    pieces
        .chain([frame(&DeveloperMessage::ContentEnd)])
        .collect()
}

pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// As many zeros, compressed.
pub(super) fn zeros(len: u64) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let piece = vec![0; 1 << 20];
    for _ in 0..len >> 20 {
        encoder.write_all(&piece).unwrap();
    }
    encoder.finish().unwrap()
}
