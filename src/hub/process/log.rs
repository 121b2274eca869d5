//! The output of a hub, bounded: its first and last lines, and the number of lines dropped between them.

use std::collections::VecDeque;

use crate::outcome::LogExcerpt;

/// The most bytes kept of the first lines, and of the last lines.
const MAX_FIRST_BYTES: usize = 16 << 10;
const MAX_LAST_BYTES: usize = 48 << 10;
/// The most bytes kept of one line.
const MAX_LINE_BYTES: usize = 4 << 10;
/// The most bytes of a line that are masked before it is cut: only a whole secret can be masked.
const MAX_MASKED_BYTES: usize = 2 * MAX_LINE_BYTES;

/// Lines of stdout and stderr, in the order of their arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessLog {
    first: Vec<String>,
    last: VecDeque<String>,
    /// The number of bytes of the first lines, and of the last lines.
    kept: (usize, usize),
    dropped: usize,
}

impl ProcessLog {
    pub fn push(&mut self, line: String) {
        let size = line.len() + 1;
        if self.last.is_empty() && self.kept.0 + size <= MAX_FIRST_BYTES {
            self.kept.0 += size;
            self.first.push(line);
            return;
        }
        self.kept.1 += size;
        self.last.push_back(line);
        while self.kept.1 > MAX_LAST_BYTES
            && let Some(line) = self.last.pop_front()
        {
            self.kept.1 -= line.len() + 1;
            self.dropped += 1;
        }
    }

    /// Returns the last lines, at most `most`.
    pub fn last_lines(&self, most: usize) -> LogExcerpt {
        let held = self.first.len() + self.last.len();
        if held <= most && self.dropped > 0 {
            // Show the gap between the first and the last lines.
            let gap = format!("... {} lines are left out here ...", self.dropped);
            let lines = self.first.iter().chain(std::iter::once(&gap)).chain(&self.last).cloned().collect();
            return LogExcerpt { lines, left_out: self.dropped };
        }
        let skipped = held.saturating_sub(most);
        let lines = self.first.iter().chain(&self.last).skip(skipped).cloned().collect();
        LogExcerpt { lines, left_out: self.dropped + skipped }
    }
}

/// Splits output into lines; even an endless line takes bounded memory.
#[derive(Default)]
pub struct LineSplitter {
    begun: Vec<u8>,
}

impl LineSplitter {
    /// Adds bytes and returns the lines that they complete, without their line ends.
    pub fn take_lines(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut complete = Vec::new();
        let mut parts = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            let room = MAX_MASKED_BYTES.saturating_sub(self.begun.len());
            self.begun.extend_from_slice(&part[..part.len().min(room)]);
            if parts.peek().is_some() {
                complete.push(line_text(&std::mem::take(&mut self.begun)));
            }
        }
        complete
    }

    /// Returns the text after the last line end.
    pub fn take_rest(&mut self) -> Option<String> {
        (!self.begun.is_empty()).then(|| line_text(&std::mem::take(&mut self.begun)))
    }
}

fn line_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes)).into_owned()
}

/// Cuts a line to the length that is kept.
pub fn cut_line(mut line: String) -> String {
    if line.len() > MAX_LINE_BYTES {
        line.truncate(line.floor_char_boundary(MAX_LINE_BYTES));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&["a\nb\n"], &["a", "b"])]
    #[case(&["a", "b\r\nc"], &["ab", "c"])]
    #[case(&["\n\n"], &["", ""])]
    #[case(&[""], &[])]
    fn output_is_cut_into_lines(#[case] chunks: &[&str], #[case] expected: &[&str]) {
        let mut lines = LineSplitter::default();
        let mut all: Vec<String> = chunks.iter().flat_map(|chunk| lines.take_lines(chunk.as_bytes())).collect();
        all.extend(lines.take_rest());
        assert_eq!(all, expected);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut lines = LineSplitter::default();
        for _ in 0..100 {
            assert!(lines.take_lines(&[b'x'; 8 << 10]).is_empty());
            assert!(lines.begun.len() <= MAX_MASKED_BYTES);
        }
        let line = cut_line(lines.take_rest().unwrap());
        assert_eq!((line.len(), line.chars().last()), (MAX_LINE_BYTES + '…'.len_utf8(), Some('…')));
    }

    #[test]
    fn a_long_log_keeps_its_first_and_last_lines() {
        let mut log = ProcessLog::default();
        let many = 100_000;
        (0..many).for_each(|n| log.push(format!("line {n}")));
        assert!(log.kept.0 <= MAX_FIRST_BYTES && log.kept.1 <= MAX_LAST_BYTES);
        let whole = log.last_lines(usize::MAX);
        assert_eq!(whole.lines.first().unwrap(), "line 0");
        assert_eq!(whole.lines.last().unwrap(), "line 99999");
        // One line reports the number of dropped lines.
        assert_eq!(whole.lines.len() - 1 + whole.left_out, many);
        let tail = log.last_lines(2);
        assert_eq!((tail.lines, tail.left_out), (vec!["line 99998".to_owned(), "line 99999".to_owned()], many - 2));
    }

    #[test]
    fn a_short_log_is_kept_whole() {
        let mut log = ProcessLog::default();
        log.push("one".to_owned());
        log.push("two".to_owned());
        assert_eq!(log.last_lines(2), LogExcerpt { lines: vec!["one".to_owned(), "two".to_owned()], left_out: 0 });
        assert_eq!(log.last_lines(1), LogExcerpt { lines: vec!["two".to_owned()], left_out: 1 });
    }
}
