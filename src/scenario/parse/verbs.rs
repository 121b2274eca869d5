//! Parses the head of a step: `[exactly|at least|at most N of] ACTOR VERB`, or a word such as `check`.

use std::fmt;
use std::sync::LazyLock;

use serde_json::Value;

use crate::scenario::model::GroupQuantity;
use crate::syntax::grammar::FileFormat;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepVerb {
    Joins,
    Connects,
    TriesToConnect,
    Accepts,
    Sends,
    SendsRaw,
    Closes,
    Drops,
    StopsReading,
    ReadsAgain,
    Expects,
    ExpectsNothing,
    ExpectsOneOf,
    ExpectsClose,
    ExpectsRefusal,
    ExpectsFrame,
    ExpectsEnd,
    Plays,
    Play,
    Compose,
    Hook,
    Wait,
    Check,
    Order,
    Each,
    Either,
    Retry,
}

/// Verbs in both forms: for one actor and for a group.
const VERBS: [(&str, &str, StepVerb); 18] = [
    ("joins", "join", StepVerb::Joins),
    ("connects", "connect", StepVerb::Connects),
    ("tries to connect", "try to connect", StepVerb::TriesToConnect),
    ("accepts", "accept", StepVerb::Accepts),
    ("sends", "send", StepVerb::Sends),
    ("sends raw", "send raw", StepVerb::SendsRaw),
    ("closes", "close", StepVerb::Closes),
    ("drops", "drop", StepVerb::Drops),
    ("stops reading", "stop reading", StepVerb::StopsReading),
    ("reads again", "read again", StepVerb::ReadsAgain),
    ("expects", "expect", StepVerb::Expects),
    ("expects nothing", "expect nothing", StepVerb::ExpectsNothing),
    ("expects one of", "expect one of", StepVerb::ExpectsOneOf),
    ("expects close", "expect close", StepVerb::ExpectsClose),
    ("expects refusal", "expect refusal", StepVerb::ExpectsRefusal),
    ("expects frame", "expect frame", StepVerb::ExpectsFrame),
    ("expects end", "expect end", StepVerb::ExpectsEnd),
    ("plays", "play", StepVerb::Plays),
];

/// Heads without an actor.
const ACTORLESS_HEADS: [(&str, StepVerb); 9] = [
    ("play", StepVerb::Play),
    ("compose", StepVerb::Compose),
    ("hook", StepVerb::Hook),
    ("wait", StepVerb::Wait),
    ("check", StepVerb::Check),
    ("order", StepVerb::Order),
    ("each", StepVerb::Each),
    ("either", StepVerb::Either),
    ("retry", StepVerb::Retry),
];

const QUANTITIES: [(&str, GroupQuantity); 3] =
    [("exactly ", GroupQuantity::Exactly), ("at least ", GroupQuantity::AtLeast), ("at most ", GroupQuantity::AtMost)];

/// The options of each verb: the schema of scenarios states them, in the condition on steps with one of the verb's forms.
static OPTIONS: LazyLock<Vec<(StepVerb, Vec<&'static str>)>> = LazyLock::new(|| {
    let conditions = FileFormat::Scenario.schema().pointer("/$defs/anyStep/allOf").and_then(Value::as_array);
    let stated = |of_verb: &dyn Fn(&Value) -> bool| -> Vec<&'static str> {
        let names = conditions
            .into_iter()
            .flatten()
            .filter_map(|one| one.pointer("/then/propertyNames"))
            .find(|names| of_verb(names));
        let options = names.and_then(|names| names.get("enum").or_else(|| names.pointer("/anyOf/1/enum"))?.as_array());
        options.into_iter().flatten().filter_map(Value::as_str).filter(|name| !matches!(*name, "as" | "if")).collect()
    };
    let verbs = VERBS.iter().map(|(one, many, verb)| {
        let form = format!("({one}|{many})");
        let pattern = |names: &Value| {
            names.pointer("/anyOf/0/pattern").and_then(Value::as_str).is_some_and(|pattern| pattern.contains(&form))
        };
        (*verb, stated(&pattern))
    });
    let words = ACTORLESS_HEADS.iter().map(|(word, verb)| {
        let mut options = stated(&|names| names.pointer("/enum/0").is_some_and(|first| first == word));
        options.retain(|option| option != word);
        (*verb, options)
    });
    verbs.chain(words).collect()
});

impl StepVerb {
    /// Returns the options of such a step, besides `as` and `if`.
    pub fn options(self) -> &'static [&'static str] {
        OPTIONS.iter().find(|(verb, _)| *verb == self).map_or(&[], |(_, options)| options.as_slice())
    }

    pub fn takes_rules(self) -> bool {
        self.options().contains(&"rules")
    }

    /// Whether the step expects something from the hub.
    pub fn expects(self) -> bool {
        matches!(
            self,
            Self::Expects
                | Self::ExpectsNothing
                | Self::ExpectsOneOf
                | Self::ExpectsClose
                | Self::ExpectsRefusal
                | Self::ExpectsFrame
                | Self::ExpectsEnd
        )
    }

    /// Whether the step only checks, so that without rules it has no effect.
    pub fn only_judges(self) -> bool {
        matches!(self, Self::ExpectsNothing | Self::Check | Self::Order)
    }

    /// Whether the head of the step has no actor at all, such as `check`.
    pub fn is_word(self) -> bool {
        ACTORLESS_HEADS.iter().any(|(_, verb)| *verb == self)
    }

    /// Whether the members of a group that receive something are counted.
    pub fn can_be_counted(self) -> bool {
        matches!(self, Self::Expects | Self::ExpectsFrame)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct StepHead<'a> {
    pub verb: StepVerb,
    /// The actor's name; empty if it is left out, and for heads without an actor.
    pub actor: &'a str,
    /// Whether the verb has the form for a group.
    pub plural: bool,
    pub quantity: Option<(GroupQuantity, usize)>,
}

/// Parses a key as the head of a step; `None` if it is not one.
pub fn parse_head(key: &str) -> Option<StepHead<'_>> {
    if let Some((_, verb)) = ACTORLESS_HEADS.iter().find(|(word, _)| *word == key) {
        return Some(StepHead { verb: *verb, actor: "", plural: false, quantity: None });
    }
    // The longest verb wins: `expects close` is not the verb `close` of an actor called `expects`.
    let forms = VERBS.iter().flat_map(|(one, many, verb)| [(*one, false, *verb), (*many, true, *verb)]);
    let (form, plural, verb) = forms
        .filter(|(form, ..)| key.strip_suffix(form).is_some_and(|rest| rest.is_empty() || rest.ends_with(' ')))
        .max_by_key(|(form, ..)| form.len())?;
    let subject = key[..key.len() - form.len()].trim_end();
    for (words, quantity) in QUANTITIES {
        if let Some((number, actor)) = subject.strip_prefix(words).and_then(|rest| rest.split_once(" of ")) {
            let number = number.trim().parse().ok()?;
            return Some(StepHead { verb, actor: actor.trim(), plural, quantity: Some((quantity, number)) });
        }
    }
    if subject.contains(' ') || is_verb_word(subject) {
        return None;
    }
    Some(StepHead { verb, actor: subject, plural, quantity: None })
}

impl fmt::Display for StepHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = QUANTITIES.iter().find_map(|(words, of)| {
            self.quantity.filter(|(quantity, _)| quantity == of).map(|(_, number)| format!("{words}{number} of "))
        });
        let space = if self.actor.is_empty() { "" } else { " " };
        let forms = VERBS.iter().map(|(one, many, verb)| (if self.plural { *many } else { *one }, *verb));
        let form = forms.chain(ACTORLESS_HEADS).find(|(_, verb)| *verb == self.verb).map_or("", |(form, _)| form);
        write!(f, "{}{}{space}{form}", words.unwrap_or_default(), self.actor)
    }
}

/// Whether a key that is not a head begins with a quantity, and so was meant to be one.
pub fn begins_with_quantity(key: &str) -> bool {
    QUANTITIES.iter().any(|(words, _)| key.starts_with(words))
}

/// Returns all verbs and words, for "did you mean".
pub fn all_words() -> Vec<&'static str> {
    VERBS.iter().map(|verb| verb.0).chain(ACTORLESS_HEADS.iter().map(|word| word.0)).collect()
}

/// Whether a verb or a head without an actor begins with this word, so that no actor can have it as its name.
pub fn is_verb_word(name: &str) -> bool {
    let first = |form: &str| form.split(' ').next() == Some(name);
    VERBS.iter().any(|(singular, plural, _)| first(singular) || first(plural))
        || ACTORLESS_HEADS.iter().any(|(word, _)| *word == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("check", Some((StepVerb::Check, "")))]
    #[case("anna sends", Some((StepVerb::Sends, "anna")))]
    #[case("crowd send raw", Some((StepVerb::SendsRaw, "crowd")))]
    #[case("expects close", Some((StepVerb::ExpectsClose, "")))]
    #[case("expect close", Some((StepVerb::ExpectsClose, "")))]
    #[case("anna expects close", Some((StepVerb::ExpectsClose, "anna")))]
    #[case("closes", Some((StepVerb::Closes, "")))]
    #[case("tries to connect", Some((StepVerb::TriesToConnect, "")))]
    #[case("anna tries to connect", Some((StepVerb::TriesToConnect, "anna")))]
    #[case("at least 2 of crowd expect nothing", Some((StepVerb::ExpectsNothing, "crowd")))]
    #[case("crowd[0] plays", Some((StepVerb::Plays, "crowd[0]")))]
    #[case("sends expects", None)]
    #[case("anna", None)]
    #[case("anna and ben send", None)]
    #[case("exactly three of crowd expect", None)]
    #[case("resends", None)]
    fn the_head_of_a_step_is_split_into_actor_and_verb(#[case] key: &str, #[case] expected: Option<(StepVerb, &str)>) {
        assert!(parse_head(key).is_none_or(|head| head.to_string() == key));
        assert_eq!(parse_head(key).map(|head| (head.verb, head.actor)), expected);
    }
}
