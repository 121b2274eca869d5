//! `hubproof observe`: judges the traffic between clients and a hub, as it passes a proxy or as it was recorded.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, ValueEnum};
use hubproof_reference::relay::{
    Relay, RelayConfig, RelayEvent, RelayEventKind, RelayObserver, RelayTask, RelayedHub, start_relay,
};
use hubproof_reference::server::args::parse_listen_address;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::record::{MAX_BYTES, create_recording, lines_of_event, next_event};
use super::relay::{relayed_hub, warn_of_open_address};
use crate::cli::load::plans::job_rules;
use crate::cli::load::start_live_page;
use crate::cli::report_sink::{EventLog, OBSERVE_FORMATS, ReportSinks, report_help};
use crate::cli::signals::SignalListener;
use crate::cli::tls_args::TlsArgs;
use crate::cli::{CliError, build_runtime, print_to_stderr, print_to_stdout, protocol_files};
use crate::config::parse_duration;
use crate::import::recording::{RecordedEvent, RecordedLine, SentFrame, Side, read_lines};
use crate::load::pages::{LivePage, LiveUpdate, MetricsPage, parse_address, stopped_on};
use crate::observe::judge::TrafficJudge;
use crate::observe::report::{ObservedRun, ObservedTraffic, finding_event, first_event};
use crate::observe::tap::WireTap;
use crate::redact::{SecretMasker, address_secrets, mask_credentials};
use crate::report::html;
use crate::syntax::source::Sources;
use crate::transport::Endpoint;

/// Most events that can wait to be judged, of up to 16 KiB each. Beyond it, whole connections are left out.
const QUEUE_LENGTH: usize = 4096;
/// How often the metrics and the live page are updated.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);
/// Most files of a recording that are kept.
const KEPT_FILES: usize = 8;

/// Judge the traffic between clients and a hub, as it passes a proxy or as it was recorded
///
/// With `--upstream`, clients connect to the proxy instead of the hub. Bytes pass unchanged, apart from the host and the
/// offer of compression in the request for an upgrade. The path that a client requests is relative to the URL. Both sides
/// are judged by the schemas of their messages and by RFC 6455, the hub also by what the pack demands of every frame, and
/// both by the ids of requests and replies. Ctrl-C ends the run and prints the report. If the judge cannot keep up, whole
/// connections are left out, and the report says how many. With `--replay`, a recording is judged in the same way.
#[derive(Args)]
pub struct ObserveArgs {
    /// URL of the hub: ws:// or wss://
    #[arg(long, value_name = "URL", required_unless_present = "replay", conflicts_with = "replay")]
    upstream: Option<String>,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = parse_listen_address)]
    listen: SocketAddr,
    /// Judge a recording: a file of `record`, or a folder of `observe --record`
    #[arg(long, value_name = "PATH")]
    replay: Option<PathBuf>,
    /// Protocol the hub speaks
    #[arg(long, value_name = "NAME", required_unless_present = "pack", conflicts_with = "pack")]
    protocol: Option<String>,
    #[command(flatten)]
    pack: protocol_files::PackArgs,
    /// Judge only this side
    #[arg(long, value_name = "SIDE", value_enum)]
    side: Option<JudgedSide>,
    /// How long to wait for an answer that the document names
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    patience: Duration,
    /// Folder to record the traffic in, with secrets masked; only the newest 8 files of 16 MiB are kept
    #[arg(long, value_name = "DIR", conflicts_with = "replay")]
    record: Option<PathBuf>,
    /// Serve Prometheus metrics at this address during the run
    #[arg(long, value_name = "ADDR", value_parser = parse_listen_address, conflicts_with = "replay")]
    metrics: Option<SocketAddr>,
    /// Serve a page of what is observed: a port on this machine, or IP:PORT
    #[arg(long, value_name = "ADDR", value_parser = parse_address, conflicts_with = "replay")]
    live: Option<SocketAddr>,
    #[arg(long = "report", value_name = "FORMAT=PATH", help = report_help(OBSERVE_FORMATS))]
    reports: Vec<String>,
    /// Fail the run on warnings
    #[arg(long)]
    strict: bool,
    /// Print only the addresses, errors and the verdict line
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum JudgedSide {
    Hub,
    Client,
}

pub fn run_observe(arguments: ObserveArgs) -> Result<u8, CliError> {
    let sinks = ReportSinks::parse(&arguments.reports, OBSERVE_FORMATS)?.with_quiet(arguments.quiet);
    let endpoint: Option<Endpoint> = arguments.upstream.as_deref().map(str::parse).transpose()?;
    let judge = arguments.judge(endpoint.as_ref())?;
    let run = match &arguments.replay {
        Some(path) => replay_recordings(path, judge, &sinks.start_events()?, arguments.strict)?,
        None => observe_live(&arguments, judge, &sinks)?,
    };
    sinks.write(&run)?;
    Ok(run.exit_code())
}

impl ObserveArgs {
    fn judge(&self, endpoint: Option<&Endpoint>) -> Result<TrafficJudge, CliError> {
        let mut sources = Sources::default();
        let loaded = match (&self.pack.pack, &self.protocol) {
            (Some(path), _) => protocol_files::load_user_pack(path, self.pack.perspective, &mut sources)?,
            (None, name) => protocol_files::load_built_in(name.as_deref().unwrap_or_default(), &mut sources)?,
        };
        let valid = loaded.into_valid(&sources)?;
        let only = self.side.map(|side| match side {
            JudgedSide::Hub => Side::Hub,
            JudgedSide::Client => Side::Client,
        });
        let masker = SecretMasker::new(endpoint.into_iter().flat_map(address_secrets));
        // Every program has the same `always`.
        let program = valid.scenarios.programs.first().cloned();
        let rules = job_rules(&valid, &sources);
        Ok(TrafficJudge::new(valid.pack, program, only, self.patience, masker).with_jobs(rules))
    }
}

/// Judges recordings in the order of their names. The run begins and ends with their first and last line.
fn replay_recordings(
    path: &Path,
    mut judge: TrafficJudge,
    log: &EventLog,
    strict: bool,
) -> Result<ObservedRun, CliError> {
    let target = path.display().to_string();
    let (mut started, mut ended) = (None, 0);
    for path in recordings_at(path)? {
        let mut sources = Sources::default();
        let file = protocol_files::read_file(&path, &mut sources)?;
        let lines = read_lines(file, &sources).map_err(|found| CliError::from_diagnostics(&[found], &sources))?;
        for line in &lines {
            if started.is_none() {
                started = Some(line.time);
                log.write(|| first_event(unix_ms(line.time), &judge.traffic().protocol, &target));
            }
            ended = ended.max(line.time);
            for index in judge.judge_line(line) {
                log.write(|| finding_event(&judge.findings().list[index]));
            }
        }
    }
    for index in judge.finish() {
        log.write(|| finding_event(&judge.findings().list[index]));
    }
    let started = unix_ms(started.unwrap_or_default());
    let duration = Duration::from_millis(unix_ms(ended).saturating_sub(started));
    Ok(ObservedRun { traffic: judge.traffic(), target, started, duration, strict, failure: None })
}

fn unix_ms(time: i64) -> u64 {
    u64::try_from(time).unwrap_or_default()
}

/// Returns the file at a path, or the recordings in the folder there.
fn recordings_at(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |error: std::io::Error| CliError::failed(format!("failed to read {}", path.display()), error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        found.extend(Some(path).filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")));
    }
    found.sort();
    Ok(found)
}

/// Runs the proxy until a signal, and judges what passes.
fn observe_live(
    arguments: &ObserveArgs,
    judge: TrafficJudge,
    sinks: &ReportSinks<ObservedRun>,
) -> Result<ObservedRun, CliError> {
    let url = arguments.upstream.as_deref().unwrap_or_default();
    let hub = relayed_hub(url, &arguments.tls)?;
    let recorder = arguments.record.as_deref().map(TrafficRecorder::new).transpose()?;
    let target = mask_credentials(url).into_owned();
    let (started, begun) = (SystemTime::now().duration_since(SystemTime::UNIX_EPOCH), Instant::now());
    let started = u64::try_from(started.unwrap_or_default().as_millis()).unwrap_or_default();
    build_runtime()?.block_on(async {
        let mut signals = SignalListener::listen()?;
        warn_of_open_address(arguments.listen);
        let log = sinks.start_events()?;
        let live = LiveJudge::new(judge, recorder, log.clone(), arguments.quiet);
        let judge = Arc::clone(&live.judge);
        let observed = ObservedRelay::start(hub, arguments.listen, live).await?;
        let addresses = format!("observe {}\nhub {target}", observed.running.url);
        if sinks.takes_stdout() {
            print_to_stderr(&addresses)
        } else {
            print_to_stdout(&(addresses + "\n"))
        }
        log.write(|| first_event(started, &judge.lock().traffic().protocol, &target));
        let metrics = match arguments.metrics {
            Some(address) => Some(MetricsPage::start(address).await?),
            None => None,
        };
        let live = match arguments.live {
            Some(address) => Some(start_live_page(address, "hubproof observe", "Observed traffic").await?),
            None => None,
        };
        let so_far = |traffic, failure| ObservedRun {
            traffic,
            target: target.clone(),
            started,
            duration: begun.elapsed(),
            strict: arguments.strict,
            failure,
        };
        tokio::select! {
            () = signals.wait_for_signal() => {}
            () = stopped_on(live.as_ref()) => {}
            () = update_pages(metrics.as_ref(), live.as_ref(), || so_far(judge.lock().traffic(), None)) => {}
        }
        let (traffic, failure) = observed.end().await;
        let run = so_far(traffic, failure);
        if let Some(live) = live {
            let view = run.view(false);
            live.finish_with(move || html::observed::update(&view).ok()).await;
        }
        Ok(run)
    })
}

/// Updates the metrics and the live page every second; never ends.
async fn update_pages(metrics: Option<&MetricsPage>, live: Option<&LivePage>, so_far: impl Fn() -> ObservedRun) {
    let (metrics, live) = (metrics.map(MetricsPage::page), live.map(|live| live.follow_run(None)));
    if metrics.is_none() && live.is_none() {
        return std::future::pending().await;
    }
    for number in 0.. {
        let run = so_far();
        if let Some(page) = &metrics {
            *page.lock() = run.traffic.metrics();
        }
        if let Some(feed) = &live {
            feed.send_update(|_| {
                move || LiveUpdate { content: html::observed::update(&run.view(true)).ok(), number, is_next: false }
            });
        }
        tokio::time::sleep(UPDATE_INTERVAL).await;
    }
}

/// A relay whose traffic is judged.
struct ObservedRelay {
    running: Relay,
    judge: Arc<Mutex<TrafficJudge>>,
    judging: JoinHandle<()>,
}

impl ObservedRelay {
    /// Starts to relay and to judge.
    ///
    /// # Errors
    /// The address cannot be used.
    async fn start(hub: RelayedHub, listen: SocketAddr, live: LiveJudge) -> Result<Self, CliError> {
        let (channel, events) = mpsc::channel(QUEUE_LENGTH);
        let task = RelayTask::Observe(RelayObserver { channel, left_out: Some(Arc::clone(&live.left_out)) });
        let running = start_relay(RelayConfig { hub, listen, task }).await?;
        let judge = Arc::clone(&live.judge);
        let judging = tokio::task::spawn_blocking(move || live.judge_events(events));
        Ok(Self { running, judge, judging })
    }

    /// Ends the relay. Returns what was observed, and why not all of it was judged.
    async fn end(self) -> (ObservedTraffic, Option<String>) {
        self.running.shutdown().await;
        let failure = self.judging.await.err().map(|error| format!("the judge failed, please report this: {error}"));
        let traffic = self.judge.lock().traffic();
        (traffic, failure)
    }
}

/// Judges the events of a relay.
struct LiveJudge {
    /// Shared, so that the findings outlive a judge that panics.
    judge: Arc<Mutex<TrafficJudge>>,
    tap: WireTap,
    /// The connections that the relay has left out since the last event.
    left_out: Arc<Mutex<Vec<u64>>>,
    /// The connections of which events may still be queued although the relay has left them out.
    skipped: HashSet<u64>,
    recorder: Option<TrafficRecorder>,
    log: EventLog,
    quiet: bool,
    /// What the judge does before each event.
    #[cfg(test)]
    disturbance: Option<Box<dyn FnMut() + Send>>,
}

impl LiveJudge {
    fn new(judge: TrafficJudge, recorder: Option<TrafficRecorder>, log: EventLog, quiet: bool) -> Self {
        Self {
            judge: Arc::new(Mutex::new(judge)),
            tap: WireTap::default(),
            left_out: Arc::default(),
            skipped: HashSet::new(),
            recorder,
            log,
            quiet,
            #[cfg(test)]
            disturbance: None,
        }
    }

    fn judge_events(mut self, mut events: mpsc::Receiver<RelayEvent>) {
        loop {
            let recorder = &mut self.recorder;
            let flush = || recorder.as_mut().map_or(Ok(()), TrafficRecorder::flush);
            match next_event(&mut events, flush) {
                Ok(Some(event)) => self.judge_event(event),
                Ok(None) => break,
                Err(error) => self.stop_recording(&error),
            }
        }
        self.take_left_out();
        let mut judge = self.judge.lock();
        let new = judge.finish();
        self.report(&judge, new);
        drop(judge);
        if let Some(Err(error)) = self.recorder.as_mut().map(TrafficRecorder::flush) {
            self.stop_recording(&error);
        }
    }

    fn take_left_out(&mut self) {
        for connection in std::mem::take(&mut *self.left_out.lock()) {
            self.tap.end(connection);
            self.judge.lock().leave_out(connection);
            self.skipped.insert(connection);
        }
    }

    /// Prints new findings.
    fn report(&self, judge: &TrafficJudge, new: Vec<usize>) {
        for finding in new.into_iter().map(|index| &judge.findings().list[index]) {
            if !self.quiet {
                print_to_stderr(&finding.headline());
            }
            self.log.write(|| finding_event(finding));
        }
    }

    fn judge_event(&mut self, event: RelayEvent) {
        #[cfg(test)]
        if let Some(disturb) = &mut self.disturbance {
            disturb();
        }
        self.take_left_out();
        if self.skipped.contains(&event.connection) {
            return;
        }
        let ended = matches!(event.what, RelayEventKind::Ended).then_some(event.connection);
        for line in lines_of_event(&mut self.tap, event) {
            let mut judge = self.judge.lock();
            let new = judge.judge_line(&line);
            self.report(&judge, new);
            let recorded = self.recorder.as_mut().map(|recorder| recorder.write(&judge.findings().masked_line(&line)));
            drop(judge);
            if let Some(Err(error)) = recorded {
                self.stop_recording(&error);
            }
        }
        if let Some(connection) = ended {
            let mut judge = self.judge.lock();
            let new = judge.end(connection);
            self.report(&judge, new);
        }
    }

    fn stop_recording(&mut self, error: &std::io::Error) {
        if let Some(recorder) = self.recorder.take() {
            eprintln!("warning: recording to {} stops: {error}", recorder.folder.display());
        }
    }
}

/// Writes a recording in files of limited size, and keeps only the newest.
struct TrafficRecorder {
    folder: PathBuf,
    /// The number of the next file.
    next: u64,
    file: Option<BufWriter<File>>,
    bytes: usize,
    /// The files of this run.
    written: VecDeque<PathBuf>,
}

impl TrafficRecorder {
    fn new(folder: &Path) -> Result<Self, CliError> {
        let failed = |error| CliError::failed(format!("failed to record to {}", folder.display()), error);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let taken = |path: &PathBuf| {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix("traffic-").and_then(|number| number.parse::<u64>().ok())
        };
        let next = recordings_at(folder)?.iter().filter_map(taken).max().map_or(1, |last| last.saturating_add(1));
        let (folder, written) = (folder.to_owned(), VecDeque::new());
        Ok(Self { folder, next, file: None, bytes: 0, written })
    }

    fn write(&mut self, line: &RecordedLine) -> std::io::Result<()> {
        let mut text = format!("{}\n", line.render());
        if text.len() > MAX_BYTES
            && let RecordedEvent::Sent { by, .. } = line.event
        {
            let what = "a message that no recording holds".to_owned();
            let what = SentFrame::Broken { what, section: "10.4".to_owned(), bound: true };
            let event = RecordedEvent::Sent { by, what };
            text = format!("{}\n", RecordedLine { event, time: line.time, connection: line.connection }.render());
        }
        if self.file.is_none() || self.bytes + text.len() > MAX_BYTES {
            self.flush()?;
            let path = self.folder.join(format!("traffic-{:06}.jsonl", self.next));
            self.file = Some(BufWriter::new(create_recording(&path)?));
            (self.next, self.bytes) = (self.next + 1, 0);
            self.written.push_back(path);
            if self.written.len() > KEPT_FILES
                && let Some(oldest) = self.written.pop_front()
            {
                std::fs::remove_file(oldest)?;
            }
        }
        self.bytes += text.len();
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), BufWriter::flush)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::reference::hubs::EmbeddedHubs;
    use crate::transport::{
        ConnectRequest, Connection, ConnectionCommand, ConnectionEvent, ConnectionId, IncomingEvent,
    };
    use crate::websocket::frame::Frame;

    /// A hub, and a relay whose judge does something before each event.
    struct DisturbedRelay {
        hub: EmbeddedHubs,
        observed: ObservedRelay,
    }

    impl DisturbedRelay {
        async fn start(disturbance: Box<dyn FnMut() + Send>) -> Self {
            let mut sources = Sources::default();
            let valid = protocol_files::load_built_in("qi", &mut sources).unwrap().into_valid(&sources).unwrap();
            let hub = EmbeddedHubs::start("qi", &valid.setups, None).await.unwrap();
            let judge = TrafficJudge::new(valid.pack, None, None, Duration::from_secs(30), SecretMasker::default());
            let mut live = LiveJudge::new(judge, None, EventLog::default(), true);
            live.disturbance = Some(disturbance);
            let relayed = relayed_hub(&hub.addresses().urls[0], &TlsArgs::default()).unwrap();
            let observed = ObservedRelay::start(relayed, "127.0.0.1:0".parse().unwrap(), live).await.unwrap();
            Self { hub, observed }
        }

        async fn connect(&self) -> Client {
            let (sender, mut events) = mpsc::channel(8);
            let request = ConnectRequest::new(self.observed.running.url.parse().unwrap());
            let connection = crate::transport::open_connection(ConnectionId(1), request, sender);
            let first = events.recv().await.unwrap().what;
            assert!(matches!(first, ConnectionEvent::Upgraded { .. }), "{first:?}");
            Client { connection, events }
        }

        async fn end(self) -> ObservedRun {
            let (traffic, failure) = self.observed.end().await;
            self.hub.shutdown().await;
            let (target, duration) = (String::new(), Duration::ZERO);
            ObservedRun { traffic, target, started: 0, duration, strict: false, failure }
        }
    }

    struct Client {
        connection: Connection,
        events: mpsc::Receiver<IncomingEvent>,
    }

    impl Client {
        /// Asks the hub for its status this often, and waits for each answer.
        async fn ask(&mut self, times: usize) {
            for _ in 0..times {
                let asked = Frame::text(r#"{"command":"status","version":"0.1.0"}"#);
                self.connection.send(ConnectionCommand::Frames(vec![asked])).unwrap();
                let answer = self.events.recv().await.unwrap().what;
                assert!(matches!(answer, ConnectionEvent::Message(_)), "{answer:?}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_relay_outlives_its_judge_and_the_verdict_is_inconclusive() {
        let (failed, failures) = channel();
        let relay = DisturbedRelay::start(Box::new(move || {
            failed.send(()).unwrap();
            panic!("an injected fault");
        }))
        .await;
        let mut client = relay.connect().await;
        tokio::task::spawn_blocking(move || failures.recv().unwrap()).await.unwrap();
        client.ask(100).await;
        let mut later = relay.connect().await;
        later.ask(1).await;
        drop((client, later));
        let run = relay.end().await;
        assert!(run.failure.as_ref().is_some_and(|why| why.contains("an injected fault")), "{:?}", run.failure);
        assert_eq!(run.exit_code(), 3);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_judge_that_falls_behind_leaves_out_whole_connections_and_the_report_has_the_share() {
        let (release, released) = channel::<()>();
        let (judged, events) = channel();
        let relay = DisturbedRelay::start(Box::new(move || {
            // Blocks until the test drops the other end.
            let _ = released.recv();
            let _ = judged.send(());
        }))
        .await;
        let mut flooding = relay.connect().await;
        // Each is an event, and its answer another one.
        flooding.ask(QUEUE_LENGTH / 2 + 10).await;
        drop((release, flooding));
        // The judge catches up, and then judges another connection completely.
        tokio::task::spawn_blocking(move || events.iter().take(QUEUE_LENGTH).count()).await.unwrap();
        let mut later = relay.connect().await;
        later.ask(1).await;
        drop(later);
        let run = relay.end().await;
        let totals = &run.traffic.totals;
        assert_eq!((totals.connections, totals.left_out, &run.failure), (2, 1, &None));
        assert!(run.verdict_line().contains("1 of 2 connections judged"), "{}", run.verdict_line());
    }
}
