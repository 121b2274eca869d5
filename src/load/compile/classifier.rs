//! Classifies frames by their raw text, with the same result as the pack's matchers on the parsed frame.
//!
//! Nearly every condition of a pack requires a constant in a member, mostly `type`. So frames are looked up by the
//! member that most messages use, and the few conditions that need JSON Schema are validated on that member alone.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::json_scan::{Found, NotJsonError, Paths, same};
use crate::load::ids::MessageId;
use crate::protocol::{Pack, Way};
use crate::syntax::matcher::{Condition, Matcher};

/// A condition on one member.
#[derive(Debug)]
pub enum Test {
    Is(Box<[u8]>),
    Absent,
    Present,
    /// The member matches a JSON Schema, compiled as a matcher of `/v`.
    Fits {
        optional: bool,
        matcher: Matcher,
    },
}

impl Test {
    pub fn holds(&self, found: Option<&[u8]>) -> bool {
        match (self, found) {
            (Self::Absent, found) => found.is_none(),
            (Self::Fits { optional, .. }, None) => *optional,
            (_, None) => false,
            (Self::Present, Some(_)) => true,
            (Self::Is(want), Some(raw)) => same(want, raw),
            (Self::Fits { matcher, .. }, Some(raw)) => {
                serde_json::from_slice::<Value>(raw).is_ok_and(|value| matcher.fits(&json!({ "v": value })))
            }
        }
    }

    fn of(condition: &Condition<'_>) -> (String, Self) {
        match condition {
            Condition::Is(pointer, want @ (Value::Array(_) | Value::Object(_))) => {
                (pointer.clone(), Self::fits(json!({ "like": want }), false))
            }
            Condition::Is(pointer, want) => (pointer.clone(), Self::Is(want.to_string().into_bytes().into())),
            Condition::Absent(pointer) => ((*pointer).to_owned(), Self::Absent),
            Condition::Present(pointer) => ((*pointer).to_owned(), Self::Present),
            Condition::Fits { pointer, optional, schema } => {
                let only = schema.as_object().filter(|members| members.len() == 1);
                match only.and_then(|members| members.get("const")) {
                    Some(want) if !optional && !want.is_array() && !want.is_object() => {
                        ((*pointer).to_owned(), Self::Is(want.to_string().into_bytes().into()))
                    }
                    _ => ((*pointer).to_owned(), Self::fits((*schema).clone(), *optional)),
                }
            }
        }
    }

    fn fits(schema: Value, optional: bool) -> Self {
        // The schema was compiled when the pack or plan was read, so this cannot fail.
        let matcher = Matcher::compile(&json!({ "/v": schema })).unwrap_or_default();
        Self::Fits { optional, matcher }
    }
}

/// Conditions on members, which are indexes into some [`Paths`].
pub type Tests = Vec<(usize, Test)>;

/// Compiles a matcher and adds its members to `paths`; `None` if there are too many.
pub fn tests(matcher: &Matcher, paths: &mut Paths) -> Option<Tests> {
    matcher
        .conditions_at()
        .iter()
        .map(|condition| {
            let (pointer, test) = Test::of(condition);
            Some((paths.add(&pointer)?, test))
        })
        .collect()
}

/// Whether all conditions hold.
pub fn hold(tests: &Tests, found: &Found<'_>) -> bool {
    tests.iter().all(|(number, test)| test.holds(found[*number]))
}

/// Determines the message of a frame from the hub.
#[derive(Debug)]
pub struct Classifier {
    paths: Paths,
    /// The messages with their conditions, the most specific first.
    kinds: Vec<(MessageId, Tests)>,
    /// The member that most messages use, and for each of its values the candidate messages.
    main: usize,
    by_value: HashMap<Box<[u8]>, Vec<u16>>,
    /// Messages that do not use the member `main`.
    others: Vec<u16>,
}

impl Classifier {
    /// Returns `None` if the pack uses more members than a scan can find. `id` numbers the pack's messages.
    pub fn new(pack: &Pack, id: impl Fn(&str) -> Option<MessageId>) -> Option<Self> {
        let mut messages: Vec<_> = pack.messages.iter().filter(|message| message.goes(Way::FromHub)).collect();
        // A stable sort: among equals the first in the document wins, as in the pack.
        messages.sort_by_key(|message| std::cmp::Reverse((!message.abstract_, message.matcher.conditions())));
        let mut paths = Paths::default();
        let mut kinds = Vec::new();
        for message in messages {
            if let Some(id) = id(&message.name) {
                kinds.push((id, tests(&message.matcher, &mut paths)?));
            }
        }
        let mut asked: HashMap<usize, usize> = HashMap::new();
        for (number, test) in kinds.iter().flat_map(|(_, tests)| tests) {
            *asked.entry(*number).or_default() += usize::from(matches!(test, Test::Is(_)));
        }
        let main =
            asked.into_iter().max_by_key(|(number, count)| (*count, std::cmp::Reverse(*number))).map_or(0, |(n, _)| n);
        let mut by_value: HashMap<Box<[u8]>, Vec<u16>> = HashMap::new();
        let mut others = Vec::new();
        for (place, (_, tests)) in kinds.iter().enumerate() {
            let place = place as u16;
            let value = tests.iter().find_map(|(number, test)| match test {
                Test::Is(want) if *number == main => Some(want),
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
        let fits = |place: &&u16| hold(&self.kinds[usize::from(**place)].1, &found);
        let value = found[self.main].unwrap_or_default();
        let listed = match self.by_value.get(value) {
            // An escaped value may equal a known one.
            None if value.contains(&b'\\') => {
                let known = self.by_value.iter().find(|(known, _)| same(known, value));
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
