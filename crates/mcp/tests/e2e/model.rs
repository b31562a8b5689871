//! Random changes on both sides, and after every push the tree that the rules alone say.
//!
//! A run is a seed: `PATCHWIRE_MODEL_SEED=7 cargo test -p patchwire --test e2e model` repeats one, and
//! `PATCHWIRE_MODEL_MUTATIONS` says how many mutations each has. One that fails says its seed, and
//! leaves its directory.

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use patchwire_client::{
    Client, ClientError, ConnectOptions, Progress, PushReport, PushRequest, report::ReportStatus,
};
use patchwire_protocol::{limits, path::RelativePath};
use patchwire_tree::SymlinkPolicy;
use tokio::runtime::{self, Runtime};

use self::{
    expectation::{IGNORED, Tree, excluding, pushed_of},
    mutation::Mutator,
    random::Random,
};
use crate::world::{Agent, Link, Node, PATIENCE, Relay, World, skipped, tree};

pub(crate) mod expectation;
pub(crate) mod mutation;
pub(crate) mod random;

/// What runs without being told, side by side.
const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// How many mutations each seed has: ten thousand in all.
const MUTATIONS: usize = 2500;

/// The same where most pushes are mirrors.
const MIRROR_SEEDS: [u64; 2] = [5, 6];
const MIRROR_MUTATIONS: usize = 1000;

/// How many of a hundred pushes are then mirrors: between them, others leave what lies beside.
const MIRRORS: usize = 70;

/// No push is about more mutations.
const BATCH: usize = 50;

/// From so many entries on more is deleted than made.
const CROWDED: usize = 250;

/// An app that costs nothing, and is there for as long as anybody wants to go on.
const APP: [&str; 3] = ["tail", "-f", "/dev/null"];

#[test]
fn ten_thousand_random_mutations_arrive_as_the_rules_say() {
    run_all(&SEEDS, MUTATIONS, 0);
}

#[test]
fn random_mutations_of_both_sides_leave_only_what_is_ignored_beside_a_mirror() {
    run_all(&MIRROR_SEEDS, MIRROR_MUTATIONS, MIRRORS);
}

fn run_all(seeds: &[u64], mutations: usize, mirrors: usize) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse().expect(name));
    let seeds = number("PATCHWIRE_MODEL_SEED").map_or_else(|| seeds.to_vec(), |seed| vec![seed]);
    let asked_for = number("PATCHWIRE_MODEL_MUTATIONS");
    let mutations = asked_for.map_or(mutations, |mutations| mutations.try_into().unwrap());
    thread::scope(|scope| {
        for seed in seeds {
            scope.spawn(move || Model::new(seed, mirrors).run(mutations));
        }
    });
}

/// What disturbs a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disturbance {
    None,
    /// The developer's side starts anew, and knows what it remembers.
    NewClient,
    /// It remembers nothing.
    LostMemory,
    /// The agent lost its state, as in a new container of an image with the tree.
    LostState,
    AgentKilled,
    RelayKilled,
    /// The same in the middle of a push, at its n-th word.
    AgentKilledAt(usize),
    RelayKilledAt(usize),
}

/// A developer and an agent, what they did so far, and what has to be the case because of it.
struct Model {
    seed: u64,
    random: Random,
    /// How many of a hundred pushes are mirrors.
    mirrors: usize,
    /// How many pushes there were.
    pushes: usize,
    world: World,
    runtime: Runtime,
    relay: Option<Relay>,
    link: Link,
    agent: Option<Agent>,
    client: Client,
    request: PushRequest,
    source: PathBuf,
    target: PathBuf,
    /// Where nothing is ever to change.
    outside: PathBuf,
    /// What the agent committed last.
    committed: Option<Tree>,
}

impl Model {
    fn new(seed: u64, mirrors: usize) -> Self {
        let world = World::new();
        let relay = Relay::start(&world);
        let link = world.link(&relay, "model", "dev");
        let [source, target, outside] =
            ["source", "target", "outside"].map(|name| world.path(name));
        for directory in [&source, &target, &outside] {
            fs::create_dir(directory).unwrap();
        }
        fs::write(outside.join("file"), "stays\n").unwrap();
        let mut request = PushRequest::new(&source, world.path("memory"));
        request.scan.symlinks = SymlinkPolicy::Any;
        request.scan.ignore = vec![IGNORED.to_owned()];
        request.scan.excludes_file = None;
        let mut model = Self {
            seed,
            random: Random::new(seed),
            mirrors,
            pushes: 0,
            runtime: runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            relay: Some(relay),
            agent: None,
            client: client(&link),
            link,
            request,
            source,
            target,
            outside,
            committed: None,
            world,
        };
        model.start_agent();
        model
    }

    fn run(mut self, mutations: usize) {
        let mut left = mutations;
        while left > 0 {
            let batch = (1 + self.random.below(BATCH)).min(left);
            left -= batch;
            let [source, target] = [&self.source, &self.target].map(|root| tree(root).len());
            for _ in 0..batch {
                // What somebody makes there is what a mirror takes away.
                let at_agent = self.random.percent(if self.mirrors > 0 { 40 } else { 15 });
                let (root, entries) = match at_agent {
                    true => (&self.target, target),
                    false => (&self.source, source),
                };
                let mut mutator = Mutator {
                    root,
                    outside: &self.outside,
                    random: &mut self.random,
                    shrinks: entries > CROWDED,
                };
                mutator.mutate();
            }
            self.push_and_check();
        }
        let agent = self.agent.as_mut().unwrap();
        agent.process.assert_well();
        let (seed, pushes, entries) = (self.seed, self.pushes, tree(&self.source).len());
        eprintln!("seed {seed}: {mutations} mutations in {pushes} pushes, {entries} entries");
    }

    fn push_and_check(&mut self) {
        let disturbance = self.disturbance();
        self.disturb(disturbance);
        // No number is taken where there are none: the seeds of those before give what they gave.
        self.request.mirror = self.mirrors > 0 && self.random.percent(self.mirrors);
        let (source, disk) = (tree(&self.source), tree(&self.target));
        let target = pushed_of(&source);
        let committed = self.committed.take();
        let before = expectation::Agent {
            committed: committed.as_ref(),
            disk: &disk,
        };
        self.pushes += 1;
        let report = self.push(disturbance, &before, &target);
        let after = tree(&self.target);
        let mirror = self.request.mirror;
        let context = format!("{disturbance:?}, mirror {mirror}: {report:#?}");

        let is_cut = matches!(
            disturbance,
            Disturbance::AgentKilledAt(_) | Disturbance::RelayKilledAt(_)
        );
        let outcomes = self.outcomes(disturbance, &before, &target);
        let ended_so = outcomes
            .iter()
            .filter(|(status, _)| *status == report.status);
        let differences = ended_so.map(|(_, expected)| differing(expected, &after));
        let differences: Vec<_> = differences.collect();
        assert!(!differences.is_empty(), "another end: {context}");
        assert!(
            differences.iter().any(BTreeSet::is_empty),
            "another tree, at {differences:?}: {context}"
        );
        // What a push did whose answer was lost is known to nobody.
        if !is_cut {
            check_words(&before, &after, &report, mirror, &context);
        }
        self.compare_by_rsync(&source, &target, &after);
        let outside = tree(&self.outside);
        assert_eq!(outside.len(), 1, "{outside:?}: {context}");
        assert_eq!(fs::read(self.outside.join("file")).unwrap(), b"stays\n");
        self.committed = Some(target);
    }

    fn disturbance(&mut self) -> Disturbance {
        let word = self.random.below(8);
        match self.random.below(200) {
            0..10 => Disturbance::NewClient,
            10..22 => Disturbance::LostMemory,
            22..26 => Disturbance::LostState,
            26..30 => Disturbance::AgentKilled,
            30 | 31 => Disturbance::RelayKilled,
            32..36 => Disturbance::AgentKilledAt(word),
            36 | 37 => Disturbance::RelayKilledAt(word),
            _ => Disturbance::None,
        }
    }

    /// Does what happens between two pushes.
    fn disturb(&mut self, disturbance: Disturbance) {
        match disturbance {
            Disturbance::NewClient => self.client = client(&self.link),
            Disturbance::LostMemory => {
                // There is none before the first push.
                let _ = fs::remove_dir_all(&self.request.state);
            }
            Disturbance::LostState => {
                let mut agent = self.agent.take().unwrap();
                assert!(agent.process.terminate().success());
                fs::remove_dir_all(self.target.join(".patchwire")).unwrap();
                self.committed = None;
                self.start_agent();
            }
            Disturbance::AgentKilled => {
                self.agent = None;
                self.start_agent();
            }
            Disturbance::RelayKilled => {
                self.relay = self.relay.take().map(|relay| relay.restart(&self.world));
            }
            Disturbance::None | Disturbance::AgentKilledAt(_) | Disturbance::RelayKilledAt(_) => {}
        }
    }

    fn push(
        &mut self,
        disturbance: Disturbance,
        before: &expectation::Agent<'_>,
        target: &Tree,
    ) -> PushReport {
        match self.try_push(disturbance) {
            Ok(report) => report,
            Err(error) => {
                let code = error.code();
                assert!(
                    matches!(code, "deletes-too-much" | "empty")
                        && asks(before, target, self.request.mirror),
                    "{disturbance:?}: {error:?}"
                );
                self.request.delete_any = true;
                let report = self.try_push(Disturbance::None).unwrap();
                self.request.delete_any = false;
                report
            }
        }
    }

    fn try_push(&mut self, disturbance: Disturbance) -> Result<PushReport, ClientError> {
        let (Disturbance::AgentKilledAt(word) | Disturbance::RelayKilledAt(word)) = disturbance
        else {
            let push = self.client.push(&self.request, &|_| ());
            return self.runtime.block_on(push);
        };
        let (client, request, runtime) = (&self.client, &self.request, &self.runtime);
        let (now, moment) = mpsc::channel();
        thread::scope(|scope| {
            let push = scope.spawn(move || {
                let said = AtomicUsize::new(0);
                let progress = move |progress| {
                    let is_word = !matches!(progress, Progress::Scanning { .. });
                    if is_word && said.fetch_add(1, Ordering::Relaxed) == word {
                        let _ = now.send(());
                    }
                };
                runtime.block_on(client.push(request, &progress))
            });
            if moment.recv().is_ok() {
                match disturbance {
                    Disturbance::AgentKilledAt(_) => {
                        drop(self.agent.take());
                        self.agent = Some(start_agent(&self.world, &self.link, &self.target));
                    }
                    _ => self.relay = self.relay.take().map(|relay| relay.restart(&self.world)),
                }
            }
            push.join().unwrap()
        })
    }

    /// The ends that a push may come to, and what then lies on the agent's disk.
    fn outcomes(
        &self,
        disturbance: Disturbance,
        before: &expectation::Agent<'_>,
        target: &Tree,
    ) -> Vec<(ReportStatus, Tree)> {
        let as_planned = (ReportStatus::Done, before.after(target));
        let rebased = (ReportStatus::Done, before.after_rebase(target));
        let is_known = before.committed == Some(target);
        let unchanged = (ReportStatus::NoChanges, before.disk.clone());
        if self.request.mirror {
            let mirrored = (ReportStatus::Done, before.after_mirror(target));
            if !is_known || before.standing_for_mirror() != *target {
                return vec![mirrored];
            }
            return match disturbance {
                Disturbance::AgentKilled
                | Disturbance::AgentKilledAt(_)
                | Disturbance::RelayKilledAt(_) => vec![unchanged, mirrored],
                _ => vec![unchanged],
            };
        }
        match disturbance {
            Disturbance::None | Disturbance::NewClient | Disturbance::RelayKilled if is_known => {
                vec![unchanged]
            }
            Disturbance::LostMemory if is_known => vec![unchanged],
            Disturbance::LostMemory | Disturbance::LostState => vec![rebased],
            Disturbance::None | Disturbance::NewClient | Disturbance::RelayKilled => {
                match before.may_rebase(target) {
                    true => vec![as_planned, rebased],
                    false => vec![as_planned],
                }
            }
            // The app may not have been seen to be well on it yet.
            Disturbance::AgentKilled
            | Disturbance::AgentKilledAt(_)
            | Disturbance::RelayKilledAt(_) => match is_known {
                true => vec![unchanged, as_planned, rebased],
                false => vec![as_planned, rebased],
            },
        }
    }

    fn start_agent(&mut self) {
        self.agent = Some(start_agent(&self.world, &self.link, &self.target));
    }

    /// Has rsync compare what is managed, where nobody changed it on the agent's side; after a mirror
    /// everything that is not ignored there.
    fn compare_by_rsync(&self, source: &Tree, target: &Tree, after: &Tree) {
        let beside = match self.request.mirror {
            true => {
                let pushable = pushed_of(after);
                let is_beside =
                    |path: &&PathBuf| !target.contains_key(*path) && !pushable.contains_key(*path);
                after.keys().filter(is_beside).collect()
            }
            false => differing(target, after),
        };
        let unpushed = source.keys().filter(|path| !target.contains_key(*path));
        let excluded = excluding(unpushed.chain(beside));
        let mut rsync = Command::new("rsync");
        rsync.args(["-rlpn", "--delete", "--itemize-changes", "--checksum"]);
        rsync.args(["--exclude=/.patchwire", "--from0", "--exclude-from=-"]);
        rsync.arg(self.source.join("")).arg(self.target.join(""));
        rsync.stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut child) = rsync.spawn() else {
            if self.pushes == 1 {
                skipped("rsync is not installed: compared by our own means alone");
            }
            return;
        };
        child.stdin.take().unwrap().write_all(&excluded).unwrap();
        let output = child.wait_with_output().unwrap();
        let listed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && listed.is_empty(), "{listed}");
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        if thread::panicking() {
            self.world.dir.disable_cleanup(true);
            eprintln!(
                "push {} of PATCHWIRE_MODEL_SEED={} failed; all is in {}",
                self.pushes,
                self.seed,
                self.world.dir.path().display()
            );
        }
    }
}

/// Checks what a report says of what is not as it was committed.
fn check_words(
    before: &expectation::Agent<'_>,
    after: &Tree,
    report: &PushReport,
    mirror: bool,
    context: &str,
) {
    let drift: BTreeSet<_> = report.drift.iter().map(RelativePath::as_path).collect();
    let is_whole = report.drift.len() < limits::LISTED;
    for path in before.drift() {
        assert!(
            !is_whole || drift.contains(&**path),
            "{path:?} is no drift: {context}"
        );
    }
    for path in drift {
        let committed = before.committed.and_then(|tree| tree.get(path));
        assert!(
            committed != before.disk.get(path),
            "{path:?} is drift: {context}"
        );
    }
    let is_whole = report.warnings.len() < limits::LISTED;
    let asked_for = match mirror {
        // To take it away is what a mirror is for.
        true => before.standing_for_mirror(),
        false => Tree::new(),
    };
    let aside = before.moved_aside(after);
    for path in aside.filter(|path| !asked_for.contains_key(*path)) {
        let path = RelativePath::new(path.as_os_str().as_encoded_bytes()).unwrap();
        let name = format!("{path} was not part of the tree");
        assert!(
            !is_whole || report.warnings.iter().any(|text| text.starts_with(&name)),
            "{path:?} is gone in silence: {context}"
        );
    }
}

/// Whether more than half of the files would be gone, were none of them moved.
fn asks(before: &expectation::Agent<'_>, target: &Tree, mirror: bool) -> bool {
    let stands = match mirror {
        true => before.standing_for_mirror(),
        false => before.standing(),
    };
    let bases = [before.committed, Some(&stands)];
    target.is_empty()
        || bases.into_iter().flatten().any(|base| {
            let files = base.iter();
            let files = files.filter(|(_, node)| !matches!(node, Node::Directory { .. }));
            let (gone, stay): (Vec<_>, Vec<_>) =
                files.partition(|(path, _)| !target.contains_key(*path));
            gone.len() > stay.len()
        })
}

fn differing<'a>(one: &'a Tree, other: &'a Tree) -> BTreeSet<&'a PathBuf> {
    let paths = one.keys().chain(other.keys());
    paths
        .filter(|path| one.get(*path) != other.get(*path))
        .collect()
}

fn client(link: &Link) -> Client {
    let options = ConnectOptions {
        wait: PATIENCE,
        ..ConnectOptions::default()
    };
    Client::new(link.read(), options)
}

fn start_agent(world: &World, link: &Link, root: &Path) -> Agent {
    let options = ["--reload", "none", "--ready", "alive:0s"];
    Agent::start(world, link, root, &options, &APP)
}
