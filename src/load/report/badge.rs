//! The badge of a load run.

use super::LoadReport;
use super::terminal::verdict_parts;
use crate::report::badge::render_parts;

/// Renders JSON; ends with a newline.
pub fn render(report: &LoadReport) -> String {
    let parts = verdict_parts(report);
    let message = parts.first().map_or("no thresholds", String::as_str);
    render_parts(&format!("hubproof {}", report.about.plan), message, report.exit_code())
}
