//! The task that runs the app: the shell around [`Supervisor`].

use std::{
    future::pending,
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use patchwire_protocol::app::AppState;
use rustix::process::Signal;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep_until, timeout},
};

use super::AppError;
use crate::{
    guard::Guard,
    output::OutputRing,
    process::{Group, Launch, Process, SpawnError},
    supervisor::{Input, OnExit, Output, Report, Supervisor},
};

/// How long a shutdown waits until the app's last lines are written to our own output.
const FLUSH: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) enum Request {
    /// No launch means the one before.
    Start {
        launch: Option<Arc<Launch>>,
        on_exit: OnExit,
        reply: Reply<u32>,
    },
    Stop(Reply<()>),
    Policy(OnExit, Reply<()>),
    Signal {
        signal: Signal,
        target: Target,
        reply: Reply<Group>,
    },
    Shutdown(Reply<()>),
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, AppError>>;

#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    FirstProcess,
    Group,
}

/// What the handles see of the app.
#[derive(Debug, Clone)]
pub(super) struct Status {
    pub(super) state: AppState,
    /// How often a process was started, or tried to be.
    pub(super) generation: u64,
    /// The newest line of output when it was started last.
    pub(super) mark: u64,
    /// What was, or is to be, started.
    pub(super) launch: Arc<Launch>,
    /// Why the last start failed.
    pub(super) failure: Option<Arc<SpawnError>>,
}

#[derive(Debug)]
pub(super) struct Task {
    supervisor: Supervisor,
    grace: Duration,
    guard: Option<Guard>,
    output: Arc<OutputRing>,
    status: watch::Sender<Status>,
    /// Until its group is gone.
    process: Option<Process>,
    /// Those who wait for a process, and for there to be none.
    starts: Vec<Reply<u32>>,
    stops: Vec<Reply<()>>,
}

impl Status {
    pub(super) fn new(launch: Arc<Launch>) -> Self {
        Self {
            state: AppState::default(),
            generation: 0,
            mark: 0,
            launch,
            failure: None,
        }
    }
}

impl Task {
    pub(super) fn new(
        grace: Duration,
        guard: Option<Guard>,
        output: Arc<OutputRing>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            supervisor: Supervisor::new(grace),
            grace,
            guard,
            output,
            status,
            process: None,
            starts: Vec::new(),
            stops: Vec::new(),
        }
    }

    /// Runs until a shutdown is done, or every handle is gone and the app too.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>, pass_output: bool) {
        let passing = pass_output.then(|| Passing::begin(Arc::clone(&self.output)));
        let shutdown = loop {
            let due = self.supervisor.poll_timeout();
            tokio::select! {
                request = requests.recv() => match request {
                    Some(Request::Shutdown(reply)) => break Some(reply),
                    Some(request) => self.handle_request(request),
                    None => break None,
                },
                input = next_input(&mut self.process, &self.output) => self.handle_input(input),
                () = until(due) => self.handle_timeout(),
            }
        };
        // Whoever asks from now on is refused.
        drop(requests);
        let stopped = self.stop_for_good().await;
        if let Some(passing) = passing {
            passing.finish(self.output.newest()).await;
        }
        if let Some(reply) = shutdown {
            answer(reply, stopped);
        }
    }

    async fn stop_for_good(&mut self) -> Result<(), AppError> {
        let (reply, mut stopped) = oneshot::channel();
        self.handle_request(Request::Stop(reply));
        loop {
            let due = self.supervisor.poll_timeout();
            tokio::select! {
                biased;
                stopped = &mut stopped => return stopped.unwrap_or(Err(AppError::ShutDown)),
                input = next_input(&mut self.process, &self.output) => self.handle_input(input),
                () = until(due) => self.handle_timeout(),
            }
        }
    }

    fn handle_request(&mut self, request: Request) {
        match request {
            Request::Start {
                launch,
                on_exit,
                reply,
            } => {
                if let Some(launch) = launch {
                    self.status.send_modify(|status| status.launch = launch);
                }
                self.supersede_starts();
                self.starts.push(reply);
                self.handle_input(Input::Start(on_exit));
            }
            Request::Stop(reply) => {
                self.supersede_starts();
                self.stops.retain(|stop| !stop.is_closed());
                self.stops.push(reply);
                self.handle_input(Input::Stop);
                self.answer_stops();
            }
            Request::Policy(on_exit, reply) => {
                self.handle_input(Input::Policy(on_exit));
                answer(reply, Ok(()));
            }
            Request::Signal {
                signal,
                target,
                reply,
            } => answer(reply, self.signal(signal, target)),
            // Handled where it ends the loop.
            Request::Shutdown(reply) => answer(reply, Err(AppError::ShutDown)),
        }
    }

    fn handle_input(&mut self, input: Input) {
        match input {
            Input::Exited(exit) => {
                self.output.flush(now_ms());
                self.status.send_modify(|status| {
                    status.state.running = false;
                    status.state.pid = None;
                    status.state.exit = Some(exit);
                });
            }
            Input::GroupGone => {
                self.output.flush(now_ms());
                self.process = None;
                self.tell_guard(Guard::release);
                self.answer_stops();
            }
            Input::Start(_) | Input::Stop | Input::Policy(_) | Input::SpawnFailed => {}
        }
        self.supervisor.handle_input(input, Instant::now());
        self.perform();
    }

    fn handle_timeout(&mut self) {
        self.supervisor.handle_timeout(Instant::now());
        self.perform();
    }

    fn perform(&mut self) {
        while let Some(output) = self.supervisor.poll_output() {
            match output {
                Output::Spawn => self.spawn(),
                Output::Terminate => self.end(Group::terminate),
                Output::Kill => {
                    tracing::warn!(grace = ?self.grace, "the app does not end: killing it");
                    self.end(|group| group.signal(Signal::KILL));
                }
                Output::Report(report) => self.report(report),
            }
        }
    }

    fn spawn(&mut self) {
        let restarts = self.supervisor.restarts();
        let launch = Arc::clone(&self.status.borrow().launch);
        let spawned = launch.spawn();
        let spawned = spawned.map_err(Arc::new);
        let pid = spawned.as_ref().ok().map(|process| process.group().id());
        self.status.send_modify(|status| {
            status.generation += 1;
            status.mark = self.output.newest();
            status.failure = spawned.as_ref().err().cloned();
            status.state = AppState {
                running: pid.is_some(),
                pid,
                // What ended an app that was started on purpose is history.
                exit: status.state.exit.filter(|_| restarts > 0),
                restarts,
            };
        });
        let result = match spawned {
            Ok(process) => {
                let group = process.group();
                tracing::info!(pid = group.id(), restarts, "the app is started");
                let grace = self.grace;
                self.tell_guard(|guard| guard.watch(group, grace));
                self.process = Some(process);
                Ok(group.id())
            }
            Err(error) => {
                tracing::warn!(error = &*error as &dyn std::error::Error, "no app");
                self.supervisor
                    .handle_input(Input::SpawnFailed, Instant::now());
                Err(AppError::Spawn(error))
            }
        };
        for start in self.starts.drain(..) {
            answer(start, result.clone());
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Crashed(exit) => tracing::warn!(%exit, "the app ended by itself"),
            Report::Restarting { after } => tracing::info!(?after, "the app is started again"),
            Report::Stopped => tracing::info!("the app is stopped"),
            Report::Stuck => {
                tracing::error!("the app's processes were killed and still do not end");
                for start in self.starts.drain(..) {
                    answer(start, Err(AppError::Stuck));
                }
                for stop in self.stops.drain(..) {
                    answer(stop, Err(AppError::Stuck));
                }
            }
        }
    }

    fn end(&self, end: impl FnOnce(Group) -> io::Result<()>) {
        if let Some(process) = &self.process
            && let Err(error) = end(process.group())
        {
            tracing::error!(%error, "the app's processes cannot be signalled");
        }
    }

    fn signal(&self, signal: Signal, target: Target) -> Result<Group, AppError> {
        let process = self.process.as_ref().ok_or(AppError::NotRunning)?;
        let group = process.group();
        let sent = match target {
            // Waited for, its id may be someone else's.
            Target::FirstProcess if process.exit().is_some() => return Err(AppError::NotRunning),
            Target::FirstProcess => group.signal_first(signal),
            Target::Group => group.signal(signal),
        };
        sent.map_err(|error| AppError::Signal(Arc::new(error)))?;
        Ok(group)
    }

    fn tell_guard(&self, tell: impl FnOnce(&Guard) -> io::Result<()>) {
        if let Some(guard) = &self.guard
            && let Err(error) = tell(guard)
        {
            tracing::warn!(%error, "the guard is lost: if the agent is killed, the app outlives it");
        }
    }

    fn supersede_starts(&mut self) {
        for start in self.starts.drain(..) {
            answer(start, Err(AppError::Superseded));
        }
    }

    fn answer_stops(&mut self) {
        if self.process.is_none() {
            for stop in self.stops.drain(..) {
                answer(stop, Ok(()));
            }
        }
    }
}

/// Writes the app's output to our own.
#[derive(Debug)]
struct Passing {
    task: JoinHandle<()>,
    written: watch::Receiver<u64>,
}

impl Passing {
    fn begin(output: Arc<OutputRing>) -> Self {
        let (sender, written) = watch::channel(0);
        let task = tokio::spawn(async move {
            let (stdout, stderr) = (tokio::io::stdout(), tokio::io::stderr());
            let error = output.forward(0, stdout, stderr, &sender).await;
            tracing::warn!(%error, "the app's output is no longer passed on");
        });
        Self { task, written }
    }

    async fn finish(mut self, newest: u64) {
        let written = self.written.wait_for(|written| *written >= newest);
        if timeout(FLUSH, written).await.is_err() {
            tracing::debug!("nobody takes the app's last lines");
        }
        self.task.abort();
    }
}

/// What happens to the process next. Dropping the future loses nothing.
async fn next_input(process: &mut Option<Process>, output: &OutputRing) -> Input {
    let Some(process) = process else {
        return pending().await;
    };
    let sink = &mut |stream, bytes: &[u8]| output.push(stream, bytes, now_ms());
    match process.exit() {
        None => Input::Exited(process.wait(sink).await),
        Some(_) => {
            process.gone(sink).await;
            Input::GroupGone
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}

/// Whoever asked may not be interested any more.
fn answer<T>(reply: Reply<T>, result: Result<T, AppError>) {
    drop(reply.send(result));
}

fn now_ms() -> u64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
