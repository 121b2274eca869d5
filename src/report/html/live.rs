//! The page of a load run that has not ended. A server sends the page once, and every second what is new: the parts that
//! [`load`] renders from the report so far, and the data of plots, either of the whole run or of the last interval.

use serde::Serialize;
use serde_json::{Value, json};

use super::load;
use super::page::{Templates, view};
use super::{HtmlError, LoadDocument, MAX_TEXT, ReportKind, limit_texts};

/// The state of a run, shown above its report so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LiveState {
    /// Where the run is: `measured, 12 s of 60 s`.
    pub phase: String,
    /// What happens next: `48 s until the drain`.
    pub next: String,
    /// Whether new journeys are held back.
    pub held: bool,
    /// Whether new journeys can be held back, or resumed.
    pub can_hold: bool,
    /// The beginning of the warm-up in seconds, if it is known.
    #[serde(skip)]
    pub begin_s: Option<f64>,
}

/// Renders the page to which updates are sent, such as those of [`update`], by the name of its command.
///
/// # Errors
///
/// A mistake of hubproof.
pub fn page(command: &str, title: &str) -> Result<String, HtmlError> {
    let templates = Templates::new()?;
    let body = templates.part("live", view! { command, title })?;
    Ok(templates.live_page(title, &body)?)
}

/// Renders the parts of a page that change, as JSON. `document` is the JSON report so far, without a state the final
/// one. If `is_next`, it has only the last interval, whose points are added to those that a page already shows.
///
/// # Errors
///
/// The document is not a load report.
pub fn update(mut document: Value, state: Option<&LiveState>, is_next: bool) -> Result<Value, HtmlError> {
    limit_texts(&mut document, ReportKind::Load, MAX_TEXT);
    let document: LoadDocument = serde_json::from_value(document)
        .map_err(|error| HtmlError::Report { name: "the report so far".to_owned(), reason: error.to_string() })?;
    let parts = load::render_parts(&Templates::new()?, &document, state)?;
    let last = document.intervals.last();
    Ok(json!({
        "title": format!("{} – hubproof", super::page::visible(&parts.title)),
        "body": parts.body.to_string(),
        "plots": parts.plots,
        "next": is_next,
        "from": last.map(|last| last.from_s),
        "to": last.map(|last| last.to_s),
        "phase": last.map(|last| &last.phase),
        "ended": state.is_none(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{
        "format": "hubproof-load-report", "format_version": 1,
        "tool": {"name": "hubproof", "version": "0"}, "thresholds": [], "delivery_ratios": {}, "errors": 0,
        "times": {}, "counts": {"jobs.started": {"whole_run": 2, "measured": 2, "per_second": 1.0}},
        "validity": {"verdict": "valid", "reasons": []}, "ledger": {"counts": {"attempted": 2}, "violations": []},
        "run": {"started": "now", "duration_s": 2.0, "measured_s": 2.0, "protocol": "own", "plan": "p", "seed": 1,
            "title": "t", "target": "hub",
            "command": [], "interrupted": false, "exit_code": 0, "facts": {}, "summary": "PASS p: fine",
            "schedules": {"jobs": [{"from_s": 0.0, "to_s": 9.0, "from_per_second": 4.0, "to_per_second": 4.0}]},
            "holds": [{"from_s": 1.0, "to_s": 2.0}]},
        "intervals": [
            {"from_s": 0.0, "to_s": 1.0, "phase": "measured", "times": {}, "counts": {"jobs.started": 4}, "levels": {}, "cores": {}},
            {"from_s": 1.0, "to_s": 2.0, "phase": "held", "times": {}, "counts": {}, "levels": {}, "cores": {}}]
    }"#;

    fn report() -> Value {
        serde_json::from_str(REPORT).unwrap()
    }

    fn state(held: bool) -> LiveState {
        LiveState { phase: "measured".to_owned(), held, can_hold: true, begin_s: Some(0.0), ..LiveState::default() }
    }

    #[test]
    fn a_running_run_has_buttons_and_no_verdict() {
        let update = update(report(), Some(&state(false)), false).unwrap();
        let body = update["body"].as_str().unwrap();
        assert!(body.contains("p: running") && body.contains(r#"data-live="hold""#), "{body}");
        assert!(!body.contains("PASS") && !body.contains("The run is"), "{body}");
        assert_eq!((&update["ended"], &update["from"], &update["phase"]), (&json!(false), &json!(1.0), &json!("held")));
        let held = super::update(report(), Some(&state(true)), false).unwrap();
        assert!(held["body"].as_str().unwrap().contains(r#"data-live="resume""#), "{held}");
    }

    #[test]
    fn the_final_update_is_the_page_of_the_report() {
        let update = update(report(), None, false).unwrap();
        let body = update["body"].as_str().unwrap();
        assert!(body.contains("PASS p: fine") && !body.contains("data-live"), "{body}");
        assert_eq!(update["ended"], true);
        let named = super::super::NamedReport { name: "r".to_owned(), text: REPORT.to_owned() };
        let page = super::super::render(&[named], |_, _| Err(String::new())).unwrap();
        assert!(page.contains(body), "the page of `--report html=` has the same body");
    }

    #[test]
    fn no_journey_is_scheduled_during_a_hold() {
        let update = update(report(), None, false).unwrap();
        let plots = update["plots"].as_array().unwrap();
        let lines = plots.iter().flat_map(|plot| plot["series"].as_array().into_iter().flatten());
        let scheduled = { lines }.find(|line| line["label"] == "jobs scheduled").unwrap();
        assert_eq!(scheduled["values"], json!([4.0, 0.0]));
    }

    /// The page runs only its own scripts, and talks only to the server from which it came.
    #[test]
    fn the_page_may_talk_to_its_server_and_to_no_other() {
        let page = page("hubproof load", "A running load run").unwrap();
        assert!(page.contains("; connect-src &#39;self&#39;\"") || page.contains("; connect-src 'self'\""), "{page}");
        assert!(page.contains("default-src 'none'; script-src 'sha256-"), "{page}");
        assert!(page.contains(r#"<div id="live">"#), "{page}");
    }

    #[test]
    fn text_of_a_hub_is_escaped_in_updates() {
        let mut evil = report();
        evil["run"]["title"] = json!("</script><script>x()</script>\u{202e}");
        evil["connections"] = json!([{"how": "closed", "code": 1000, "reason": "<img src=x onerror=x()>", "count": 1}]);
        let update = update(evil, Some(&state(false)), true).unwrap().to_string();
        assert!(!update.contains("<script") && !update.contains("<img") && !update.contains('\u{202e}'), "{update}");
    }
}
