//! The measurement of one workload: every engine once in each round, in turn.

use std::{
    fs::{self, File},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use indicatif::ProgressBar;

use super::{
    engines::{Engine, InProcess, Program},
    files::{Files, remove_if_present},
    operation::Operation,
    worker::{Made, Measured, Outcome, SingleRounds, Worker},
    workloads::Workload,
};
use crate::{
    child::{Interruption, Running},
    compare::are_equal,
    measure::{Cost, Resident, Spread},
};

/// How to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) rounds: usize,
    pub(crate) block_size: u32,
    /// How long one run of an operation may take.
    pub(crate) limit: Duration,
}

/// What an operation of an engine has cost on a workload.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) engine: Engine,
    pub(crate) operation: Operation,
    /// The length of the basis or the target, whichever the operation is about.
    pub(crate) input_bytes: u64,
    /// One for each round; none if it stopped.
    pub(crate) costs: Vec<Cost>,
    /// In how many rounds it runs after the first: fewer than asked for if a program takes long.
    rounds: usize,
    /// Why it has no costs.
    pub(crate) stopped: Option<Stop>,
    /// The length of what it makes.
    pub(crate) output_bytes: Option<u64>,
    /// The length of the signature or delta it makes, once compressed.
    pub(crate) output_zstd_bytes: Option<u64>,
    /// In process, the most memory beyond the inputs; of a program, the most of a process of it.
    pub(crate) peak_bytes: Option<u64>,
}

/// Why an operation was not measured to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A run took longer than the limit.
    OverLimit {
        /// The time on the processor when it was killed.
        cpu: Duration,
    },
    /// Another operation, which makes what this one starts from, stopped.
    Without(Operation),
}

/// What was measured on a workload.
#[derive(Debug)]
pub(crate) struct Measurements {
    pub(crate) workload: Workload,
    /// The inputs are as long as asked for, where most engines get shorter ones of this workload.
    pub(crate) is_full_size: bool,
    pub(crate) basis_len: u64,
    pub(crate) target_len: u64,
    /// What a reader must know of the inputs.
    pub(crate) note: Option<String>,
    /// By operation, then by engine.
    pub(crate) figures: Vec<Figures>,
    /// What two rounds are held against.
    pub(crate) single_rounds: Option<SingleRounds>,
}

impl Measurements {
    /// The name of the workload, or of its variant.
    pub(crate) const fn name(&self) -> &'static str {
        match (self.workload, self.is_full_size) {
            (Workload::Collisions, true) => "collisions-full-size",
            (workload, _) => workload.name(),
        }
    }

    /// What was measured of an operation.
    pub(crate) fn of(&self, engine: Engine, operation: Operation) -> Option<&Figures> {
        let mut all = self.figures.iter();
        all.find(|figures| figures.engine == engine && figures.operation == operation)
    }

    /// The length of what an operation reads.
    pub(crate) const fn input_len(&self, operation: Operation) -> u64 {
        if operation.is_of_basis() {
            self.basis_len
        } else {
            self.target_len
        }
    }
}

impl Figures {
    /// The median time on a processor in seconds.
    pub(crate) fn cpu(&self) -> Option<f64> {
        self.median(|cost| cost.cpu)
    }

    /// The median time that passed in seconds.
    pub(crate) fn wall(&self) -> Option<f64> {
        self.median(|cost| cost.wall)
    }

    fn median(&self, of: impl Fn(&Cost) -> Duration) -> Option<f64> {
        let times = self.costs.iter().map(|cost| of(cost).as_secs_f64());
        Some(Spread::of(times.collect())?.median)
    }

    /// Takes down what a run has cost and made.
    fn take(&mut self, round: usize, cost: Cost, made: Made) {
        self.output_bytes = Some(made.bytes);
        self.output_zstd_bytes = made.zstd_bytes;
        self.peak_bytes = self.peak_bytes.max(cost.peak_bytes);
        if round == 0 && matches!(self.engine, Engine::Program(_)) {
            let fits = |rounds: &usize| {
                let rounds = u32::try_from(*rounds).unwrap_or(u32::MAX);
                cost.wall.saturating_mul(rounds) <= PROGRAM_BUDGET
            };
            self.rounds = (0..=self.rounds).rev().find(fits).unwrap_or_default();
        }
        // The first does not count, if there are others.
        if round > 0 || self.rounds == 0 {
            self.costs.push(cost);
        }
    }

    fn stop(&mut self, why: Stop) {
        self.costs.clear();
        self.output_bytes = None;
        self.output_zstd_bytes = None;
        self.peak_bytes = None;
        self.stopped = Some(why);
    }
}

/// How many runs `measure` makes, for its progress.
pub(crate) fn runs(workload: Workload, engines: &[Engine], rounds: usize) -> u64 {
    let operations = |engine: &Engine| {
        let all = engine.operations().iter();
        all.filter(|operation| workload.has(**operation)).count()
    };
    let in_rounds: usize = engines.iter().map(operations).sum();
    let in_process = |engine: &&Engine| matches!(engine, Engine::InProcess(_));
    let for_memory: usize = engines.iter().filter(in_process).map(operations).sum();
    (in_rounds * (rounds + 1) + for_memory) as u64
}

/// Where and how a workload is measured.
#[derive(Debug)]
pub(crate) struct Field<'a> {
    pub(crate) workload: Workload,
    pub(crate) terms: Terms,
    pub(crate) files: &'a Files,
    pub(crate) interruption: &'a Interruption,
    pub(crate) progress: &'a ProgressBar,
}

impl Field<'_> {
    /// Makes the workload, about `len` bytes long, and measures the engines on it.
    pub(crate) fn measure(&self, len: usize, engines: &[Engine]) -> anyhow::Result<Measurements> {
        let workload = self.workload;
        self.progress
            .set_message(format!("{}: making it", workload.name()));
        let mut maker = Worker::start(self.interruption)?;
        let note = maker.generate(workload, len, self.terms.block_size, self.files)?;
        drop(maker);
        let mut measurements = Measurements {
            workload,
            basis_len: fs::metadata(self.files.basis())?.len(),
            target_len: fs::metadata(self.files.target())?.len(),
            note,
            is_full_size: workload.len(len) < len,
            figures: Vec::new(),
            single_rounds: None,
        };
        for operation in Operation::ALL {
            if !workload.has(*operation) {
                continue;
            }
            let able = engines
                .iter()
                .filter(|engine| engine.operations().contains(operation));
            let figures = able.map(|engine| Figures {
                engine: *engine,
                operation: *operation,
                input_bytes: measurements.input_len(*operation),
                costs: Vec::new(),
                rounds: self.terms.rounds,
                stopped: None,
                output_bytes: None,
                output_zstd_bytes: None,
                peak_bytes: None,
            });
            measurements.figures.extend(figures.collect::<Vec<_>>());
        }
        self.run_rounds(&mut measurements.figures)?;
        self.weigh(&mut measurements.figures)?;
        if engines.contains(&Engine::PATCHWIRE) && workload.has(Operation::TwoRounds) {
            let name = workload.name();
            self.progress
                .set_message(format!("{name}: one round with blocks of each size"));
            let mut worker = self.start(InProcess::Patchwire)?;
            measurements.single_rounds = Some(worker.single_rounds()?);
        }
        Ok(measurements)
    }

    /// Measures the time.
    fn run_rounds(&self, figures: &mut [Figures]) -> anyhow::Result<()> {
        let mut workers: Vec<(InProcess, Option<Worker>)> = Vec::new();
        // Those that were killed before their output was there.
        let mut killed: Vec<(Engine, Operation)> = Vec::new();
        // The first round warms caches, allocators and the processor, and does not count.
        for round in 0..=self.terms.rounds {
            for turn in figures.chunk_by_mut(|one, other| one.operation == other.operation) {
                // Who begins has the caches as others left them: by turns, too.
                let first = round % turn.len();
                let (late, early) = turn.split_at_mut(first);
                for figures in early.iter_mut().chain(late) {
                    let (engine, operation) = (figures.engine, figures.operation);
                    self.show(engine, operation, &format!("round {round}"));
                    let needed = operation.needed();
                    if let Some(needed) = needed.filter(|of| killed.contains(&(engine, *of))) {
                        figures.stop(Stop::Without(needed));
                        killed.push((engine, operation));
                    }
                    if figures.stopped.is_some() || round > figures.rounds {
                        continue;
                    }
                    let outcome = match engine {
                        Engine::InProcess(engine) => {
                            let place = workers.iter().position(|(of, _)| *of == engine);
                            let place = place.unwrap_or_else(|| {
                                workers.push((engine, None));
                                workers.len() - 1
                            });
                            let (_, worker) = &mut workers[place];
                            self.run_in_process(engine, operation, Measured::Time, worker)
                        }
                        Engine::Program(program) => self.run_program(program, operation),
                    };
                    match outcome.with_context(|| self.named(engine, operation))? {
                        Outcome::Done { cost, made } if cost.wall <= self.terms.limit => {
                            figures.take(round, cost, made);
                        }
                        Outcome::Done { cost, .. } => {
                            figures.stop(Stop::OverLimit { cpu: cost.cpu });
                        }
                        Outcome::OverLimit { cpu } => {
                            figures.stop(Stop::OverLimit { cpu });
                            killed.push((engine, operation));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Measures the memory of in-process engines, each operation in a process that has done nothing
    /// else, and compresses what was made.
    fn weigh(&self, figures: &mut [Figures]) -> anyhow::Result<()> {
        let mut clerk = Worker::start(self.interruption)?;
        for figures in figures {
            let (engine, operation) = (figures.engine, figures.operation);
            if let Engine::InProcess(in_process) = engine {
                self.show(engine, operation, "memory");
                if figures.stopped.is_none() {
                    let outcome =
                        self.run_in_process(in_process, operation, Measured::Memory, &mut None);
                    let outcome = outcome.with_context(|| self.named(engine, operation))?;
                    if let Outcome::Done { cost, .. } = outcome {
                        figures.peak_bytes = cost.peak_bytes;
                    }
                }
            }
            let output = self.files.output(engine, operation);
            let is_compressed = figures.output_zstd_bytes.is_some();
            if figures.stopped.is_none() && !is_compressed && output.exists() {
                figures.output_zstd_bytes = Some(clerk.compressed_len(output)?);
            }
        }
        Ok(())
    }

    /// One run more.
    fn show(&self, engine: Engine, operation: Operation, what: &str) {
        let named = self.named(engine, operation);
        self.progress.set_message(format!("{named}, {what}"));
        self.progress.inc(1);
    }

    fn named(&self, engine: Engine, operation: Operation) -> String {
        format!(
            "{}: {} of {}",
            self.workload.name(),
            operation.name(),
            engine.name()
        )
    }

    /// Runs an operation in the worker of an engine; starts one if there is none, or none any more.
    fn run_in_process(
        &self,
        in_process: InProcess,
        operation: Operation,
        measured: Measured,
        place: &mut Option<Worker>,
    ) -> anyhow::Result<Outcome> {
        let worker = match place.take() {
            Some(worker) => worker,
            None => self.start(in_process)?,
        };
        let (worker, outcome) = worker.run(operation, measured, self.terms.limit)?;
        *place = worker;
        Ok(outcome)
    }

    /// Starts a worker with an engine.
    fn start(&self, in_process: InProcess) -> anyhow::Result<Worker> {
        let mut worker = Worker::start(self.interruption)?;
        worker.load(in_process, self.terms.block_size, self.files)?;
        Ok(worker)
    }

    /// Runs an operation of a program and checks what it makes.
    fn run_program(&self, program: Program, operation: Operation) -> anyhow::Result<Outcome> {
        let output = self.files.output(Engine::Program(program), operation);
        remove_if_present(&output)?;
        let mut command = program.prepare(operation, self.files, self.terms.block_size)?;
        let log = File::create(self.files.log())?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // A program begins as a copy of this process, and the kernel counts that into its peak. Where
        // it can't be reset that is a little more.
        let _ = Resident::reset_peak();

        let started = Instant::now();
        let mut running = Running::start(command)?;
        let ended = running.wait(self.interruption, started + self.terms.limit)?;
        let wall = started.elapsed();
        let Some(ended) = ended else {
            let used = running.kill()?;
            remove_if_present(&output)?;
            let cpu = used.utime + used.stime;
            return Ok(Outcome::OverLimit { cpu });
        };

        let printed = String::from_utf8_lossy(&fs::read(self.files.log())?).into_owned();
        if !ended.status.success() {
            self.interruption.check()?;
            bail!("{} has failed, {}: {printed}", program.name(), ended.status);
        }
        let is_target = !matches!(operation, Operation::Signature | Operation::Diff);
        let output_bytes = match program.transferred(&printed) {
            Some(bytes) => bytes,
            None => fs::metadata(&output)?.len(),
        };
        if is_target {
            ensure!(
                are_equal(&output, &self.files.target())?,
                "what {} has made is not the target",
                program.name()
            );
            fs::remove_file(&output)?;
        }
        let cost = Cost {
            cpu: ended.rusage.utime + ended.rusage.stime,
            wall,
            peak_bytes: Some(ended.rusage.maxrss),
        };
        let made = Made {
            bytes: output_bytes,
            zstd_bytes: None,
        };
        Ok(Outcome::Done { cost, made })
    }
}

/// How long the measured runs of one operation of a program may take together: so few rounds there
/// are of a slow one. Of one that takes longer alone, the first run is the only one.
const PROGRAM_BUDGET: Duration = Duration::from_secs(3);
