//! Variations of scenarios: a correct hub passes all of them, and some find what no scenario finds.

use hubproof::check::VariationChoice;
use hubproof::event::Verdict;
use hubproof::scenario::variation::Variation;
use rstest::rstest;

use crate::support::process::hubproof;
use crate::support::sim_connection::SimulatedProtocol;

#[rstest]
fn a_correct_hub_passes_with_every_variation(
    #[values("airavata", "concierge", "emprops", "gator", "qi", "websocket")] protocol: &str,
) {
    let mut protocol = SimulatedProtocol::load(protocol);
    if protocol.pack.name == "emprops" {
        // Ten megabytes, many times, would take too long.
        protocol.set(Some("max_message_bytes"), "message_limit", 100_000);
        protocol.set(None, "chunks_above", 10_000);
    }
    let mut played = 0;
    for program in &protocol.scenarios.programs.clone() {
        protocol.variation = None;
        let Some(plain) = protocol.play(program, None) else { continue };
        for variation in VariationChoice::All.of_program(program, 0) {
            protocol.variation = Some(variation.clone());
            let report = protocol.play(program, None).unwrap();
            let broken = report.checks.iter().find(|check| check.accuses_hub());
            assert!(broken.is_none(), "{} with {variation}: {broken:?}", program.id);
            let of_prelude = matches!(variation, Variation::Prelude(_));
            assert!(!of_prelude || report.mistake.is_none(), "{} with {variation}: {:?}", program.id, report.mistake);
            let hooked = report.cause.as_ref().is_some_and(|cause| cause.step.starts_with("hook:"));
            let same = report.verdict == plain.verdict || matches!(report.verdict, Verdict::Pass | Verdict::Info);
            assert!(same || report.mistake.is_some() || hooked, "{} with {variation}: {:?}", program.id, report.cause);
            played += usize::from(report.mistake.is_none());
        }
    }
    assert!(played > 4 * protocol.scenarios.programs.len(), "only {played} varied plays");
}

/// Faults that the scenario does not trigger as it is written.
#[rstest]
#[case::member_order("gator/requests", "gator-fuzz-action-last-unanswered", "member-order")]
#[case::ping("qi/base", "qi-fuzz-ping-wedges", "ping")]
fn a_variation_finds_what_a_scenario_does_not(#[case] scenario: &str, #[case] fault: &str, #[case] variation: &str) {
    let (protocol, _) = scenario.split_once('/').unwrap();
    let check = ["check", "--protocol", protocol, "--scenario", scenario, "--fault", fault, "--variation"];
    let done = hubproof(check.iter().chain(&[variation])).assert_exit_code(1);
    let shows = format!(" with {variation}");
    assert!(done.out.contains(&shows), "{}", done.out);
    assert!(done.out.contains(&format!("--variation {variation}")), "{}", done.out);
    let other = hubproof(check.iter().chain(&["names-by-case"])).assert_exit_code(0);
    assert!(!other.out.contains(" with "), "{}", other.out);
}

#[test]
fn an_unknown_variation_is_a_mistake() {
    let done = hubproof(["check", "--protocol", "qi", "--variation", "after-lunch"]).assert_exit_code(2);
    assert!(done.err.contains("no protocol has a prelude `lunch`"), "{}", done.err);
    let done = hubproof(["check", "--protocol", "qi", "--variation", "backwards"]).assert_exit_code(2);
    assert!(done.err.contains("write one of member-order"), "{}", done.err);
}
