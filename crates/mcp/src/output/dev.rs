//! The terminal of `patchwire dev`: the app's lines, and ours beside them.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use console::style;
use patchwire_client::PushReport;

use super::{
    push,
    watch::shown,
    words::{coloured, duration, foreign},
};

/// What comes after the first push.
const NEXT: &str = "what you save is pushed from here on";

/// One of the app's output streams, and the one of ours that it goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Writes one of our own lines to standard error, told from the app's by what stands before it.
pub(crate) fn our_line(line: &str) {
    let line = format!("{} {line}\n", style("patchwire │").for_stderr().bold());
    // Where standard error is closed, there is the app's output and the exit status.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Where the app's files are, and where those are that the developer edits.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) copy: PathBuf,
    pub(crate) root: PathBuf,
}

/// Writes a line of the app's, or a piece of a long one: as it came. Where it goes to a terminal, it
/// is without what could fool that, and a file of the copy is called as the one in the root: that is
/// what one clicks on in a traceback, to edit it. `false` once nobody reads it.
pub(crate) fn app_line(stream: Stream, line: &[u8], places: &Places) -> bool {
    let (terminal, colours) = match stream {
        Stream::Stdout => (io::stdout().is_terminal(), console::colors_enabled()),
        Stream::Stderr => (io::stderr().is_terminal(), console::colors_enabled_stderr()),
    };
    let shown;
    let bytes = match terminal {
        false => line,
        true => {
            shown = on_terminal(line, places, colours);
            shown.as_bytes()
        }
    };
    let written = match stream {
        Stream::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Stderr => io::stderr().lock().write_all(bytes),
    };
    written.is_ok()
}

/// The first line: what runs, and how it ends.
pub(crate) fn beginning(Places { copy, root }: &Places) -> String {
    format!(
        "dev: {} → a copy in {}; Ctrl+C ends it",
        shown(root),
        shown(copy)
    )
}

/// That the first push found nothing to do.
pub(crate) fn unchanged(report: &PushReport) -> String {
    format!(
        "nothing has changed since the last time: the app is started{}; {NEXT}",
        push::apps(report)
    )
}

/// That the app was ready for the first time.
pub(crate) fn up(took: Duration) -> String {
    format!("up after {}; {NEXT}", duration(took))
}

/// A line for a terminal. Of what a progress bar wrote over itself the last is left.
fn on_terminal(line: &[u8], places: &Places, colours: bool) -> String {
    let mut text = String::from_utf8_lossy(line).into_owned();
    if let (Some(copy), Some(root)) = (places.copy.to_str(), places.root.to_str())
        && text.contains(copy)
    {
        text = text.replace(copy, root);
    }
    let (text, end) = match text.strip_suffix('\n') {
        Some(text) => (text, "\n"),
        None => (&*text, ""),
    };
    let text = text.trim_end_matches('\r');
    let text = text.rsplit('\r').next().unwrap_or_default();
    match colours {
        true => coloured(text) + end,
        false => foreign(text) + end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_apps_line_keeps_its_colours_and_names_what_is_edited() {
        let places = Places {
            copy: "/state/app".into(),
            root: "/shop".into(),
        };
        let on_terminal = |line, colours| on_terminal(line, &places, colours);
        let line = b"\x1b[1;32mok\x1b[0m \x1b[2J\x1b]0;title\x07\x08done\r\n";
        assert_eq!(
            on_terminal(line, true),
            "\x1b[1;32mok\x1b[0m \\x08done\x1b[0m\n"
        );
        assert_eq!(on_terminal(line, false), "ok \\x08done\n");
        assert_eq!(on_terminal(b"plain", true), "plain");
        let line = b"  File \"/state/app/app.py\", line 1\n";
        assert_eq!(on_terminal(line, true), "  File \"/shop/app.py\", line 1\n");
        assert_eq!(on_terminal(b"10 %\r50 %\r100 %\n", true), "100 %\n");
    }
}
