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

/// Those on which two rounds are run.
const EDITED: [&str; 5] = ["shifted", "edits-200", "edits-8192", "text", "sqlite"];

/// Those that both in-process engines have.
const OPERATIONS: [&str; 5] = ["signature", "diff", "patch", "patch-reused", "patch-file"];

/// Those that patchwire alone has, on every workload.
const OF_PATCHWIRE: [&str; 7] = [
    "signature-2-threads",
    "signature-stream",
    "diff-2-threads",
    "diff-digest",
    "diff-stream",
    "patch-stream",
    "digest",
];

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
    let find = |workload: &str, engine: &str, operation: &str| {
        let row = rows.iter().find(|row| {
            row["workload"] == workload && row["engine"] == engine && row["operation"] == operation
        });
        row.unwrap_or_else(|| panic!("no {workload} {engine} {operation}"))
    };
    for workload in WORKLOADS {
        for engine in ["patchwire", "fast_rsync"] {
            for operation in OPERATIONS {
                check(find(workload, engine, operation));
            }
        }
        for operation in OF_PATCHWIRE {
            check(find(workload, "patchwire", operation));
        }
        for (operation, other) in [
            ("signature-2-threads", "signature"),
            ("signature-stream", "signature"),
            ("diff-digest", "diff"),
            ("diff-stream", "diff"),
        ] {
            for field in ["output_bytes", "output_zstd_bytes"] {
                let [one, other] = [operation, other]
                    .map(|operation| &find(workload, "patchwire", operation)[field]);
                assert_eq!(one, other, "{field} of {workload} {operation}");
            }
        }
    }
    for workload in EDITED {
        let row = find(workload, "patchwire", "two-rounds");
        check(row);
        let number = |field: &str| {
            row[field]
                .as_f64()
                .unwrap_or_else(|| panic!("{field} of {row}"))
        };
        let ratio = number("output_zstd_bytes") / number("single_round_best_zstd_bytes");
        assert!((number("ratio_single_round") - ratio).abs() < 1e-9, "{row}");
        let [best, usual] = [
            "single_round_best_zstd_bytes",
            "single_round_usual_zstd_bytes",
        ];
        assert!(number(best) <= number(usual), "{row}");
        assert_eq!(number("single_round_usual_block_size"), 512.0, "{row}");
        let best = number("single_round_best_block_size");
        assert!((256.0..=65536.0).contains(&best), "{row}");
    }
    let of_all = 2 * OPERATIONS.len() + OF_PATCHWIRE.len();
    assert_eq!(rows.len(), WORKLOADS.len() * of_all + EDITED.len());
}

fn check(row: &Value) {
    let positive = |field: &str| row[field].as_f64().is_some_and(|number| number > 0.0);
    for field in ["input_bytes", "cpu_seconds", "wall_seconds", "output_bytes"] {
        assert!(positive(field), "{field} of {row}");
    }
    let operation = row["operation"].as_str().unwrap_or_default();
    let is_sent = ["signature", "diff", "two-rounds"]
        .iter()
        .any(|kind| operation.starts_with(kind));
    assert_eq!(positive("output_zstd_bytes"), is_sent, "{row}");
    let is_ours = row["engine"] == "patchwire";
    let has_ratio = is_ours && (OPERATIONS.contains(&operation) || operation == "diff-digest");
    assert_eq!(positive("ratio_fast_rsync"), has_ratio, "{row}");
    assert_eq!(row["ratio_fast_rsync_range"].is_array(), has_ratio, "{row}");
    let has_reused = is_ours && operation == "patch-reused";
    assert_eq!(positive("ratio_fast_rsync_reused"), has_reused, "{row}");
    let has_two_threads = operation.ends_with("-2-threads");
    assert_eq!(positive("ratio_one_thread"), has_two_threads, "{row}");
    assert_eq!(
        row["ratio_one_thread_range"].is_array(),
        has_two_threads,
        "{row}"
    );
    let is_hostile = row["workload"] == "collisions" || row["workload"] == "anchors";
    let is_compared = is_ours && is_hostile && operation == "diff";
    assert_eq!(positive("times_unrelated"), is_compared, "{row}");
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
fn tables_name_all_that_was_measured() {
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
        .chain(&OF_PATCHWIRE)
        .chain(&[
            "shifted:",
            "zeros:",
            "fast_rsync",
            "two-rounds",
            "times one thread",
        ])
        .chain(&["Bytes on the wire", "2 rounds"])
    {
        assert!(table.contains(word), "no {word} in:\n{table}");
    }
    // They need all workloads.
    assert!(!table.contains("Floors"), "{table}");
}

#[test]
fn floors_are_said_of_a_run_of_all_workloads() {
    let output = delta(&[
        "--size=64KiB",
        "--rounds=1",
        "--engine=patchwire,fast_rsync",
    ]);
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    let (_, floors) = table.split_once("Floors").expect("floors");
    let lines: Vec<&str> = floors
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(lines.len(), 21, "{floors}");
    for line in lines {
        let is_decided = line.ends_with("ok") || line.ends_with("below");
        assert!(is_decided && line.contains(" at "), "{line}");
    }
}

#[test]
fn what_peers_get_shorter_is_run_at_full_size_alone() {
    let rows = rows(&[
        "--size=9MiB",
        "--rounds=1",
        "--json",
        "--engine=patchwire",
        "--workload=unrelated,collisions",
    ]);
    for (workload, most) in [("collisions", 8 << 20), ("collisions-full-size", 9 << 20)] {
        let row = rows
            .iter()
            .find(|row| row["workload"] == workload && row["operation"] == "diff");
        let row = row.unwrap_or_else(|| panic!("no {workload}"));
        let input_bytes = row["input_bytes"].as_u64().expect("a number");
        assert!(
            (most - (1 << 20)..=most + (1 << 20)).contains(&input_bytes),
            "{row}"
        );
        assert!(
            row["times_unrelated"]
                .as_f64()
                .is_some_and(|times| times > 0.0),
            "{row}"
        );
    }
}

#[test]
fn long_files_with_holes_take_little_memory() {
    let rows = rows(&["--sparse=256MiB", "--json"]);
    let operations: Vec<&Value> = rows.iter().map(|row| &row["operation"]).collect();
    assert_eq!(
        operations,
        ["signature-stream", "diff-stream", "patch-stream"]
    );
    for row in &rows {
        assert!(
            row["input_bytes"]
                .as_u64()
                .is_some_and(|bytes| bytes >= 255 << 20),
            "{row}"
        );
        let peak = row["peak_rss_bytes"].as_u64().expect("it is measured");
        assert!(peak < 32 << 20, "{row}");
    }
}

#[test]
fn sizes_without_room_for_a_workload_are_refused() {
    for size in ["0", "1KiB", "1PiB", "many"] {
        for option in ["--size", "--sparse"] {
            let output = delta(&[option, size]);
            assert!(!output.status.success(), "{option} {size}");
        }
    }
}
