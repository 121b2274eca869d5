//! A finding as a file: an ordinary scenario with a header that states what was found, where, and how to replay it. The
//! file needs no other file and contains no secrets.

use serde_json::Value;

use crate::fuzz::case_scenario::CaseScenario;
use crate::redact::SecretMasker;
use crate::report::text::{escape_unprintable, quote_for_shell, shorten};
use crate::scenario::writer;

/// The content of a saved finding's header.
#[derive(Clone, Debug)]
pub struct FindingHeader<'a> {
    pub protocol: &'a str,
    /// The protocol's version.
    pub version: &'a str,
    /// The check that failed: `FUZZ-REJECTS`, a rule of the document, or `schema:MESSAGE`.
    pub oracle: &'a str,
    /// The text of the rule; empty if there is none.
    pub demands: &'a str,
    /// The mutated message, and the name of the mutation.
    pub message: &'a str,
    pub mutation: &'a str,
    /// The mutation in words.
    pub description: &'a str,
    /// What the hub did instead of what the rule demands, in one line.
    pub came: &'a str,
    pub seed: u64,
    /// The number of the case.
    pub case: u64,
    /// The name of the hub in reports.
    pub hub: &'a str,
    /// The command line that fuzzes this hub: `hubproof fuzz URL ...`, without options that select cases.
    pub command: &'a [String],
    /// How many candidates were played to shrink the finding.
    pub attempts: usize,
}

/// The maximum length of a header line.
const MAX_HEADER_LINE: usize = 200;

/// Returns the file name: `<protocol>-<oracle>-<message>-<mutation>.yaml`, in lower case. The same finding has the same
/// name in every run.
pub fn file_name(protocol: &str, oracle: &str, message: &str, mutation: &str) -> String {
    let oracle = oracle.strip_prefix("FUZZ-").unwrap_or(oracle);
    let mut name = String::new();
    for part in [protocol, oracle, message, mutation].into_iter().filter(|part| !part.is_empty()) {
        if !name.is_empty() {
            name.push('-');
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' };
        name.extend(part.chars().take(60).map(plain));
    }
    name + ".yaml"
}

/// Returns the content of the file. The commands that replay it name it by `path`. Secrets known to `masker` are masked
/// in the header and the scenario.
pub fn render_finding(found: &FindingHeader<'_>, path: &str, scenario: &CaseScenario, masker: &SecretMasker) -> String {
    let FindingHeader { protocol, version, oracle, message, mutation, seed, case, hub, attempts, .. } = found;
    let tool = env!("CARGO_PKG_VERSION");
    let mut header = vec![
        format!("Found by hubproof {tool} on {hub}, as {protocol} {version}, with seed {seed} in case {case}."),
        format!("{oracle}{}{}", if found.demands.is_empty() { "" } else { ": " }, found.demands),
        format!("First seen with: {message}, {mutation}: {}", found.description),
        format!("Observed: {}", found.came),
    ];
    if *attempts > 0 {
        header.push(format!("Shrunk in {attempts} attempts; every remaining part is needed to make the hub fail."));
    }
    header.push("Replay it:".to_owned());
    header.push(format!("  {}", replay_command(found.command, found.protocol, "fuzz", &["--replay", path])));
    header.push(format!("  {}", replay_command(found.command, found.protocol, "check", &["--scenario", path])));
    let line = |line: &String| {
        let masked = masker.mask(line);
        let shown = escape_unprintable(&masked);
        // A command must stay complete.
        let short = if line.starts_with("  ") { shown } else { shorten(&shown, MAX_HEADER_LINE).into_owned().into() };
        format!("# {short}\n")
    };
    let mut text: String = header.iter().map(line).collect();
    let mut scenario = Value::Object(CaseScenario { title: finding_title(found), ..scenario.clone() }.to_map());
    masker.mask_value(&mut scenario);
    if let Value::Object(scenario) = &scenario {
        text.push_str(&writer::write_scenario(scenario));
    }
    text
}

/// Returns the title, which states what holds once the defect is fixed.
fn finding_title(found: &FindingHeader<'_>) -> String {
    let what = format!("{} ({})", found.message, found.mutation);
    match found.demands.trim_end_matches('.') {
        "" => format!("{what} is handled without breaking {}", found.oracle),
        demands => format!("{what}: {demands}"),
    }
}

/// Returns the command line that replays a saved finding on the hub that `command` fuzzes: with the subcommand `name` and
/// the arguments `more`.
pub fn replay_command(command: &[String], protocol: &str, name: &str, more: &[&str]) -> String {
    let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
    if let Some(word) = words.get_mut(1) {
        *word = name;
    }
    if !words.contains(&"--protocol") && !words.contains(&"--pack") {
        words.extend(["--protocol", protocol]);
    }
    words.extend(more);
    words.into_iter().map(quote_for_shell).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::fuzz::case_scenario::CaseStep;
    use crate::scenario::parse::verbs::StepVerb;
    use crate::syntax::source::Sources;
    use crate::syntax::yaml;

    #[rstest]
    #[case("qi", "FUZZ-SERVES-OLD", "request", "deep", "qi-serves-old-request-deep.yaml")]
    #[case("emprops", "FUZZ-REJECTS", "submit_job", "out-of-range", "emprops-rejects-submit_job-out-of-range.yaml")]
    #[case("my api", "schema:a/../b", "x", "", "my-api-schema-a----b-x.yaml")]
    fn a_finding_file_is_named_after_protocol_oracle_message_and_mutation(
        #[case] protocol: &str,
        #[case] oracle: &str,
        #[case] message: &str,
        #[case] mutation: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(file_name(protocol, oracle, message, mutation), expected);
    }

    fn to_words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn saved_text(came: &str, said: &str, secret: &str) -> String {
        let found = FindingHeader {
            protocol: "qi",
            version: "1.0",
            oracle: "FUZZ-REJECTS",
            demands: "Input that is not a message is answered as the document requires.",
            message: "request",
            mutation: "null",
            description: "/version is null",
            came,
            seed: 7,
            case: 19,
            hub: "ws://127.0.0.1:1/?token=hunter2",
            command: &to_words("hubproof fuzz ws://127.0.0.1:1/?token=hunter2 --set secret=***"),
            attempts: 12,
        };
        let steps = vec![CaseStep::new("a", StepVerb::SendsRaw, json!({ "text": said }))];
        let scenario = CaseScenario { title: "Case 19".to_owned(), steps, ..CaseScenario::default() };
        let masker = SecretMasker::new([secret.to_owned()].into_iter());
        render_finding(&found, "findings/a b.yaml", &scenario, &masker)
    }

    #[test]
    fn a_saved_finding_explains_itself_in_its_header() {
        let expected = "\
# Found by hubproof 0.1.0 on ws://127.0.0.1:1/?token=***, as qi 1.0, with seed 7 in case 19.
# FUZZ-REJECTS: Input that is not a message is answered as the document requires.
# First seen with: request, null: /version is null
# Observed: nothing
# Shrunk in 12 attempts; every remaining part is needed to make the hub fail.
# Replay it:
#   hubproof fuzz 'ws://127.0.0.1:1/?token=***' --set 'secret=***' --protocol qi --replay 'findings/a b.yaml'
#   hubproof check 'ws://127.0.0.1:1/?token=***' --set 'secret=***' --protocol qi --scenario 'findings/a b.yaml'
title: 'request (null): Input that is not a message is answered as the document requires'
steps:
  - a sends raw: { text: '{}' }
";
        assert_eq!(saved_text("nothing", "{}", "hunter2"), expected.replace("0.1.0", env!("CARGO_PKG_VERSION")));
    }

    /// No text from a hub can end a comment line, and secrets are masked.
    #[rstest]
    fn the_header_of_a_saved_finding_is_a_comment(
        #[values("a\nsteps: []", "a\r\nb", "a\u{85}b: c", "a\u{2028}- x", "hunter2", "\u{1b}[31m")] came: &str,
    ) {
        let text = saved_text(came, "{\"token\":\"hunter2\"}", "hunter2");
        assert!(!text.contains("hunter2"), "{text}");
        let mut sources = Sources::default();
        let file = sources.add("saved.yaml", text.clone());
        let root = yaml::parse(&sources, file).unwrap_or_else(|error| panic!("{}: {text}", error.message)).to_json();
        assert_eq!(root["steps"][0]["a sends raw"]["text"], "{\"token\":\"***\"}");
        assert_eq!(root.as_object().unwrap().len(), 2);
    }
}
