//! Drops findings that are hubproof's own doing: a hub copies part of its input, such as a header, into an answer. If the
//! input was wrong there, so is the answer, and the hub is not to blame.

use serde_json::Value;

use crate::outcome::{CheckReport, HistoryDirection, ScenarioReport};
use crate::protocol::{FrameDirection, Pack};
use crate::report::scenario_verdict;
use crate::syntax::matcher::{member_pointer, members_of};

/// The prefix of the names of checks whether a frame fits its schema.
const SCHEMA_CHECK: &str = "schema:";

/// Input that breaks its schema, or is not a message of the document.
struct WrongInput {
    value: Value,
    /// Where it breaks its schema, as JSON pointers; none if it is not a message.
    places: Vec<String>,
}

/// Removes the findings that an answer breaks its schema at a place that the hub copied from wrong input.
pub fn remove_copied_mistakes(report: &mut ScenarioReport, pack: &Pack) {
    if !report.checks.iter().any(|check| check.accuses_hub() && check.name.starts_with(SCHEMA_CHECK)) {
        return;
    }
    let frames = |wanted| {
        let of_direction = report.history.iter().filter(move |frame| frame.direction == wanted);
        of_direction.filter_map(|frame| Some((frame, serde_json::from_str::<Value>(&frame.text).ok()?)))
    };
    let wrong: Vec<WrongInput> =
        frames(HistoryDirection::Sent).filter_map(|(_, value)| WrongInput::find(pack, value)).collect();
    let received: Vec<_> = frames(HistoryDirection::Received).collect();
    let is_copied = |check: &CheckReport| {
        let Some(detail) = check.detail.as_ref().filter(|_| check.name.starts_with(SCHEMA_CHECK)) else { return false };
        let Some(place) = &detail.place else { return false };
        let frame = received.iter().find(|(frame, _)| Some(frame.at) == detail.at && frame.actor == detail.actor);
        frame.is_some_and(|(_, answer)| wrong.iter().any(|input| input.is_source(answer, place)))
    };
    let copied: Vec<bool> = report.checks.iter().map(is_copied).collect();
    let mut copied = copied.into_iter();
    report.checks.retain(|_| copied.next() != Some(true));
    report.verdict = scenario_verdict(report);
}

impl WrongInput {
    fn find(pack: &Pack, value: Value) -> Option<Self> {
        let Some(message) = pack.recognise(&value, FrameDirection::ToHub) else {
            return Some(Self { value, places: Vec::new() });
        };
        let violations = message.schema.violations(&value);
        let places: Vec<String> = violations.into_iter().map(|violation| violation.path).collect();
        (message.abstract_ || !places.is_empty()).then_some(Self { value, places })
    }

    /// Whether the part of an answer at this place, or a part around it, is a copy of a wrong part of the input.
    fn is_source(&self, answer: &Value, place: &str) -> bool {
        let ends = place.match_indices('/').map(|(at, _)| at).skip(1).chain([place.len()]);
        let mut parts = ends.filter_map(|end| Some((&place[..end], answer.pointer(&place[..end])?)));
        !place.is_empty() && parts.any(|(at, part)| self.contains(&self.value, "", at, part))
    }

    /// Whether a wrong part of `value`, which is at `here` in the input, equals a part of the answer at `at`. Single
    /// values are equal by chance, so they must have the same name.
    fn contains(&self, value: &Value, here: &str, at: &str, part: &Value) -> bool {
        let is_named_alike = || here.rsplit('/').next() == at.rsplit('/').next();
        let is_whole = || value.as_object().is_some_and(|members| !members.is_empty());
        let is_wrong = || {
            let is_within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(is_rest);
            self.places.is_empty() || self.places.iter().any(|one| is_within(one, here) || is_within(here, one))
        };
        let is_copy = !here.is_empty() && value == part && (is_whole() || is_named_alike()) && is_wrong();
        is_copy
            || members_of(value)
                .into_iter()
                .any(|(name, inner)| self.contains(inner, &format!("{here}{}", member_pointer(&name)), at, part))
    }
}

/// Whether this is the rest of a JSON pointer after one of its parts.
fn is_rest(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::copied(json!({ "header": { "id": 7, "at": 1 } }), &["/header/id"], json!({ "parent": { "id": 7, "at": 1 } }), "/parent/id", true)]
    #[case::without_a_member(json!({ "header": { "at": 1 } }), &["/header"], json!({ "parent": { "at": 1 } }), "/parent", true)]
    #[case::single_value(json!({ "payload": false }), &["/payload"], json!({ "payload": false }), "/payload", true)]
    #[case::not_a_message(json!({ "kind": "x", "payload": [1] }), &[], json!({ "payload": [1] }), "/payload", true)]
    #[case::another_name(json!({ "payload": false }), &["/payload"], json!({ "done": false }), "/done", false)]
    #[case::another_value(json!({ "payload": false }), &["/payload"], json!({ "payload": 17 }), "/payload", false)]
    #[case::right_part(json!({ "payload": 1, "id": 7 }), &["/payload"], json!({ "id": 7 }), "/id", false)]
    #[case::whole_answer(json!({ "payload": false }), &["/payload"], json!({ "payload": false }), "", false)]
    fn a_wrong_part_of_the_input_excuses_its_copy_in_the_answer(
        #[case] value: Value,
        #[case] places: &[&str],
        #[case] answer: Value,
        #[case] place: &str,
        #[case] expected: bool,
    ) {
        let input = WrongInput { value, places: places.iter().map(|place| (*place).to_owned()).collect() };
        assert_eq!(input.is_source(&answer, place), expected);
    }
}
