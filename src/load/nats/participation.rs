//! A member's task: passes messages and time to its [`Member`], and what that decides to the run.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{NatsError, NatsServer, RunMessages};
use crate::load::Nanos;
use crate::load::shares::over::member::{Member, MemberSettings, Output};
use crate::load::shares::over::message::{Message, RunFacts, StopRequest};
use crate::load::shares::over::totals::LiveThresholds;
use crate::load::shares::over::{MeasurementReporter, MemberEvent, ParticipationSettings};
use crate::load::shares::record::{LostShare, PackedInterval, ShareProgress};

/// How long a member that has ended waits for the others.
const ENDING_PATIENCE: Duration = Duration::from_secs(20);

/// What the run passes to the task.
enum MemberCommand {
    Measured(PackedInterval, ShareProgress),
    Ended,
}

/// A share's part in the coordination of its run; dropping it ends that.
pub struct Participation {
    events: UnboundedReceiver<MemberEvent>,
    commands: UnboundedSender<MemberCommand>,
    task: JoinHandle<Vec<LostShare>>,
}

impl Participation {
    /// Announces the share.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn begin(server: NatsServer, settings: ParticipationSettings) -> Result<Self, NatsError> {
        let own = format!("to.{}", settings.member.share.index() + 1);
        let (to_run, events) = unbounded_channel();
        let (commands, from_run) = unbounded_channel();
        let run = &settings.run;
        let received = [
            server.subscribe(run, "tick").await?,
            server.subscribe(run, "control").await?,
            server.subscribe(run, &own).await?,
        ];
        let member = Member::new(settings.member.clone());
        let live = LiveThresholds::new(&settings.member.facts, settings.thresholds.clone(), settings.changing_load);
        let task = MemberTask {
            server,
            settings,
            member,
            live,
            to_run,
            began: Instant::now(),
            statuses: None,
            over: None,
            lost: Vec::new(),
        };
        let task = tokio::spawn(task.run(received, from_run));
        Ok(Self { events, commands, task })
    }

    /// Returns what happens next; never returns after the task has failed.
    pub async fn next_event(&mut self) -> MemberEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Returns what takes the measurements of each second.
    pub fn reporter(&self) -> MeasurementReporter {
        let commands = self.commands.clone();
        // The task ends only after the run.
        Box::new(move |interval, done| drop(commands.send(MemberCommand::Measured(interval, done))))
    }

    /// Notes that the load has ended, and waits until that of all others has. Returns the shares that are lost.
    pub async fn end(mut self) -> Vec<LostShare> {
        drop(self.commands.send(MemberCommand::Ended));
        drop(self.commands);
        // The queue would grow.
        self.events.close();
        self.task.await.unwrap_or_default()
    }
}

struct MemberTask {
    server: NatsServer,
    settings: ParticipationSettings,
    member: Member<PackedInterval>,
    live: LiveThresholds,
    to_run: UnboundedSender<MemberEvent>,
    began: Instant,
    /// What all members report, while this one leads.
    statuses: Option<RunMessages>,
    over: Option<Vec<LostShare>>,
    lost: Vec<LostShare>,
}

impl MemberTask {
    async fn run(
        mut self,
        received: [RunMessages; 3],
        mut from_run: UnboundedReceiver<MemberCommand>,
    ) -> Vec<LostShare> {
        let [mut ticks, mut control, mut own] = received;
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut until = None;
        while self.over.is_none() && until.is_none_or(|until| Instant::now() < until) {
            let outputs = tokio::select! {
                _ = seconds.tick() => {
                    let outputs = self.member.on_second(self.now(), unix_now(), self.server.is_connected());
                    self.complete_second().await;
                    outputs
                }
                Some(message) = ticks.next() => self.receive(message),
                Some(message) = control.next() => self.receive(message),
                Some(message) = own.next() => self.receive(message),
                Some(message) = next_status(&mut self.statuses) => self.receive(message),
                command = from_run.recv(), if until.is_none() => match command {
                    Some(MemberCommand::Measured(interval, done)) => {
                        self.member.measure(interval, done);
                        Vec::new()
                    }
                    Some(MemberCommand::Ended) => {
                        self.member.end();
                        until = Some(Instant::now() + ENDING_PATIENCE);
                        Vec::new()
                    }
                    // The run did not begin.
                    None => return Vec::new(),
                },
            };
            self.carry_out(outputs).await;
        }
        self.server.flush().await;
        self.over.unwrap_or(self.lost)
    }

    fn now(&self) -> Nanos {
        self.began.elapsed().as_nanos() as Nanos
    }

    fn receive(&mut self, message: Message<PackedInterval>) -> Vec<Output<PackedInterval>> {
        if let Message::Tick(tick) = &message {
            self.lost.clone_from(&tick.lost);
            if tick.start.is_none() {
                drop(self.to_run.send(MemberEvent::Ready(tick.ready)));
            }
        }
        self.member.receive(self.now(), unix_now(), message)
    }

    /// Describes the run to watchers, and judges it as a whole, while this member leads.
    async fn complete_second(&mut self) {
        if let Some(complaint) = self.server.take_complaint() {
            drop(self.to_run.send(MemberEvent::Warn(complaint)));
        }
        if !self.member.is_leading() {
            return;
        }
        let MemberSettings { facts, share, .. } = &self.settings.member;
        let seconds = self.settings.duration.as_secs();
        let facts = Box::new(RunFacts { common: facts.clone(), shares: share.of(), seconds });
        self.server.publish(&self.settings.run, Message::Facts(facts)).await;
        if let Some(broken) = self.live.broken_threshold() {
            let reason = format!("threshold broken for too long: {broken}");
            let outputs = self.member.stop_all(StopRequest { at_once: false, by_threshold: true, reason });
            self.carry_out(outputs).await;
        }
    }

    async fn carry_out(&mut self, outputs: Vec<Output<PackedInterval>>) {
        for output in outputs {
            let event = match output {
                Output::Publish(message) => {
                    if let Message::Tick(tick) = &message {
                        self.lost.clone_from(&tick.lost);
                        if tick.start.is_none() {
                            drop(self.to_run.send(MemberEvent::Ready(tick.ready)));
                        }
                    }
                    self.server.publish(&self.settings.run, message).await;
                    continue;
                }
                Output::Lead(begins) => {
                    self.live.begin_anew();
                    let run = &self.settings.run;
                    self.statuses = if begins { self.server.subscribe(run, "share.*").await.ok() } else { None };
                    continue;
                }
                Output::Add(interval) => {
                    self.live.add(&interval);
                    continue;
                }
                Output::Over(lost) => {
                    self.over = Some(lost);
                    continue;
                }
                Output::Begin(start) => MemberEvent::Begin(start),
                Output::Refuse(text) => {
                    // The others learn of it.
                    drop(timeout(Duration::from_secs(1), self.server.flush()).await);
                    MemberEvent::Refuse(text)
                }
                Output::Stop(request) => MemberEvent::Stop(request),
                Output::Hold(change) => MemberEvent::Hold(change),
                Output::Warn(text) => MemberEvent::Warn(text),
            };
            // The run may have ended.
            drop(self.to_run.send(event));
        }
    }
}

/// Returns the next status; waits for ever while this member does not lead.
async fn next_status(statuses: &mut Option<RunMessages>) -> Option<Message<PackedInterval>> {
    match statuses {
        Some(statuses) => statuses.next().await,
        None => std::future::pending().await,
    }
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64
}
