//! Frames that came before the step that asks for them.
//!
//! A hub may send replies in another order than the steps of a journey. A frame whose task is known is handled at once
//! ([`VirtualClient::early_waiter`]). Any other frame that a later step may take is kept until a step asks for it: the
//! value that names its journey may be in a frame that is still to come.

use std::collections::VecDeque;

use super::receive::{FrameOrigin, ScannedFrame};
use super::task::ClientTask;
use super::{ClientState, VirtualClient};
use crate::load::Nanos;
use crate::load::client::io::ClientIo;
use crate::load::compile::classifier::all_tests_hold;
use crate::load::compile::program::{AwaitedFrame, CaptureSlot, CompiledRole, MessageLookup, ProgramOperation};
use crate::load::ids::MessageId;
use crate::load::plan::MarkName;
use crate::load::provenance::{AssumedValue, DeliveredFrame};

/// The most bytes that the clients of a role keep together, and the bounds of a client's share.
const MAX_ROLE_BYTES: usize = 64 << 20;
const MIN_CLIENT_BYTES: usize = 4 << 10;
const MAX_CLIENT_BYTES: usize = 1 << 20;
/// The most frames that a client keeps if it has few journeys at a time; otherwise two per journey.
const KEPT_FRAMES: usize = 64;

/// The kept frames of a client, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct EarlyFrames {
    frames: VecDeque<EarlyFrame>,
    /// The memory of the frames in bytes.
    bytes: usize,
}

#[derive(Debug)]
struct EarlyFrame {
    message: MessageId,
    text: Box<[u8]>,
    assumed_values: Box<[AssumedValue]>,
    at: Nanos,
    /// The number of the latest program that had begun when the frame came. Later ones cannot ask for the frame.
    begun: u32,
    /// The mark that was recorded in the ledger when the frame came.
    recorded: Option<MarkName>,
}

impl EarlyFrame {
    fn bytes(&self) -> usize {
        self.text.len() + size_of::<Self>() + size_of_val(&*self.assumed_values)
    }

    /// Scans the frame again.
    fn scan<'f>(&'f self, lookup: &MessageLookup) -> Option<ScannedFrame<'f>> {
        let delivered = DeliveredFrame::observed_with(&self.text, &self.assumed_values);
        ScannedFrame::new(delivered, lookup, FrameOrigin { recorded: self.recorded, ..FrameOrigin::observed(self.at) })
    }
}

impl EarlyFrames {
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn remove(&mut self, place: usize) -> Option<EarlyFrame> {
        let frame = self.frames.remove(place)?;
        self.bytes -= frame.bytes();
        Some(frame)
    }
}

/// Whether a program with the first number began after one with the second. Numbers wrap around; they are never more
/// than half the range apart.
fn is_later(number: u32, other: u32) -> bool {
    (number.wrapping_sub(other) as i32) > 0
}

impl VirtualClient {
    /// Whether a running program has a later step that may take this frame: either the frame fits, or the values that
    /// it must have are still to be received.
    pub(super) fn is_asked_later(
        &self,
        role: &CompiledRole,
        message: MessageId,
        lookup: &MessageLookup,
        frame: &ScannedFrame<'_>,
    ) -> bool {
        let asks = |awaited: &&AwaitedFrame| {
            all_tests_hold(&awaited.tests, &frame.found)
                && self.tasks.iter().enumerate().any(|(place, task)| {
                    task.program == awaited.program
                        && asks_later(role, task, awaited, frame.origin.at)
                        && self.may_be_meant(place, awaited, frame)
                })
        };
        let refuses = || self.refused_task(role, message).is_some();
        // A frame that refuses the request of one step and answers the request of a later one is a refusal.
        let answers = |awaited: &AwaitedFrame| match role.programs[awaited.program].ops.get(awaited.op) {
            Some(ProgramOperation::Expect(expect)) => expect.answers.is_some(),
            _ => false,
        };
        lookup.entries.iter().filter(asks).any(|awaited| !answers(awaited) || !refuses())
    }

    /// Whether a frame has the values that a later step of a task wants, as far as they are known.
    fn may_be_meant(&self, task: usize, awaited: &AwaitedFrame, frame: &ScannedFrame<'_>) -> bool {
        awaited.equal.iter().all(|one| {
            let received = CaptureSlot::of(&one.1).filter(|slot| awaited.received.contains(slot));
            let unknown = received.is_some_and(|slot| match slot {
                CaptureSlot::Text(slot) => self.tasks[task].texts.get(slot).is_none(),
                CaptureSlot::Own(slot) => self.own.get(slot).is_none(),
            });
            match unknown {
                true => frame.found[one.0].is_some(),
                false => self.equal_values_match(Some(task), std::slice::from_ref(one), frame),
            }
        })
    }

    /// Keeps a frame for a later step.
    pub(super) fn keep_frame(
        &mut self,
        role: &CompiledRole,
        message: MessageId,
        frame: &ScannedFrame<'_>,
        now: Nanos,
        io: &mut impl ClientIo,
    ) {
        let most_bytes = (MAX_ROLE_BYTES / role.population.max(1) as usize).clamp(MIN_CLIENT_BYTES, MAX_CLIENT_BYTES);
        if frame.delivered.text.len() > most_bytes / 2 {
            return self.leave_frame(role, message, frame, false, now, io);
        }
        let lookup = &role.lookups[usize::from(message.0)];
        let fitting = lookup.entries.iter().filter(|awaited| all_tests_hold(&awaited.tests, &frame.found));
        // The ledger has the time at which the frame came, except of an assignment: only a task can take a job.
        let marked = fitting.filter(|awaited| awaited.stray.as_ref().is_some_and(|one| one.mark != MarkName::Assigned));
        let marked = marked.take(1).find(|awaited| self.record_stray(role, awaited, frame, now, io));
        let kept = EarlyFrame {
            message,
            text: frame.delivered.text.into(),
            assumed_values: frame.delivered.assumed_values().into(),
            at: frame.origin.at,
            begun: self.counts.programs,
            recorded: marked.and_then(|awaited| awaited.stray.as_ref()).map(|stray| stray.mark),
        };
        let most = KEPT_FRAMES.max(2 * role.at_a_time);
        self.early_frames.bytes += kept.bytes();
        self.early_frames.frames.push_back(kept);
        while self.early_frames.bytes > most_bytes || self.early_frames.frames.len() > most {
            let Some(oldest) = self.early_frames.remove(0) else { break };
            self.give_up_frame(role, &oldest, now, io);
        }
    }

    /// Completes the step at which a task has arrived with a kept frame; returns whether there was one.
    pub(super) fn claim_kept_frame(
        &mut self,
        role: &CompiledRole,
        task: usize,
        now: Nanos,
        io: &mut impl ClientIo,
    ) -> bool {
        let one = &self.tasks[task];
        let (program, at, number) = (one.program, one.at, one.number);
        // `resumes` repeats requests because of earlier frames, or because none came.
        if self.early_frames.is_empty() || one.back.is_some() {
            return false;
        }
        let sent = match role.programs[program].ops.get(at) {
            Some(ProgramOperation::Expect(expect)) => expect.answers.map_or(0, |(_, times)| one.times[times].sent),
            _ => return false,
        };
        let wanted_by = |kept: &EarlyFrame| {
            let lookup = &role.lookups[usize::from(kept.message.0)];
            let entries = lookup.entries.iter().filter(|awaited| (awaited.program, awaited.op) == (program, at));
            let mut entries = entries.peekable();
            entries.peek()?;
            let frame = kept.scan(lookup)?;
            entries.find(|awaited| self.step_accepts(task, awaited, &frame))
        };
        let frames = self.early_frames.frames.iter().enumerate();
        let possible = frames.filter(|(_, kept)| !is_later(number, kept.begun) && sent <= kept.at);
        let Some((place, awaited)) = possible.filter_map(|(place, kept)| Some((place, wanted_by(kept)?))).next() else {
            return false;
        };
        let Some(kept) = self.early_frames.remove(place) else { return false };
        let Some(frame) = kept.scan(&role.lookups[usize::from(kept.message.0)]) else { return false };
        self.complete_step(role, task, awaited, &frame, now, io);
        true
    }

    /// Gives up the frames for which no running program can ask.
    pub(super) fn drop_stale_frames(&mut self, role: &CompiledRole, now: Nanos, io: &mut impl ClientIo) {
        let active = self.tasks.iter().filter(|task| task.is_active()).map(|task| task.number);
        let oldest = active.reduce(|one, other| if is_later(one, other) { other } else { one });
        while let Some(kept) = self.early_frames.frames.front() {
            if oldest.is_some_and(|oldest| !is_later(oldest, kept.begun)) {
                break;
            }
            let Some(kept) = self.early_frames.remove(0) else { break };
            self.give_up_frame(role, &kept, now, io);
        }
    }

    fn give_up_frame(&self, role: &CompiledRole, kept: &EarlyFrame, now: Nanos, io: &mut impl ClientIo) {
        let lookup = &role.lookups[usize::from(kept.message.0)];
        // The run, or the connection, ended before a step could ask for the frame.
        if self.finished || self.state == ClientState::Disconnected {
            return;
        }
        if let Some(frame) = kept.scan(lookup) {
            self.leave_frame(role, kept.message, &frame, false, now, io);
        }
    }
}

/// Whether a task's program will reach this step, has no frame for it yet, and has sent the step's request by this
/// time.
fn asks_later(role: &CompiledRole, task: &ClientTask, awaited: &AwaitedFrame, at: Nanos) -> bool {
    let program = &role.programs[awaited.program];
    let Some(ProgramOperation::Expect(expect)) = program.ops.get(awaited.op) else { return false };
    let resumes = program.resumes.is_some_and(|resumes| awaited.op >= resumes);
    let comes = match task.back {
        None => task.at < awaited.op,
        Some(back) => back <= awaited.op,
    };
    task.is_active()
        && comes
        && !resumes
        && expect.early.is_none_or(|bit| task.early & (1 << bit) == 0)
        && expect.answers.is_none_or(|(_, times)| task.times[times].sent <= at)
}
