//! Fresh values for the members of an assumed message that identify something. With the value of the example, all
//! assumed messages would name the same job.

use serde_json::{Value, json};

use crate::generate::rng::RandomSource;
use crate::generate::schema_shape::SchemaShape;
use crate::generate::value::draw_value;
use crate::protocol::MessageType;
use crate::scenario::compose::put_at_pointer;
use crate::scenario::functions::FunctionContext;
use crate::scenario::template::Template;
use crate::syntax::matcher::{escape, is_pointer, members_of, unescape};

/// Members of a message that get a fresh value whenever the message is assumed. They are equal in the example, so they
/// stay equal.
#[derive(Debug)]
pub struct FreshMembers {
    pointers: Vec<String>,
    example: Value,
    kind: FreshKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FreshKind {
    Uuid,
    /// A whole number between two bounds, both included.
    Number(i64, i64),
    /// A text of a certain form.
    Drawn,
}

/// The highest id where the schema sets no bound: it fits into the integers of most programs.
const MAX_NUMBER: i64 = i32::MAX as i64;

impl FreshMembers {
    /// Returns the members of a message that identify something, other than those that `assume` writes.
    pub fn of(message: &MessageType, assume: &Template) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        let example = message.starting_value();
        visit_scalars(&example, &mut Vec::new(), &mut |path, value| {
            let shape = SchemaShape::at_path(&message.schema.source, path);
            if !identifies(path, &shape) || shape.allowed_values().is_some() || writes(assume, path) {
                return;
            }
            let pointer: String = path.iter().map(|token| format!("/{}", escape(token))).collect();
            let known = found.iter_mut().find(|known| known.example == *value && known.kind != FreshKind::Drawn);
            if let Some(known) = known.filter(|known| known.fits(message, &pointer)) {
                return known.pointers.push(pointer);
            }
            let kinds = match value {
                Value::String(_) => vec![FreshKind::Uuid, FreshKind::Drawn],
                _ => number_bounds(&shape).map(|(low, high)| FreshKind::Number(low, high)).into_iter().collect(),
            };
            let members = kinds.into_iter().map(|kind| Self { pointers: Vec::new(), example: value.clone(), kind });
            if let Some(mut members) = members.into_iter().find(|members| members.fits(message, &pointer)) {
                members.pointers.push(pointer);
                found.push(members);
            }
        });
        found
    }

    /// Sets the members to a fresh value.
    pub fn renew(&self, message: &MessageType, json: &mut Value, functions: &FunctionContext) {
        if let Some(first) = self.pointers.first() {
            let fresh = self.make(message, first, functions);
            for pointer in &self.pointers {
                put_at_pointer(json, pointer, fresh.clone());
            }
        }
    }

    fn make(&self, message: &MessageType, pointer: &str, functions: &FunctionContext) -> Value {
        let uuid = functions.uuid();
        let (high, low) = uuid.as_u64_pair();
        match self.kind {
            FreshKind::Uuid => Value::String(uuid.to_string()),
            FreshKind::Number(least, most) => {
                json!(RandomSource::for_case(high, low).draw_between(least, most))
            }
            FreshKind::Drawn => {
                let path: Vec<String> = pointer.split('/').skip(1).map(unescape).collect();
                let shape = SchemaShape::at_path(&message.schema.source, &path);
                draw_value(&shape, &mut RandomSource::for_case(high, low))
            }
        }
    }

    /// Whether a fresh value at a place leaves the example recognisable, and valid if it was.
    fn fits(&self, message: &MessageType, pointer: &str) -> bool {
        let mut json = message.starting_value();
        let was_valid = message.schema.is_valid(&json);
        let fresh = self.make(message, pointer, &FunctionContext::new("fresh"));
        let differs = fresh != self.example;
        put_at_pointer(&mut json, pointer, fresh);
        differs && message.matcher.fits(&json) && (!was_valid || message.schema.is_valid(&json))
    }
}

/// Whether a member identifies something, by its name and its format.
fn identifies(path: &[String], shape: &SchemaShape<'_>) -> bool {
    let name = path.last().map(|name| name.to_ascii_lowercase()).unwrap_or_default();
    name.ends_with("id") || shape.keyword_text("format") == Some("uuid")
}

fn number_bounds(shape: &SchemaShape<'_>) -> Option<(i64, i64)> {
    let low = shape.lower_bound("minimum").map_or(1, |low| low.ceil() as i64);
    let high = shape.upper_bound("maximum").map_or(MAX_NUMBER.max(low), |high| high.floor() as i64);
    (low < high).then_some((low, high))
}

/// Calls `visit` for every text and number in a value, with its path.
fn visit_scalars(value: &Value, path: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Value)) {
    if value.is_string() || value.is_number() {
        return visit(path, value);
    }
    for (name, inner) in members_of(value) {
        path.push(name);
        visit_scalars(inner, path, visit);
        path.pop();
    }
}

/// Whether overrides write the member at a path, see [`crate::scenario::compose::merge_overrides`].
fn writes(overrides: &Template, path: &[String]) -> bool {
    match overrides {
        Template::Constant(value) => writes_constant(value, path),
        Template::Map(members) => {
            members.iter().any(|(key, inner)| writes_member(key, path, |rest| writes(inner, rest)))
        }
        Template::Expression(_) | Template::Text(_) | Template::List(_) => true,
    }
}

fn writes_constant(overrides: &Value, path: &[String]) -> bool {
    let Value::Object(members) = overrides else { return true };
    members.iter().any(|(key, inner)| writes_member(key, path, |rest| writes_constant(inner, rest)))
}

fn writes_member(key: &str, path: &[String], writes_inner: impl Fn(&[String]) -> bool) -> bool {
    if is_pointer(key) {
        let tokens: Vec<String> = key.split('/').skip(1).map(unescape).collect();
        return path.starts_with(&tokens);
    }
    path.split_first().is_some_and(|(name, rest)| name == key && writes_inner(rest))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::protocol::MessageDirections;
    use crate::protocol::schema::MessageSchema;
    use crate::syntax::matcher::Matcher;
    use crate::syntax::source::{Sources, Span};
    use crate::syntax::yaml;

    /// A message with many members that identify something, or seem to.
    fn accepted() -> MessageType {
        let schema = json!({
            "properties": {
                "type": { "const": "accepted" },
                "job_id": { "type": "string" },
                "kind_id": { "enum": ["a", "b"] },
                "workerId": { "type": "integer", "minimum": 5, "maximum": 5_000 },
                "ticket": { "type": "string", "format": "uuid" },
                "valid": { "type": "boolean" },
                "name": { "type": "string" },
                "jobs": { "items": { "properties": { "id": { "type": "string", "pattern": "^job-[a-z0-9]{12}$" } } } },
                "data": { "properties": { "job_id": { "type": "string" } } },
            },
            "examples": [{
                "type": "accepted", "job_id": "job-1", "kind_id": "a", "workerId": 17, "valid": true, "name": "anna",
                "ticket": "73fcc768-d724-47e2-a101-a45298188f47",
                "jobs": [{ "id": "job-aaaaaaaaaaaa" }], "data": { "job_id": "job-1" },
            }],
        });
        MessageType {
            name: "accepted".to_owned(),
            title: String::new(),
            summary: String::new(),
            directions: MessageDirections::default(),
            matcher: Matcher::compile(&json!({ "type": "accepted" })).unwrap(),
            abstract_: false,
            replies: Vec::new(),
            correlation: None,
            typed_by_request: false,
            roles: Vec::new(),
            schema: MessageSchema::compile(schema).unwrap(),
            span: Span::new(Sources::default().add("messages.yaml", ""), 0..0),
        }
    }

    fn template(yaml: &str) -> Template {
        let mut sources = Sources::default();
        let file = sources.add("hub.yaml", yaml);
        Template::from_node(&yaml::parse(&sources, file).unwrap(), &mut Vec::new())
    }

    #[rstest]
    #[case::nothing("{}", &["/job_id", "/data/job_id", "/workerId", "/ticket", "/jobs/0/id"])]
    #[case::members("{ job_id: x, workerId: '${request.n}' }", &["/data/job_id", "/ticket", "/jobs/0/id"])]
    #[case::inner_members("{ data: { job_id: x, other: '${request.n}' } }", &["/job_id", "/workerId", "/ticket", "/jobs/0/id"])]
    #[case::other_inner_members("{ data: { other: 1 } }", &["/job_id", "/data/job_id", "/workerId", "/ticket", "/jobs/0/id"])]
    #[case::pointers("{ /data/job_id: x, /ticket: z }", &["/job_id", "/workerId", "/jobs/0/id"])]
    #[case::whole_lists("{ jobs: [], ticket: x }", &["/job_id", "/data/job_id", "/workerId"])]
    #[case::an_expression("{ data: '${request.data}' }", &["/job_id", "/workerId", "/ticket", "/jobs/0/id"])]
    fn members_that_identify_are_fresh_unless_written(#[case] assume: &str, #[case] expected: &[&str]) {
        let message = accepted();
        let all = FreshMembers::of(&message, &template(assume));
        let functions = FunctionContext::new("test");
        let assumed = [(); 3].map(|()| {
            let mut json = message.starting_value();
            all.iter().for_each(|members| members.renew(&message, &mut json, &functions));
            assert!(message.schema.is_valid(&json), "{json}");
            json
        });
        let changed = |pointer: &&str| {
            let values = [0, 1, 2].map(|n| assumed[n].pointer(pointer).unwrap());
            let differ = values[0] != values[1] && values[1] != values[2] && values[0] != values[2];
            assert_eq!(differ, values[0] != message.starting_value().pointer(pointer).unwrap(), "{pointer}");
            differ
        };
        let pointers =
            ["/type", "/job_id", "/data/job_id", "/kind_id", "/workerId", "/ticket", "/valid", "/name", "/jobs/0/id"];
        let fresh: Vec<&str> = pointers.into_iter().filter(|pointer| changed(pointer)).collect();
        assert_eq!(fresh, expected);
        // Equal in the example, equal in the assumed message.
        let both = expected.contains(&"/job_id") && expected.contains(&"/data/job_id");
        assert_eq!(assumed[0]["job_id"] == assumed[0]["data"]["job_id"], both);
    }
}
