//! The findings about both sides, each kind once.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use crate::import::recording::{RecordedEvent, RecordedLine, SentFrame, Side, format_time};
use crate::outcome::Verdict;
use crate::redact::{SecretMasker, mask_secret_members};
use crate::report::text::{format_count, shorten};
use crate::scenario::model::RuleUse;

/// The most kinds of findings that are kept.
const MAX_FINDINGS: usize = 500;
/// The frames that a finding shows before the one that it is about, and after it.
const FRAMES_BEFORE: usize = 3;
const FRAMES_AFTER: usize = 2;
/// The characters of a frame that are kept until a finding shows it.
const MAX_KEPT_CHARS: usize = 800;
/// The characters of a frame, and of another text, that are shown.
const MAX_SHOWN_CHARS: usize = 400;
/// The characters of a place that distinguish faults.
const MAX_PLACE_CHARS: usize = 200;

/// A frame as findings show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownFrame {
    /// Unix time in milliseconds.
    pub time: i64,
    pub by: Option<Side>,
    /// The text of the frame, shortened, with secrets masked; or what happened instead.
    pub text: String,
    /// Whether the finding is about this frame.
    pub is_judged: bool,
}

/// What one side did wrong, once or many times.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedFinding {
    pub side: Side,
    /// The name of the check, as in `check`; or `unanswered`, `repeated-reply`, `unasked-reply`, `not-json`,
    /// `unknown-message`.
    pub check: String,
    pub rules: Vec<RuleUse>,
    pub verdict: Verdict,
    /// The place in the message, or its kind; distinguishes findings of one check.
    pub place: String,
    pub message: String,
    /// The connection of the first occurrence.
    pub connection: u64,
    pub times: usize,
    /// The number of connections on which it occurred in a row.
    pub connections: usize,
    /// The frames around the first occurrence.
    pub frames: Vec<ShownFrame>,
    last_connection: u64,
}

/// What a judge found in a frame, before it is counted.
pub struct Fault {
    pub check: String,
    pub rules: Vec<RuleUse>,
    pub verdict: Verdict,
    /// Distinguishes faults of one check: the place in the message, or its kind.
    pub place: String,
    pub message: String,
    /// Whether the fault is in the latest frame, and not in what came before.
    pub in_frame: bool,
}

/// The last frames of a connection, not yet masked, and the findings that still show the next ones.
#[derive(Default)]
pub struct RecentFrames {
    frames: VecDeque<ShownFrame>,
    /// Findings by index, each with the number of frames to add.
    open: Vec<(usize, usize)>,
}

/// All findings.
#[derive(Default)]
pub struct FindingList {
    pub list: Vec<ObservedFinding>,
    known: HashMap<(Side, String, String), usize>,
    /// The number of findings that were not kept.
    pub dropped: usize,
    masker: SecretMasker,
}

impl FindingList {
    pub fn new(masker: SecretMasker) -> Self {
        Self { masker, ..Self::default() }
    }

    /// Returns a text with its secrets masked.
    fn masked(&self, text: &str) -> String {
        mask_secret_members(&self.masker.mask_frame(text)).into_owned()
    }

    /// Returns a line with its secrets masked.
    pub fn masked_line(&self, line: &RecordedLine) -> RecordedLine {
        let mut line = line.clone();
        let text = match &mut line.event {
            RecordedEvent::Opened { target, .. } => target,
            RecordedEvent::Sent { what: SentFrame::Text(text), .. } => text,
            RecordedEvent::Sent { what: SentFrame::Close { reason, .. }, .. } => reason,
            RecordedEvent::Sent { what: SentFrame::Broken { what, .. }, .. } => what,
            RecordedEvent::Sent { what: SentFrame::Binary(_), .. } => return line,
        };
        *text = self.masked(text);
        line
    }

    fn shown(&self, text: &str) -> String {
        shorten(&self.masked(text), MAX_SHOWN_CHARS).into_owned()
    }

    /// Adds faults of one side of a connection. Returns the index of each that is new.
    pub fn add(&mut self, side: Side, connection: u64, faults: Vec<Fault>, recent: &mut RecentFrames) -> Vec<usize> {
        let mut new = Vec::new();
        for fault in faults {
            let key = (side, fault.check.clone(), shorten(&fault.place, MAX_PLACE_CHARS).into_owned());
            if let Some(index) = self.known.get(&key) {
                let known = &mut self.list[*index];
                known.times += 1;
                known.connections += usize::from(known.last_connection != connection);
                known.last_connection = connection;
                continue;
            }
            if self.list.len() >= MAX_FINDINGS {
                self.dropped += 1;
                continue;
            }
            let show = |frame: &ShownFrame| ShownFrame { text: self.shown(&frame.text), ..frame.clone() };
            let mut frames: Vec<ShownFrame> = recent.frames.iter().map(show).collect();
            if let Some(frame) = frames.last_mut().filter(|_| fault.in_frame) {
                frame.is_judged = true;
            }
            let index = self.list.len();
            let place = self.shown(&key.2);
            self.known.insert(key, index);
            recent.open.push((index, FRAMES_AFTER));
            new.push(index);
            self.list.push(ObservedFinding {
                side,
                check: fault.check,
                rules: fault.rules,
                verdict: fault.verdict,
                place,
                message: self.shown(&fault.message),
                connection,
                times: 1,
                connections: 1,
                frames,
                last_connection: connection,
            });
        }
        new
    }

    /// Adds a frame to the last ones of its connection, and to the findings that still show it.
    pub fn add_frame(&mut self, line: &RecordedLine, recent: &mut RecentFrames) {
        let frame = kept_frame(line);
        for (index, left) in &mut recent.open {
            let shown = ShownFrame { text: self.shown(&frame.text), ..frame.clone() };
            self.list[*index].frames.push(shown);
            *left -= 1;
        }
        recent.open.retain(|(_, left)| *left > 0);
        recent.frames.push_back(frame);
        if recent.frames.len() > FRAMES_BEFORE + 1 {
            recent.frames.pop_front();
        }
    }
}

/// Returns a frame as it is kept until a finding shows it.
fn kept_frame(line: &RecordedLine) -> ShownFrame {
    let (by, text) = match &line.event {
        RecordedEvent::Opened { target, .. } => (None, Cow::Owned(format!("connected to {target}"))),
        RecordedEvent::Sent { by, what } => (
            Some(*by),
            match what {
                SentFrame::Text(text) => shorten(text, MAX_KEPT_CHARS),
                SentFrame::Binary(size) => Cow::Owned(format!("a binary message of {size} bytes")),
                SentFrame::Close { code: None, .. } => Cow::Borrowed("close"),
                SentFrame::Close { code: Some(code), reason } => Cow::Owned(format!("close {code} {reason}")),
                SentFrame::Broken { what, .. } => Cow::Borrowed(what.as_str()),
            },
        ),
    };
    ShownFrame { time: line.time, by, text: text.into_owned(), is_judged: false }
}

impl ObservedFinding {
    /// Formats `fail[RULE] hub, connection 3: MESSAGE`, or with the name of the check instead of rules.
    pub fn headline(&self) -> String {
        let rules: Vec<&str> = self.rules.iter().map(|rule| rule.id.as_str()).collect();
        let name = if rules.is_empty() { self.check.clone() } else { rules.join(", ") };
        format!("{}[{name}] {}, connection {}: {}", self.verdict.name(), self.side, self.connection, self.message)
    }

    /// Formats how often it occurred.
    pub fn seen(&self) -> String {
        format!("{} on {}", format_count(self.times, "time"), format_count(self.connections, "connection"))
    }

    /// Formats the frames around the first occurrence, a line each.
    pub fn frame_lines(&self) -> Vec<String> {
        let line = |frame: &ShownFrame| {
            let mark = if frame.is_judged { ">" } else { " " };
            let way = match frame.by {
                None => "",
                Some(Side::Client) => "to hub   ",
                Some(Side::Hub) => "from hub ",
            };
            // Without the day, so that more of the frame fits in a line.
            let time = format_time(frame.time);
            let time = time.split_once('T').map_or("", |(_, time)| time.trim_end_matches('Z'));
            format!("{mark} {time} {way}{}", frame.text)
        };
        self.frames.iter().map(line).collect()
    }
}
