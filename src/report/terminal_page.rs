//! A page for the terminal: lines, aligned fields, colours, and the parts that the pages of all engines share.

use std::fmt::Write;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use anstyle::{AnsiColor, Style as Paint};

use super::text::{escape_unprintable, format_count};
use super::{DeviationReport, EntryStanding};
use crate::syntax::source::{Sources, Span};

/// The style of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub color: bool,
    /// Width in columns: text is wrapped to it, frames are cut.
    pub width: usize,
    /// Whether to list items that are normally only counted, and to show every list in full.
    pub verbose: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { color: false, width: 100, verbose: false }
    }
}

pub const BOLD: Paint = Paint::new().bold();
pub const RED: Paint = BOLD.fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
pub const DIM: Paint = Paint::new().dimmed();
/// How many failed scenarios, causes and warnings are shown; the others are only counted.
const IN_FULL: usize = 20;
/// Most names in a list.
const NAMES: usize = 12;

/// Returns a text with its style, if the output has color.
pub fn paint(color: bool, paint: Paint, text: &str) -> String {
    if color && !text.is_empty() { format!("{paint}{text}{paint:#}") } else { text.to_owned() }
}

/// Returns the word for an exit code.
pub fn verdict_word(exit_code: u8) -> &'static str {
    match exit_code {
        0 => "PASS",
        1 => "FAIL",
        2 => "MISTAKE",
        _ => "INCONCLUSIVE",
    }
}

/// Formats `FAIL concierge: 1 of 23 rules broken (CON-042), 5 not judged`.
pub fn verdict_line(exit_code: u8, name: &str, parts: &[String]) -> String {
    format!("{} {name}: {}", verdict_word(exit_code), parts.join(", "))
}

/// Formats `1 of 23 rules broken (CON-042)`, with at most `most` of the names.
pub fn broken(names: &[String], all: usize, what: &str, most: usize) -> String {
    format!("{} of {} broken ({})", names.len(), format_count(all, what), list(names, most))
}

/// Formats `1 rule holds` or `23 rules hold`.
pub fn holding(n: usize, what: &str) -> String {
    format!("{} {}", format_count(n, what), if n == 1 { "holds" } else { "hold" })
}

pub fn list(names: &[String], most: usize) -> String {
    let shown = names.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > most { format!("{shown} and {} more", names.len() - most) } else { shown }
}

/// The text of a page, and the report that it shows.
pub struct Page<'a, R> {
    pub out: String,
    pub style: Style,
    /// The files of the report's spans.
    pub sources: &'a Sources,
    pub report: &'a R,
}

impl<'a, R> Page<'a, R> {
    /// Starts a page with a line that names the version of the tool and the hub.
    pub fn new(tool_version: &str, target: &str, report: &'a R, sources: &'a Sources, style: Style) -> Self {
        let mut page = Self { out: String::new(), style, sources, report };
        page.line(&page.paint(BOLD, &format!("hubproof {tool_version} against {}", escape_unprintable(target))));
        page
    }

    /// Returns the number of items that a list shows.
    pub fn most(&self) -> usize {
        self.limit(IN_FULL)
    }

    /// Returns the number of names that a list in a line shows.
    pub fn names(&self) -> usize {
        self.limit(NAMES)
    }

    /// Returns a limit on what is shown, which verbose pages do not have.
    pub fn limit(&self, most: usize) -> usize {
        if self.style.verbose { usize::MAX } else { most }
    }

    pub fn more(&mut self, all: usize, what: &str) {
        if all > self.most() {
            self.gap();
            self.line(&format!(
                "... and {} more; to see all, use --verbose or --report json=FILE",
                format_count(all - self.most(), what)
            ));
        }
    }

    pub fn paint(&self, paint: Paint, text: &str) -> String {
        self::paint(self.style.color, paint, text)
    }

    /// Adds an empty line, unless there is one already.
    pub fn gap(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    pub fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    pub fn wrapped(&mut self, indent: &str, text: &str) {
        self.wrap(indent, "  ", text);
    }

    /// Wraps text, but only at blanks, so that JSON, names and places can be copied.
    fn wrap(&mut self, first_indent: &str, indent: &str, text: &str) {
        let options = textwrap::Options::new(self.style.width.max(40))
            .break_words(false)
            .word_separator(textwrap::WordSeparator::AsciiSpace)
            .word_splitter(textwrap::WordSplitter::NoHyphenation)
            .initial_indent(first_indent)
            .subsequent_indent(indent);
        for line in textwrap::wrap(text, options) {
            self.line(&line);
        }
    }

    /// Writes `  name       text`, with the text wrapped in its column.
    pub fn field(&mut self, name: &str, text: &str) {
        self.wrap(&format!("  {name:<11} "), "              ", text);
    }

    /// Writes the verdict line.
    pub fn verdict(&mut self, exit_code: u8, name: &str, parts: &[String]) {
        let color = match exit_code {
            0 => AnsiColor::Green,
            3 => AnsiColor::Yellow,
            _ => AnsiColor::Red,
        };
        let (word, line) = (verdict_word(exit_code), verdict_line(exit_code, name, parts));
        let painted = self.paint(BOLD.fg_color(Some(color.into())), word);
        self.line(&format!("{painted}{}", &line[word.len()..]));
    }

    /// Shows a title, and the first line of a span below it.
    pub fn snippet(&mut self, level: Level<'_>, id: Option<&str>, title: &str, span: Option<Span>) {
        let mut heading = level.primary_title(title);
        if let Some(id) = id {
            heading = heading.id(id);
        }
        let group = match span {
            None => Group::with_title(heading),
            Some(span) => {
                let span = self.sources.shown(span);
                let file = self.sources.file(span.file);
                let caret = AnnotationKind::Primary.span(first_line(&file.text, span));
                heading.element(Snippet::source(&file.text).path(&file.path).annotation(caret))
            }
        };
        let renderer = if self.style.color { Renderer::styled() } else { Renderer::plain() };
        let text = renderer.decor_style(DecorStyle::Ascii).term_width(self.style.width).render(&[group]);
        // Writing into a String cannot fail.
        let _ = writeln!(self.out, "{text}");
    }

    /// Shows the deviations of the hub, each with what the run observed.
    pub fn deviations(&mut self, deviations: &[DeviationReport]) {
        for one in deviations {
            self.gap();
            let text = escape_unprintable(&one.text);
            if one.standing == EntryStanding::Stale {
                let title = format!("{text}: the hub behaves as documented");
                self.snippet(Level::ERROR.with_name("stale"), Some(&one.name), &title, one.span);
                let times = format_count(one.contradicted, "message");
                self.field("received", &format!("{times} as documented; {} as declared", one.observed));
                self.field("delete", "this entry");
                continue;
            }
            let place = one.span.map(|span| format!(" ({})", self.sources.path_and_line(span))).unwrap_or_default();
            let word = if one.span.is_some() { "known" } else { "assumed" };
            self.wrapped("", &format!("{word}[{}]: {text}{place}", one.name));
            self.field("reason", &escape_unprintable(&one.reason));
            if !one.rules.is_empty() {
                self.field("breaks", &one.rules.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
            }
            self.field("seen", &one.describe_sightings());
        }
    }
}

/// Returns the part of the verdict line about deviations that the hub no longer shows.
pub fn stale_deviations(deviations: &[DeviationReport]) -> Option<String> {
    let stale = deviations.iter().filter(|one| one.is_stale()).count();
    (stale > 0).then(|| format!("{} in the target file", format_count(stale, "stale deviation")))
}

/// Returns the first line of a span, so that a snippet does not draw a whole block.
fn first_line(text: &str, span: Span) -> std::ops::Range<usize> {
    let end = (span.end as usize).min(text.len());
    let start = (span.start as usize).min(end);
    let line = text.get(start..end).and_then(|part| part.find('\n')).map_or(end, |at| start + at);
    start..line
}
