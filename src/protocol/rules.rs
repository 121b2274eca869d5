//! Parses rules.yaml: the normative sentences of a document, each with its level and its place in the document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::fields::{self, choice, integer, line_text, list, named, table};
use crate::syntax::source::Span;
use crate::syntax::yaml::SyntaxNode;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleLevel {
    May,
    Should,
    Must,
}

const LEVELS: [(&str, RuleLevel); 3] =
    [("must", RuleLevel::Must), ("should", RuleLevel::Should), ("may", RuleLevel::May)];

impl RuleLevel {
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
pub enum RuleBasis {
    Stated,
    Implied,
    /// The document is silent; the rule is a guess, and its level is always MAY.
    Silent,
}

impl RuleBasis {
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
pub enum RulePlace {
    Line(usize),
    /// A section, if the document has numbered sections, such as an RFC.
    Section(String),
    /// Not in a document: an oracle, which applies to every hub; see [`crate::fuzz::oracle`].
    Oracle,
}

impl fmt::Display for RulePlace {
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
    pub level: RuleLevel,
    pub basis: RuleBasis,
    pub place: RulePlace,
    pub text: String,
    /// The sentence from which an implied rule follows.
    pub from: Option<String>,
    /// The messages that the rule demands, each with its place in the file.
    pub demands: Vec<(String, Span)>,
    /// How a black-box test can observe whether a hub keeps the rule.
    pub sees: String,
    /// How hubs usually break the rule.
    pub broken_by: Option<String>,
    /// Why no hub can break the rule: for example, it binds only clients.
    pub out_of_scope: Option<String>,
    pub span: Span,
}

#[derive(Default)]
pub struct RuleSet {
    pub document: String,
    /// The address of a place in the document, in which `{line}` or `{section}` stands for that of the rule.
    pub link: Option<String>,
    pub rules: BTreeMap<String, Rule>,
    /// Ids of rules with mistakes; referring to one is not another mistake.
    broken: BTreeSet<String>,
    /// Whether rules could not be parsed at all.
    unreadable: bool,
}

impl RuleSet {
    /// Whether there is a rule with this id, even one with mistakes.
    pub fn contains(&self, id: &str) -> bool {
        self.unreadable || self.rules.contains_key(id) || self.broken.contains(id)
    }
}

const RULE_KEYS: [&str; 10] =
    ["level", "basis", "line", "section", "text", "demands", "from", "sees", "broken_by", "out_of_scope"];
const BASES: [(&str, RuleBasis); 3] =
    [("stated", RuleBasis::Stated), ("implied", RuleBasis::Implied), ("silent-guess", RuleBasis::Silent)];
const PLACE: &str = "write `line: N`, the line of the document with the sentence, or `section: \"5.1\"`";
const RULE_EXAMPLE: &str =
    "give each rule an id: write `rules: { ABC-001: { level: must, basis: stated, line: 1, text: ... } }`";

pub fn parse_rules(root: &SyntaxNode, diagnostics: &mut Vec<Diagnostic>) -> RuleSet {
    let mut rules = RuleSet::default();
    let file = table(root, &["document", "link", "rules"], "rules.yaml", diagnostics);
    rules.document = line_text(root.get("document"), "`document`", diagnostics).unwrap_or_default();
    rules.link = line_text(root.get("link"), "`link`", diagnostics);
    if let (Some(link), Some(node)) = (&rules.link, root.get("link"))
        && !["https://", "http://"].iter().any(|scheme| link.starts_with(scheme))
    {
        let example =
            "write the address of the document, such as `link: \"https://example.org/spec.md?plain=1#L{line}\"`";
        diagnostics.push(Diagnostic::error(node.span, "`link` is not an address on the web").help(example));
    }
    let listed = file.required("rules", RULE_EXAMPLE, diagnostics);
    rules.unreadable = listed.is_none_or(|listed| listed.map().is_none());
    for (key, node) in named(listed, "`rules`", "a rule", "rules: { ABC-001: { ... } }", diagnostics) {
        match parse_rule(&key.name, key.span, node, diagnostics) {
            Some(rule) => drop(rules.rules.insert(rule.id.clone(), rule)),
            None => drop(rules.broken.insert(key.name.clone())),
        }
    }
    rules
}

fn parse_rule(id: &str, span: Span, node: &SyntaxNode, diagnostics: &mut Vec<Diagnostic>) -> Option<Rule> {
    let before = diagnostics.len();
    let members = table(node, &RULE_KEYS, &format!("rule {id}"), diagnostics).at(span);
    let level = members.required("level", "write `level: must`, or should, or may", diagnostics);
    let basis = members.required("basis", "write `basis: stated`, or implied, or silent-guess", diagnostics);
    members.required("text", "write `text:` and the sentence in words", diagnostics);
    members.one_of(&["line", "section"], PLACE, diagnostics);
    let level = choice(level, "`level`", &LEVELS, diagnostics);
    let basis = choice(basis, "`basis`", &BASES, diagnostics);
    let line = integer(node.get("line"), "`line`", 1..=u64::MAX, diagnostics);
    let mut text = |name: &str| line_text(node.get(name), &format!("`{name}` of {id}"), diagnostics);
    let (sentence, from, section) = (text("text"), text("from"), text("section"));
    let (sees, broken_by, out_of_scope) = (text("sees").unwrap_or_default(), text("broken_by"), text("out_of_scope"));
    let demanded = list(node.get("demands"), "`demands`", "demands: [hello]", diagnostics);
    let demands = demanded.iter().filter_map(|item| {
        let name = fields::text(Some(item), "a demanded message", diagnostics)?;
        Some((name.to_owned(), item.span))
    });
    let demands = demands.collect();
    if let (Some(level), Some(RuleBasis::Silent)) = (level, basis)
        && level != RuleLevel::May
    {
        let at = node.at_pointer("/level").span;
        diagnostics.push(
            Diagnostic::error(at, format!("the basis of {id} is `silent-guess`, so its level must be `may`")).help(
                "write `level: may`; or, if the document states or implies the rule, `basis: stated` or `implied`",
            ),
        );
    }
    if basis == Some(RuleBasis::Implied) && from.is_none() {
        diagnostics.push(
            Diagnostic::error(span, format!("rule {id} is implied, but has no `from`"))
                .help("quote the sentence from which it follows"),
        );
    }
    if diagnostics.len() > before {
        return None;
    }
    let place = line.map(|line| RulePlace::Line(line as usize)).or(section.map(RulePlace::Section));
    let (id, text) = (id.to_owned(), sentence?);
    Some(Rule {
        id,
        level: level?,
        basis: basis?,
        place: place?,
        text,
        demands,
        from,
        sees,
        broken_by,
        out_of_scope,
        span,
    })
}
