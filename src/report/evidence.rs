//! The frames of a conversation that a finding rests on.

use std::collections::BTreeSet;

use crate::outcome::{FindingDetail, FrameReport, HistoryDirection};

/// How many characters identify a frame in the evidence, which may be cut.
const COMPARED_CHARS: usize = 120;

/// Returns the position in the history at which the finding was made: the number of lines before it.
pub fn moment_of(detail: &FindingDetail, history: &[FrameReport]) -> usize {
    detail.at.map_or(history.len(), |at| history.partition_point(|frame| frame.at <= at))
}

/// Returns the index of the received frame that the evidence quotes.
pub fn find_frame(detail: &FindingDetail, history: &[FrameReport]) -> Option<usize> {
    let quotes = |start: &str| detail.received.contains(start);
    find(detail, history, HistoryDirection::Received, &detail.actor, quotes)
}

/// Returns the index of the request that the finding is about.
pub fn find_request(detail: &FindingDetail, history: &[FrameReport]) -> Option<usize> {
    let sent = detail.sent.as_ref()?;
    let sender = detail.sender.as_ref().unwrap_or(&detail.actor);
    find(detail, history, HistoryDirection::Sent, sender, |start| sent.starts_with(start))
}

fn find(
    detail: &FindingDetail,
    history: &[FrameReport],
    direction: HistoryDirection,
    actor: &str,
    quotes: impl Fn(&str) -> bool,
) -> Option<usize> {
    history[..moment_of(detail, history)].iter().rposition(|frame| {
        let text = frame.text.trim_end_matches("...");
        let start = text.char_indices().nth(COMPARED_CHARS).map_or(text, |(end, _)| &text[..end]);
        frame.direction == direction
            && (actor.is_empty() || frame.actor == actor)
            && start.chars().count() > 2
            && quotes(start)
    })
}

/// Returns the indices of at most `most` lines of a history, in order: the request and the frame that the finding is
/// about, then their neighbours. Without a finding, the last lines.
pub fn telling_lines(detail: Option<&FindingDetail>, history: &[FrameReport], most: usize) -> BTreeSet<usize> {
    let last = history.len().saturating_sub(1);
    let found = detail.map_or(last, |detail| {
        find_frame(detail, history).unwrap_or_else(|| moment_of(detail, history).saturating_sub(1).min(last))
    });
    let centres = [Some(found), detail.and_then(|detail| find_request(detail, history))];
    let mut lines = BTreeSet::new();
    for distance in 0..history.len() {
        let before = centres.iter().flatten().filter_map(|centre| centre.checked_sub(distance));
        let after = centres.iter().flatten().map(|centre| centre + distance).filter(|index| *index <= last);
        for index in before.chain(after) {
            if lines.len() < most {
                lines.insert(index);
            }
        }
        if lines.len() >= most {
            break;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::*;
    use crate::outcome::FrameKind;

    fn history(texts: &[(HistoryDirection, &str)]) -> Vec<FrameReport> {
        let frame = |(index, (direction, text)): (usize, &(HistoryDirection, &str))| FrameReport {
            at: Duration::from_millis(index as u64),
            actor: "anna".to_owned(),
            connection: 0,
            direction: *direction,
            kind: FrameKind::Text,
            text: (*text).to_owned(),
            size: text.len(),
            hash: None,
            status: None,
        };
        texts.iter().enumerate().map(frame).collect()
    }

    /// Heartbeats come after the request and after the frame in question.
    #[rstest]
    #[case::frame(r#"7 in {"reply":7}"#, 4, &[1, 2, 9, 10])]
    #[case::nothing("nothing, connection still open", 4, &[1, 2, 10, 11])]
    #[case::all("nothing", 40, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])]
    fn lines_around_request_and_frame_come_first(
        #[case] received: &str,
        #[case] most: usize,
        #[case] expected: &[usize],
    ) {
        use HistoryDirection::{Received, Sent};
        let beat = (Received, r#"{"beat":1}"#);
        let mut texts = vec![beat; 15];
        (texts[2], texts[10]) = ((Sent, r#"{"ask":1}"#), (Received, r#"{"reply":7}"#));
        let history = history(&texts);
        let detail = FindingDetail {
            actor: "anna".to_owned(),
            sent: Some(r#"{"ask":1}"#.to_owned()),
            received: received.to_owned(),
            at: Some(Duration::from_millis(11)),
            ..FindingDetail::default()
        };
        let lines = telling_lines(Some(&detail), &history, most);
        assert_eq!(lines.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(telling_lines(None, &history, 3).into_iter().collect::<Vec<_>>(), [12, 13, 14]);
    }
}
