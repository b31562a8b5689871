//! The harness from end to end: what it says, not how fast that was.

use std::process::{Command, Output};

use serde_json::Value;

const WORKLOADS: [&str; 11] = [
    "identical",
    "shifted",
    "edits-200",
    "edits-8192",
    "unrelated",
    "text",
    "sqlite",
    "zeros",
    "periodic",
    "collisions",
    "anchors",
];

/// Those that both in-process engines have.
const OPERATIONS: [&str; 5] = ["signature", "diff", "patch", "patch-reused", "patch-file"];

fn delta(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchwire-benches"));
    command.arg("delta").args(args);
    command.output().expect("the harness was built")
}

fn rows(args: &[&str]) -> Vec<Value> {
    let output = delta(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("a list in JSON")
}

#[test]
fn json_has_figures_of_both_engines_on_every_workload() {
    let args = ["--size", "256KiB", "--rounds", "1", "--json"];
    let rows = rows(&[&args[..], &["--engine", "patchwire,fast_rsync"]].concat());
    for workload in WORKLOADS {
        for engine in ["patchwire", "fast_rsync"] {
            for operation in OPERATIONS {
                let row = rows.iter().find(|row| {
                    row["workload"] == workload
                        && row["engine"] == engine
                        && row["operation"] == operation
                });
                let row = row.unwrap_or_else(|| panic!("no {workload} {engine} {operation}"));
                check(row);
            }
        }
    }
    let digests = rows.iter().filter(|row| row["operation"] == "digest");
    assert_eq!(digests.count(), WORKLOADS.len());
    assert_eq!(rows.len(), WORKLOADS.len() * (2 * OPERATIONS.len() + 1));
}

fn check(row: &Value) {
    let positive = |field: &str| row[field].as_f64().is_some_and(|number| number > 0.0);
    for field in ["input_bytes", "cpu_seconds", "wall_seconds", "output_bytes"] {
        assert!(positive(field), "{field} of {row}");
    }
    let [operation, engine] = ["operation", "engine"].map(|field| &row[field]);
    let is_encoded = operation == "signature" || operation == "diff";
    assert_eq!(positive("output_zstd_bytes"), is_encoded, "{row}");
    let has_ratio = engine == "patchwire";
    assert_eq!(positive("ratio_fast_rsync"), has_ratio, "{row}");
    assert_eq!(row["ratio_fast_rsync_range"].is_array(), has_ratio, "{row}");
    let has_reused = has_ratio && operation == "patch-reused";
    assert_eq!(positive("ratio_fast_rsync_reused"), has_reused, "{row}");
    assert!(row["ratio_rdiff"].is_null(), "{row}");
    assert_eq!(row["rounds"], 1, "{row}");
    assert_eq!(row["over_limit"], false, "{row}");
    for field in ["peak_rss_bytes", "ratio_rdiff_range", "note"] {
        assert!(row.get(field).is_some(), "{field} of {row}");
    }
}

#[test]
fn what_takes_too_long_is_stopped_and_has_no_figures() {
    let rows = rows(&[
        "--size=4MiB",
        "--rounds=1",
        "--json",
        "--engine=patchwire",
        "--workload=identical",
        "--limit=1us",
    ]);
    let over = rows.iter().filter(|row| row["over_limit"] == true);
    // What starts from the result of one that was stopped doesn't run at all.
    assert!(over.count() >= 2, "{rows:?}");
    for row in &rows {
        assert!(row["cpu_seconds"].is_null(), "{row}");
        assert!(row["note"].is_string(), "{row}");
    }
}

#[test]
fn a_table_names_all_that_was_measured() {
    let output = delta(&[
        "--size=64KiB",
        "--rounds=2",
        "--engine=patchwire,fast_rsync",
        "--workload=shifted,zeros",
    ]);
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    for word in OPERATIONS
        .iter()
        .chain(&["shifted:", "zeros:", "fast_rsync"])
    {
        assert!(table.contains(word), "no {word} in:\n{table}");
    }
}

#[test]
fn sizes_without_room_for_a_workload_are_refused() {
    for size in ["0", "1KiB", "1TiB", "many"] {
        let output = delta(&["--size", size]);
        assert!(!output.status.success(), "{size}");
    }
}
