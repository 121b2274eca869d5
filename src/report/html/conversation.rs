//! A conversation as a sequence diagram: one lane for each actor, the last one for the hub, time running downwards.

use serde::Serialize;

use super::page::format_ms;
use crate::outcome::{FindingDetail, FrameKind, FrameReport, HistoryDirection, ms};
use crate::report::evidence::{find_frame, find_request, moment_of};
use crate::report::text::shorten;

/// A conversation with at most this many lines is shown in full.
const MAX_ALL: usize = 24;
/// The number of lines kept at the beginning, at the end, and around the finding of a longer one.
const KEPT_FIRST: usize = 6;
const KEPT_LAST: usize = 2;
const KEPT_BEFORE: usize = 14;
const KEPT_AFTER: usize = 4;
/// The most lanes; further actors share the last one.
const MAX_LANES: usize = 22;
/// The width of all lanes together, in pixels, if they are not that narrow anyway.
const LANES_WIDTH: usize = 220;
const MAX_PITCH: usize = 56;
/// The most characters of a payload: of the frames that the finding is about, and of others.
const MAX_MARKED: usize = 1_200;
const MAX_PAYLOAD: usize = 240;

/// A sequence diagram, ready for its template.
#[derive(Debug, Serialize)]
pub struct Diagram {
    /// The names of the lanes.
    heads: Vec<String>,
    /// The width of a lane in pixels; style.css has a class for each.
    pitch: usize,
    width: usize,
    rows: Vec<Row>,
    /// The number of lines of the whole conversation.
    total: usize,
    shown: usize,
    /// The number of frames that the run did not keep.
    dropped: usize,
}

#[derive(Debug, Default, Serialize)]
struct Row {
    /// `sent`, `received`, `neither`, `gap` or `found`.
    kind: &'static str,
    time: String,
    /// The path of the arrow.
    path: String,
    who: String,
    /// What was sent or happened, if it is not a text frame.
    what: &'static str,
    text: String,
    marked: bool,
    /// For a gap, the number of lines left out.
    left_out: usize,
}

/// Returns the diagram of a conversation. `found` are the finding's evidence and message.
pub fn diagram(history: &[FrameReport], dropped: usize, found: Option<(&FindingDetail, &str)>) -> Option<Diagram> {
    if history.is_empty() {
        return None;
    }
    let marked = found.and_then(|(detail, _)| find_frame(detail, history));
    let request = found.and_then(|(detail, _)| find_request(detail, history));
    let moment = found.map(|(detail, _)| moment_of(detail, history));
    let focus = marked.or(moment.and_then(|moment| moment.checked_sub(1))).unwrap_or(history.len() - 1);
    let mut actors: Vec<&str> = Vec::new();
    for frame in history {
        if !frame.actor.is_empty() && !actors.contains(&frame.actor.as_str()) {
            actors.push(&frame.actor);
        }
    }
    let hidden = actors.len().saturating_sub(MAX_LANES - 1);
    let lane_of = |actor: &str| actors.iter().position(|name| *name == actor).unwrap_or(0).min(MAX_LANES - 2);
    let mut heads: Vec<String> = actors.iter().take(MAX_LANES - 1).map(|name| shorten(name, 14).into_owned()).collect();
    if hidden > 0 {
        heads.truncate(MAX_LANES - 2);
        heads.push("others".to_owned());
    }
    heads.push("hub".to_owned());
    let pitch = (LANES_WIDTH / heads.len()).min(MAX_PITCH) / 2 * 2;
    let middle = |lane: usize| lane * pitch + pitch / 2;
    let hub = middle(heads.len() - 1);
    let is_kept = |index: usize| {
        history.len() <= MAX_ALL
            || index < KEPT_FIRST
            || index + KEPT_LAST >= history.len()
            || (index + KEPT_BEFORE >= focus && index <= focus + KEPT_AFTER)
            || moment.is_some_and(|moment| index + KEPT_AFTER >= moment && index <= moment + 1)
            || request == Some(index)
    };
    let (mut rows, mut gap) = (Vec::new(), 0);
    for (index, frame) in history.iter().enumerate() {
        if moment == Some(index) {
            push_gap(&mut rows, &mut gap);
            rows.extend(found.map(|(detail, message)| found_row(detail, message)));
        }
        if !is_kept(index) {
            gap += 1;
            continue;
        }
        push_gap(&mut rows, &mut gap);
        let most = if [marked, request].contains(&Some(index)) { MAX_MARKED } else { MAX_PAYLOAD };
        rows.push(frame_row(frame, middle(lane_of(&frame.actor)), hub, most, marked == Some(index)));
    }
    push_gap(&mut rows, &mut gap);
    if moment == Some(history.len()) {
        rows.extend(found.map(|(detail, message)| found_row(detail, message)));
    }
    let shown = rows.iter().filter(|row| !matches!(row.kind, "gap" | "found")).count();
    Some(Diagram { width: pitch * heads.len(), heads, pitch, rows, total: history.len() + dropped, shown, dropped })
}

fn push_gap(rows: &mut Vec<Row>, gap: &mut usize) {
    if *gap > 0 {
        rows.push(Row { kind: "gap", left_out: *gap, ..Row::default() });
        *gap = 0;
    }
}

fn found_row(detail: &FindingDetail, message: &str) -> Row {
    let waited = detail
        .waited
        .map(ms)
        .filter(|waited| *waited >= 1.0)
        .map(|waited| format!(" after {}", format_ms(waited)))
        .unwrap_or_default();
    Row {
        kind: "found",
        time: detail.at.map(|at| format_ms(ms(at))).unwrap_or_default(),
        text: format!("{}{waited}", shorten(message, MAX_PAYLOAD)),
        ..Row::default()
    }
}

fn frame_row(frame: &FrameReport, lane: usize, hub: usize, most: usize, marked: bool) -> Row {
    let actor = if frame.actor.is_empty() { "hub" } else { &frame.actor };
    let (kind, path, who) = match frame.direction {
        HistoryDirection::Sent => ("sent", format!("M{lane} 11H{hub}m-5-4l5 4-5 4"), format!("{actor} → hub")),
        HistoryDirection::Received => ("received", format!("M{hub} 11H{lane}m5-4l-5 4 5 4"), format!("hub → {actor}")),
        HistoryDirection::Neither => {
            ("neither", format!("M{} 11a3 3 0 1 0 6 0a3 3 0 1 0-6 0", lane.saturating_sub(3)), actor.to_owned())
        }
    };
    let what = if frame.kind == FrameKind::Text { "" } else { frame.kind.name() };
    let mut text = shorten(&frame.text, most).into_owned();
    if text.len() < frame.size.min(frame.text.len()) {
        text.push_str(&format!(" ({} bytes)", frame.size));
    }
    let connection = if frame.connection > 0 && frame.kind == FrameKind::Open {
        format!(" (connection {})", frame.connection)
    } else {
        String::new()
    };
    Row {
        kind,
        time: format_ms(ms(frame.at)),
        path,
        who: format!("{who}{connection}"),
        what,
        text,
        marked,
        left_out: 0,
    }
}
