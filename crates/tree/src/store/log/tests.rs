use patchwire_protocol::message::value::WireDigest;

use super::*;
use crate::testing::{Tree, scratch};

fn record(sequence: u64, tree: &Tree) -> CommitRecord {
    CommitRecord {
        sequence,
        push_id: [1; 16],
        meta: b"meta".to_vec(),
        root: WireDigest(tree.manifest().root()),
        verified: false,
        gone: Vec::new(),
    }
}

fn append(log: &mut Log, sequence: u64, from: &Tree, to: &Tree) {
    let changes = crate::journal::changes(&from.manifest(), &to.manifest());
    let changes = changes.iter().map(|(path, entry)| (path, entry.as_ref()));
    let changes: Vec<_> = changes.collect();
    log.append(&record(sequence, to), &changes, &Fault::default())
        .unwrap();
}

/// Trees that follow each other.
fn trees() -> [Tree; 4] {
    [
        Tree::default(),
        Tree::new(&["a = 1", "d/", "d/x = x"]),
        Tree::new(&["a = 2", "d/", "d/x = x", "d/y = y"]),
        Tree::new(&["a = 2", "d = a file"]),
    ]
}

/// A log of all of [`trees`], and its lengths after each.
fn written(file: &File) -> Vec<u64> {
    let mut log = Log::new(file.try_clone().unwrap(), &Contents::default());
    let trees = trees();
    let next = |(sequence, pair): (u64, &[Tree])| {
        append(&mut log, sequence, &pair[0], &pair[1]);
        log.len
    };
    (1..).zip(trees.windows(2)).map(next).collect()
}

fn file() -> (tempfile::TempDir, File) {
    let dir = scratch();
    let file = File::create_new(dir.path().join("log")).unwrap();
    (dir, file)
}

fn bytes(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_log_says_the_tree_of_its_last_change_that_is_there_as_a_whole() {
    let (_dir, file) = file();
    let lens = written(&file);
    let whole = bytes(&file);
    let trees = trees();
    for cut in 0..=whole.len() {
        for tail in [0, 1, 100] {
            let torn = [&whole[..cut], &vec![0; tail]].concat();
            // A change may end in a zero.
            let is_there = |len: &&u64| {
                let len = usize::try_from(**len).unwrap();
                torn.get(..len) == Some(&whole[..len])
            };
            let last = lens.iter().filter(is_there).count();
            let contents = decode(&torn).unwrap();
            assert_eq!(contents.manifest, trees[last].manifest(), "cut at {cut}");
            let record = (last > 0).then(|| record(last as u64, &trees[last]));
            assert_eq!(contents.record, record);
        }
    }
}

#[test]
fn what_was_torn_is_cut_off_before_more_is_appended() {
    let (_dir, file) = file();
    let lens = written(&file);
    file.set_len(lens[2] - 1).unwrap();
    let mut log = Log::new(file.try_clone().unwrap(), &decode(&bytes(&file)).unwrap());
    assert_eq!(log.len, lens[1]);
    let trees = trees();
    append(&mut log, 3, &trees[2], &trees[1]);
    let contents = decode(&bytes(&file)).unwrap();
    assert_eq!(contents.manifest, trees[1].manifest());
    assert_eq!(contents.len, bytes(&file).len() as u64);
}

#[test]
fn any_damage_loses_the_changes_behind_it_or_all() {
    let (_dir, file) = file();
    let lens = written(&file);
    let whole = bytes(&file);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        let before = lens.iter().filter(|len| **len <= at as u64).count();
        match decode(&damaged) {
            Some(contents) => {
                let sequence = contents.record.map_or(0, |record| record.sequence);
                assert_eq!(sequence, before as u64, "damage at {at}");
            }
            None => assert!(at < MAGIC.len(), "damage at {at}"),
        }
    }
}

#[test]
fn contradictions_are_refused() {
    let trees = trees();
    let of = |changes: &[(u64, &Tree, &Tree, &Tree)]| {
        let (_dir, file) = file();
        file.write_all_at(&MAGIC, 0).unwrap();
        let mut end = MAGIC.len() as u64;
        for (sequence, from, to, said) in changes {
            let changes = crate::journal::changes(&from.manifest(), &to.manifest());
            end = write_change(&file, end, &(record(*sequence, said), changes)).unwrap();
        }
        decode(&bytes(&file))
    };
    let [nothing, one, two, _] = &trees;
    assert!(of(&[(1, nothing, one, one), (2, one, two, two)]).is_some());
    assert!(of(&[(2, nothing, one, one), (1, one, two, two)]).is_none());
    assert!(of(&[(1, nothing, one, two)]).is_none(), "another root");
    assert!(
        of(&[(1, one, two, two)]).is_none(),
        "an entry without its directory"
    );
}

#[test]
fn one_change_says_as_much_as_all() {
    let (_dir, file) = file();
    written(&file);
    let all = decode(&bytes(&file)).unwrap();
    let (_dir, file) = self::file();
    let len = write(&file, all.record.as_ref().unwrap(), &all.manifest).unwrap();
    let one = decode(&bytes(&file)).unwrap();
    assert_eq!((one.len, one.first), (len, len));
    assert_eq!((one.record, one.manifest), (all.record, all.manifest));
}
