//! Programs that some tests run beside ours, and what becomes of a test without them.

use std::{
    env,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Where a program of other people lies that a test needs: where `variable` says, or where
/// `.ci/test-tools` puts it. Skips where it is in neither place.
pub(crate) fn test_tool(variable: &str, place: &str) -> Option<PathBuf> {
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-tools");
    let path = match env::var_os(variable) {
        Some(path) => path.into(),
        None => Path::new(installed).join(place),
    };
    if path.exists() {
        return Some(path);
    }
    let path = path.display();
    skipped(&format!(
        "{path} is not there: run .ci/test-tools, or set {variable}"
    ));
    None
}

/// Says that something was not tested, and fails where it has to be: where `CI` is set.
pub(crate) fn skipped(why: &str) {
    // Not by `eprintln!`: nobody sees what a test that passes prints.
    let _ = writeln!(io::stderr(), "SKIPPED: {why}");
    assert!(
        env::var_os("CI").is_none(),
        "nothing is skipped under CI: {why}"
    );
}
