//! What was meant by a key or a value that isn't one.

/// How alike two words are, by Jaro and Winkler, for one to be taken for the other: `ignroe` and
/// `ignore` are to 0.96, `port` and `root` to 0.67.
const ALIKE: f64 = 0.8;

/// The most characters that are repeated of what was typed.
const SHOWN: usize = 80;

/// Says of a parser's message about an unknown key or value what was meant instead, or what there is.
/// Other messages stay as they are.
pub(super) fn explained(message: &str) -> String {
    // The wording is serde's, who alone knows which keys the table at hand has.
    for (begin, what, plural) in [
        ("unknown field `", "key", "keys"),
        ("unknown variant `", "value", "values"),
    ] {
        let Some(rest) = message.strip_prefix(begin) else {
            continue;
        };
        // From the right: what was typed may hold anything.
        let Some((typed, expected)) = rest.rsplit_once("`, expected ") else {
            continue;
        };
        // What is between backticks, of which there is a pair around every word.
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let typed: String = typed.chars().take(SHOWN).collect();
        let typed = typed.escape_debug().to_string();
        return match closest(&typed, &known) {
            Some(meant) => format!("unknown {what} `{typed}`: did you mean `{meant}`?"),
            None => format!(
                "unknown {what} `{typed}`: the {plural} here are `{}`",
                known.join("`, `")
            ),
        };
    }
    message.to_owned()
}

/// The known word that a typed one is most like, if it is like one at all.
fn closest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let typed = typed.to_lowercase().replace('-', "_");
    let alike = known
        .iter()
        .map(|known| (strsim::jaro_winkler(&typed, known), *known));
    alike
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 10] = [
        "app",
        "deployment",
        "root",
        "include",
        "ignore",
        "symlinks",
        "reload",
        "ready",
        "ready_timeout",
        "env",
    ];

    #[test]
    fn what_is_close_is_meant() {
        for (typed, meant) in [
            ("ignroe", "ignore"),
            ("ignored", "ignore"),
            ("includes", "include"),
            ("deploymnet", "deployment"),
            ("readiness", "ready"),
            ("ready-timeout", "ready_timeout"),
            ("Root", "root"),
            ("apps", "app"),
            ("environment", "env"),
        ] {
            assert_eq!(closest(typed, &KNOWN), Some(meant), "{typed}");
        }
        for typed in ["port", "command", "x", "", "host", "hook", "url"] {
            assert_eq!(closest(typed, &KNOWN), None, "{typed}");
        }
    }

    #[test]
    fn other_messages_stay() {
        for message in [
            "",
            "expected `=`",
            "unknown field `x`",
            "unknown field",
            "missing field `x`",
        ] {
            assert_eq!(explained(message), message);
        }
    }
}
