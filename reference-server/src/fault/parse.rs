//! Parses `faults/<protocol>.yaml`, the faults of one protocol. `faults/README.md` describes the format.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use indexmap::IndexMap;
use jiff::SignedDuration;
use regex::Regex;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Error, Options, Spanned};

use super::{
    Addressees, ChangeAction, ChangeSubject, Fault, FaultEffect, FaultText, FrameCondition, Occurrence, OutputCause,
    OutputChange, OutputSelector,
};
use crate::fault::on_input::{FaultReaction, InputCondition, InputFault};

/// A text that lives as long as the process, as faults do. The alias keeps serde from borrowing it from the file.
pub(crate) type StaticText = &'static str;

/// A mistake in a fault file.
#[derive(Debug, thiserror::Error)]
#[error("reference-server/faults/{protocol}.yaml:{line}: {problem}\n  help: {help}")]
pub struct FaultFileError {
    protocol: StaticText,
    line: u64,
    problem: String,
    help: String,
}

/// Parses the faults of a protocol, whose rules begin with `prefix`.
///
/// # Errors
/// [`FaultFileError`]: the first mistake.
pub fn parse_faults(protocol: StaticText, prefix: StaticText, yaml: &str) -> Result<Vec<Fault>, FaultFileError> {
    let mut options = Options::default();
    options.strict_booleans = true;
    let MapEntries(entries) = serde_saphyr::from_str_with_options(yaml, options).map_err(|error| {
        let error = error.without_snippet();
        let line = error.location().map_or(0, |at| at.line());
        let (problem, help) = match error {
            Error::DuplicateMappingKey { key: Some(key), .. } => {
                (format!("`{key}` is there twice"), "give one of them another name, or remove it")
            }
            other => (other.to_string(), "reference-server/faults/README.md lists all keys, conditions and acts"),
        };
        FaultFileError { protocol, line, problem, help: help.to_owned() }
    })?;
    let fault = |(id, entry): (Spanned<String>, FaultEntry)| {
        let line = id.referenced.line();
        entry.into_fault(protocol, prefix, id.value).map_err(|FaultEntryError(problem, help)| FaultFileError {
            protocol,
            line,
            problem,
            help,
        })
    };
    entries.into_iter().map(fault).collect()
}

/// The mistake in one fault, and how to correct it.
struct FaultEntryError(String, String);

/// The entries of a map, in its order, duplicate keys included.
pub(crate) struct MapEntries<K, V>(pub Vec<(K, V)>);

/// A fault as written in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultEntry {
    text: String,
    breaks: Vec<String>,
    #[serde(default)]
    occasional: bool,
    when: Option<OutputSelector>,
    act: Option<ChangeAction>,
    changes: Option<Vec<ChangeEntry>>,
    received: Option<Vec<InputCondition>>,
    then: Option<FaultReaction>,
    by: Option<FaultImplementation>,
}

/// One of several changes of a fault: the outputs to change, and the act.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeEntry {
    when: OutputSelector,
    act: ChangeAction,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FaultImplementation {
    Code,
}

impl FaultEntry {
    fn into_fault(self, protocol: StaticText, prefix: StaticText, id: String) -> Result<Fault, FaultEntryError> {
        let need = |holds: bool, problem: String, help: String| {
            if holds { Ok(()) } else { Err(FaultEntryError(problem, help)) }
        };
        let small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        need(
            id.starts_with(&format!("{protocol}-")) && id.chars().all(small),
            format!("`{id}` cannot be the id of a fault of {protocol}"),
            format!("begin it with `{protocol}-`, and use lower-case letters, digits, hyphens and dots"),
        )?;
        need(
            self.text.ends_with('.'),
            format!("the text of `{id}` is not a sentence"),
            "end it with a full stop".into(),
        )?;
        let fuzz = self.breaks.iter().any(|rule| rule.starts_with("FUZZ-"));
        let mut seen = HashSet::new();
        for rule in &self.breaks {
            let own = match rule.split_once('-') {
                Some(("FUZZ", name)) => !name.is_empty(),
                Some(("WS", name)) if prefix == "WS" => !fuzz && !name.is_empty(),
                Some((of, number)) if of == prefix => {
                    !fuzz && number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit())
                }
                _ => false,
            };
            need(
                own,
                format!("`{id}` cannot break {rule}"),
                format!(
                    "name rules of {protocol}, which begin with `{prefix}-`, or only rules of the fuzzer (`FUZZ-`)"
                ),
            )?;
            need(seen.insert(rule), format!("`{id}` breaks {rule} twice"), "name each rule once".into())?;
        }
        need(!seen.is_empty(), format!("`{id}` breaks no rule"), "name every rule that a client sees broken".into())?;
        let effect = match (self.when, self.act, self.changes, self.received, self.then, self.by) {
            (Some(when), Some(act), None, None, None, None) => {
                FaultEffect::Outside(leak_slice(vec![when.with_action(act)]))
            }
            (None, None, Some(all), None, None, None) if !all.is_empty() => FaultEffect::Outside(leak_slice(
                all.into_iter().map(|ChangeEntry { when, act }| when.with_action(act)).collect(),
            )),
            (None, None, None, Some(received), Some(then), None) if !received.is_empty() => {
                FaultEffect::OnInput(InputFault { received: leak_slice(received), then })
            }
            (None, None, None, None, None, Some(FaultImplementation::Code)) => FaultEffect::Inside,
            _ => {
                return Err(FaultEntryError(
                    format!("the effect of `{id}` is not clear"),
                    "write `when` and `act`, or `changes`, or `received` and `then`, or `by: code`; use only one"
                        .into(),
                ));
            }
        };
        need(
            !fuzz || !matches!(effect, FaultEffect::Outside(_)),
            format!("`{id}` breaks the wrong kind of rules for its effect"),
            "a scenario sees what `when` and `changes` do: name rules of the protocol".into(),
        )?;
        if let FaultEffect::Outside(changes) = effect {
            for OutputChange { act, .. } in changes {
                if let ChangeAction::Also(json) | ChangeAction::Before(json) = act
                    && !id.contains("not-json")
                    && let Err(error) = serde_json::from_str::<IgnoredAny>(json)
                {
                    return Err(FaultEntryError(
                        format!("`{id}` sends a text that is not JSON: {error}"),
                        "write JSON, or put `not-json` in the id if that is the fault".into(),
                    ));
                }
            }
        }
        let rules = leak_slice(self.breaks.into_iter().map(|rule| &*rule.leak()).collect());
        Ok(Fault { id: id.leak(), protocol, text: self.text.leak(), rules, occasional: self.occasional, effect })
    }
}

fn leak_slice<T>(all: Vec<T>) -> &'static [T] {
    all.leak()
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for MapEntries<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MapEntries<K, V>, D::Error> {
        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

struct EntriesVisitor<K, V>(PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for EntriesVisitor<K, V> {
    type Value = MapEntries<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MapEntries<K, V>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(MapEntries(entries))
    }
}

/// Conditions, all of which a frame has to meet.
struct FrameConditions(Vec<FrameCondition>);

/// The keys of conditions; a member is named by its pointer.
const CONDITION_KEYS: &[&str] = &["/member", "has", "lacks", "type", "matches", "not"];
/// The keys of `when`, which selects outputs.
const SELECTOR_KEYS: &[&str] =
    &["/member", "has", "lacks", "type", "matches", "not", "close", "upgrade", "after", "to", "only", "every"];

/// Reads the value of the condition `key` into `all`; returns whether there is a condition of that name.
fn parse_condition<'de, A: MapAccess<'de>>(
    key: &str,
    map: &mut A,
    all: &mut Vec<FrameCondition>,
) -> Result<bool, A::Error> {
    match key {
        "has" => all.extend(
            map.next_value::<Vec<MemberPointer>>()?.into_iter().map(|MemberPointer(at)| FrameCondition::Has(at)),
        ),
        "lacks" => all.extend(
            map.next_value::<Vec<MemberPointer>>()?.into_iter().map(|MemberPointer(at)| FrameCondition::Lacks(at)),
        ),
        "type" => {
            let types = map.next_value::<IndexMap<MemberPointer, JsonType>>()?;
            all.extend(
                types.into_iter().map(|(MemberPointer(at), JsonType(name))| FrameCondition::Type(at, name.into())),
            );
        }
        "matches" => {
            let patterns = map.next_value::<IndexMap<MemberPointer, Pattern>>()?;
            all.extend(
                patterns.into_iter().map(|(MemberPointer(at), Pattern(regex))| FrameCondition::Matches(at, regex)),
            );
        }
        "not" => all.push(FrameCondition::Not(map.next_value::<FrameConditions>()?.0)),
        _ if key.starts_with('/') => {
            let at = key.to_owned().into();
            all.push(match map.next_value()? {
                Value::String(text) => FrameCondition::Is(at, text.into()),
                other => FrameCondition::Equals(at, other),
            });
        }
        _ => return Ok(false),
    }
    Ok(true)
}

impl<'de> Deserialize<'de> for FrameConditions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FrameConditions, D::Error> {
        deserializer.deserialize_map(ConditionsVisitor)
    }
}

struct ConditionsVisitor;

impl<'de> Visitor<'de> for ConditionsVisitor {
    type Value = FrameConditions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("conditions on a frame")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FrameConditions, A::Error> {
        let mut all = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if !parse_condition(&key, &mut map, &mut all)? {
                return Err(A::Error::unknown_field(&key, CONDITION_KEYS));
            }
        }
        Ok(FrameConditions(all))
    }
}

impl<'de> Deserialize<'de> for OutputSelector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OutputSelector, D::Error> {
        deserializer.deserialize_map(SelectorVisitor)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum UpgradeOutcome {
    Granted,
}

struct SelectorVisitor;

impl<'de> Visitor<'de> for SelectorVisitor {
    type Value = OutputSelector;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("conditions on what the hub sends")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OutputSelector, A::Error> {
        let (mut conditions, mut other) = (Vec::new(), None);
        let (mut cause, mut to, mut nth) = (OutputCause::Any, Addressees::Any, Occurrence::Each);
        while let Some(key) = map.next_key::<String>()? {
            match &*key {
                "close" => other = Some(ChangeSubject::Close(map.next_value()?)),
                "upgrade" => {
                    let UpgradeOutcome::Granted = map.next_value()?;
                    other = Some(ChangeSubject::Accept);
                }
                "after" => cause = map.next_value()?,
                "to" => to = map.next_value()?,
                "only" | "every" if !matches!(nth, Occurrence::Each) => {
                    return Err(A::Error::custom("`only` and `every` exclude each other: remove one"));
                }
                "only" => nth = Occurrence::Only(map.next_value::<Ordinal>()?.0),
                "every" => nth = Occurrence::Every(map.next_value::<Ordinal>()?.0),
                _ if parse_condition(&key, &mut map, &mut conditions)? => {}
                _ => return Err(A::Error::unknown_field(&key, SELECTOR_KEYS)),
            }
        }
        let subject = match other {
            None => ChangeSubject::Frame(conditions),
            Some(other) if conditions.is_empty() => other,
            Some(_) => {
                return Err(A::Error::custom("a close or an upgrade has no members: remove the conditions on members"));
            }
        };
        Ok(OutputSelector(OutputChange { subject, cause, to, nth, act: ChangeAction::Drop }))
    }
}

impl<'de> Deserialize<'de> for OutputCause {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OutputCause, D::Error> {
        deserializer.deserialize_any(CauseVisitor)
    }
}

struct CauseVisitor;

impl<'de> Visitor<'de> for CauseVisitor {
    type Value = OutputCause;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("conditions on the received frame, or `leaving`")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<OutputCause, E> {
        if name == "leaving" { Ok(OutputCause::Leaving) } else { Err(E::unknown_variant(name, &["leaving"])) }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OutputCause, A::Error> {
        ConditionsVisitor.visit_map(map).map(|FrameConditions(all)| OutputCause::Frame(all))
    }
}

/// A JSON Pointer to a member.
#[derive(PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct MemberPointer(FaultText);

impl TryFrom<String> for MemberPointer {
    type Error = String;

    fn try_from(text: String) -> Result<MemberPointer, String> {
        if text.starts_with('/') {
            Ok(MemberPointer(text.into()))
        } else {
            Err(format!("`{text}` names no member: write `/{text}`"))
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Pattern(Regex);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Pattern, String> {
        match Regex::new(&text) {
            Ok(regex) => Ok(Pattern(regex)),
            Err(error) => Err(format!("`{text}` is not a regular expression: {error}")),
        }
    }
}

/// The name of a JSON type in JSON Schema.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct JsonType(StaticText);

impl TryFrom<String> for JsonType {
    type Error = String;

    fn try_from(name: String) -> Result<JsonType, String> {
        let known = ["null", "boolean", "number", "integer", "string", "array", "object"];
        let found = known.into_iter().find(|known| *known == name);
        found.map(JsonType).ok_or_else(|| format!("`{name}` is not a JSON type: write one of {}", known.join(", ")))
    }
}

/// A number from 1.
#[derive(Deserialize)]
#[serde(try_from = "u64")]
struct Ordinal(u64);

impl TryFrom<u64> for Ordinal {
    type Error = String;

    fn try_from(number: u64) -> Result<Ordinal, String> {
        if number > 0 { Ok(Ordinal(number)) } else { Err("outputs are counted from 1".to_owned()) }
    }
}

pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FaultText, D::Error> {
    String::deserialize(deserializer).map(Cow::Owned)
}

pub(crate) fn static_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StaticText, D::Error> {
    String::deserialize(deserializer).map(|text| &*text.leak())
}

pub(crate) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static [StaticText], D::Error> {
    Vec::<String>::deserialize(deserializer).map(|all| leak_slice(all.into_iter().map(|text| &*text.leak()).collect()))
}

pub(crate) fn pointer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FaultText, D::Error> {
    MemberPointer::deserialize(deserializer).map(|MemberPointer(text)| text)
}

pub(crate) fn static_pointer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StaticText, D::Error> {
    pointer(deserializer).map(|text| &*text.into_owned().leak())
}

pub(crate) fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static Regex, D::Error> {
    Pattern::deserialize(deserializer).map(|Pattern(regex)| &*Box::leak(Box::new(regex)))
}

pub(crate) fn conditions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static [FrameCondition], D::Error> {
    FrameConditions::deserialize(deserializer).map(|FrameConditions(all)| leak_slice(all))
}

/// Reads a JSON value as its text.
pub(crate) fn json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FaultText, D::Error> {
    Value::deserialize(deserializer).map(|value| Cow::Owned(value.to_string()))
}

/// Reads a time with its unit: `20ms`, `3s`.
pub(crate) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time = text.parse::<SignedDuration>().map_err(|error| error.to_string());
    time.and_then(|time| Duration::try_from(time).map_err(|error| error.to_string()))
        .map_err(|error| D::Error::custom(format!("`{text}` is not a time like `20ms` or `3s`: {error}")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const SAMPLE: &str = r#"# Some faults.
qi-one:
  { text: "One.", breaks: [QI-001, QI-002], when: { /status: success, lacks: [/id], after: { /n: 1 }, only: 2 },
    act: { set: [/a/b, { "c": null }] } }
qi-two:
  { text: "Two.", breaks: [QI-002], by: code }
qi-three:
  { text: "Three.", breaks: [FUZZ-SERVES-NEW],
    received: [{ text: 'x+' }, ping], then: { slow-down: 20ms } }
qi-four:
  { text: "Four.", breaks: [QI-003], occasional: true,
    changes: [
      { when: { close: 4000, to: others, after: leaving }, act: { also: '{"a":1}' } },
      { when: { upgrade: granted, every: 3 }, act: no-subprotocol } ] }
"#;

    #[test]
    fn each_kind_of_fault_is_parsed() {
        let all: Vec<String> = parse_faults("qi", "QI", SAMPLE)
            .unwrap()
            .iter()
            .map(|fault| {
                format!("{} {} {:?} {} {:?}", fault.id, fault.text, fault.rules, fault.occasional, fault.effect)
            })
            .collect();
        let one = OutputChange {
            subject: ChangeSubject::Frame(vec![
                FrameCondition::Is("/status".into(), "success".into()),
                FrameCondition::Lacks("/id".into()),
            ]),
            cause: OutputCause::Frame(vec![FrameCondition::Equals("/n".into(), Value::from(1))]),
            to: Addressees::Any,
            nth: Occurrence::Only(2),
            act: ChangeAction::Set("/a/b".into(), r#"{"c":null}"#.into()),
        };
        let four = [
            OutputChange {
                subject: ChangeSubject::Close(4000),
                cause: OutputCause::Leaving,
                to: Addressees::Others,
                nth: Occurrence::Each,
                act: ChangeAction::Also(r#"{"a":1}"#.into()),
            },
            OutputChange {
                subject: ChangeSubject::Accept,
                cause: OutputCause::Any,
                to: Addressees::Any,
                nth: Occurrence::Every(3),
                act: ChangeAction::NoSubprotocol,
            },
        ];
        assert_eq!(
            all,
            [
                format!(r#"qi-one One. ["QI-001", "QI-002"] false Outside({:?})"#, [one]),
                r#"qi-two Two. ["QI-002"] false Inside"#.to_owned(),
                r#"qi-three Three. ["FUZZ-SERVES-NEW"] false OnInput(InputFault { received: [Text(Regex("x+")), Ping], then: SlowDown(20ms) })"#
                    .to_owned(),
                format!(r#"qi-four Four. ["QI-003"] true Outside({four:?})"#),
            ]
        );
    }

    #[test]
    fn each_condition_and_each_action_is_parsed() {
        let yaml = |when: &str, act: &str| {
            let yaml = format!("qi-x-not-json: {{ text: X., breaks: [QI-001], when: {when}, act: {act} }}\n");
            let fault = parse_faults("qi", "QI", &yaml).unwrap_or_else(|error| panic!("{yaml}{error}")).remove(0);
            let FaultEffect::Outside([change]) = fault.effect else { panic!("{fault:?}") };
            format!("{:?} {:?}", change.subject, change.act)
        };
        for (when, want) in [
            ("{}", "Frame([])"),
            ("{ /a: text }", r#"Frame([Is("/a", "text")])"#),
            ("{ /a: no }", r#"Frame([Is("/a", "no")])"#),
            ("{ /a: false }", r#"Frame([Equals("/a", Bool(false))])"#),
            ("{ has: [/a, /b] }", r#"Frame([Has("/a"), Has("/b")])"#),
            ("{ type: { /a: integer } }", r#"Frame([Type("/a", "integer")])"#),
            ("{ matches: { /a: '^[0-9]+$' } }", r#"Frame([Matches("/a", Regex("^[0-9]+$"))])"#),
            ("{ not: { /a: 1, lacks: [/b] } }", r#"Frame([Not([Equals("/a", Number(1)), Lacks("/b")])])"#),
        ] {
            assert_eq!(yaml(when, "drop"), format!("{want} Drop"));
        }
        for (act, want) in [
            ("double", "Double"),
            ("swap", "Swap"),
            ("misroute", "Misroute"),
            ("as-binary", "AsBinary"),
            ("{ delay: 1s }", "Delay(1s)"),
            ("{ before: done }", r#"Before("done")"#),
            ("{ set: [/a, text] }", r#"Set("/a", "\"text\"")"#),
            ("{ fill: [/a, 5] }", r#"Fill("/a", 5)"#),
            ("{ remove: /a }", r#"Remove("/a")"#),
            ("{ retype: /a }", r#"Retype("/a")"#),
            ("{ alter: /a }", r#"Alter("/a")"#),
            ("{ rename: [/a, b] }", r#"Rename("/a", "b")"#),
            ("{ code: 1000 }", "Code(1000)"),
            ("{ close-instead: 1000 }", "CloseInstead(1000)"),
            ("{ then-close: 1000 }", "ThenClose(1000)"),
        ] {
            assert_eq!(yaml("{}", act), format!("Frame([]) {want}"));
        }
    }

    #[rstest]
    #[case::fault_key("act: { set", "akt: { set", 4, "unknown field `akt`")]
    #[case::act("set: [/a", "put: [/a", 4, "unknown variant `put`, expected one of drop, double")]
    #[case::pointer("set: [/a", "set: [a", 4, "write `/a/b`")]
    #[case::condition("/status: success", "status: success", 3, "unknown field `status`, expected one of /member, has")]
    #[case::cause("after: { /n", "after: { n", 3, "unknown field `n`")]
    #[case::json_type("lacks: [/id]", "type: { /id: text }", 3, "`text` is not a JSON type: write one of null, ")]
    #[case::regex("lacks: [/id]", "matches: { /id: '(' }", 3, "`(` is not a regular expression")]
    #[case::ordinal("only: 2", "only: 0", 3, "counted from 1")]
    #[case::turns("only: 2", "only: 2, every: 2", 3, "remove one")]
    #[case::member_twice("only: 2", "only: 2, /status: failure", 3, "`/status` is there twice")]
    #[case::addressee("to: others", "to: both", 13, "unknown variant `both`")]
    #[case::leaving("after: leaving", "after: joining", 13, "unknown variant `joining`, expected one of leaving")]
    #[case::close_with_members("close: 4000", "close: 4000, /a: 1", 13, "remove the conditions on members")]
    #[case::other_protocol("QI-002], by", "CON-002], by", 5, "name rules of qi, which begin with `QI-`")]
    #[case::short_number("QI-002], by", "QI-2], by", 5, "`qi-two` cannot break QI-2")]
    #[case::rule_twice("QI-001, QI-002", "QI-001, QI-001", 2, "`qi-one` breaks QI-001 twice")]
    #[case::no_rule("[QI-001, QI-002]", "[]", 2, "`qi-one` breaks no rule")]
    #[case::mixed_rules("[FUZZ-SERVES-NEW]", "[FUZZ-SERVES-NEW, QI-001]", 7, "`qi-three` cannot break QI-001")]
    #[case::id_twice("qi-two", "qi-one", 5, "`qi-one` is there twice")]
    #[case::id_of_another("qi-two", "gator-two", 5, "begin it with `qi-`")]
    #[case::id_with_capital("qi-two", "qi-Two", 5, "use lower-case letters")]
    #[case::no_full_stop("Two.", "Two", 5, "end it with a full stop")]
    #[case::no_text("text: \"Two.\", ", "", 6, "missing field `text`")]
    #[case::nothing(", by: code", "", 5, "the effect of `qi-two` is not clear")]
    #[case::two_ways("by: code", "by: code, act: drop", 5, "the effect of `qi-two` is not clear")]
    #[case::by_what("by: code", "by: magic", 6, "unknown variant `magic`")]
    #[case::not_json("{\"a\":1}", "{\"a\":", 10, "`qi-four` sends a text that is not JSON")]
    #[case::received_regex("'x+'", "'x('", 9, "`x(` is not a regular expression")]
    #[case::received("ping]", "pong]", 9, "unknown variant `pong`")]
    #[case::time("20ms", "20 parsecs", 9, "`20 parsecs` is not a time like `20ms` or `3s`")]
    #[case::fuzzer_rule_for_output("[QI-001, QI-002]", "[FUZZ-KEEPS]", 2, "wrong kind of rules")]
    #[case::bracket("{ /n: 1 }", "{ /n: 1", 3, "help: ")]
    fn a_mistake_in_a_fault_file_is_reported_at_its_line(
        #[case] from: &str,
        #[case] to: &str,
        #[case] line: usize,
        #[case] want: &str,
    ) {
        assert_eq!(SAMPLE.matches(from).count(), 1, "{from}");
        let error = parse_faults("qi", "QI", &SAMPLE.replace(from, to)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("reference-server/faults/qi.yaml:{line}: ")), "{error}");
        assert!(error.contains(want) && error.contains("\n  help: "), "{error}");
    }

    const README: &str = include_str!("../../faults/README.md");

    #[test]
    fn the_example_of_the_readme_is_valid() {
        let (_, rest) = README.split_once("```yaml\n").unwrap();
        let (yaml, _) = rest.split_once("```").unwrap();
        let all = parse_faults("concierge", "CON", yaml).unwrap();
        assert_eq!(all.iter().map(|fault| fault.id).collect::<Vec<_>>(), ["concierge-subscribed-seq-negative"]);
    }

    /// The README documents every name that an error offers.
    #[rstest]
    #[case::fault("when: {}, act: drop, nothing: 1")]
    #[case::when("when: { nothing: 1 }, act: drop")]
    #[case::addressee("when: { to: nothing }, act: drop")]
    #[case::act("when: {}, act: nothing")]
    #[case::received("received: [nothing], then: hang")]
    #[case::reaction("received: [ping], then: nothing")]
    fn the_readme_documents_every_key_of_a_fault_file(#[case] entry: &str) {
        let yaml = format!("qi-x: {{ text: X., breaks: [QI-001], {entry} }}\n");
        let error = parse_faults("qi", "QI", &yaml).unwrap_err().to_string();
        let (_, names) = error.split_once("expected one of ").unwrap_or_else(|| panic!("{error}"));
        let (names, _) = names.split_once(" at line").unwrap();
        for name in names.split(", ").filter(|name| *name != "/member") {
            let written = [format!("`{name}"), format!("{name}`"), format!("{{ {name}: ")];
            assert!(written.iter().any(|text| README.contains(text)), "{name}");
        }
    }
}
