//! What the judge makes of what a hub does: each case is a scenario of a few lines, a hub of a few more, and a verdict.

use hubproof::event::Verdict;
use hubproof::frame::Received;
use rstest::rstest;

use crate::small_talk::{Deeds, Heard, PLAIN, answers, of, play, text};

/// Every connection is told the same number, twice.
fn repeats_itself(heard: &Heard<'_>) -> Deeds {
    let notice = || text(r#"{"type":"notice","n":1}"#);
    match heard.text {
        None => vec![(1, heard.connection, notice()), (1, heard.connection, notice())],
        Some(_) => vec![(0, heard.connection, text(r#"{"type":"answer"}"#))],
    }
}

#[rstest]
#[case::new_in_every_round(
    "  - each: i\n    in: 2\n    do:\n      - anna joins:\n      - anna expects: notice\n        count: 2\n"
)]
#[case::connects_again(
    "  - anna joins:\n  - anna expects: notice\n    count: 2\n  - anna closes: 1000\n  - anna connects: /quiet\n"
)]
fn always_judges_every_connection_an_actor_ever_had(#[case] steps: &str) {
    let shared = format!(
        "{PLAIN}always:\n  - check: \"${{frames('notice') | map(attribute='n')}}\"\n    fits: {{ uniqueItems: true }}\n    rules: [MUST]\n"
    );
    let scenario = format!("title: T\nactors: {{ anna: client }}\nsteps:\n{steps}");
    let mut times = 0;
    let report = play(&shared, &scenario, |heard| {
        times += 1;
        // The last connection is told nothing at all: it must not hide what the first was told.
        if times == 1 { repeats_itself(heard) } else { answers(r#"{"type":"notice"}"#)(heard) }
    });
    assert_eq!(of(&report, "MUST"), Verdict::Fail, "{:#?}", report.checks);
}
