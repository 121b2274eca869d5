//! Classifies frames by their raw text, with the same result as the pack's matchers on the parsed frame.
//!
//! Nearly every condition of a pack requires a constant in a member, mostly `type`. So frames are looked up by the
//! member that most messages use, and the few conditions that need JSON Schema are validated on that member alone.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::json_scan::{FoundMembers, MemberPaths, NotJsonError, have_equal_values};
use crate::load::ids::MessageId;
use crate::protocol::{FrameDirection, Pack};
use crate::syntax::matcher::{MatchCondition, Matcher};

/// A condition on one member.
#[derive(Debug)]
pub enum RawMemberTest {
    Is(Box<[u8]>),
    Absent,
    Present,
    /// The member matches a JSON Schema, compiled as a matcher of `/v`.
    Fits {
        optional: bool,
        matcher: Matcher,
    },
}

impl RawMemberTest {
    pub fn holds(&self, found: Option<&[u8]>) -> bool {
        match (self, found) {
            (Self::Absent, found) => found.is_none(),
            (Self::Fits { optional, .. }, None) => *optional,
            (_, None) => false,
            (Self::Present, Some(_)) => true,
            (Self::Is(want), Some(raw)) => have_equal_values(want, raw),
            (Self::Fits { matcher, .. }, Some(raw)) => {
                serde_json::from_slice::<Value>(raw).is_ok_and(|value| matcher.fits(&Value::from_iter([("v", value)])))
            }
        }
    }

    fn from_condition(condition: &MatchCondition<'_>) -> (String, Self) {
        match condition {
            MatchCondition::Is(pointer, want @ (Value::Array(_) | Value::Object(_))) => {
                (pointer.clone(), Self::from_schema(json!({ "like": want }), false))
            }
            MatchCondition::Is(pointer, want) => (pointer.clone(), Self::Is(want.to_string().into_bytes().into())),
            MatchCondition::Absent(pointer) => ((*pointer).to_owned(), Self::Absent),
            MatchCondition::Present(pointer) => ((*pointer).to_owned(), Self::Present),
            MatchCondition::Fits { pointer, optional, schema } => {
                let only = schema.as_object().filter(|members| members.len() == 1);
                match only.and_then(|members| members.get("const")) {
                    Some(want) if !optional && !want.is_array() && !want.is_object() => {
                        ((*pointer).to_owned(), Self::Is(want.to_string().into_bytes().into()))
                    }
                    _ => ((*pointer).to_owned(), Self::from_schema((*schema).clone(), *optional)),
                }
            }
        }
    }

    fn from_schema(schema: Value, optional: bool) -> Self {
        // The schema was compiled when the pack or plan was read, so this cannot fail.
        let matcher = Matcher::compile(&json!({ "/v": schema })).unwrap_or_default();
        Self::Fits { optional, matcher }
    }
}

/// Conditions that must all hold, each with the index of its member in a [`MemberPaths`].
pub type RawMemberTests = Vec<(usize, RawMemberTest)>;

/// Compiles a matcher and adds its members to `paths`; `None` if there are too many.
pub fn compile_tests(matcher: &Matcher, paths: &mut MemberPaths) -> Option<RawMemberTests> {
    matcher
        .member_conditions()
        .iter()
        .map(|condition| {
            let (pointer, test) = RawMemberTest::from_condition(condition);
            Some((paths.add(&pointer)?, test))
        })
        .collect()
}

/// Whether all conditions hold.
pub fn all_tests_hold(tests: &RawMemberTests, found: &FoundMembers<'_>) -> bool {
    tests.iter().all(|(number, test)| test.holds(found[*number]))
}

/// Determines the message of a frame from the hub.
#[derive(Debug)]
pub struct FrameClassifier {
    paths: MemberPaths,
    /// The messages with their conditions, the most specific first.
    kinds: Vec<(MessageId, RawMemberTests)>,
    /// The member that most messages use, and for each of its values the candidate messages.
    main: usize,
    by_value: HashMap<Box<[u8]>, Vec<u16>>,
    /// Messages that do not use the member `main`.
    others: Vec<u16>,
}

impl FrameClassifier {
    /// Returns `None` if the pack uses more members than a scan can find. `id` numbers the pack's messages.
    pub fn new(pack: &Pack, id: impl Fn(&str) -> Option<MessageId>) -> Option<Self> {
        let mut messages: Vec<_> =
            pack.messages.iter().filter(|message| message.can_go(FrameDirection::FromHub)).collect();
        // A stable sort: among equals the first in the document wins, as in the pack.
        messages.sort_by_key(|message| std::cmp::Reverse((!message.abstract_, message.matcher.condition_count())));
        let mut paths = MemberPaths::default();
        let mut kinds = Vec::new();
        for message in messages {
            if let Some(id) = id(&message.name) {
                kinds.push((id, compile_tests(&message.matcher, &mut paths)?));
            }
        }
        let mut asked: HashMap<usize, usize> = HashMap::new();
        for (number, test) in kinds.iter().flat_map(|(_, tests)| tests) {
            *asked.entry(*number).or_default() += usize::from(matches!(test, RawMemberTest::Is(_)));
        }
        let main =
            asked.into_iter().max_by_key(|(number, count)| (*count, std::cmp::Reverse(*number))).map_or(0, |(n, _)| n);
        let mut by_value: HashMap<Box<[u8]>, Vec<u16>> = HashMap::new();
        let mut others = Vec::new();
        for (place, (_, tests)) in kinds.iter().enumerate() {
            let place = place as u16;
            let value = tests.iter().find_map(|(number, test)| match test {
                RawMemberTest::Is(want) if *number == main => Some(want),
                _ => None,
            });
            match value {
                Some(value) => by_value.entry(value.clone()).or_default().push(place),
                None => others.push(place),
            }
        }
        Some(Self { paths, kinds, main, by_value, others })
    }

    /// Returns the message of a frame; `None` if it matches none.
    pub fn classify(&self, text: &[u8]) -> Result<Option<MessageId>, NotJsonError> {
        let found = self.paths.find(text)?;
        let fits = |place: &&u16| all_tests_hold(&self.kinds[usize::from(**place)].1, &found);
        let value = found[self.main].unwrap_or_default();
        let listed = match self.by_value.get(value) {
            // An escaped value may equal a known one.
            None if value.contains(&b'\\') => {
                let known = self.by_value.iter().find(|(known, _)| have_equal_values(known, value));
                known.map(|(_, places)| places)
            }
            listed => listed,
        };
        let listed = listed.and_then(|places| places.iter().find(fits));
        let other = self.others.iter().find(fits);
        let best = match (listed, other) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Ok(best.map(|place| self.kinds[usize::from(*place)].0))
    }
}
