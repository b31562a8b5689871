//! The harness for whole trees from end to end: what it says, not how fast that was.

use std::process::{Command, Output};

use serde_json::Value;

fn tree(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchwire-benches"));
    command.arg("tree").args(args);
    command.output().expect("the harness was built")
}

/// What has a version number, if it runs here.
fn is_installed(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn json_has_figures_of_patchwire_and_rsync() {
    if !is_installed("rsync") || !is_installed("git") {
        eprintln!("skipped: rsync and git are needed");
        return;
    }
    let output = tree(&["--quick", "--json", "--only", "edits,traffic,cuts"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list");
    let names: Vec<_> = rows
        .iter()
        .map(|row| (row["row"].as_str(), row["engine"].as_str()))
        .collect();
    let expected = [
        ("edits", "patchwire"),
        ("edits", "rsync"),
        ("traffic-1", "patchwire"),
        ("traffic-1", "rsync -z"),
        ("traffic-20", "patchwire"),
        ("traffic-20", "rsync -z"),
        ("cuts", "patchwire"),
    ];
    assert_eq!(
        names,
        expected.map(|(row, engine)| (Some(row), Some(engine)))
    );
    for row in &rows {
        let positive = |field: &str| row[field].as_f64().is_some_and(|number| number > 0.0);
        assert!(positive("bytes_sent") && positive("files"), "{row}");
        assert_eq!(row["rounds"], 1, "{row}");
        let is_timed = row["row"] != "cuts";
        for field in ["wall_seconds", "bytes_received", "peak_rss_bytes"] {
            assert_eq!(positive(field), is_timed, "{field} of {row}");
        }
        let is_ours = row["engine"] == "patchwire";
        let floors = row["floors"].as_array().expect("a list");
        assert_eq!(floors.len(), usize::from(is_ours), "{row}");
        for floor in floors {
            let met = floor["measured"].as_f64() <= floor["at_most"].as_f64();
            assert_eq!(floor["ok"], met, "{row}");
        }
        assert_eq!(
            row["timings_ms"]["total"].is_number(),
            is_ours && is_timed,
            "{row}"
        );
        let has_ratio = is_ours && row["row"] == "edits";
        assert_eq!(positive("ratio_rsync"), has_ratio, "{row}");
    }
    let small = rows[0]["files"].as_u64();
    assert_eq!(small, Some(200), "the small tree of --quick");
}

#[test]
fn what_is_no_row_is_refused() {
    for args in [
        ["--only", "everything"],
        ["--files", "0"],
        ["--rounds", "0"],
    ] {
        assert_eq!(tree(&args).status.code(), Some(2), "{args:?}");
    }
}
