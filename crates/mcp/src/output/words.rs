//! Numbers, times and foreign text in words.

use std::time::{Duration, UNIX_EPOCH};

use patchwire_protocol::{app::AppState, path::escape};

/// The last millisecond that RFC 3339 can write, in 9999.
const LAST_MS: u64 = 253_402_300_799_999;

/// `1 file`, `2 files`.
pub(super) fn count(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    }
}

/// A duration with as many digits as matter.
pub(super) fn duration(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

/// A point of an agent's time.
pub(super) fn time(at_ms: u64) -> String {
    match at_ms {
        0..=LAST_MS => {
            let at = UNIX_EPOCH + Duration::from_millis(at_ms);
            humantime::format_rfc3339_seconds(at).to_string()
        }
        _ => "at a time that can't be".to_owned(),
    }
}

/// How an app is.
pub(super) fn app(app: &AppState) -> String {
    match (app.running, app.pid, app.exit) {
        (true, Some(pid), _) => format!("pid {pid}"),
        (true, None, _) => "running".to_owned(),
        (false, _, Some(exit)) => format!("not running: {exit}"),
        (false, _, None) => "not running".to_owned(),
    }
}

/// One line of text from elsewhere that can't fool a terminal.
pub(crate) fn foreign(text: &str) -> String {
    let plain = console::strip_ansi_codes(text);
    // Tabs align tracebacks, and a backslash there is nothing but one.
    let fields = plain.split('\t').map(|field| {
        let parts = field
            .split('\\')
            .map(|part| escape(part.as_bytes()).to_string());
        parts.collect::<Vec<_>>().join("\\")
    });
    fields.collect::<Vec<_>>().join("\t")
}

/// The same, which may be in colours.
pub(super) fn coloured(text: &str) -> String {
    let mut line = String::new();
    let mut styled = false;
    for (part, is_sequence) in console::AnsiCodeIterator::new(text) {
        if !is_sequence {
            line.push_str(&foreign(part));
        } else if is_style(part) {
            line.push_str(part);
            styled = true;
        }
    }
    if styled {
        line.push_str("\x1b[0m");
    }
    line
}

/// Whether an escape sequence says how text looks, and nothing else (ECMA-48, SGR).
fn is_style(sequence: &str) -> bool {
    let parameters = sequence
        .strip_prefix("\x1b[")
        .and_then(|rest| rest.strip_suffix('m'));
    parameters.is_some_and(|text| {
        text.bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b';' | b':'))
    })
}

/// Texts on lines of their own, each indented.
pub(super) fn indented(lines: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let lines = lines.into_iter();
    lines
        .map(|line| format!("    {}\n", foreign(line.as_ref())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_digits_that_matter() {
        for (micros, said) in [
            (840, "0.8 ms"),
            (8_400, "8.4 ms"),
            (84_300, "84 ms"),
            (8_400_000, "8.4 s"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), said);
        }
    }

    #[test]
    fn no_time_is_too_late_to_be_said() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(LAST_MS), "9999-12-31T23:59:59Z");
        assert_eq!(time(LAST_MS + 1), "at a time that can't be");
        assert_eq!(time(u64::MAX), "at a time that can't be");
    }

    #[test]
    fn an_apps_lines_can_not_fool_a_terminal() {
        assert_eq!(
            indented(["\x1b[31mred\x1b[0m\x07", "\tC:\\x é"]),
            "    red\\x07\n    \tC:\\x é\n"
        );
    }
}
