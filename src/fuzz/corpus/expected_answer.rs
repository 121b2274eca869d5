//! What a document says of input that no scenario has, as `fuzz` in shared.yaml tells it: the first entry that fits counts,
//! and where none does the document is silent.

use serde_json::{Map, Value};

use crate::fuzz::mutate::payload::Class;
use crate::fuzz::placement::Placement;
use crate::syntax::matcher::Matcher;

/// How input of some kind is answered.
pub struct Answer {
    classes: Vec<String>,
    placements: Vec<String>,
    roles: Vec<String>,
    messages: Vec<String>,
    except: Vec<String>,
    matcher: Option<Matcher>,
    /// One of these has to come: alternatives as under `expects one of`.
    pub one_of: Vec<Value>,
    /// None of these may come.
    pub never: Vec<Value>,
    /// The rules of the document that say so, each perhaps lowered.
    pub rules: Vec<String>,
}

/// What is said, as far as answers depend on it.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub class: Class,
    pub placement: Placement,
    /// The role of whoever says it.
    pub role: &'a str,
    /// The message that the pack takes it for; `None` where it takes it for none.
    pub taken_for: Option<&'a str>,
    /// `None` where it is no JSON, or JSON that no value can say.
    pub payload: Option<&'a Value>,
}

/// The entries of `fuzz.answers`; what the reader would not take is left out.
pub fn read(shared: &Value) -> Vec<Answer> {
    let entries = shared.pointer("/fuzz/answers").and_then(Value::as_array);
    entries.into_iter().flatten().filter_map(answer).collect()
}

fn answer(entry: &Value) -> Option<Answer> {
    let items = |key: &str| entry.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let texts = |key: &str| items(key).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let matcher = match entry.get("where") {
        None => None,
        Some(source) => Some(Matcher::compile(source).ok()?),
    };
    Some(Answer {
        classes: texts("class"),
        placements: texts("placement"),
        roles: texts("roles"),
        messages: texts("messages"),
        except: texts("except"),
        matcher,
        one_of: items("answer"),
        never: items("never"),
        rules: texts("rules"),
    })
}

impl Answer {
    /// Whether there is more to say on the connection afterwards: what comes is a message.
    pub fn lasts(&self) -> bool {
        !self.one_of.is_empty() && self.one_of.iter().all(|alternative| alternative.get("close").is_none())
    }

    /// Members that have to be just this.
    pub fn literals(&self) -> Map<String, Value> {
        self.matcher.as_ref().map(Matcher::literals).unwrap_or_default()
    }

    pub fn fits(&self, input: &Input<'_>) -> bool {
        let placed = match self.placements.is_empty() {
            true => input.placement != Placement::First,
            false => self.placements.iter().any(|name| name == input.placement.moment()),
        };
        let is = |names: &[String]| input.taken_for.is_some_and(|name| names.iter().any(|other| other == name));
        self.classes.iter().any(|name| name == input.class.name())
            && placed
            && (self.roles.is_empty() || self.roles.iter().any(|role| role == input.role))
            && (self.messages.is_empty() || is(&self.messages))
            && !is(&self.except)
            && self.matcher.as_ref().is_none_or(|matcher| input.payload.is_some_and(|payload| matcher.fits(payload)))
    }
}

/// An alternative with the members of what was said in place of `${said.NAME}`; what was not said is not asked for.
pub fn about(alternative: &Value, said: Option<&Value>) -> Value {
    match alternative {
        Value::Object(members) => {
            let mut about_it = Map::new();
            for (name, member) in members {
                match member.as_str().and_then(pointer) {
                    None => drop(about_it.insert(name.clone(), about(member, said))),
                    Some(pointer) => {
                        if let Some(value) =
                            said.and_then(|said| said.pointer(&pointer)).filter(|value| is_fixed(value))
                        {
                            about_it.insert(name.clone(), value.clone());
                        }
                    }
                }
            }
            Value::Object(about_it)
        }
        Value::Array(items) => items.iter().map(|item| about(item, said)).collect(),
        other => other.clone(),
    }
}

/// What was said that the answer must say, too, or must not: JSON pointers and values, in the order in which the answer
/// has them.
pub fn mentioned(answer: &Answer, said: Option<&Value>) -> Vec<(String, Value)> {
    let mut found: Vec<(String, Value)> = Vec::new();
    let mut open: Vec<&Value> = answer.one_of.iter().chain(&answer.never).rev().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items.iter().rev()),
            Value::Object(members) => open.extend(members.values().rev()),
            Value::String(text) => {
                let pointer = pointer(text).filter(|pointer| !found.iter().any(|(known, _)| known == pointer));
                let value = |pointer: &String| said?.pointer(pointer).filter(|value| is_fixed(value)).cloned();
                found.extend(pointer.and_then(|pointer| value(&pointer).map(|value| (pointer, value))));
            }
            _ => {}
        }
    }
    found
}

/// Whether a value is the same wherever it is worked out: what a function makes, it makes anew.
fn is_fixed(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains("${") || !text.contains('('),
        Value::Array(items) => items.iter().all(is_fixed),
        Value::Object(members) => members.values().all(is_fixed),
        _ => true,
    }
}

/// The pointer for `${said.a.b}`.
fn pointer(text: &str) -> Option<String> {
    let path = text.strip_prefix("${said.")?.strip_suffix('}')?;
    Some(path.trim().split('.').map(|name| format!("/{}", crate::syntax::matcher::escape(name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::it(json!({ "a": 1 }), Class::Invalid, Placement::Joined, Some("m"), true)]
    #[case::another_class(json!({ "a": 1 }), Class::Valid, Placement::Joined, Some("m"), false)]
    #[case::too_early(json!({ "a": 1 }), Class::Invalid, Placement::First, Some("m"), false)]
    #[case::another_message(json!({ "a": 1 }), Class::Invalid, Placement::Joined, Some("other"), false)]
    #[case::no_message(json!({ "a": 1 }), Class::Invalid, Placement::Joined, None, false)]
    #[case::another_payload(json!({ "a": 2 }), Class::Invalid, Placement::Joined, Some("m"), false)]
    fn an_entry_is_about_some_input(
        #[case] payload: Value,
        #[case] class: Class,
        #[case] placement: Placement,
        #[case] taken_for: Option<&str>,
        #[case] fits: bool,
    ) {
        let entry = json!({ "class": ["invalid"], "messages": ["m"], "where": { "a": 1 }, "rules": [] });
        let input = Input { class, placement, role: "client", taken_for, payload: Some(&payload) };
        assert_eq!(answer(&entry).unwrap().fits(&input), fits);
    }

    #[test]
    fn an_answer_may_mention_what_was_said() {
        let alternative =
            json!({ "message": "any", "where": { "id": "${said.data.id}", "no": "${said.no}", "new": "${said.new}" } });
        let said = json!({ "data": { "id": "${self.id}" }, "new": "${uuid()}" });
        assert_eq!(about(&alternative, Some(&said)), json!({ "message": "any", "where": { "id": "${self.id}" } }));
    }

    #[test]
    fn what_an_answer_mentions_is_known_beforehand() {
        let entry = json!({
            "class": ["valid"], "rules": [],
            "answer": [{ "where": { "b": "${said.data.b}", "a": "${said.a}" } }, { "where": { "a": "${said.a}", "c": "${said.c}" } }],
        });
        let said = json!({ "a": 1, "data": { "b": "${self.id}" }, "c": "${uuid()}" });
        let expected = [("/data/b".to_owned(), json!("${self.id}")), ("/a".to_owned(), json!(1))];
        assert_eq!(mentioned(&answer(&entry).unwrap(), Some(&said)), expected);
    }

    #[test]
    fn the_words_are_those_of_the_reader() {
        use crate::scenario::parse::fuzz::{CLASSES, PLACEMENTS};
        let moments: Vec<&str> = Placement::ALL.iter().map(|placement| placement.moment()).collect();
        assert!(PLACEMENTS.iter().all(|name| moments.contains(name)), "{moments:?}");
        let classes = [Class::Valid, Class::Unusual, Class::Invalid, Class::Unknown, Class::Malformed, Class::Broken];
        assert_eq!(CLASSES, classes.map(Class::name));
    }
}
