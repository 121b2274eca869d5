//! Pages in HTML, made from JSON reports and nothing else: one file without network access, for people.
//!
//! Text from a hub is untrusted. Three things keep it harmless, each in one place: [`limit_texts`] shortens every text
//! of a report, the formatter of [`page`] escapes every text that a template prints and makes characters visible that
//! cannot be seen, and a content security policy permits only the page's own script and style.

mod check;
mod compare;
mod conversation;
mod diff;
mod fuzz;
pub mod live;
mod load;
pub mod observed;
mod page;
mod plots;

#[cfg(test)]
mod tests;

use serde_json::Value;

use super::document;
use super::document::check::RunDocument;
use super::document::comparison::LoadComparison;
use super::document::load::LoadDocument;
use page::PageError;

/// A JSON report with the name under which a page shows it.
#[derive(Clone)]
pub struct NamedReport {
    pub name: String,
    pub text: String,
}

/// The kind of a JSON report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReportKind {
    Check,
    Fuzz,
    Load,
}

impl ReportKind {
    fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Fuzz => "fuzz",
            Self::Load => "load",
        }
    }
}

/// An error of [`render`].
#[derive(Debug, thiserror::Error)]
pub enum HtmlError {
    #[error("failed to read {name}: {reason}")]
    Report { name: String, reason: String },
    #[error("{0}")]
    Mixture(String),
    #[error(transparent)]
    Page(#[from] PageError),
}

/// The most characters of one text that are kept, and of a frame, which is compared.
const MAX_TEXT: usize = 4_000;
const MAX_FRAME: usize = 64 << 10;

/// Renders a page: for check and fuzz reports side by side, for one load report, or for the comparison of two.
/// `comparison` compares two load reports.
///
/// # Errors
///
/// A text is not a report, or the reports do not belong on one page.
pub fn render(
    reports: &[NamedReport],
    comparison: impl FnOnce(&LoadDocument, &LoadDocument) -> Result<LoadComparison, String>,
) -> Result<String, HtmlError> {
    let mut documents = Vec::new();
    for report in reports {
        let failed = |reason: String| HtmlError::Report { name: report.name.clone(), reason };
        let mut document: Value =
            serde_json::from_str(&report.text).map_err(|error| failed(format!("it is not JSON: {error}")))?;
        let kind = kind_of(&document).map_err(failed)?;
        limit_texts(&mut document, kind, MAX_TEXT);
        documents.push((report.name.clone(), kind, document));
    }
    let Some((_, kind, _)) = documents.first() else {
        return Err(HtmlError::Mixture("there is no report to render".to_owned()));
    };
    let kind = *kind;
    if let Some((name, other, _)) = documents.iter().find(|(_, other, _)| *other != kind) {
        return Err(HtmlError::Mixture(format!(
            "{name} is a report of `{}`, and the first report is of `{}`: a page shows reports of one command",
            other.name(),
            kind.name()
        )));
    }
    let number = documents.len();
    match kind {
        ReportKind::Check => Ok(check::render(read_all(documents)?)?),
        ReportKind::Fuzz => Ok(fuzz::render(read_all(documents)?)?),
        ReportKind::Load => {
            let mut loads = read_all::<LoadDocument>(documents)?.into_iter();
            match (loads.next(), loads.next(), number) {
                (Some((_, one)), None, _) => Ok(load::render(&one)?),
                (Some(a), Some(b), 2) => {
                    let differences = comparison(&a.1, &b.1).map_err(HtmlError::Mixture)?;
                    Ok(compare::render(&a, &b, &differences)?)
                }
                _ => Err(HtmlError::Mixture(format!("{number} load reports cannot be compared: pass one or two"))),
            }
        }
    }
}

/// Returns the kind of a report, or why it cannot be shown.
fn kind_of(report: &Value) -> Result<ReportKind, String> {
    let format = report.get("format").and_then(Value::as_str).unwrap_or_default();
    // Later versions of a format may have other members.
    let known = report.get("format_version").and_then(Value::as_u64) == Some(1);
    let kind = match format {
        document::check::FORMAT => {
            let fuzzed = report.pointer("/protocols").and_then(Value::as_array).is_some_and(|protocols| {
                protocols.iter().any(|protocol| protocol.get("fuzzed").is_some_and(|fuzzed| !fuzzed.is_null()))
            });
            if fuzzed { ReportKind::Fuzz } else { ReportKind::Check }
        }
        document::load::FORMAT => ReportKind::Load,
        _ => return Err("it is JSON, but not a report of hubproof: its `format` is unknown".to_owned()),
    };
    if known {
        Ok(kind)
    } else {
        let version = report.get("format_version").unwrap_or(&Value::Null);
        Err(format!("it is a report of format version {version}, but this hubproof reads version 1"))
    }
}

/// Reads a report of `check` or `fuzz`.
///
/// # Errors
/// It is something else.
pub fn read_run(text: &str) -> Result<RunDocument, String> {
    let document: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    match kind_of(&document)? {
        ReportKind::Check | ReportKind::Fuzz => serde_json::from_value(document)
            .map_err(|error| format!("it claims to be a report of hubproof, but is not: {error}")),
        ReportKind::Load => Err("it is a load report; `load --share` writes files for `merge`".to_owned()),
    }
}

fn read_all<T: serde::de::DeserializeOwned>(
    documents: Vec<(String, ReportKind, Value)>,
) -> Result<Vec<(String, T)>, HtmlError> {
    let read = |(name, _, document): (String, ReportKind, Value)| match serde_json::from_value(document) {
        Ok(read) => Ok((name, read)),
        Err(error) => Err(HtmlError::Report {
            name,
            reason: format!("it claims to be a report of hubproof, but is not: {error}"),
        }),
    };
    documents.into_iter().map(read).collect()
}

/// Shortens every text of a report, and says how much is left out. Histograms are long, but not shown.
fn limit_texts(value: &mut Value, kind: ReportKind, most: usize) {
    match value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(most) {
                let left_out = text[end..].chars().count();
                text.truncate(end);
                text.push_str(&format!(" … ({left_out} more characters)"));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| limit_texts(item, kind, most)),
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                if !(kind == ReportKind::Load && name == "histogram") {
                    limit_texts(member, kind, if name == "text" { MAX_FRAME } else { MAX_TEXT });
                }
            }
        }
        _ => {}
    }
}
