//! Reads values of YAML and TOML files, each as the kind that it must have. A value of another kind counts as absent;
//! an error says where it is and what to write instead. `what` names the value in errors: "`title`", "a role".

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::syntax::diagnostic::{Diagnostic, ValueError, suggest, suggest_or_list};
use crate::syntax::duration::{self, parse_duration};
use crate::syntax::printable::escape_unprintable;
use crate::syntax::source::Span;
use crate::syntax::yaml::{NodeKey, NodeKind, SyntaxNode};

type Errors = Vec<Diagnostic>;

/// Returns the error for a value that is not of the expected kind. The error does not repeat the value, which may be
/// secret.
pub fn wrong_kind(node: &SyntaxNode, what: &str, kind: &str, help: &str) -> Diagnostic {
    Diagnostic::error(node.span, format!("{what} must be {kind}, not {}", node.describe_kind())).help(help)
}

/// Returns the error for a value that is not a number, or is out of bounds.
fn wrong_number(node: &SyntaxNode, what: &str, kind: &str, help: &str) -> Diagnostic {
    match &node.kind {
        NodeKind::Number(number) => {
            Diagnostic::error(node.span, format!("{what} must be {kind}, not {number}")).help(help)
        }
        _ => wrong_kind(node, what, kind, help),
    }
}

/// Returns the entries of a mapping. Any other value has none and is not reported.
pub fn entries(node: Option<&SyntaxNode>) -> &[(NodeKey, SyntaxNode)] {
    node.and_then(SyntaxNode::map).unwrap_or_default()
}

/// Reads a mapping with any keys.
pub fn mapping<'n>(
    node: Option<&'n SyntaxNode>,
    what: &str,
    example: &str,
    errors: &mut Errors,
) -> &'n [(NodeKey, SyntaxNode)] {
    let Some(node) = node.filter(|node| !node.is_null()) else { return &[] };
    node.map().unwrap_or_else(|| {
        errors.push(wrong_kind(node, what, "a mapping", &format!("write `{example}`")));
        &[]
    })
}

/// The grammar of all names that packs, scenarios and plans give: settings, hooks, roles, messages, rules, scenarios and
/// others. Such a name can be written into every kind of file and shown anywhere.
pub fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "_-./:@$+".contains(c);
    name.starts_with(|c: char| c.is_alphanumeric() || "_$".contains(c))
        && name.len() <= MAX_NAME
        && name.chars().all(allowed)
}

/// Maximum length of a name in bytes.
const MAX_NAME: usize = 200;

/// Reports a name that breaks the grammar.
pub fn check_name(name: &str, what: &str, at: Span, errors: &mut Errors) {
    if !is_name(name) {
        let help = format!(
            "begin it with a letter or digit, and use only letters, digits and _ - . / : @ $ +, at most {MAX_NAME}"
        );
        errors.push(Diagnostic::error(at, format!("this cannot be the name of {what}")).help(help));
    }
}

/// Reads a mapping whose keys are names of `kind`, such as "a role".
pub fn named<'n>(
    node: Option<&'n SyntaxNode>,
    what: &str,
    kind: &str,
    example: &str,
    errors: &mut Errors,
) -> &'n [(NodeKey, SyntaxNode)] {
    let found = mapping(node, what, example, errors);
    found.iter().for_each(|(key, _)| check_name(&key.name, kind, key.span, errors));
    found
}

/// A mapping with known keys.
pub struct Table<'n> {
    pub node: &'n SyntaxNode,
    what: String,
    /// The place at which a missing member is reported.
    at: Span,
    /// Whether no unknown key was reported. Otherwise a missing member is not reported, because the unknown key may be
    /// its misspelt name.
    well_formed: bool,
}

/// Most unknown keys of one mapping that are reported.
const MAX_UNKNOWN_KEYS: usize = 100;

/// Reads a mapping with these keys, and reports all others.
pub fn table<'n>(node: &'n SyntaxNode, known: &[&str], what: &str, errors: &mut Errors) -> Table<'n> {
    let before = errors.len();
    match node.map() {
        Some(entries) => {
            let unknown = entries.iter().map(|(key, _)| key).filter(|key| !known.contains(&key.name.as_str()));
            errors.extend(unknown.take(MAX_UNKNOWN_KEYS).map(|key| {
                let help = suggest_or_list(&key.name, known.iter().copied(), "its keys are");
                Diagnostic::error(key.span, format!("{what} has no key `{}`", key.name)).help(help)
            }));
        }
        None if node.is_null() => {}
        None => errors.push(wrong_kind(node, what, "a mapping", &format!("its keys are {}", known.join(", ")))),
    }
    Table { node, what: what.to_owned(), at: node.span, well_formed: errors.len() == before }
}

impl<'n> Table<'n> {
    /// Sets the place at which missing members are reported; by default that is the whole mapping.
    pub fn at(self, at: Span) -> Self {
        Self { at, ..self }
    }

    /// Returns a member that must be present.
    pub fn required(&self, key: &str, help: &str, errors: &mut Errors) -> Option<&'n SyntaxNode> {
        let member = self.node.get(key);
        if member.is_none() && self.well_formed {
            errors.push(Diagnostic::error(self.at, format!("{} has no `{key}`", self.what)).help(help));
        }
        member
    }

    /// Returns one of these members with its key; exactly one must be present.
    pub fn one_of(&self, keys: &[&str], help: &str, errors: &mut Errors) -> Option<(&'n str, &'n SyntaxNode)> {
        let mut found: Vec<_> =
            entries(Some(self.node)).iter().filter(|(key, _)| keys.contains(&key.name.as_str())).collect();
        // The entries of a TOML file are sorted by name.
        found.sort_by_key(|(key, _)| key.span.start);
        match found[..] {
            [(key, value)] => return Some((&key.name, value)),
            [(first, _), (second, _), ..] => {
                let message =
                    format!("{} has `{}` and `{}`, but takes one of them", self.what, first.name, second.name);
                errors.push(Diagnostic::error(second.span, message).help(help));
            }
            [] if self.well_formed => {
                let names: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
                errors.push(Diagnostic::error(self.at, format!("{} needs {}", self.what, either(&names))).help(help));
            }
            [] => {}
        }
        None
    }
}

fn either<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => names.concat(),
    }
}

/// Reads a list.
pub fn list<'n>(node: Option<&'n SyntaxNode>, what: &str, example: &str, errors: &mut Errors) -> &'n [SyntaxNode] {
    let Some(node) = node.filter(|node| !node.is_null()) else { return &[] };
    node.list().unwrap_or_else(|| {
        errors.push(wrong_kind(node, what, "a list", &format!("write `{example}`")));
        &[]
    })
}

/// Reads a text that is not blank.
pub fn text<'n>(node: Option<&'n SyntaxNode>, what: &str, errors: &mut Errors) -> Option<&'n str> {
    let node = node?;
    if node.is_null() || node.text().is_some_and(|text| text.trim().is_empty()) {
        errors.push(Diagnostic::error(node.span, format!("{what} is empty")).help("write some text, or leave it out"));
        return None;
    }
    text_or_blank(Some(node), what, errors)
}

/// Reads a text that is shown in one line. Line breaks become blanks, and unprintable characters are escaped.
pub fn line_text(node: Option<&SyntaxNode>, what: &str, errors: &mut Errors) -> Option<String> {
    text(node, what, errors).map(|text| escape_unprintable(text.trim()).into_owned())
}

/// Reads a text that may be blank.
pub fn text_or_blank<'n>(node: Option<&'n SyntaxNode>, what: &str, errors: &mut Errors) -> Option<&'n str> {
    let node = node?;
    if node.text().is_none() {
        let help = match node.kind {
            NodeKind::Number(_) | NodeKind::Bool(_) => {
                format!("quote it if it is meant as text: \"{}\"", node.to_json())
            }
            _ => "write quoted text".to_owned(),
        };
        errors.push(wrong_kind(node, what, "text", &help));
    }
    node.text()
}

/// Reads one of several words, each with its meaning.
pub fn choice<T: Copy>(node: Option<&SyntaxNode>, what: &str, words: &[(&str, T)], errors: &mut Errors) -> Option<T> {
    let node = node?;
    let meant = node.text().and_then(|text| words.iter().find(|(word, _)| *word == text));
    if meant.is_none() {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let found = node.text().map_or_else(|| node.describe_kind().to_owned(), |text| format!("`{text}`"));
        let help =
            suggest(node.text().unwrap_or_default(), names.iter().copied(), &format!("write {}", either(&names)));
        errors.push(Diagnostic::error(node.span, format!("{what} cannot be {found}")).help(help));
    }
    meant.map(|(_, meaning)| *meaning)
}

/// Reads true or false; an absent value is false.
pub fn flag(node: Option<&SyntaxNode>, what: &str, errors: &mut Errors) -> bool {
    match node.map(|node| (node, &node.kind)) {
        None => false,
        Some((_, NodeKind::Bool(flag))) => *flag,
        Some((node, _)) => {
            errors.push(wrong_kind(node, what, "true or false", "write true without quotes, or leave it out"));
            false
        }
    }
}

/// Reads a whole number within bounds.
pub fn integer(node: Option<&SyntaxNode>, what: &str, range: RangeInclusive<u64>, errors: &mut Errors) -> Option<u64> {
    let node = node?;
    let number = node.integer().filter(|number| range.contains(number));
    if number.is_none() {
        let to = if *range.end() == u64::MAX { String::new() } else { format!(" to {}", range.end()) };
        let kind = format!("a whole number from {}{to}", range.start());
        errors.push(wrong_number(
            node,
            what,
            &kind,
            &format!("write a number without quotes, such as {}", range.start()),
        ));
    }
    number
}

/// Reads a number within bounds.
pub fn float(node: Option<&SyntaxNode>, what: &str, range: RangeInclusive<f64>, errors: &mut Errors) -> Option<f64> {
    let node = node?;
    let number = match &node.kind {
        NodeKind::Number(number) => number.as_f64().filter(|number| range.contains(number)),
        _ => None,
    };
    if number.is_none() {
        let kind = format!("a number from {} to {}", range.start(), range.end());
        errors.push(wrong_number(node, what, &kind, "write a number without quotes"));
    }
    number
}

/// Reads a time with its unit.
pub fn time(node: Option<&SyntaxNode>, what: &str, errors: &mut Errors) -> Option<Duration> {
    let node = node?;
    let time = match &node.kind {
        NodeKind::Text(text) => parse_duration(&text.value),
        NodeKind::Number(number) => Err(ValueError::new(
            format!("{what} has no unit"),
            format!("write \"{number}s\" for seconds or \"{number}ms\" for milliseconds"),
        )),
        _ => {
            errors.push(wrong_kind(node, what, "a time", duration::EXAMPLE));
            return None;
        }
    };
    time.map_err(|error| errors.push(error.at(node.span))).ok()
}

/// Reads a time above 0 with its unit.
pub fn time_above_zero(node: Option<&SyntaxNode>, what: &str, errors: &mut Errors) -> Option<Duration> {
    let time = time(node, what, errors)?;
    if time.is_zero() {
        errors.push(Diagnostic::error(node?.span, format!("{what} must be more than 0")).help(duration::EXAMPLE));
    }
    Some(time).filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::source::Sources;
    use crate::syntax::yaml;
    use rstest::rstest;

    const KEYS: [&str; 9] = ["text", "flag", "count", "share", "time", "pause", "word", "list", "names"];

    fn mistakes(yaml: &str) -> Vec<(String, String, String)> {
        let mut sources = Sources::default();
        let file = sources.add("t.yaml", yaml);
        let node = yaml::parse(&sources, file).expect("YAML");
        let mut errors = Vec::new();
        table(&node, &KEYS, "a thing", &mut errors);
        text(node.get("text"), "`text`", &mut errors);
        flag(node.get("flag"), "`flag`", &mut errors);
        integer(node.get("count"), "`count`", 1..=9, &mut errors);
        float(node.get("share"), "`share`", 0.0..=0.5, &mut errors);
        time(node.get("time"), "`time`", &mut errors);
        time_above_zero(node.get("pause"), "`pause`", &mut errors);
        choice(node.get("word"), "`word`", &[("must", 1), ("may", 2)], &mut errors);
        list(node.get("list"), "`list`", "list: [a]", &mut errors);
        mapping(node.get("names"), "`names`", "names: { a: b }", &mut errors);
        let shown = |error: &Diagnostic| sources.text(error.span.expect("a place")).to_owned();
        errors.iter().map(|e| (shown(e), e.message.clone(), e.help.clone().unwrap_or_default())).collect()
    }

    #[test]
    fn values_of_the_right_kinds_are_read_without_a_report() {
        let right = "text: x\nflag: true\ncount: 9\nshare: 0.5\ntime: 0s\npause: 5ms\nword: may\nlist: [1]\nnames: {}";
        assert_eq!(mistakes(right), []);
    }

    #[rstest]
    #[case("txt: x", "txt", "a thing has no key `txt`", "did you mean `text`?")]
    #[case(
        "[1]",
        "[1]",
        "a thing must be a mapping, not a list",
        "its keys are text, flag, count, share, time, pause, word, list, names"
    )]
    #[case("text: 5", "5", "`text` must be text, not a number", "quote it if it is meant as text: \"5\"")]
    #[case("text: [a]", "[a]", "`text` must be text, not a list", "write quoted text")]
    #[case("text: ' '", "' '", "`text` is empty", "write some text, or leave it out")]
    #[case(
        "flag: 'true'",
        "'true'",
        "`flag` must be true or false, not text",
        "write true without quotes, or leave it out"
    )]
    #[case(
        "count: 10",
        "10",
        "`count` must be a whole number from 1 to 9, not 10",
        "write a number without quotes, such as 1"
    )]
    #[case(
        "count: 1.5",
        "1.5",
        "`count` must be a whole number from 1 to 9, not 1.5",
        "write a number without quotes, such as 1"
    )]
    #[case("share: 1", "1", "`share` must be a number from 0 to 0.5, not 1", "write a number without quotes")]
    #[case("time: 5", "5", "`time` has no unit", "write \"5s\" for seconds or \"5ms\" for milliseconds")]
    #[case("time: soon", "soon", "`soon` is not a time", "write a number and a unit, such as 300ms, 5s or 2m")]
    #[case(
        "time: {}",
        "{}",
        "`time` must be a time, not a mapping",
        "write a number and a unit, such as 300ms, 5s or 2m"
    )]
    #[case("pause: 0s", "0s", "`pause` must be more than 0", "write a number and a unit, such as 300ms, 5s or 2m")]
    #[case("word: mist", "mist", "`word` cannot be `mist`", "did you mean `must`? write must or may")]
    #[case("word: 1", "1", "`word` cannot be a number", "write must or may")]
    #[case("list: a", "a", "`list` must be a list, not text", "write `list: [a]`")]
    #[case("names: a", "a", "`names` must be a mapping, not text", "write `names: { a: b }`")]
    fn a_value_of_another_kind_is_reported_with_its_place_and_advice(
        #[case] yaml: &str,
        #[case] place: &str,
        #[case] message: &str,
        #[case] help: &str,
    ) {
        assert_eq!(mistakes(yaml), [(place.to_owned(), message.to_owned(), help.to_owned())]);
    }

    #[rstest]
    #[case("a: 1\nb: 1", None)]
    #[case("b: 1", Some(("b: 1", "a thing has no `a`")))]
    #[case("a: 1", Some(("a: 1", "a thing needs `b` or `c`")))]
    #[case("a: 1\nc: 2\nb: 3", Some(("b", "a thing has `c` and `b`, but takes one of them")))]
    // A missing member is not reported if an unknown key may be its misspelt name.
    #[case("d: 1", Some(("d", "a thing has no key `d`")))]
    fn members_that_are_missing_or_too_many_are_reported(#[case] yaml: &str, #[case] expected: Option<(&str, &str)>) {
        let mut sources = Sources::default();
        let file = sources.add("t.yaml", yaml);
        let node = yaml::parse(&sources, file).expect("YAML");
        let mut errors = Vec::new();
        let thing = table(&node, &["a", "b", "c"], "a thing", &mut errors);
        assert_eq!(thing.required("a", "write `a: 1`", &mut errors).is_some(), node.get("a").is_some());
        thing.one_of(&["b", "c"], "write `b: 1`", &mut errors);
        let shown: Vec<(&str, &str)> =
            errors.iter().map(|error| (sources.text(error.span.expect("a place")), error.message.as_str())).collect();
        assert_eq!(shown, expected.into_iter().collect::<Vec<_>>());
    }
}
