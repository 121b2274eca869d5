//! Whatever a hub passes on has an audience. Entries under `always` hold in scenarios, too, that do not look at other clients.

use std::sync::Arc;

use hubproof::outcome::CheckReport;
use hubproof::scenario::Program;
use rstest::rstest;

use crate::support::sim_connection::SimulatedProtocol;

#[rstest]
#[case::back_to_a_parent("gator", "gator-log-returned-to-parent", "gator/parent-log-store", "GAT-034")]
#[case::down_to_children("gator", "gator-log-to-children", "gator/propagation", "GAT-034")]
#[case::to_another_client("emprops", "emprops-assignment-overheard", "emprops/greeting", "EMP-057")]
#[case::to_no_subscriber_of_workers("airavata", "airavata-events-broadcast", "airavata/events", "AIR-077")]
fn what_is_passed_on_reaches_only_its_audience(
    #[case] name: &str,
    #[case] fault: &str,
    #[case] scenario: &str,
    #[case] rule: &str,
) {
    let protocol = SimulatedProtocol::load(name);
    let broken = |program: &Arc<Program>| {
        let report = protocol.play(program, Some(fault));
        let accuses = |check: &CheckReport| {
            check.always && check.accuses_hub() && check.rules.iter().any(|(used, _)| used.id == rule)
        };
        report.is_some_and(|report| report.checks.iter().any(accuses))
    };
    let found: Vec<&str> =
        protocol.scenarios.programs.iter().filter(|one| broken(one)).map(|program| program.id.as_str()).collect();
    assert!(found.contains(&scenario), "only {found:?}");
}
