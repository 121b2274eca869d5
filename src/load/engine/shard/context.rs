//! The [`ClientIo`] of a shard: carries out the actions of a client.

use std::collections::VecDeque;
use std::sync::Arc;

use super::outbox::{ReportOutbox, ShardReport};
use super::slot::OutgoingBytes;
use super::timers::{ShardTimers, SlotTimer};
use crate::load::Nanos;
use crate::load::client::io::{ClientFault, ClientIo, JourneyWait};
use crate::load::details::{ConnectionEnd, RunDetails, printable_detail};
use crate::load::engine::frames::{self, MaskKeys};
use crate::load::engine::hooks::HookCallChannel;
use crate::load::engine::phases::PhaseTimeline;
use crate::load::engine::translation::{AssumedMessage, ShardTranslator};
use crate::load::ids::{HookId, MessageId};
use crate::load::ledger::{LedgerEntry, NameOwner};
use crate::load::metrics::{JourneyCount, LoadErrorKind, Measurement, MessageCount, MetricRecorder};
use crate::load::opening::{FailedOpening, MAX_EXAMPLES};
use crate::websocket::dial::Dial;

/// State shared by the clients of a shard.
pub struct ShardContext {
    pub recorder: MetricRecorder,
    pub timers: ShardTimers,
    pub masks: MaskKeys,
    pub timeline: Arc<PhaseTimeline>,
    pub outbox: ReportOutbox,
    pub calls: HookCallChannel,
    /// Clients that may have room for a journey, by role.
    pub free: Vec<VecDeque<u32>>,
    /// Slots that want to connect.
    pub dials: VecDeque<(u32, Dial)>,
    /// The message of the current frame.
    pub classified: Option<MessageId>,
    /// Details of the end of the connection that is being reported: a reason, or an error.
    pub ending: String,
    /// Details for the report since they were last sent.
    pub details: RunDetails,
    /// Running journeys that the drain waits for.
    pub under_way: u64,
    /// Declared deviations of the hub.
    pub translation: Option<ShardTranslator>,
    /// Messages that the client of the current input handles as if received, since the hub never sends them.
    pub assumed: VecDeque<AssumedMessage>,
    /// Examples of failed openings that have been reported, by role.
    pub examples: Vec<usize>,
}

impl ShardContext {
    pub fn new(
        recorder: MetricRecorder,
        masks: MaskKeys,
        timeline: Arc<PhaseTimeline>,
        outbox: ReportOutbox,
        calls: HookCallChannel,
        translation: Option<ShardTranslator>,
        roles: usize,
    ) -> Self {
        Self {
            recorder,
            timers: ShardTimers::default(),
            masks,
            timeline,
            outbox,
            calls,
            free: vec![VecDeque::new(); roles],
            dials: VecDeque::new(),
            classified: None,
            ending: String::new(),
            details: RunDetails::default(),
            under_way: 0,
            translation,
            assumed: VecDeque::new(),
            examples: vec![0; roles],
        }
    }
}

/// A [`ShardContext`] on behalf of one client.
pub struct ClientActions<'a> {
    pub context: &'a mut ShardContext,
    pub slot: u32,
    /// The client's number in its role.
    pub client: u32,
    pub role: u16,
    pub now: Nanos,
    pub output: &'a mut OutgoingBytes,
    pub alarm: &'a mut SlotTimer,
    pub queued: &'a mut bool,
    pub counted: &'a mut bool,
    pub failed: &'a mut bool,
    pub received: &'a mut Vec<Box<[u8]>>,
    /// Whether the role continues in the drain, so that the drain does not wait for its journeys.
    pub drains: bool,
}

impl ClientIo for ClientActions<'_> {
    fn open(&mut self, dial: &Dial) {
        self.context.dials.push_back((self.slot, dial.clone()));
    }

    fn close(&mut self, code: u16) {
        if !self.output.open || self.output.closing {
            return;
        }
        self.output.closing = true;
        frames::append_frame(&mut self.output.out, frames::CLOSE, &mut self.context.masks, |out| {
            out.extend_from_slice(&code.to_be_bytes());
        });
    }

    fn send(&mut self, message: MessageId, due: Nanos, ready: Nanos, write: impl FnOnce(&mut Vec<u8>)) -> Nanos {
        if self.output.open && !self.output.closing {
            let context = &mut *self.context;
            match &mut context.translation {
                Some(translation) if translation.translates_sent() => {
                    let mut text = Vec::new();
                    write(&mut text);
                    let (of_hub, absent) = translation.translate_sent(self.slot, &text, self.now);
                    let text = of_hub.unwrap_or(text);
                    frames::append_frame(&mut self.output.out, frames::TEXT, &mut context.masks, |out| {
                        out.extend_from_slice(&text);
                    });
                    context.assumed.extend(absent);
                }
                _ => {
                    frames::append_frame(&mut self.output.out, frames::TEXT, &mut context.masks, write);
                }
            }
            self.context.recorder.record(Measurement::Sent { message, due, ready }, self.now);
        }
        self.now
    }

    fn wake_at(&mut self, at: Nanos) {
        self.context.timers.set(self.slot, self.alarm, at);
    }

    fn call_hook(&mut self, hook: HookId, arguments: Vec<u8>) {
        self.context.calls.make_call(self.slot, hook, arguments);
    }

    fn joined(&mut self) {
        if !*self.counted {
            *self.counted = true;
            *self.received = Vec::new();
            self.context.timeline.count_joined(usize::from(self.role));
        }
    }

    fn not_joined(&mut self, at: usize, fault: Option<ClientFault>) {
        if *self.counted || std::mem::replace(self.failed, true) {
            return;
        }
        let received = std::mem::take(self.received);
        let examples = &mut self.context.examples[usize::from(self.role)];
        if *examples < MAX_EXAMPLES {
            *examples += 1;
            let (role, client, ending) = (self.role, self.client, printable_detail(&self.context.ending));
            let failure = FailedOpening { role, client, at, fault, ending, received };
            self.context.outbox.send(ShardReport::NotJoined(failure));
        }
        self.context.timeline.count_failed(usize::from(self.role));
    }

    fn capacity_freed(&mut self) {
        if !*self.queued {
            *self.queued = true;
            self.context.free[usize::from(self.role)].push_back(self.slot);
        }
    }

    #[inline(always)]
    fn record(&mut self, measurement: Measurement, at: Nanos) {
        let context = &mut *self.context;
        match measurement {
            Measurement::Received { message, .. } => context.classified = message,
            Measurement::Journeys(_, JourneyCount::Started, _) => context.under_way += u64::from(!self.drains),
            Measurement::Journeys(_, JourneyCount::Failed | JourneyCount::Assumed | JourneyCount::Unfinished, _)
            | Measurement::JourneyCompleted { .. }
            | Measurement::JourneyEndedEarly(_) => {
                context.under_way = context.under_way.saturating_sub(u64::from(!self.drains));
            }
            _ => {}
        }
        context.recorder.record(measurement, at);
    }

    fn journey_waited(&mut self, wait: JourneyWait) {
        *self.context.details.waits.entry((self.role, wait)).or_default() += 1;
    }

    fn fault(&mut self, fault: ClientFault, at: Nanos) {
        let kind = match fault {
            ClientFault::Timeout(_) | ClientFault::Missing(_) => LoadErrorKind::Timeout,
            ClientFault::Refused(_) => LoadErrorKind::Refused,
            ClientFault::Ended(end) => {
                let detail = printable_detail(&self.context.ending);
                self.context.details.ends.add(ConnectionEnd { how: end, detail }, 1);
                end.error_kind()
            }
            ClientFault::NoObject | ClientFault::Unusable(_) => LoadErrorKind::Invalid,
            ClientFault::Hook | ClientFault::Internal => LoadErrorKind::Internal,
            ClientFault::NotTaken(message) => {
                return self.record(Measurement::Messages(message, MessageCount::NotTaken, 1), at);
            }
            ClientFault::Undocumented => return self.record(Measurement::Undocumented, at),
            // Counted as a failed journey.
            ClientFault::Aborted => return,
        };
        self.record(Measurement::Error(kind), at);
    }

    fn record_entry(&mut self, entry: LedgerEntry) {
        self.context.outbox.add_entry(entry);
    }

    fn report_name(&mut self, of: NameOwner, name: &[u8]) {
        self.context.outbox.add_name(of, name);
    }
}
