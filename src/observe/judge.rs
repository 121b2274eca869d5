//! Judges what passed on connections. The verdict depends only on the recorded lines and their times.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::explanations::{NOT_JSON, REPEATED_REPLY, UNANSWERED, UNASKED_REPLY, UNKNOWN_MESSAGE};
use super::findings::{Fault, FindingList, RecentFrames};
use super::jobs::{JobEvent, JobLedger, JobRule};
use super::kept::KeptMessages;
use super::ledger::{ReplyFault, RequestLedger, id_of};
use super::report::{ObservedTraffic, TrafficTotals};
use crate::import::recording::{RecordedEvent, RecordedLine, SentFrame, Side};
use crate::interpreter::decode::{JsonDecodeError, decode_json};
use crate::interpreter::{
    ComparisonOutcome, Exchange, SettingsContext, WEBSOCKET_CHECK, broken_schema_checks, compare, compare_frame,
    is_never_sent, judge_messages, rests_on_connection,
};
use crate::outcome::{CheckOutcome, Verdict, rule_verdict};
use crate::protocol::{FrameDirection, MessageType, Pack, RuleBasis, RuleLevel, SchemaViolation};
use crate::redact::{MASK, SecretMasker, is_secret_member};
use crate::report::text::{format_time, shorten};
use crate::scenario::Program;
use crate::scenario::model::{AlwaysEntry, CheckId, MatchPattern, RuleUse};
use crate::scenario::value::Traced;

/// The most connections that are followed at a time, and the most ids and the most memory for messages of all of them
/// together.
const MAX_CONNECTIONS: usize = 50_000;
const MAX_IDS: usize = 200_000;
const MAX_KEPT: usize = 64 << 20;
/// The characters of a value, an id or a kind of message that a finding quotes.
const MAX_QUOTED_CHARS: usize = 120;

/// Judges observed traffic by a pack.
pub struct TrafficJudge {
    pack: Arc<Pack>,
    /// A program of the pack, whose `always` every other program has, too; `None` if the pack has no scenario.
    program: Option<Arc<Program>>,
    names: Option<SettingsContext>,
    /// The side to judge; both if there is none.
    only: Option<Side>,
    /// How long a documented answer may take, in milliseconds.
    patience: i64,
    connections: BTreeMap<u64, ObservedConnection>,
    findings: FindingList,
    totals: TrafficTotals,
    id_count: usize,
    /// The memory that the kept messages of all connections take.
    kept: usize,
    /// Whether a check is about all messages of a connection.
    keeps_messages: bool,
    jobs: JobLedger,
}

/// What a judge remembers of a connection.
#[derive(Default)]
struct ObservedConnection {
    /// The requests of the hub, and those of the client.
    requests: [RequestLedger; 2],
    /// The ids of the lifecycles that the pack declares.
    exchange: Exchange,
    kept: KeptMessages,
    /// What the latest message says about jobs.
    job_events: Vec<JobEvent>,
    opened: Option<i64>,
    recent: RecentFrames,
    /// Which sides have sent a close frame.
    closed: [bool; 2],
}

impl ObservedConnection {
    /// Creates a connection of which the earlier frames were not observed.
    fn joined_later() -> Self {
        let mut connection = Self::default();
        connection.requests.iter_mut().for_each(|requests| requests.is_incomplete = true);
        connection.exchange.unknown = true;
        connection
    }

    fn id_count(&self) -> usize {
        self.exchange.id_count() + self.requests.iter().map(RequestLedger::id_count).sum::<usize>()
    }

    /// Records that it is not known how the other side understands what one side has sent.
    fn set_unknown(&mut self, side: Side) {
        self.requests[side as usize].is_incomplete = true;
        self.exchange.unknown |= side == Side::Client;
    }
}

impl TrafficJudge {
    /// Creates a judge. `masker` knows the secrets that are shown nowhere.
    pub fn new(
        pack: Arc<Pack>,
        program: Option<Arc<Program>>,
        only: Option<Side>,
        patience: Duration,
        masker: SecretMasker,
    ) -> Self {
        let names = program.as_ref().map(|program| SettingsContext::new(program, &BTreeMap::new()));
        let rests = |program: &Arc<Program>| program.always.iter().any(rests_on_connection);
        Self {
            keeps_messages: program.as_ref().is_some_and(rests),
            pack,
            program,
            names,
            only,
            patience: i64::try_from(patience.as_millis()).unwrap_or(i64::MAX),
            connections: BTreeMap::new(),
            findings: FindingList::new(masker),
            totals: TrafficTotals::default(),
            id_count: 0,
            kept: 0,
            jobs: JobLedger::default(),
        }
    }

    /// Returns a judge that also follows the jobs that these messages are about.
    pub fn with_jobs(self, rules: Vec<JobRule>) -> Self {
        Self { jobs: JobLedger::new(rules, self.patience), ..self }
    }

    /// Returns the findings so far.
    pub fn findings(&self) -> &FindingList {
        &self.findings
    }

    /// Judges a line. Returns the indices of the findings that are new.
    pub fn judge_line(&mut self, line: &RecordedLine) -> Vec<usize> {
        let is_opening = matches!(line.event, RecordedEvent::Opened { .. });
        let known = self.take(line.connection).filter(|_| !is_opening);
        let mut connection = known.unwrap_or_else(|| {
            self.totals.connections += 1;
            self.totals.joined += usize::from(!is_opening);
            if is_opening { ObservedConnection::default() } else { ObservedConnection::joined_later() }
        });
        self.findings.add_frame(line, &mut connection.recent);
        let mut new = Vec::new();
        match &line.event {
            RecordedEvent::Opened { .. } => connection.opened = Some(line.time),
            RecordedEvent::Sent { by, what } => {
                self.totals.frames[*by as usize] += 1;
                let faults = self.judge_frame(&mut connection, line.time, *by, what);
                new.extend(self.add_faults(*by, line.connection, faults, &mut connection));
                let events = std::mem::take(&mut connection.job_events);
                let faults = events.into_iter().filter_map(|event| self.jobs.add(event, line.connection, line.time));
                let faults: Vec<Fault> = faults.collect();
                new.extend(self.add_faults(Side::Hub, line.connection, faults, &mut connection));
                if matches!(what, SentFrame::Close { .. }) || connection.kept.is_full() || self.kept > MAX_KEPT {
                    new.extend(self.judge_messages(line.connection, &mut connection));
                }
                for side in Side::BOTH {
                    let faults = self.overdue_answers(&mut connection, side, line.time);
                    new.extend(self.add_faults(side, line.connection, faults, &mut connection));
                }
            }
        }
        self.kept += connection.kept.bytes();
        self.id_count += connection.id_count();
        if self.id_count > MAX_IDS {
            // Begin anew with this connection, as if it had been joined now.
            self.id_count -= connection.id_count();
            self.kept -= connection.kept.bytes();
            let recent = std::mem::take(&mut connection.recent);
            connection = ObservedConnection { recent, ..ObservedConnection::joined_later() };
        }
        self.connections.insert(line.connection, connection);
        if self.connections.len() > MAX_CONNECTIONS
            && let Some(oldest) = self.connections.keys().next().copied()
        {
            self.take(oldest);
        }
        new
    }

    fn take(&mut self, connection: u64) -> Option<ObservedConnection> {
        let known = self.connections.remove(&connection)?;
        self.id_count -= known.id_count();
        self.kept -= known.kept.bytes();
        Some(known)
    }

    /// Ends a connection on which nothing more passes. Returns the indices of the findings that are new.
    pub fn end(&mut self, connection: u64) -> Vec<usize> {
        let Some(mut known) = self.take(connection) else { return Vec::new() };
        self.judge_messages(connection, &mut known)
    }

    /// Ends all connections, and judges what became of the jobs. Returns the indices of the findings that are new.
    pub fn finish(&mut self) -> Vec<usize> {
        // What is missing may be about any job.
        let is_whole = self.totals.left_out == 0;
        let connections = &self.connections;
        let is_open = |number| connections.get(&number).is_some_and(|known| known.closed == [false; 2]);
        let lost = if is_whole { self.jobs.take_lost(is_open) } else { Vec::new() };
        let mut new = Vec::new();
        for (number, fault) in lost {
            let mut client = self.take(number).unwrap_or_default();
            new.extend(self.add_faults(Side::Hub, number, vec![fault], &mut client));
        }
        let open: Vec<u64> = self.connections.keys().copied().collect();
        new.extend(open.into_iter().flat_map(|number| self.end(number)));
        new
    }

    /// Forgets a connection of which later frames are not known.
    pub fn leave_out(&mut self, connection: u64) {
        // A connection that was never begun counts, too.
        if self.take(connection).is_none() {
            self.totals.connections += 1;
        }
        self.totals.left_out += 1;
    }

    /// Returns what was observed so far.
    pub fn traffic(&self) -> ObservedTraffic {
        let Self { pack, findings, totals, only, .. } = self;
        ObservedTraffic {
            protocol: pack.name.clone(),
            pack_version: pack.version.clone(),
            pack_hash: pack.hash.clone(),
            only: *only,
            totals: totals.clone(),
            jobs: self.jobs.totals(),
            dropped_findings: findings.dropped,
            findings: findings.list.clone(),
        }
    }

    fn add_faults(
        &mut self,
        side: Side,
        number: u64,
        faults: Vec<Fault>,
        connection: &mut ObservedConnection,
    ) -> Vec<usize> {
        if faults.is_empty() || self.only.is_some_and(|only| only != side) {
            return Vec::new();
        }
        self.findings.add(side, number, faults, &mut connection.recent)
    }

    /// Judges the messages of a connection so far by the checks of `always` that are about all of them.
    fn judge_messages(&mut self, number: u64, connection: &mut ObservedConnection) -> Vec<usize> {
        let messages = connection.kept.take();
        let Some((program, names)) = self.program.as_ref().zip(self.names.as_ref()) else { return Vec::new() };
        if messages.is_empty() || connection.exchange.unknown {
            return Vec::new();
        }
        let outcomes = judge_messages(program, names, messages).into_iter();
        let faults = outcomes.filter_map(|(check, outcome)| self.always_fault(check, outcome));
        let faults = faults.map(|fault| Fault { in_frame: false, ..fault }).collect();
        self.add_faults(Side::Hub, number, faults, connection)
    }

    fn judge_frame(&self, connection: &mut ObservedConnection, time: i64, by: Side, what: &SentFrame) -> Vec<Fault> {
        match what {
            SentFrame::Text(text) => self.judge_text(connection, time, by, text),
            SentFrame::Binary(size) => {
                connection.set_unknown(by);
                let mut decoded = Err(JsonDecodeError::Binary);
                let mut faults = match by {
                    Side::Hub => self.judge_every_frame(&mut decoded, "binary", "", *size),
                    Side::Client => Vec::new(),
                };
                if faults.is_empty() {
                    let message = format!("a binary message of {size} bytes, but every message of the pack is JSON");
                    faults.push(noted(NOT_JSON, Verdict::Warn, "binary", message));
                }
                faults
            }
            SentFrame::Close { code, reason } => self.judge_close(connection, time, by, *code, reason),
            SentFrame::Broken { bound: true, .. } => {
                connection.set_unknown(by);
                Vec::new()
            }
            SentFrame::Broken { what, section, bound: false } => {
                connection.set_unknown(by);
                self.judge_broken(by, what, section)
            }
        }
    }

    fn judge_text(&self, connection: &mut ObservedConnection, time: i64, by: Side, text: &str) -> Vec<Fault> {
        let mut decoded = decode_json(text, &self.pack.extension.numbers);
        let json = match &decoded {
            Ok(json) => json,
            // The frame may be any message.
            Err(JsonDecodeError::Beyond(_) | JsonDecodeError::Binary) => {
                connection.set_unknown(by);
                connection.exchange.unknown = true;
                return Vec::new();
            }
            Err(JsonDecodeError::NotJson(why)) => {
                connection.set_unknown(by);
                let fault = noted(NOT_JSON, Verdict::Warn, "text", format!("a text that is not JSON: {why}"));
                let of_pack = match by {
                    Side::Hub => self.judge_every_frame(&mut decoded, "text", text, text.len()),
                    Side::Client => Vec::new(),
                };
                return if of_pack.is_empty() { vec![fault] } else { of_pack };
            }
        };
        let way = match by {
            Side::Hub => FrameDirection::FromHub,
            Side::Client => FrameDirection::ToHub,
        };
        let asked = &connection.requests[by.other() as usize];
        let message = self.pack.recognise_reply(json, way, "", &|id| asked.messages(id));
        let index = message.and_then(|message| self.pack.message_index(&message.name));
        // A reply that only its request identifies, even if the request is not known.
        let reply = self.pack.recognise(json, way).filter(|message| message.typed_by_request);
        let mut faults = Vec::new();
        let mut is_valid = false;
        match message {
            Some(message) => {
                let violations = self.violations(message, json, way);
                is_valid = violations.iter().all(|violation| violation.should);
                faults.extend(self.schema_faults(message, &violations));
            }
            None if reply.is_none() => faults.push(self.unknown_message(json)),
            None => {}
        }
        self.record_ids(connection, time, by, index, json, is_valid);
        if self.keeps_messages && !connection.exchange.unknown {
            connection.kept.keep(by == Side::Client, json, index, text);
        }
        connection.job_events.extend(index.and_then(|index| self.jobs.event(by, index, json)));
        faults.extend(self.judge_reply(connection, by, reply, json));
        if by == Side::Hub {
            if let Some(program) = &self.program {
                let judged = connection.exchange.judge_ids(program, index, json);
                faults.extend(judged.into_iter().filter_map(|(check, finding)| self.always_fault(check, finding)));
            }
            faults.extend(self.judge_message(index, json));
            faults.extend(self.judge_every_frame(&mut decoded, "text", text, text.len()));
        }
        faults
    }

    /// Returns how a message breaks its schema. A message that may be another one, which only some clients get, breaks
    /// none if it conforms to that one.
    fn violations(&self, message: &MessageType, json: &Value, way: FrameDirection) -> Vec<SchemaViolation> {
        let violations = message.schema.violations(json);
        let has_roles = |message: &MessageType| !message.roles.is_empty();
        let fits = |other: &&MessageType| {
            other.name != message.name
                && (has_roles(other) || has_roles(message))
                && other.recognises(json, way)
                && other.schema.is_valid(json)
        };
        if !violations.is_empty() && self.pack.messages.iter().any(|other| fits(&other)) {
            return Vec::new();
        }
        violations
    }

    fn schema_faults(&self, message: &MessageType, violations: &[SchemaViolation]) -> Vec<Fault> {
        // What a recording has masked may have been right.
        let is_known = |violation: &&SchemaViolation| !violation.found.contains(MASK);
        let violations: Vec<SchemaViolation> = violations.iter().filter(is_known).cloned().collect();
        let fault = |(check, rules, violation): (String, Vec<RuleUse>, &SchemaViolation)| {
            let SchemaViolation { path, expected, found, .. } = violation;
            let place = if path.is_empty() { "the message" } else { path.as_str() };
            let found = match path.rsplit('/').next() {
                Some(member) if is_secret_member(member) => MASK.to_owned(),
                _ => shorten(found, MAX_QUOTED_CHARS).into_owned(),
            };
            let message =
                format!("`{}` breaks its schema at {place}: expected {expected}, found {found}", message.name);
            let default = if violation.should { RuleLevel::Should } else { RuleLevel::Must };
            let verdict = worst_verdict(&rules, default);
            Fault { check, verdict, rules, place: path.clone(), message, in_frame: true }
        };
        broken_schema_checks(&self.pack, message, &violations).into_iter().map(fault).collect()
    }

    /// Describes a message that the pack does not have by the texts that distinguish messages.
    fn unknown_message(&self, json: &Value) -> Fault {
        let texts = self.pack.distinguishing_places.iter().filter_map(|place| {
            let text = shorten(json.pointer(place)?.as_str()?, MAX_QUOTED_CHARS);
            Some(format!("{} \"{text}\"", place.trim_start_matches('/')))
        });
        let kind = texts.take(2).collect::<Vec<_>>().join(", ");
        let message = match kind.as_str() {
            "" => "a message that the pack does not have".to_owned(),
            kind => format!("a message that the pack does not have: {kind}"),
        };
        noted(UNKNOWN_MESSAGE, Verdict::Info, &kind, message)
    }

    /// Records the ids in a message of one side, and what it answers.
    fn record_ids(
        &self,
        connection: &mut ObservedConnection,
        time: i64,
        by: Side,
        index: Option<usize>,
        json: &Value,
        is_valid: bool,
    ) {
        let message = index.map(|index| &self.pack.messages[index]);
        let ignored = message.is_some_and(|message| {
            self.program.as_ref().is_some_and(|program| program.shared.ignore.contains(&message.name))
        });
        let id = message.and_then(|message| id_of(message, json));
        if id.is_some() || !ignored {
            connection.requests[by.other() as usize].settle(id.as_deref());
        }
        let Some((index, message)) =
            index.zip(message).filter(|(_, message)| is_valid && !message.abstract_ && message.has_plain_id(json))
        else {
            if let Some(index) = index {
                connection.requests[by as usize].add(&self.pack, index, json, time, false);
            }
            return connection.set_unknown(by);
        };
        connection.requests[by as usize].add(&self.pack, index, json, time, true);
        if let (Side::Client, Some(program)) = (by, &self.program) {
            let masked = message.correlation_key(json).is_some_and(|id| id.contains(MASK));
            connection.exchange.unknown |= masked;
            connection.exchange.send_ids(program, index, json);
        }
    }

    /// Judges whether a reply answers a request, if only the request identifies it.
    fn judge_reply(
        &self,
        connection: &mut ObservedConnection,
        by: Side,
        reply: Option<&MessageType>,
        json: &Value,
    ) -> Option<Fault> {
        let id = id_of(reply?, json)?;
        let fault = connection.requests[by.other() as usize].take_reply(&id)?;
        let id = shorten(&id, MAX_QUOTED_CHARS);
        Some(match fault {
            ReplyFault::Unasked => {
                let message = format!("a reply with the id {id}, which no request on this connection had");
                noted(UNASKED_REPLY, Verdict::Warn, "", message)
            }
            ReplyFault::Repeated => {
                noted(REPEATED_REPLY, Verdict::Warn, "", format!("a second reply to the request with the id {id}"))
            }
        })
    }

    /// Returns the requests that one side did not answer in time although the pack names an answer.
    fn overdue_answers(&self, connection: &mut ObservedConnection, by: Side, now: i64) -> Vec<Fault> {
        let overdue = connection.requests[by.other() as usize].take_overdue(now, self.patience);
        let patience = format_time(Duration::from_millis(u64::try_from(self.patience).unwrap_or_default()));
        let fault = |awaited: super::ledger::AwaitedAnswer| {
            let name = &self.pack.messages[awaited.message].name;
            let id = shorten(&awaited.id, MAX_QUOTED_CHARS);
            let message = format!("no answer to `{name}` with the id {id} within {patience}");
            noted(UNANSWERED, Verdict::Warn, name, message)
        };
        overdue.into_iter().map(fault).collect()
    }

    fn judge_close(
        &self,
        connection: &mut ObservedConnection,
        time: i64,
        by: Side,
        code: Option<u16>,
        reason: &str,
    ) -> Vec<Fault> {
        connection.closed[by as usize] = true;
        // The answer to a close frame repeats its code.
        if connection.closed[by.other() as usize] {
            return Vec::new();
        }
        let mut faults = Vec::new();
        if by == Side::Hub {
            let after = connection.opened.map_or(0, |opened| time.saturating_sub(opened));
            let mut close = json!({ "reason": reason, "clean": true, "after": after as f64 / 1000.0 });
            if let Some(code) = code {
                close["code"] = Value::from(code);
            }
            faults.extend(self.judge_always(&close, |entry| match entry {
                AlwaysEntry::Close { check, pattern } => Some((*check, pattern)),
                _ => None,
            }));
        }
        if let Some(code) = code.filter(|code| faults.is_empty() && is_never_sent(*code)) {
            let message = format!("a close frame with code {code}, which may not be sent (RFC 6455, section 7.4)");
            faults.push(noted(WEBSOCKET_CHECK, Verdict::Fail, "close", message));
        }
        faults
    }

    fn judge_broken(&self, by: Side, what: &str, section: &str) -> Vec<Fault> {
        let broken = json!({ "kind": "broken", "size": 0, "section": section, "wrong": what, "status": 101 });
        let is_upgrade = section == "4.2.2";
        let mut faults = match by {
            Side::Hub => self.judge_always(&broken, |entry| match entry {
                AlwaysEntry::Upgrade { check, pattern } if is_upgrade => Some((*check, pattern)),
                AlwaysEntry::Wire { check, pattern } if !is_upgrade => Some((*check, pattern)),
                _ => None,
            }),
            Side::Client => Vec::new(),
        };
        if faults.is_empty() {
            let message = format!("this breaks RFC 6455, section {section}: {what}");
            faults.push(noted(WEBSOCKET_CHECK, Verdict::Fail, section, message));
        }
        faults
    }

    /// Judges a message of the hub by the entries of `always` for it.
    fn judge_message(&self, index: Option<usize>, json: &Value) -> Vec<Fault> {
        self.judge_always(json, |entry| match entry {
            AlwaysEntry::Message { message, check, pattern } => {
                let is = |named| self.pack.is_message(named, index, json, FrameDirection::FromHub);
                self.pack.message_index(message).is_some_and(is).then_some((*check, pattern))
            }
            _ => None,
        })
    }

    /// Judges a value by the entries of `always` that `select` returns.
    fn judge_always<'p>(
        &'p self,
        value: &Value,
        select: impl Fn(&'p AlwaysEntry) -> Option<(CheckId, &'p MatchPattern)>,
    ) -> Vec<Fault> {
        let Some((program, names)) = self.program.as_ref().zip(self.names.as_ref()) else { return Vec::new() };
        let mut faults = Vec::new();
        for (check, pattern) in program.always.iter().filter_map(select).filter(|(_, pattern)| is_constant(pattern)) {
            faults.extend(self.always_fault(check, compare(pattern, Traced::observed(value), names)));
        }
        faults
    }

    /// Judges a frame of the hub by the entries of `always` for every frame.
    fn judge_every_frame(
        &self,
        decoded: &mut Result<Value, JsonDecodeError>,
        opcode: &str,
        text: &str,
        size: usize,
    ) -> Vec<Fault> {
        let Some((program, names)) = self.program.as_ref().zip(self.names.as_ref()) else { return Vec::new() };
        let mut faults = Vec::new();
        let mut frame = Value::Null;
        for entry in &program.always {
            let AlwaysEntry::Frame { check, pattern } = entry else { continue };
            if !is_constant(pattern) {
                continue;
            }
            if frame.is_null() {
                frame = json!({ "opcode": opcode, "size": size, "text": text });
            }
            faults.extend(self.always_fault(*check, compare_frame(pattern, &mut frame, decoded, names)));
        }
        faults
    }

    /// Returns the fault of a broken check of `always`.
    fn always_fault(&self, check: CheckId, outcome: ComparisonOutcome) -> Option<Fault> {
        let ComparisonOutcome::Broken { message, found, place, .. } = outcome else { return None };
        if found.contains(MASK) {
            return None;
        }
        let check = &self.program.as_ref()?.checks[check];
        let is_secret = |place: &str| place.rsplit('/').next().is_some_and(is_secret_member);
        let message = match &place {
            Some(place) if is_secret(place) => format!("{place} is not as the pack demands"),
            _ => message,
        };
        let verdict = worst_verdict(&check.rules, RuleLevel::Must);
        let (name, rules) = (check.name.clone(), check.rules.clone());
        Some(Fault { check: name, rules, verdict, place: place.unwrap_or_default(), message, in_frame: true })
    }
}

/// Whether a pattern needs nothing but the value: expressions may rest on what scenarios do, or on settings of the hub.
fn is_constant(pattern: &MatchPattern) -> bool {
    pattern.ready.is_some()
}

/// Returns a fault that no rule of the pack is about.
pub(super) fn noted(check: &str, verdict: Verdict, place: &str, message: String) -> Fault {
    let (check, place) = (check.to_owned(), place.to_owned());
    Fault { check, rules: Vec::new(), verdict, place, message, in_frame: true }
}

/// Returns the worst verdict of broken rules; without rules, that of a level.
fn worst_verdict(rules: &[RuleUse], default: RuleLevel) -> Verdict {
    let broken = |level, basis| rule_verdict(&CheckOutcome::Broken, level, basis, false);
    let worst = rules.iter().map(|rule| broken(rule.level, rule.basis)).max();
    worst.unwrap_or_else(|| broken(default, RuleBasis::Stated))
}
