//! A variation plays a scenario in another way that must not change what the hub does (metamorphic testing): whatever
//! holds for the scenario as written must also hold with the variation.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::functions::NameForm;
use super::template::{Piece, pieces};
use super::unusual_values::{OpenPlaces, ValueKind};

/// Longer messages stay unchanged: another form could exceed the hub's limits.
const MAX_REWRITTEN_BYTES: usize = 2000;
/// The lengths of padded texts. Most buffers have the first size or one that divides it, so the text ends where a buffer does;
/// one of the second size does not fit.
const PADDED_BYTES: [usize; 2] = [4096, 5000];

/// How long pauses last.
const PAUSE: Duration = Duration::from_millis(1500);
const LONG_PAUSE: Duration = Duration::from_secs(5);

/// Another way to play a scenario.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variation {
    /// The same JSON values as another text, or in several frames.
    Form(TextForm),
    /// Names that are easily mistaken for each other.
    Names(NameForm),
    /// Unusual values in the places in which the hub passes on what it gets, once a play has shown these places.
    Values(ValueKind, Option<Arc<OpenPlaces>>),
    /// The headers of the upgrade are spelt in another way.
    Upgrade,
    /// After its opening, a client pings the hub and sends an unsolicited pong. At the end it pings again, and waits for
    /// the pongs.
    Ping,
    /// Clients play a scene that the pack names.
    Prelude(PreludePlace, Arc<str>),
    /// No client sends anything for this long, in the middle of the conversation.
    Pauses(Duration),
    /// The whole conversation for the second time, with the same names, after everyone has left.
    Again,
    /// Beside other conversations, which play preludes and begin again when they end.
    Crowd,
    /// After and beside another conversation whose clients drop out halfway.
    Dropouts,
}

/// Which clients play a prelude, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PreludePlace {
    /// Each one after its opening.
    After,
    /// Each one after its opening, and whenever it has got an answer and is about to send again.
    Amid,
    /// Each one together with a request of the scenario: both are written at once.
    Pipelined,
    /// The first one of each role after its opening, many times at once.
    Many,
    /// The same, hundreds of times.
    Hundreds,
    /// Earlier clients with the same names, which have left.
    Before,
    /// Others, which come and go during the conversation.
    Beside,
}

/// The places of preludes, each with the first word of its variations' names, and how these are described.
const PLACES: [(PreludePlace, &str, &str); 7] = [
    (
        PreludePlace::After,
        "after",
        "the prelude `NAME` one to four times after the first eight openings of each client",
    ),
    (
        PreludePlace::Amid,
        "amid",
        "the prelude `NAME` one to four times after openings, and up to three times between answers and requests",
    ),
    (
        PreludePlace::Pipelined,
        "pipelined",
        "the prelude `NAME` up to three times on each connection, in one write with a request",
    ),
    (PreludePlace::Many, "many", "the prelude `NAME` 65 times at once after the first opening of each role"),
    (PreludePlace::Hundreds, "hundreds", "the prelude `NAME` 257 times at once after the first opening of each role"),
    (PreludePlace::Before, "before", "the prelude `NAME` played by earlier clients with the same names"),
    (
        PreludePlace::Beside,
        "beside",
        "the prelude `NAME` played beside by clients that leave, or drop out without its answer",
    ),
];

impl PreludePlace {
    /// Returns all places.
    pub fn all() -> impl Iterator<Item = Self> {
        PLACES.iter().map(|(place, ..)| *place)
    }

    /// Returns the place with which a variation's name begins.
    pub fn from_word(word: &str) -> Option<Self> {
        PLACES.iter().find(|(_, known, _)| *known == word).map(|(place, ..)| *place)
    }

    /// Returns how many times at once the prelude is played, if it is played several times at once: more than what a buffer or
    /// a counter may be made for.
    pub fn times(self) -> Option<usize> {
        match self {
            Self::Many => Some(65),
            Self::Hundreds => Some(257),
            _ => None,
        }
    }

    fn row(self) -> (&'static str, &'static str) {
        PLACES.iter().find(|(place, ..)| *place == self).map_or(("", ""), |(_, word, about)| (word, about))
    }
}

/// Another text for the same JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TextForm {
    MemberOrder,
    WhiteSpace,
    Escapes,
    Padding,
    Fragments,
}

/// The variations that need nothing from the pack, by name, each with what it does.
const GENERAL: [(&str, Variation, &str); 22] = [
    ("member-order", Variation::Form(TextForm::MemberOrder), "the members of every sent object in reverse order"),
    ("white-space", Variation::Form(TextForm::WhiteSpace), "white space around every token of every sent message"),
    ("escapes", Variation::Form(TextForm::Escapes), "every character of sent strings written as \\uXXXX"),
    (
        "padding",
        Variation::Form(TextForm::Padding),
        "spaces after every sent message, until it is 4,096 or 5,000 bytes long",
    ),
    (
        "fragments",
        Variation::Form(TextForm::Fragments),
        "every sent text in four frames, of which the first and the last are empty",
    ),
    ("long-names", Variation::Names(NameForm::Long), "generated names and ids whose first 32 characters are equal"),
    ("names-by-case", Variation::Names(NameForm::Case), "generated names that differ only in upper and lower case"),
    ("names-by-form", Variation::Names(NameForm::Unicode), "generated names that differ only in their Unicode form"),
    ("names-by-prefix", Variation::Names(NameForm::Prefix), "generated names of which each begins with the one before"),
    ("names-by-suffix", Variation::Names(NameForm::Suffix), "generated names of which each ends with the one before"),
    ("names-by-blanks", Variation::Names(NameForm::Blanks), "generated names that differ only in the blanks in them"),
    (
        "values-letters",
        Variation::Values(ValueKind::Letters, None),
        "names that the hub passes on with blanks at both ends, line ends, NUL, markup, an emoji and the like",
    ),
    (
        "values-words",
        Variation::Values(ValueKind::Words, None),
        "names that the hub passes on that look like numbers, times, UUIDs, JSON or wildcards",
    ),
    (
        "values-lengths",
        Variation::Values(ValueKind::Lengths, None),
        "names of up to 257 and texts of up to 65,537 characters that the hub passes on",
    ),
    (
        "values-members",
        Variation::Values(ValueKind::Members, None),
        "unusual texts, numbers, lists, levels and names of members in objects that the hub passes on",
    ),
    ("upgrade", Variation::Upgrade, "an upgrade with `Connection: keep-alive, upgrade` and `Upgrade: WebSocket`"),
    ("ping", Variation::Ping, "a ping and an unsolicited pong after every opening, and pings at the end"),
    ("pauses", Variation::Pauses(PAUSE), "up to two pauses of 1.5 s between answers and requests"),
    ("long-pauses", Variation::Pauses(LONG_PAUSE), "up to two pauses of 5 s between answers and requests"),
    ("again", Variation::Again, "the whole conversation a second time, with the same names"),
    ("crowd", Variation::Crowd, "beside three of these conversations, which begin again until this one ends"),
    ("dropouts", Variation::Dropouts, "after and beside such conversations whose clients drop out halfway"),
];

/// The separator of scenario and variation in the id of a play.
const WITH: &str = " with ";

/// Splits the id of a play into the id of the scenario and the name of the variation, if it had one.
pub fn split_id(id: &str) -> (&str, Option<&str>) {
    id.split_once(WITH).map_or((id, None), |(scenario, variation)| (scenario, Some(variation)))
}

impl Variation {
    /// Returns the variations that need nothing from the pack.
    pub fn general() -> impl Iterator<Item = Self> {
        GENERAL.iter().map(|(_, variation, _)| variation.clone())
    }

    /// Returns the id of a scenario's play with this variation.
    pub fn id_of(&self, scenario: &str) -> String {
        format!("{scenario}{WITH}{self}")
    }

    /// Describes the difference from the plain scenario.
    pub fn describe(&self) -> String {
        match self {
            Self::Prelude(place, name) => place.row().1.replace("NAME", name),
            other => other.row().map(|(_, _, about)| (*about).to_owned()).unwrap_or_default(),
        }
    }

    /// Whether it assumes what not every protocol grants: that any name is taken, that similar ones differ, that they are
    /// forgotten when their clients have left, that a client may be silent for a while.
    pub fn needs_consent(&self) -> bool {
        matches!(self, Self::Names(_) | Self::Values(..) | Self::Again | Self::Pauses(_))
    }

    /// Returns the names by which a pack may except it: its own, and those of what it includes or resembles.
    pub fn names_for_exceptions(&self) -> Vec<String> {
        let mut names = vec![self.to_string()];
        match self {
            Self::Prelude(place, name) => {
                names.push(place.row().0.to_owned());
                match place {
                    PreludePlace::After => {}
                    PreludePlace::Amid | PreludePlace::Many => {
                        names.extend(Self::Prelude(PreludePlace::After, Arc::clone(name)).names_for_exceptions())
                    }
                    PreludePlace::Pipelined => {
                        for other in [PreludePlace::Amid, PreludePlace::Many] {
                            names.extend(Self::Prelude(other, Arc::clone(name)).names_for_exceptions());
                        }
                    }
                    PreludePlace::Hundreds => {
                        names.extend(Self::Prelude(PreludePlace::Many, Arc::clone(name)).names_for_exceptions())
                    }
                    PreludePlace::Before => names.push(Self::Again.to_string()),
                    PreludePlace::Beside => names.push(Self::Dropouts.to_string()),
                }
            }
            Self::Pauses(time) if *time != PAUSE => names.push(Self::Pauses(PAUSE).to_string()),
            _ => {}
        }
        names
    }

    /// Returns how many times more a client plays the prelude in a row after its opening. A hub may count what goes wrong, so
    /// the number differs from scenario to scenario.
    pub fn repeats_of_prelude(&self, scenario: &str) -> usize {
        match self {
            Self::Prelude(PreludePlace::After | PreludePlace::Amid, name) => (scenario.len() + name.len()) % 4,
            _ => 0,
        }
    }

    /// Returns the name of its prelude, if it has one.
    pub fn prelude(&self) -> Option<&str> {
        match self {
            Self::Prelude(_, name) => Some(name),
            _ => None,
        }
    }

    /// Returns how many times at once it plays a prelude, if it plays it several times at once.
    pub fn times(&self) -> Option<usize> {
        match self {
            Self::Prelude(place, _) => place.times(),
            _ => None,
        }
    }

    /// Whether it sends a request before those before it are answered, which a hub may refuse.
    pub fn sends_ahead(&self) -> bool {
        self.times().is_some() || self.is_pipelined()
    }

    /// Whether a prelude and a request of the scenario are written at once.
    pub fn is_pipelined(&self) -> bool {
        matches!(self, Self::Prelude(PreludePlace::Pipelined, _))
    }

    fn row(&self) -> Option<&'static (&'static str, Variation, &'static str)> {
        let is_same = |other: &Variation| match (self, other) {
            (Self::Values(kind, _), Self::Values(other, _)) => kind == other,
            (one, other) => one == other,
        };
        GENERAL.iter().find(|(_, variation, _)| is_same(variation))
    }

    /// Returns the form in which to send a message, unless it is sent as written.
    pub fn text_of(&self, value: &Value, text: &str) -> Option<String> {
        let Self::Form(form) = self else { return None };
        if *form == TextForm::Fragments || text.len() > MAX_REWRITTEN_BYTES {
            return None;
        }
        let mut out = match form {
            TextForm::MemberOrder => with_reversed_members(value).to_string(),
            form => rewrite_json(*form, text, &[Piece::Literal(0..text.len())]),
        };
        if *form == TextForm::Padding {
            let padded = PADDED_BYTES[out.len() % PADDED_BYTES.len()];
            out.extend(std::iter::repeat_n(' ', padded.saturating_sub(out.len())));
        }
        Some(out)
    }

    /// Returns the form of the names that functions make.
    pub fn name_form(&self) -> NameForm {
        match self {
            Self::Names(form) => *form,
            _ => NameForm::default(),
        }
    }
}

impl fmt::Display for Variation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prelude(place, name) => write!(f, "{}-{name}", place.row().0),
            other => f.write_str(other.row().map_or("", |(name, _, _)| name)),
        }
    }
}

impl FromStr for Variation {
    type Err = String;

    /// Reads the name of a variation. Whether a pack has a prelude of that name is not checked.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, variation, _)) = GENERAL.iter().find(|(name, _, _)| *name == text) {
            return Ok(variation.clone());
        }
        let prelude = text.split_once('-').filter(|(_, name)| !name.is_empty());
        let prelude = prelude.and_then(|(word, name)| Some(Self::Prelude(PreludePlace::from_word(word)?, name.into())));
        prelude.ok_or_else(|| {
            let names: Vec<&str> = GENERAL.iter().map(|(name, _, _)| *name).collect();
            let places = PLACES.map(|(_, word, _)| format!("{word}-NAME"));
            format!("write one of {}, or {} for a prelude of the pack", names.join(", "), places.join(", "))
        })
    }
}

impl TextForm {
    /// Returns a JSON text with expressions in this form, if white space or escapes make it. Expressions stay as they
    /// are.
    pub fn rewrite_template(self, text: &str) -> String {
        pieces(text).map_or_else(|_| text.to_owned(), |pieces| rewrite_json(self, text, &pieces))
    }
}

fn with_reversed_members(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().rev();
            Value::Object(members.map(|(name, value)| (name.clone(), with_reversed_members(value))).collect())
        }
        Value::Array(items) => items.iter().map(with_reversed_members).collect(),
        other => other.clone(),
    }
}

/// Adds white space to a JSON text or escapes the characters of its strings, as the form says.
fn rewrite_json(form: TextForm, text: &str, pieces: &[Piece]) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let around = if form == TextForm::WhiteSpace { " \n" } else { "" };
    out.push_str(around);
    let mut in_string = false;
    // How many characters of an escape follow, and whether the next one says which escape it is.
    let (mut escape_left, mut is_kind) = (0, false);
    for piece in pieces {
        let literal = match piece {
            Piece::Literal(range) => &text[range.clone()],
            Piece::Expression(inside) => {
                out.push_str(&text[inside.start - 2..=inside.end]);
                continue;
            }
        };
        for letter in literal.chars() {
            match (in_string, letter) {
                (true, _) if escape_left > 0 => {
                    escape_left = if is_kind && letter == 'u' { 4 } else { escape_left - 1 };
                    is_kind = false;
                    out.push(letter);
                }
                (true, '\\') => {
                    (escape_left, is_kind) = (1, true);
                    out.push(letter);
                }
                (_, '"') => {
                    in_string = !in_string;
                    out.push(letter);
                }
                (true, _) if form == TextForm::Escapes => {
                    out.extend(letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
                }
                (false, ':') if form == TextForm::WhiteSpace => out.push_str(" : "),
                (false, '{' | '[' | ',') if form == TextForm::WhiteSpace => {
                    out.push(letter);
                    out.push_str("\r\n\t");
                }
                (false, '}' | ']') if form == TextForm::WhiteSpace => {
                    out.push_str("\r\n");
                    out.push(letter);
                }
                _ => out.push(letter),
            }
        }
    }
    out.push_str(around);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(TextForm::MemberOrder, r#"{"b":[true,{"y":0,"x":"é"}],"a":1.0}"#)]
    #[case(
        TextForm::WhiteSpace,
        " \n{\r\n\t\"a\" : 1.0,\r\n\t\"b\" : [\r\n\ttrue,\r\n\t{\r\n\t\"x\" : \"é\",\r\n\t\"y\" : 0\r\n}\r\n]\r\n} \n"
    )]
    #[case(TextForm::Escapes, r#"{"\u0061":1.0,"\u0062":[true,{"\u0078":"\u00e9","\u0079":0}]}"#)]
    fn another_form_is_the_same_value(#[case] form: TextForm, #[case] expected: &str) {
        let value = json!({ "a": 1.0, "b": [true, { "x": "é", "y": 0 }] });
        let text = Variation::Form(form).text_of(&value, &value.to_string());
        assert_eq!(text.as_deref(), Some(expected));
        assert_eq!(serde_json::from_str::<Value>(expected).ok(), Some(value));
    }

    #[rstest]
    #[case(
        TextForm::WhiteSpace,
        " \n{\r\n\t\"t\" : ${json(a['}'])},\r\n\t\"a,b\" : [\r\n\t\"x\\\"y\\u0000z\",\r\n\t1\r\n]\r\n} \n"
    )]
    #[case(TextForm::Escapes, r#"{"\u0074":${json(a['}'])},"\u0061\u002c\u0062":["\u0078\"\u0079\u0000\u007a",1]}"#)]
    fn expressions_and_escapes_stay_in_another_form(#[case] form: TextForm, #[case] expected: &str) {
        assert_eq!(form.rewrite_template(r#"{"t":${json(a['}'])},"a,b":["x\"y\u0000z",1]}"#), expected);
    }

    #[test]
    fn padding_makes_short_messages_as_long_as_a_buffer() {
        let padded = |value: &Value| Variation::Form(TextForm::Padding).text_of(value, &value.to_string());
        let value = json!({ "a": "é" });
        let text = padded(&value).unwrap();
        assert_eq!((text.len(), text.trim_end()), (4096, r#"{"a":"é"}"#));
        assert_eq!(padded(&json!({ "a": "e" })).unwrap().len(), 5000);
        assert_eq!(padded(&json!("x".repeat(2000))), None);
    }

    #[test]
    fn every_variation_has_a_name_that_selects_it() {
        let preludes = PreludePlace::all().map(|place| Variation::Prelude(place, "malformed".into()));
        for variation in Variation::general().chain(preludes) {
            assert_eq!(variation.to_string().parse(), Ok(variation.clone()));
            assert!(!variation.describe().is_empty());
        }
        assert!("backwards".parse::<Variation>().is_err());
    }
}
