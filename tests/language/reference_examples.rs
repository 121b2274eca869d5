//! Every example of docs/src/scenario-language.md is a scenario that runs, and passes against the reference server.

use std::fs;

use hubproof::event::Verdict;
use hubproof::syntax::source::Sources;

use crate::support::disk;
use crate::support::sim_connection::Protocol;

/// The yaml blocks that begin with `# scenarios/PROTOCOL/NAME.yaml`.
fn examples() -> Vec<(String, String, String)> {
    let page = fs::read_to_string(disk::root().join("docs/src/scenario-language.md")).unwrap();
    let mut examples = Vec::new();
    for block in page.split("```yaml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        let Some(path) = text.lines().next().and_then(|line| line.strip_prefix("# scenarios/")) else { continue };
        let (protocol, name) = path.trim().split_once('/').unwrap();
        examples.push((protocol.to_owned(), name.to_owned(), text.to_owned()));
    }
    examples
}

#[test]
fn every_example_of_the_language_page_passes() {
    let examples = examples();
    assert!(examples.len() >= 20, "only {} examples", examples.len());
    for protocol in ["qi", "concierge", "websocket"] {
        let mut sources = Sources::default();
        let mut folder = disk::folder(protocol, &mut sources);
        // The examples replace the protocol's own scenarios, next to its shared.yaml.
        folder.scenarios.retain(|path, _| matches!(path.as_str(), "shared.yaml" | "reference.toml"));
        for (_, name, text) in examples.iter().filter(|(of, _, _)| of == protocol) {
            let file = sources.add(format!("docs/src/scenario-language.md: {name}"), text.clone());
            assert!(folder.scenarios.insert(name.clone(), file).is_none(), "{name} stands there twice");
        }
        let protocol = Protocol::of(&folder, sources);
        assert_eq!(
            protocol.scenarios.programs.len(),
            folder.scenarios.keys().filter(|name| name.starts_with("example-")).count()
        );
        for program in &protocol.scenarios.programs {
            let report =
                protocol.play(program, None).unwrap_or_else(|| panic!("{}: no instance meets its needs", program.id));
            assert!(
                report.mistake.is_none() && report.cause.is_none(),
                "{}: {:?} {:?}",
                report.id,
                report.mistake,
                report.cause
            );
            assert!(matches!(report.verdict, Verdict::Pass | Verdict::Info), "{}: {:#?}", report.id, report.checks);
            assert!(report.checks.iter().any(|check| check.asked > 0), "{} judges nothing", report.id);
        }
    }
}
