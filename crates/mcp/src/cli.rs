//! What can be typed: clap's types, and nothing that acts.

use std::{ffi::OsString, num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use patchwire_protocol::{
    app::{ReadyCheck, Reload},
    name::Name,
};
use patchwire_transport::LinkSource;

/// Pushes what you edit to an app that runs elsewhere: verified, committed as a whole, reloaded and
/// known to be healthy, or rolled back with the reason.
#[derive(Debug, Parser)]
#[command(
    name = "patchwire",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  patchwire dev -- python3 app.py               your app, on this machine, reloaded as you save
  patchwire demo                                a relay, an agent and an app on this machine
  patchwire init --relay @relay.link            prepare this directory for pushing
  patchwire push                                bring the app to what this directory holds
  patchwire watch                               do so whenever a file is saved

Exit status: 0 done or nothing to do, 1 the push was refused, failed or rolled back, 2 usage or \
configuration, 3 relay or agent not reachable or the answer unknown, 4 refused for its credentials."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The options that every command takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Options {
    /// The directory to push [default: what patchwire.toml says, else the working directory]
    #[arg(long, global = true, value_name = "DIR", env = "PATCHWIRE_ROOT")]
    pub(crate) root: Option<PathBuf>,

    /// The deployment link: @FILE, - for standard input, or the link itself (which others may see
    /// there) [default: $PATCHWIRE_LINK_FILE, else the link recorded for the root]
    #[arg(
        long,
        global = true,
        value_name = "LINK",
        env = "PATCHWIRE_LINK",
        hide_env_values = true
    )]
    pub(crate) link: Option<LinkSource>,

    /// How long to wait for relay and agent
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        env = "PATCHWIRE_WAIT",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub(crate) wait: Duration,

    /// Log more on standard error; more often for even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Show no progress, and log errors alone
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs your app on this machine, in a copy that follows what you save
    Dev(Dev),
    /// Shows all of it on this machine: a relay, an agent, an app, and three pushes
    Demo(Demo),
    /// Prepares a directory for pushing: writes patchwire.toml and records a link
    Init(Init),
    /// Makes a deployment link, or narrows one for an agent
    Link(Link),
    /// Records a deployment link for this root
    Join(Join),
    /// Brings the app to what the root holds
    Push(Push),
    /// Pushes as files are saved, until it is interrupted
    Watch(Watch),
    /// Shows how the agent and its app are
    Status(Status),
    /// Shows what the app prints
    Logs(Logs),
    /// Serves editors and agents: an MCP server on standard input and output
    #[command(after_help = "\
An editor starts it; docs/mcp.md says how to tell yours. It works for the root that it is started for, \
and for every other root that a link is recorded for, by name. --link is for its own root alone.

Examples:
  patchwire mcp
  patchwire mcp --root ~/src/shop")]
    Mcp,
    /// Makes and applies deltas between files, without relay or agent
    Delta(Delta),
    /// Prints the JSON schema of patchwire.toml
    Schema(Schema),
    /// Prints what completes the command line in a shell
    Completions(Completions),
    /// Writes the manual pages of patchwire, patchwire-agent and patchwire-relay
    Man(Man),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Nothing is needed but the app: no link, and no patchwire.toml, though one is heeded. A relay and an \
agent run beside it as processes of their own. What git ignores isn't pushed; of that, node_modules, \
virtual environments, vendor, .env files and the like are linked into the copy. The app has your \
environment, and PYTHONUNBUFFERED=1 unless it is set. It is restarted for each push, and one that \
it doesn't start with is taken back.

Ctrl+C ends all of it (exit status 130); a second one at once. The copy stays for the next time, \
in patchwire/dev in your state directory.

Examples:
  patchwire dev -- python3 app.py
  patchwire dev -- npm start
  patchwire dev --root shop -- .venv/bin/python -m flask run
  patchwire dev --ready http://127.0.0.1:8000/health -- ./run.sh")]
pub(crate) struct Dev {
    /// When the app is ready: http://HOST:PORT/PATH (any 2xx), tcp:PORT, command:TEXT,
    /// alive:DURATION, or auto (it answers HTTP on a port that it listens on; if it was never seen to
    /// since the agent started, it is alive after 1s) [default: what patchwire.toml says, else auto]
    #[arg(long, value_name = "CHECK", env = "PATCHWIRE_READY")]
    pub(crate) ready: Option<ReadyCheck>,

    /// How the app takes up new code: restart, signal:NAME, command:TEXT or none [default: what
    /// patchwire.toml says, else restart]
    #[arg(long, value_name = "R", env = "PATCHWIRE_RELOAD")]
    pub(crate) reload: Option<Reload>,

    #[command(flatten)]
    pub(crate) times: WatchTimes,

    /// Begin with an empty copy: what the app wrote into the old one is deleted
    #[arg(long)]
    pub(crate) fresh: bool,

    /// The app's program and its arguments; a relative path is one below the root
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Needs python3, and nothing else: it works in a temporary directory and cleans up behind itself.

Examples:
  patchwire demo
  patchwire demo --keep        then push to it yourself: it says how")]
pub(crate) struct Demo {
    /// Leave relay, agent and app running, and say how to push to them and how to end them
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
What is not given comes from an existing patchwire.toml, then from a .bifrost.json or a link. On a \
terminal the rest is asked for; with --yes, or elsewhere, it comes from the names of the directory and \
of the user. A relay's link that lies here in a file *.link is found. --link takes a deployment's link \
that there is already, instead of making one at the relay.

Examples:
  patchwire init
  patchwire init --yes --relay @relay.link
  patchwire init --app shop --deployment dev-ana --relay @relay.link
  patchwire init --link @deployment.link")]
pub(crate) struct Init {
    /// The app's name
    #[arg(long, value_name = "APP", env = "PATCHWIRE_APP")]
    pub(crate) app: Option<Name>,

    /// The deployment's name
    #[arg(long, value_name = "DEPLOYMENT", env = "PATCHWIRE_DEPLOYMENT")]
    pub(crate) deployment: Option<Name>,

    /// The relay's link, as the relay prints it: @FILE, - for standard input, or the link itself
    #[arg(
        long,
        value_name = "LINK",
        env = "PATCHWIRE_RELAY",
        hide_env_values = true
    )]
    pub(crate) relay: Option<LinkSource>,

    /// Ask nothing: take what suggests itself for what is not given
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
#[command(
    override_usage = "patchwire link APP DEPLOYMENT --relay LINK\n       patchwire link --agent [LINK]",
    after_help = "\
A deployment link is a secret: who has it may push. What --agent makes of it can act as the agent \
alone, so that a container that is broken into can't push to others. Keep both for your eyes alone \
(umask 077), and outside the directory that is pushed.

Examples:
  patchwire link shop dev-ana --relay @relay.link > ~/deployment.link
  patchwire link --agent @$HOME/deployment.link > ~/agent.link
  patchwire link --agent > ~/agent.link              from the link recorded for this root"
)]
pub(crate) struct Link {
    /// The app's name
    #[arg(value_name = "APP", required_unless_present = "agent")]
    pub(crate) app: Option<Name>,

    /// The deployment's name
    #[arg(value_name = "DEPLOYMENT", required_unless_present = "agent")]
    pub(crate) deployment: Option<Name>,

    /// The relay's link: @FILE, - for standard input, or the link itself
    #[arg(
        long,
        value_name = "LINK",
        env = "PATCHWIRE_RELAY",
        hide_env_values = true,
        required_unless_present = "agent"
    )]
    pub(crate) relay: Option<LinkSource>,

    /// Narrow this deployment link, or the one of this root, for an agent
    #[arg(
        long,
        value_name = "LINK",
        num_args = 0..=1,
        conflicts_with_all = ["app", "deployment"]
    )]
    #[expect(
        clippy::option_option,
        reason = "clap's form of an option whose value may be left out"
    )]
    pub(crate) agent: Option<Option<LinkSource>>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Commands find the link again from this root alone, whatever a patchwire.toml elsewhere says.

Examples:
  patchwire join @deployment.link
  pass show shop/dev-ana | patchwire join -")]
pub(crate) struct Join {
    /// The deployment link: @FILE, - for standard input, or the link itself
    #[arg(value_name = "LINK")]
    pub(crate) deployment_link: LinkSource,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  patchwire push
  patchwire push --message \"larger buttons\"
  patchwire push --dry-run
  patchwire push --json | jq .status")]
pub(crate) struct Push {
    /// What others read of this push
    #[arg(
        short,
        long,
        value_name = "TEXT",
        env = "PATCHWIRE_MESSAGE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) message: String,

    /// Only say what would be pushed
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Replace what another client pushed since, and delete however much is gone here
    #[arg(long)]
    pub(crate) force: bool,

    /// Delete what was never pushed, too, unless it is ignored
    #[arg(long)]
    pub(crate) mirror: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Begins with a push. Then one line for each push, on standard output; a version that was rolled back is \
not sent again until it changes. Goes on when relay or agent are away for a while, and pushes again to \
an agent that comes back with another tree. Ends when it is interrupted (130), and otherwise only for \
what gets better neither by waiting nor by saving.

Examples:
  patchwire watch
  patchwire watch --quiet-time 200ms           for an editor that writes in several steps
  patchwire watch --json | jq -c '[.status, .files]'")]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) times: WatchTimes,

    /// What others read of these pushes
    #[arg(
        short,
        long,
        value_name = "TEXT",
        env = "PATCHWIRE_MESSAGE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) message: String,

    /// Print each push as one JSON object on a line of its own
    #[arg(long)]
    pub(crate) json: bool,
}

/// When saved files are pushed.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct WatchTimes {
    /// Push once nothing was saved for this long [default: what patchwire.toml says, else 30ms]
    #[arg(
        long,
        value_name = "TIME",
        env = "PATCHWIRE_QUIET_TIME",
        value_parser = humantime::parse_duration
    )]
    pub(crate) quiet_time: Option<Duration>,

    /// Push after this long in any case [default: what patchwire.toml says, else 2s]
    #[arg(
        long,
        value_name = "TIME",
        env = "PATCHWIRE_MAX_WAIT",
        value_parser = humantime::parse_duration
    )]
    pub(crate) max_wait: Option<Duration>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  patchwire status
  patchwire status --json | jq .app.running")]
pub(crate) struct Status {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  patchwire logs --lines 20
  patchwire logs --follow
  patchwire logs --json | jq -r 'select(.stream == \"stderr\").text'")]
pub(crate) struct Logs {
    /// Go on with new lines, until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// How many of the last lines to begin with
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        env = "PATCHWIRE_LINES",
        default_value_t = 100
    )]
    pub(crate) lines: u32,

    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
One end has the basis and makes its signature; the other makes the delta from that to its target; the \
first patches its basis with the delta. The arguments stand in the order of rdiff's. What is written \
gets its name when it is whole: a command that fails leaves what was there.

Examples:
  patchwire delta signature old.bin old.sig
  patchwire delta diff old.sig new.bin new.delta
  patchwire delta patch old.bin new.delta copy-of-new.bin

With rdiff at the other end, whose signatures are taken with MD4 alone, which is not its default:
  rdiff -H md4 -R rollsum signature old.bin old.sig
  patchwire delta diff old.sig new.bin new.delta --format librsync
  rdiff patch old.bin new.delta copy-of-new.bin")]
pub(crate) struct Delta {
    /// The format of signature and delta
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        env = "PATCHWIRE_FORMAT",
        default_value_t = Format::Patchwire
    )]
    pub(crate) format: Format,

    #[command(subcommand)]
    pub(crate) command: DeltaCommand,
}

/// How signatures and deltas are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Patchwire's own, in bounded memory, and verified
    Patchwire,
    /// That of rdiff (librsync, with MD4); holds the files in memory, at most 1 GiB each
    Librsync,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeltaCommand {
    /// Makes the signature of a basis
    #[command(after_help = "\
Examples:
  patchwire delta signature old.bin old.sig
  patchwire delta signature disk.img disk.sig --block-size 65536 --threads 4
  ssh host cat old.bin | patchwire delta signature - old.sig
  patchwire delta signature old.bin old.sig --format librsync      for rdiff delta")]
    Signature {
        /// How long a block is: 64 to 1048576 bytes (librsync: from 1 on). Smaller ones make a longer
        /// signature and a shorter delta. A basis of more than 16777216 blocks gets larger ones
        /// [default: about the square root of the basis' length, at least 256; 8192 where the length
        /// isn't known]
        #[arg(long, value_name = "BYTES", env = "PATCHWIRE_BLOCK_SIZE")]
        block_size: Option<u32>,

        #[command(flatten)]
        threads: Threads,

        /// The file that the other end has; - for standard input
        basis: PathBuf,
        /// Where the signature goes; - for standard output
        signature: PathBuf,
    },
    /// Makes the delta from the basis behind a signature to a target
    #[command(after_help = "\
With more threads than one, a target that is a file of at most 1 GiB is read into memory and divided \
among them. The delta may be a little longer then. Any other target is read as it comes, by one.

Examples:
  patchwire delta diff old.sig new.bin new.delta
  patchwire delta diff old.sig new.bin new.delta --threads 4
  patchwire delta diff - new.bin - < old.sig > new.delta
  patchwire delta diff rdiff.sig new.bin new.delta --format librsync

A signature of rdiff has to be made with MD4, which is not its default:
  rdiff -H md4 -R rollsum signature old.bin rdiff.sig")]
    Diff {
        #[command(flatten)]
        threads: Threads,

        /// The basis' signature; - for standard input
        signature: PathBuf,
        /// The file that the other end shall have; - for standard input
        target: PathBuf,
        /// Where the delta goes; - for standard output
        delta: PathBuf,
    },
    /// Applies a delta to its basis, and checks the result
    #[command(after_help = "\
OUT is there whole and verified, or as it was before: a patch that fails leaves nothing behind. On \
standard output nothing appears before all of it is verified; until then it is in a temporary file. \
With the librsync format, which has no digest of the whole file, only what it can tell is verified.

Examples:
  patchwire delta patch old.bin new.delta new.bin
  patchwire delta patch file file.delta file
  patchwire delta patch old.bin rdiff.delta new.bin --format librsync")]
    Patch {
        /// The basis; - for standard input
        basis: PathBuf,
        /// The delta; - for standard input
        delta: PathBuf,
        /// Where the target goes, which may be the basis; - for standard output
        out: PathBuf,
    },
}

/// How many threads work at something.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Threads {
    /// How many threads may work at it: 1 to 64. More need more memory: for a signature 8 MiB each,
    /// for a delta the target's length. The librsync format is made by one
    #[arg(
        long = "threads",
        value_name = "N",
        env = "PATCHWIRE_THREADS",
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=64)
    )]
    count: u8,
}

impl Threads {
    pub(crate) fn get(self) -> NonZeroUsize {
        NonZeroUsize::new(self.count.into()).unwrap_or(NonZeroUsize::MIN)
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
An editor checks and completes patchwire.toml by it: Even Better TOML (Taplo) takes it from the file's \
first line, which init writes.

Examples:
  patchwire schema > patchwire.schema.json")]
pub(crate) struct Schema {}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  patchwire completions bash > ~/.local/share/bash-completion/completions/patchwire
  patchwire completions zsh > ~/.zfunc/_patchwire         a directory of zsh's fpath
  patchwire completions fish > ~/.config/fish/completions/patchwire.fish")]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  patchwire man ~/.local/share/man/man1        then: man patchwire-push")]
pub(crate) struct Man {
    /// Where the pages go; it is made if it isn't there
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

impl Command {
    /// Whether the result, and every failure, is to be printed as JSON.
    pub(crate) const fn json(&self) -> bool {
        match self {
            Self::Push(Push { json, .. })
            | Self::Watch(Watch { json, .. })
            | Self::Status(Status { json, .. })
            | Self::Logs(Logs { json, .. }) => *json,
            Self::Dev(_)
            | Self::Demo(_)
            | Self::Init(_)
            | Self::Link(_)
            | Self::Join(_)
            | Self::Mcp
            | Self::Delta(_)
            | Self::Schema(_)
            | Self::Completions(_)
            | Self::Man(_) => false,
        }
    }
}

/// Tells whether arguments that can't be parsed ask for JSON.
pub(crate) fn asks_for_json(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .skip(1)
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "--json")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn json_is_asked_for_before_the_double_dash() {
        let asks = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            asks_for_json(&arguments)
        };
        assert!(asks("patchwire push --json --wrong"));
        assert!(!asks("patchwire push -- --json"));
        assert!(!asks("--json push"));
    }
}
