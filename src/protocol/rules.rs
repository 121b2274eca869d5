//! Parses rules.yaml: the normative sentences of a document, each with its level and its place in the document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::fields::{choice, integer, mapping, table, text};
use crate::syntax::source::Span;
use crate::syntax::yaml::Node;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    May,
    Should,
    Must,
}

const LEVELS: [(&str, Level); 3] = [("must", Level::Must), ("should", Level::Should), ("may", Level::May)];

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::May => "may",
            Self::Should => "should",
            Self::Must => "must",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        LEVELS.into_iter().find(|(known, _)| *known == name).map(|(_, level)| level)
    }
}

/// How the document supports a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    Stated,
    Implied,
    /// The document is silent; the rule is a guess, and its level is always MAY.
    Silent,
}

impl Basis {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stated => "stated",
            Self::Implied => "implied",
            Self::Silent => "silent-guess",
        }
    }
}

/// The place of a rule in the protocol's document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Line(usize),
    /// A section, if the document has numbered sections, such as an RFC.
    Section(String),
    /// Not in a document: an oracle, which applies to every hub; see [`crate::fuzz::oracle`].
    Oracle,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Section(section) => write!(f, "section {section}"),
            Self::Oracle => f.write_str("an oracle of hubproof"),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub id: String,
    pub level: Level,
    pub basis: Basis,
    pub place: Place,
    pub text: String,
    /// The sentence from which an implied rule follows.
    pub from: Option<String>,
    /// How a black-box test can observe whether a hub keeps the rule.
    pub sees: String,
    /// Why no hub can break the rule: for example, it binds only clients.
    pub out_of_scope: Option<String>,
    pub span: Span,
}

#[derive(Default)]
pub struct Rules {
    pub document: String,
    pub rules: BTreeMap<String, Rule>,
    /// Ids of rules with mistakes; referring to one is not another mistake.
    broken: BTreeSet<String>,
    /// Whether rules could not be parsed at all.
    unreadable: bool,
}

impl Rules {
    /// Whether there is a rule with this id, even one with mistakes.
    pub fn knows(&self, id: &str) -> bool {
        self.unreadable || self.rules.contains_key(id) || self.broken.contains(id)
    }
}

const KEYS: [&str; 8] = ["level", "basis", "line", "section", "text", "from", "sees", "out_of_scope"];
const BASES: [(&str, Basis); 3] =
    [("stated", Basis::Stated), ("implied", Basis::Implied), ("silent-guess", Basis::Silent)];
const PLACE: &str = "write `line: N`, the line of the document with the sentence, or `section: \"5.1\"`";
const EXAMPLE: &str =
    "give each rule an id: write `rules: { ABC-001: { level: must, basis: stated, line: 1, text: ... } }`";

pub fn parse(root: &Node, diagnostics: &mut Vec<Diagnostic>) -> Rules {
    let mut rules = Rules::default();
    let file = table(root, &["document", "rules"], "rules.yaml", diagnostics);
    rules.document = text(root.get("document"), "`document`", diagnostics).unwrap_or_default().to_owned();
    let listed = file.required("rules", EXAMPLE, diagnostics);
    rules.unreadable = listed.is_none_or(|listed| listed.map().is_none());
    for (key, node) in mapping(listed, "`rules`", "rules: { ABC-001: { ... } }", diagnostics) {
        match rule(&key.name, key.span, node, diagnostics) {
            Some(rule) => drop(rules.rules.insert(rule.id.clone(), rule)),
            None => drop(rules.broken.insert(key.name.clone())),
        }
    }
    rules
}

fn rule(id: &str, span: Span, node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Option<Rule> {
    let before = diagnostics.len();
    let members = table(node, &KEYS, &format!("rule {id}"), diagnostics).at(span);
    let level = members.required("level", "write `level: must`, or should, or may", diagnostics);
    let basis = members.required("basis", "write `basis: stated`, or implied, or silent-guess", diagnostics);
    members.required("text", "write `text:` and the sentence in words", diagnostics);
    members.one_of(&["line", "section"], PLACE, diagnostics);
    let level = choice(level, "`level`", &LEVELS, diagnostics);
    let basis = choice(basis, "`basis`", &BASES, diagnostics);
    let line = integer(node.get("line"), "`line`", 1..=u64::MAX, diagnostics);
    let mut text = |name: &str| text(node.get(name), &format!("`{name}` of {id}"), diagnostics).map(str::to_owned);
    let (sentence, from, section) = (text("text"), text("from"), text("section"));
    let (sees, out_of_scope) = (text("sees").unwrap_or_default(), text("out_of_scope"));
    if let (Some(level), Some(Basis::Silent)) = (level, basis)
        && level != Level::May
    {
        let at = node.at_pointer("/level").span;
        diagnostics.push(
            Diagnostic::error(at, format!("the basis of {id} is `silent-guess`, so its level must be `may`")).help(
                "write `level: may`; or, if the document states or implies the rule, `basis: stated` or `implied`",
            ),
        );
    }
    if basis == Some(Basis::Implied) && from.is_none() {
        diagnostics.push(
            Diagnostic::error(span, format!("rule {id} is implied, but has no `from`"))
                .help("quote the sentence from which it follows"),
        );
    }
    if diagnostics.len() > before {
        return None;
    }
    let place = line.map(|line| Place::Line(line as usize)).or(section.map(Place::Section));
    let (id, text) = (id.to_owned(), sentence?);
    Some(Rule { id, level: level?, basis: basis?, place: place?, text, from, sees, out_of_scope, span })
}
