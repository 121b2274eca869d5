//! Parses rules.yaml: the normative sentences of a document, each with its level and its place in the document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::syntax::diagnostic::{Diagnostic, suggest};
use crate::syntax::source::Span;
use crate::syntax::yaml::{Kind, Node};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    May,
    Should,
    Must,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::May => "may",
            Self::Should => "should",
            Self::Must => "must",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::May, Self::Should, Self::Must].into_iter().find(|level| level.name() == name)
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

const EXAMPLE: &str =
    "give each rule an id: write `rules: { ABC-001: { level: must, basis: stated, line: 1, text: ... } }`";

pub fn parse(root: &Node, diagnostics: &mut Vec<Diagnostic>) -> Rules {
    let mut rules = BTreeMap::new();
    let mut broken = BTreeSet::new();
    let document = root.get("document").and_then(Node::text).unwrap_or_default().to_owned();
    for (key, node) in root.map().unwrap_or_default() {
        if !matches!(key.name.as_str(), "document" | "rules") {
            diagnostics.push(
                Diagnostic::error(key.span, format!("rules.yaml has no key `{}`", key.name))
                    .help("it has `document` and `rules`"),
            );
        }
        if key.name == "rules" && node.map().is_none() {
            diagnostics.push(
                Diagnostic::error(node.span, format!("`rules` must be a mapping by id, not {}", node.what()))
                    .help(EXAMPLE),
            );
        }
    }
    match root.get("rules").and_then(Node::map) {
        None if root.get("rules").is_some() => {}
        None => diagnostics.push(Diagnostic::error(root.span, "rules.yaml has no `rules`").help(EXAMPLE)),
        Some(entries) => {
            for (key, node) in entries {
                match rule(&key.name, key.span, node, diagnostics) {
                    Some(rule) => drop(rules.insert(rule.id.clone(), rule)),
                    None => drop(broken.insert(key.name.clone())),
                }
            }
        }
    }
    let unreadable = root.get("rules").is_none_or(|rules| rules.map().is_none());
    Rules { document, rules, broken, unreadable }
}

fn rule(id: &str, span: Span, node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Option<Rule> {
    let Some(entries) = node.map() else {
        diagnostics.push(
            Diagnostic::error(span, format!("rule {id} must be a mapping, not {}", node.what()))
                .help("give it `level`, `basis`, `line` and `text`"),
        );
        return None;
    };
    let before = diagnostics.len();
    for (key, _) in entries {
        if !KEYS.contains(&key.name.as_str()) {
            diagnostics.push(
                Diagnostic::error(key.span, format!("a rule has no `{}`", key.name)).help(suggest(&key.name, KEYS, "")),
            );
        }
    }
    let misspelt = diagnostics.len() > before;
    let mut text = |name: &str, required: bool| -> Option<String> {
        match node.get(name) {
            Some(Node { kind: Kind::Text(text), .. }) if !text.value.trim().is_empty() => Some(text.value.clone()),
            Some(other) => {
                diagnostics.push(
                    Diagnostic::error(other.span, format!("`{name}` of {id} must be text, not {}", other.what()))
                        .help("put it in quotes to make it text"),
                );
                None
            }
            None if required && !misspelt => {
                diagnostics.push(Diagnostic::error(span, format!("rule {id} has no `{name}`")).help(match name {
                    "level" => "write `level: must`, `should` or `may`",
                    "basis" => "write `basis: stated`, `implied` or `silent-guess`",
                    _ => "add the sentence of the document",
                }));
                None
            }
            None => None,
        }
    };
    let level = text("level", true);
    let basis = text("basis", true);
    let sentence = text("text", true);
    let from = text("from", false);
    let sees = text("sees", false).unwrap_or_default();
    let out_of_scope = text("out_of_scope", false);
    let level = level.and_then(|name| {
        let level = Level::from_name(&name);
        if level.is_none() {
            diagnostics.push(
                Diagnostic::error(node.at_pointer("/level").span, format!("`{name}` is not a level"))
                    .help("write `level: must`, `should` or `may`"),
            );
        }
        level
    });
    let basis = basis.and_then(|name| {
        let basis = [Basis::Stated, Basis::Implied, Basis::Silent].into_iter().find(|basis| basis.name() == name);
        if basis.is_none() {
            diagnostics.push(
                Diagnostic::error(node.at_pointer("/basis").span, format!("`{name}` is not a basis"))
                    .help("write `basis: stated`, `implied` or `silent-guess`"),
            );
        }
        basis
    });
    let place = place(id, span, node, misspelt, diagnostics);
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
    Some(Rule {
        id: id.to_owned(),
        level: level?,
        basis: basis?,
        place: place?,
        text: sentence?,
        from,
        sees,
        out_of_scope,
        span,
    })
}

fn place(id: &str, span: Span, node: &Node, misspelt: bool, diagnostics: &mut Vec<Diagnostic>) -> Option<Place> {
    let (line, section) = (node.get("line"), node.get("section"));
    let wrong = match (line, section) {
        (None, Some(section)) => match section.text().filter(|text| !text.trim().is_empty()) {
            Some(text) => return Some(Place::Section(text.to_owned())),
            None => Diagnostic::error(section.span, format!("`section` of {id} must be text, not {}", section.what()))
                .help("put it in quotes, such as `section: \"5.1\"`"),
        },
        (Some(_), Some(section)) => {
            Diagnostic::error(section.span, format!("{id} has both a `line` and a `section`")).help("keep one of them")
        }
        (Some(line), None) => match &line.kind {
            Kind::Number(n) if n.as_u64().is_some_and(|n| n > 0) => {
                return Some(Place::Line(n.as_u64().unwrap_or_default() as usize));
            }
            _ => Diagnostic::error(line.span, format!("`line` of {id} must be a whole number from 1"))
                .help("give the line of the document where the sentence begins"),
        },
        (None, None) if misspelt => return None,
        (None, None) => Diagnostic::error(span, format!("rule {id} has no `line`"))
            .help("give the line of the document where the sentence begins"),
    };
    diagnostics.push(wrong);
    None
}
