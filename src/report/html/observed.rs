//! The page of observed traffic, while it passes and at the end.

use serde::Serialize;
use serde_json::{Value, json};

use super::HtmlError;
use super::page::{Templates, visible};

/// What the page shows.
#[derive(Serialize)]
pub struct ObservedView {
    /// The verdict line, or what is being observed.
    pub title: String,
    /// `pass`, `fail`, `inconclusive` or `running`.
    pub verdict: &'static str,
    /// Facts about the run, and numbers, by name.
    pub facts: Vec<(&'static str, String)>,
    pub findings: Vec<FindingView>,
    /// The number of findings that are not shown.
    pub more: usize,
}

/// A finding, the worst first.
#[derive(Serialize)]
pub struct FindingView {
    pub verdict: &'static str,
    pub headline: String,
    /// How often it was seen.
    pub seen: String,
    /// The frames around the first occurrence, and whether the finding is about each.
    pub frames: Vec<(bool, String)>,
}

/// Renders the page of a run that has ended.
///
/// # Errors
///
/// A mistake of hubproof.
pub fn page(view: &ObservedView) -> Result<String, HtmlError> {
    let templates = Templates::new()?;
    let body = templates.part("observed", view)?;
    Ok(templates.page(&view.title, &body, None)?)
}

/// Renders the parts of a live page that change, as JSON.
///
/// # Errors
///
/// A mistake of hubproof.
pub fn update(view: &ObservedView) -> Result<Value, HtmlError> {
    let body = Templates::new()?.part("observed", view)?;
    Ok(json!({
        "title": format!("{} – hubproof", visible(&view.title)),
        "body": body.to_string(),
        "plots": [],
        "next": false,
        "ended": view.verdict != "running",
    }))
}
