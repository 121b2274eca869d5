//! Every example of the two pages about the scenario language is a scenario that passes against the reference server.

use std::collections::BTreeSet;
use std::fs;

use hubproof::outcome::Verdict;
use hubproof::syntax::source::Sources;

use crate::support::disk;
use crate::support::sim_connection::SimulatedProtocol;

/// A complete scenario that a page shows.
pub struct Example {
    protocol: String,
    file: String,
    pub text: String,
}

/// Returns the examples of the reference, each of which begins with `# scenarios/PROTOCOL/NAME.yaml`, and the stages of the
/// tutorial, all of them the concierge's.
pub fn examples() -> Vec<Example> {
    let mut examples = Vec::new();
    for text in yaml_blocks("scenario-language.md") {
        let path = text.lines().next().and_then(|line| line.strip_prefix("# scenarios/"));
        let (protocol, file) = path.and_then(|path| path.split_once('/')).unwrap_or_else(|| panic!("no path: {text}"));
        examples.push(Example { protocol: protocol.to_owned(), file: file.to_owned(), text });
    }
    for (index, text) in yaml_blocks("writing-scenarios.md").into_iter().enumerate() {
        let file = format!("example-tutorial-{}.yaml", index + 1);
        examples.push(Example { protocol: "concierge".to_owned(), file, text });
    }
    examples
}

fn yaml_blocks(page: &str) -> Vec<String> {
    let page = fs::read_to_string(disk::root().join("docs/src").join(page)).unwrap();
    let blocks = page.split("\n```yaml").skip(1).map(|rest| rest.split_once('\n').unwrap().1);
    blocks.map(|block| block.split_once("```").unwrap().0.to_owned()).collect()
}

#[test]
fn every_example_of_the_pages_about_the_language_passes() {
    let examples = examples();
    let tutorial = examples.iter().filter(|example| example.file.starts_with("example-tutorial-")).count();
    assert!(examples.len() >= 30 && tutorial >= 6, "{} examples, {tutorial} of the tutorial", examples.len());
    for protocol in ["qi", "concierge", "websocket"] {
        let mut sources = Sources::default();
        let mut folder = disk::protocol_folder(protocol, &mut sources);
        for Example { file, text, .. } in examples.iter().filter(|example| example.protocol == protocol) {
            let source = sources.add(format!("docs/src: {file}"), text.clone());
            assert!(folder.scenarios.insert(file.clone(), source).is_none(), "two examples are called {file}");
        }
        let protocol = SimulatedProtocol::from_folder(&folder, sources);
        let named = protocol.scenarios.programs.iter().map(|program| (program.id.split('/').nth(1).unwrap(), program));
        let named: Vec<_> = named.filter(|(name, _)| name.starts_with("example-")).collect();
        // The cases of a scenario are scenarios, too.
        let files: BTreeSet<&str> = named.iter().map(|(name, _)| *name).collect();
        assert_eq!(files.len(), folder.scenarios.keys().filter(|name| name.starts_with("example-")).count());
        for (_, program) in named {
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
