//! The badge: an endpoint of <https://shields.io/badges/endpoint-badge>. The web server that shows it only needs to serve
//! the file.

use serde_json::json;

use super::terminal::verdict_parts;
use super::text::{escape_unprintable, format_count, shorten};
use super::{RunReport, exit_code};

/// Most characters of a badge's message.
const MAX_MESSAGE: usize = 80;

/// Renders JSON; ends with a newline.
pub fn render(report: &RunReport) -> String {
    let (label, message) = match &report.protocols[..] {
        [only] => {
            let parts = verdict_parts(only, &report.options);
            (format!("hubproof {}", only.name), parts.into_iter().next().unwrap_or_default())
        }
        all => {
            let passed = all.iter().filter(|protocol| protocol.exit_code(&report.options) == 0).count();
            ("hubproof".to_owned(), format!("{passed} of {} pass", format_count(all.len(), "protocol")))
        }
    };
    render_parts(&label, &message, exit_code(report))
}

/// Renders a badge whose color depends on the exit code.
pub fn render_parts(label: &str, message: &str, exit_code: u8) -> String {
    let color = match exit_code {
        0 => "brightgreen",
        3 => "lightgrey",
        _ => "red",
    };
    let message = if exit_code == 3 { format!("inconclusive: {message}") } else { message.to_owned() };
    let badge = json!({
        "schemaVersion": 1,
        "label": escape_unprintable(label),
        "message": shorten(&escape_unprintable(&message), MAX_MESSAGE),
        "color": color,
        "isError": exit_code != 0,
    });
    format!("{badge:#}\n")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::Value;

    use super::super::fixture::{RunFixture, options};
    use super::*;

    #[rstest]
    #[case(RunFixture::all_pass(), "6 rules hold", "brightgreen")]
    #[case(RunFixture::one_failure(), "1 of 7 rules broken (GRE-002)", "red")]
    #[case(RunFixture::unreachable(), "inconclusive: nothing could be checked", "lightgrey")]
    fn a_badge_has_the_verdict_and_its_color(#[case] run: RunFixture, #[case] message: &str, #[case] color: &str) {
        let badge: Value = serde_json::from_str(&render(&run.report(options()))).unwrap();
        assert_eq!((badge["message"].as_str(), badge["color"].as_str()), (Some(message), Some(color)));
        assert_eq!((&badge["label"], &badge["schemaVersion"]), (&"hubproof greeter".into(), &1.into()));
        assert_eq!(badge["isError"], color != "brightgreen");
    }
}
