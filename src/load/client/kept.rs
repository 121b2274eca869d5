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
pub(super) struct KeptFrames {
    frames: VecDeque<KeptFrame>,
    /// The memory of the frames in bytes.
    bytes: usize,
}

#[derive(Debug)]
struct KeptFrame {
    message: MessageId,
    text: Box<[u8]>,
    assumed_values: Box<[AssumedValue]>,
    at: Nanos,
    /// The number of the latest program that had begun when the frame came. Later ones cannot ask for the frame.
    begun: u32,
    /// The mark that was recorded in the ledger when the frame came.
    recorded: Option<MarkName>,
}

impl KeptFrame {
    fn bytes(&self) -> usize {
        self.text.len() + size_of::<Self>() + size_of_val(&*self.assumed_values)
    }

    /// Scans the frame again.
    fn scan<'f>(&'f self, lookup: &MessageLookup) -> Option<ScannedFrame<'f>> {
        let delivered = DeliveredFrame::observed_with(&self.text, &self.assumed_values);
        ScannedFrame::new(delivered, lookup, FrameOrigin { recorded: self.recorded, ..FrameOrigin::observed(self.at) })
    }
}

impl KeptFrames {
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn remove(&mut self, place: usize) -> Option<KeptFrame> {
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
        let asks = |wanted: &&AwaitedFrame| {
            all_tests_hold(&wanted.tests, &frame.found)
                && self.tasks.iter().enumerate().any(|(place, task)| {
                    task.program == wanted.program
                        && asks_later(role, task, wanted, frame.origin.at)
                        && self.may_be_meant(place, wanted, frame)
                })
        };
        let refuses = || self.refused_task(role, message).is_some();
        // A frame that refuses the request of one step and answers the request of a later one is a refusal.
        let answers = |wanted: &AwaitedFrame| match role.programs[wanted.program].ops.get(wanted.op) {
            Some(ProgramOperation::Expect(expect)) => expect.answers.is_some(),
            _ => false,
        };
        lookup.entries.iter().filter(asks).any(|wanted| !answers(wanted) || !refuses())
    }

    /// Whether a frame has the values that a later step of a task wants, as far as they are known.
    fn may_be_meant(&self, task: usize, wanted: &AwaitedFrame, frame: &ScannedFrame<'_>) -> bool {
        wanted.equal.iter().all(|one| {
            let awaited = CaptureSlot::of(&one.1).filter(|slot| wanted.received.contains(slot));
            let unknown = awaited.is_some_and(|slot| match slot {
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
        let fitting = lookup.entries.iter().filter(|wanted| all_tests_hold(&wanted.tests, &frame.found));
        // The ledger has the time at which the frame came, except of an assignment: only a task can take a job.
        let marked = fitting.filter(|wanted| wanted.stray.as_ref().is_some_and(|one| one.mark != MarkName::Assigned));
        let marked = marked.take(1).find(|wanted| self.record_stray(role, wanted, frame, now, io));
        let kept = KeptFrame {
            message,
            text: frame.delivered.text.into(),
            assumed_values: frame.delivered.assumed_values().into(),
            at: frame.origin.at,
            begun: self.begun,
            recorded: marked.and_then(|wanted| wanted.stray.as_ref()).map(|stray| stray.mark),
        };
        let most = KEPT_FRAMES.max(2 * role.at_a_time);
        self.kept.bytes += kept.bytes();
        self.kept.frames.push_back(kept);
        while self.kept.bytes > most_bytes || self.kept.frames.len() > most {
            let Some(oldest) = self.kept.remove(0) else { break };
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
        if self.kept.is_empty() || one.back.is_some() {
            return false;
        }
        let sent = match role.programs[program].ops.get(at) {
            Some(ProgramOperation::Expect(expect)) => expect.answers.map_or(0, |(_, times)| one.times[times].sent),
            _ => return false,
        };
        let wanted_by = |kept: &KeptFrame| {
            let lookup = &role.lookups[usize::from(kept.message.0)];
            let entries = lookup.entries.iter().filter(|wanted| (wanted.program, wanted.op) == (program, at));
            let mut entries = entries.peekable();
            entries.peek()?;
            let frame = kept.scan(lookup)?;
            entries.find(|wanted| self.step_accepts(task, wanted, &frame))
        };
        let frames = self.kept.frames.iter().enumerate();
        let possible = frames.filter(|(_, kept)| !is_later(number, kept.begun) && sent <= kept.at);
        let Some((place, wanted)) = possible.filter_map(|(place, kept)| Some((place, wanted_by(kept)?))).next() else {
            return false;
        };
        let Some(kept) = self.kept.remove(place) else { return false };
        let Some(frame) = kept.scan(&role.lookups[usize::from(kept.message.0)]) else { return false };
        self.complete_step(role, task, wanted, &frame, now, io);
        true
    }

    /// Gives up the frames for which no running program can ask.
    pub(super) fn drop_stale_frames(&mut self, role: &CompiledRole, now: Nanos, io: &mut impl ClientIo) {
        let active = self.tasks.iter().filter(|task| task.is_active()).map(|task| task.number);
        let oldest = active.reduce(|one, other| if is_later(one, other) { other } else { one });
        while let Some(kept) = self.kept.frames.front() {
            if oldest.is_some_and(|oldest| !is_later(oldest, kept.begun)) {
                break;
            }
            let Some(kept) = self.kept.remove(0) else { break };
            self.give_up_frame(role, &kept, now, io);
        }
    }

    fn give_up_frame(&self, role: &CompiledRole, kept: &KeptFrame, now: Nanos, io: &mut impl ClientIo) {
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
fn asks_later(role: &CompiledRole, task: &ClientTask, wanted: &AwaitedFrame, at: Nanos) -> bool {
    let program = &role.programs[wanted.program];
    let Some(ProgramOperation::Expect(expect)) = program.ops.get(wanted.op) else { return false };
    let resumes = program.resumes.is_some_and(|resumes| wanted.op >= resumes);
    let comes = match task.back {
        None => task.at < wanted.op,
        Some(back) => back <= wanted.op,
    };
    task.is_active()
        && comes
        && !resumes
        && expect.early.is_none_or(|bit| task.early & (1 << bit) == 0)
        && expect.answers.is_none_or(|(_, times)| task.times[times].sent <= at)
}
