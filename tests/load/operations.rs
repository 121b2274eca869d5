//! Operations: messages of one kind are counted by label. In virtual time.

use std::collections::BTreeMap;

use hubproof::load::metrics::MAX_OPERATIONS;
use hubproof::load::plan::PlanOverrides;
use rstest::rstest;

use crate::support::sim_load::{CompiledTestPlan, PlanSource, run};

const REQUESTS: &str = include_str!("../fixtures/plans/labelled.yaml");

/// The number of messages sent and answered, by label.
fn operations(label: &str) -> BTreeMap<String, (u64, u64)> {
    let plan = REQUESTS.replace("LABEL", label);
    let ready = CompiledTestPlan::new("gator", &PlanSource::Text(&plan), &PlanOverrides::default());
    let observed = run(&ready, 1_000_000, &mut |now, _, _| vec![now + 1_000_000]);
    let name = |operation: usize| {
        let (message, label) = ready.prepared.operations.get(operation).unwrap();
        assert_eq!(message, usize::from(ready.message("log_request").0));
        label.to_owned()
    };
    observed.operations.iter().map(|(operation, counts)| (name(operation.0.into()), *counts)).collect()
}

#[rstest]
#[case::fixed("every", &[("every", 400)])]
#[case::of_the_message("${asked.posted}", &[("false", 400)])]
#[case::of_a_feeder("is ${people.name}!", &[("is first!", 134), ("is second!", 133), ("is third!", 133)])]
fn messages_are_counted_by_label(#[case] label: &str, #[case] expected: &[(&str, u64)]) {
    let expected = expected.iter().map(|(label, count)| ((*label).to_owned(), (*count, *count))).collect();
    assert_eq!(operations(label), expected);
}

#[rstest]
#[case::whole("${asked.req_id}", "1")]
#[case::part("n-${asked.req_id}", "n-1")]
fn all_but_the_first_labels_count_together(#[case] label: &str, #[case] first: &str) {
    let counted = operations(label);
    assert_eq!(counted.len(), MAX_OPERATIONS + 1);
    assert_eq!((counted[first], counted["other"]), ((1, 1), (336, 336)));
}
