//! A sample of the fault matrix over real sockets, with the binary: faults are detected as in the simulation.

use rstest::rstest;
use serde_json::Value;

use crate::support::process::start;

/// Faults of different kinds, each with a scenario that detects it.
#[rstest]
#[ignore = "thorough: repeats the fault matrix over sockets"]
#[case::qi(&[
    ("qi-failure-silent", "qi/failures"),
    ("qi-base-reply-twice", "qi/failures"),
    ("qi-session-stale", "qi/sessions"),
    ("qi-garbage-succeeds", "qi/malformed"),
])]
#[ignore = "thorough: repeats the fault matrix over sockets"]
#[case::concierge(&[
    ("concierge-hello-second-lost", "concierge/greeting"),
    ("concierge-name-broadcast", "concierge/message-to-one"),
    ("concierge-messages-overtake", "concierge/message-order"),
    ("concierge-conflict-kicks-holder", "concierge/names"),
    ("concierge-typeless-code", "concierge/before-identification"),
    ("concierge-seq-global", "concierge/seq"),
    ("concierge-timeout-early", "concierge/identify-deadline"),
])]
#[ignore = "thorough: repeats the fault matrix over sockets"]
#[case::airavata(&[
    ("airavata-user-unlimited", "airavata/ten-connections"),
    ("airavata-token-optional", "airavata/refusals"),
    ("airavata-unsubscribe-forgotten", "airavata/delivery"),
    ("airavata-worker-events-reach-users", "airavata/routing"),
    ("airavata-event-ids-repeat", "airavata/events"),
])]
#[case::gator(&[
    ("gator-success-lost", "gator/requests"),
    ("gator-success-binary", "gator/requests"),
    ("gator-garbage-closes", "gator/failures"),
    ("gator-stop-answered-first", "gator/stop"),
    ("gator-child-logs-stay", "gator/propagation"),
])]
#[ignore = "thorough: repeats the fault matrix over sockets"]
#[case::emprops(&[
    ("emprops-root-refused", "emprops/greeting"),
    ("emprops-job-assigned-twice", "emprops/priority"),
    ("emprops-claim-timeout-early", "emprops/claim-timeout"),
    ("emprops-cancelled-stays-queued", "emprops/cancellation"),
    ("emprops-chunks-complete-early", "emprops/chunked-upload"),
    ("emprops-farewell-stays", "emprops/shutdown"),
])]
fn faults_are_detected_over_sockets(#[case] faults: &[(&str, &str)]) {
    // In parallel, since they mostly wait.
    let running: Vec<_> = faults
        .iter()
        .map(|(fault, scenario)| {
            let arguments = ["check", "--strict", "--fault", fault, "--scenario", scenario, "--report", "json=-"];
            (*fault, start(arguments, &[]))
        })
        .collect();
    for (id, running) in running {
        let done = running.wait_for_end().assert_exit_code(1);
        let report: Value = serde_json::from_str(&done.out).unwrap();
        let findings = report["protocols"][0]["findings"].as_array().unwrap();
        let blamed: Vec<&str> = findings
            .iter()
            .filter(|finding| finding["verdict"] == "fail" || finding["verdict"] == "warn")
            .flat_map(|finding| finding["rules"].as_array().unwrap())
            .filter_map(Value::as_str)
            .collect();
        let fault = hubproof_reference::faults().find(|fault| fault.id == id).unwrap();
        assert!(blamed.iter().any(|rule| fault.rules.contains(rule)), "{id}: {blamed:?}");
        let others: Vec<_> = blamed.iter().filter(|rule| !fault.rules.contains(rule)).collect();
        assert!(others.is_empty(), "{id} is blamed for {others:?}");
    }
}
