//! Every maximum of the wire in one place.
//!
//! A peer that goes over one has misbehaved: the message is refused, nothing is allocated for it.

use std::time::Duration;

/// The largest frame on any stream, in bytes, its length field not counted.
pub const FRAME: usize = 1 << 20;

/// The largest frame before a peer has authenticated to the relay.
pub const FRAME_UNAUTHENTICATED: usize = 4 << 10;

/// The largest piece of a content stream in one message.
pub const CONTENT_PART: usize = 128 << 10;

/// The largest path, in bytes (Linux' `PATH_MAX` less its NUL).
pub const PATH: usize = 4095;

/// The largest component of a path, in bytes (Linux' `NAME_MAX`).
pub const COMPONENT: usize = 255;

/// The deepest path, in components. Every level costs a held descriptor while it is visited.
pub const DEPTH: usize = 128;

/// The largest target of a symbolic link, in bytes.
pub const SYMLINK_TARGET: usize = 4095;

/// The most entries in a manifest, and operations in a push.
pub const ENTRIES: u64 = 1_000_000;

/// The most bytes that the paths and links of one manifest or of one push's operations may have in
/// all.
pub const PATH_BYTES: u64 = 256 << 20;

/// The most bytes of a listing, also once it is decompressed.
pub const LISTING: usize = 256 << 20;

/// The most bytes of its content stream that a developer sends before the agent says that it has
/// them: what a lost connection costs at most.
pub const UNACKNOWLEDGED: u64 = 8 << 20;

/// How many bytes of a content stream an agent takes before it says so.
pub const ACKNOWLEDGE: u64 = 1 << 20;

/// The most patterns that a push with a mirror may bring, and their bytes in all.
pub const PATTERNS: usize = 1024;
/// See [`PATTERNS`].
pub const PATTERN_BYTES: usize = 64 << 10;

/// The most groups of a sketch, which has three bytes for each.
pub const SKETCH_GROUPS: usize = 1 << 16;

/// The most signatures that one `Sign` may ask for.
pub const SIGNATURES: usize = 4096;

/// How often a push may ask for signatures of what it was offered: of files, then of their regions, and
/// of what is left of these.
pub const SIGN_ROUNDS: u32 = 3;

/// The largest encoded signature, in bytes.
pub const SIGNATURE: u64 = 256 << 20;

/// The most times that one push may be told to start again from another base.
pub const REBASES: u32 = 4;

/// The longest text a person wrote (a push message, a name), in bytes.
pub const TEXT: usize = 4096;

/// The most lines of the app's output in an answer, and the longest of them in bytes.
pub const LOG_TAIL_LINES: usize = 100;
/// See [`LOG_TAIL_LINES`].
pub const LOG_LINE: usize = 4096;

/// The most paths listed in an answer's drift, conflict or warnings.
pub const LISTED: usize = 256;

/// The most environment variables that a push may bring, and their bytes in all.
pub const ENVIRONMENT: usize = 256;
/// See [`ENVIRONMENT`].
pub const ENVIRONMENT_BYTES: usize = 128 << 10;

/// How many answers an agent keeps, so that a push sent again is never applied twice.
pub const ANSWERS: usize = 256;

/// How long one end waits for the other's next message while a push is being transferred.
pub const STALL: Duration = Duration::from_secs(30);

/// How long a developer may take from what it was offered to the push that is planned against it.
pub const PLANNING: Duration = Duration::from_secs(120);

/// How often a push may say that it is still reading: an hour's worth at one in five seconds.
pub const ALIVE: u32 = 720;

/// How long after it was planned a push may still be applied.
pub const EXPIRY: Duration = Duration::from_secs(120);

/// The longest an app may take to be ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(600);
