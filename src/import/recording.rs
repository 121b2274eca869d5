//! The lines of a recording: what passed between clients and a hub, one JSON object each.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::source::{FileId, Sources, Span};

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Hub,
    Client,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Hub, Self::Client];

    pub fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Client => "client",
        }
    }

    pub fn other(self) -> Self {
        match self {
            Self::Hub => Self::Client,
            Self::Client => Self::Hub,
        }
    }

    /// Returns the direction of what this side sends.
    pub fn direction(self) -> &'static str {
        match self {
            Self::Hub => "from-hub",
            Self::Client => "to-hub",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A line of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedLine {
    /// Unix time in milliseconds.
    pub time: i64,
    /// The number of the connection.
    pub connection: u64,
    pub event: RecordedEvent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordedEvent {
    /// The hub accepted the upgrade.
    Opened {
        /// The requested path and query, as the hub received them.
        target: String,
        /// The subprotocol that the hub selected, or else those that the client offered.
        subprotocols: Vec<String>,
    },
    Sent {
        by: Side,
        what: SentFrame,
    },
}

/// What one side sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SentFrame {
    Text(String),
    /// A binary message of this many bytes.
    Binary(usize),
    Close {
        code: Option<u16>,
        reason: String,
    },
    /// Bytes that violate a section of RFC 6455 or, with `bound`, exceed a limit of hubproof. What this side sends
    /// afterwards is not known.
    Broken {
        what: String,
        section: String,
        bound: bool,
    },
}

impl RecordedLine {
    /// Parses a line of a recording; returns `None` for anything else.
    pub fn parse(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let time: jiff::Timestamp = line.get("time")?.as_str()?.parse().ok()?;
        let connection = line.get("connection")?.as_u64()?;
        let event = match line.get("target") {
            Some(target) => {
                let subprotocols = line.get("subprotocols").and_then(Value::as_array).into_iter().flatten();
                let subprotocols = subprotocols.filter_map(Value::as_str).map(str::to_owned).collect();
                RecordedEvent::Opened { target: target.as_str()?.to_owned(), subprotocols }
            }
            None => {
                let direction = line.get("direction")?.as_str()?;
                let by = Side::BOTH.into_iter().find(|side| side.direction() == direction)?;
                RecordedEvent::Sent { by, what: SentFrame::parse(&line)? }
            }
        };
        Some(Self { time: time.as_millisecond(), connection, event })
    }

    /// Returns the line, without a line break.
    pub fn render(&self) -> String {
        let mut line = Map::new();
        line.insert("time".to_owned(), Value::from(format_time(self.time)));
        line.insert("connection".to_owned(), Value::from(self.connection));
        let (name, value) = match &self.event {
            RecordedEvent::Opened { target, subprotocols } => {
                line.insert("target".to_owned(), Value::from(target.as_str()));
                ("subprotocols", json!(subprotocols))
            }
            RecordedEvent::Sent { by, what } => {
                line.insert("direction".to_owned(), Value::from(by.direction()));
                match what {
                    SentFrame::Text(text) => ("text", json!(text)),
                    SentFrame::Binary(size) => ("binary", json!(size)),
                    SentFrame::Close { code, reason } => ("close", json!({ "code": code, "reason": reason })),
                    SentFrame::Broken { what, section, bound } => {
                        ("broken", json!({ "what": what, "section": section, "bound": bound }))
                    }
                }
            }
        };
        line.insert(name.to_owned(), value);
        Value::Object(line).to_string()
    }
}

/// Reads all lines of a recording.
///
/// # Errors
/// A line is not one of a recording.
pub fn read_lines(file: FileId, sources: &Sources) -> Result<Vec<RecordedLine>, Diagnostic> {
    let (mut lines, mut start) = (Vec::new(), 0);
    for line in sources.file(file).text.split_inclusive('\n') {
        let span = Span::new(file, start..start + line.trim_end().len());
        start += line.len();
        if line.trim().is_empty() {
            continue;
        }
        lines.push(RecordedLine::parse(line).ok_or_else(|| {
            Diagnostic::error(span, "this line is not a recorded frame or connection").help(
                "each line is `{\"time\": ..., \"connection\": 1, \"direction\": \"to-hub\", \"text\": \"...\"}`, or has `target` and `subprotocols` instead of `direction` and `text`",
            )
        })?);
    }
    Ok(lines)
}

impl SentFrame {
    fn parse(line: &Value) -> Option<Self> {
        let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
        if let Some(text) = text(line, "text") {
            return Some(Self::Text(text));
        }
        if let Some(size) = line.get("binary") {
            return Some(Self::Binary(usize::try_from(size.as_u64()?).ok()?));
        }
        if let Some(close) = line.get("close") {
            let code = close.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
            return Some(Self::Close { code, reason: text(close, "reason")? });
        }
        let broken = line.get("broken")?;
        let bound = broken.get("bound")?.as_bool()?;
        Some(Self::Broken { what: text(broken, "what")?, section: text(broken, "section")?, bound })
    }
}

/// Formats Unix time in milliseconds as RFC 3339 with milliseconds.
pub fn format_time(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rendered_line_is_parsed_again() {
        let sent = |by, what| RecordedEvent::Sent { by, what };
        let broken = SentFrame::Broken { what: "masked".to_owned(), section: "5.1".to_owned(), bound: false };
        for event in [
            RecordedEvent::Opened { target: "/a?b=c".to_owned(), subprotocols: vec!["p".to_owned()] },
            sent(Side::Hub, SentFrame::Text("{\"a\":\"\\u00e9\"}".to_owned())),
            sent(Side::Client, SentFrame::Binary(7)),
            sent(Side::Hub, SentFrame::Close { code: Some(1000), reason: "bye".to_owned() }),
            sent(Side::Client, SentFrame::Close { code: None, reason: String::new() }),
            sent(Side::Client, broken),
        ] {
            let line = RecordedLine { time: 1_700_000_000_120, connection: 3, event };
            assert_eq!(RecordedLine::parse(&line.render()), Some(line));
        }
    }

    #[test]
    fn other_lines_are_not_parsed() {
        let whole = r#"{"time":"2026-01-01T00:00:00.000Z","connection":1,"direction":"to-hub","text":"x"}"#;
        assert!(RecordedLine::parse(whole).is_some());
        for (part, other) in
            [("to-hub", "up"), ("\"connection\":1", "\"connection\":-1"), ("text", "words"), ("2026", "x")]
        {
            assert_eq!(RecordedLine::parse(&whole.replace(part, other)), None, "{other}");
        }
        assert_eq!(RecordedLine::parse("[]"), None);
    }
}
