//! The values of names while a conversation runs: JSON, with the wire of the frame that a value comes from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value as Engine};
use serde_json::Value;

use super::compose::remove_members;
use super::size_limits::MAX_BYTES;

/// When and how a frame was sent or received; `wire(name)` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wire {
    /// Position among all events of the conversation, for `after`.
    pub sequence: u64,
    /// The time since the run began.
    pub at: Duration,
    /// Unix time in milliseconds.
    pub unix_ms: f64,
    /// The time since the connection opened.
    pub after: Duration,
    pub connection: u32,
    /// Whether the hub sent the frame, or hubproof sent it with values from the hub. A wrong value is then not a
    /// mistake in the scenario.
    pub from_hub: bool,
    pub opcode: &'static str,
    pub text: Arc<str>,
    pub size: usize,
    /// Whether the frame, or a value in a frame that was sent, is only assumed.
    pub provenance: Provenance,
    /// For a frame that was never received: the position of the event after which it should have come.
    pub due_after: Option<u64>,
    /// The message as the hub sent it, if declared deviations translated it.
    pub raw: Option<Arc<RawMessage>>,
    /// The places in the value that the hub left out.
    pub assumed_places: AssumedPlaces,
}

/// The places in a value that are only assumed, each with the index of its deviation.
pub type AssumedPlaces = Vec<(String, usize)>;

/// A message as the hub sent it, and the indices of the deviations that translated it, in the order applied.
#[derive(Clone, Debug, PartialEq)]
pub struct RawMessage {
    pub json: Value,
    pub by: Vec<usize>,
}

impl Wire {
    /// Creates the wire of a text frame that was only observed, so that nothing but its position and sender is known.
    pub fn observed(sequence: u64, from_hub: bool) -> Self {
        Self {
            sequence,
            at: Duration::ZERO,
            unix_ms: 0.0,
            after: Duration::ZERO,
            connection: 0,
            from_hub,
            opcode: "text",
            text: Arc::from(""),
            size: 0,
            provenance: Provenance::Observed,
            due_after: None,
            raw: None,
            assumed_places: Vec::new(),
        }
    }

    /// Whether the frame was never received, only assumed by a deviation.
    pub fn is_assumed(&self) -> bool {
        self.due_after.is_some()
    }

    /// Returns the frame's value without the members that are only assumed; `None` if there are none.
    pub fn observed_part(&self, value: &Value) -> Option<Value> {
        let places: Vec<String> = self.assumed_places.iter().map(|(place, _)| place.clone()).collect();
        (!places.is_empty()).then(|| {
            let mut observed = value.clone();
            remove_members(&mut observed, &places);
            observed
        })
    }

    /// Returns the position after which frames follow this one.
    pub fn position(&self) -> u64 {
        self.due_after.unwrap_or(self.sequence)
    }
}

/// Whether a value rests only on observed values. A check of an assumed value neither holds nor fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provenance {
    /// The value comes from the scenario, or from frames that were sent or received.
    #[default]
    Observed,
    /// The value depends on a message or member that never arrived and that the deviation with this index assumes.
    Assumed { deviation: u16 },
}

impl Provenance {
    /// Returns the provenance of something that the deviation with this index assumes.
    pub fn assumed(deviation: usize) -> Self {
        Self::Assumed { deviation: u16::try_from(deviation).unwrap_or(u16::MAX) }
    }

    pub fn is_assumed(self) -> bool {
        self != Self::Observed
    }

    /// Returns the provenance of a value that depends on two others.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        if self.is_assumed() { self } else { other }
    }

    /// Returns the provenance of a value that depends on many others.
    pub fn join_all(sources: impl IntoIterator<Item = Self>) -> Self {
        sources.into_iter().find(|source| source.is_assumed()).unwrap_or_default()
    }

    /// Returns why nothing can be judged by the value, if it is only assumed.
    pub fn doubt(self) -> Option<String> {
        match self {
            Self::Observed => None,
            Self::Assumed { deviation } => Some(format!("assumed by deviation {}", deviation + 1)),
        }
    }
}

/// Returns one of several wires to represent all: an assumed wire if there is any, or else a wire from the hub.
pub fn pick_wire(wires: Vec<Arc<Wire>>) -> Option<Arc<Wire>> {
    let assumed = wires.iter().position(|wire| wire.provenance.is_assumed());
    let index = assumed.or_else(|| wires.iter().position(|wire| wire.from_hub)).unwrap_or(0);
    wires.into_iter().nth(index)
}

/// A value with its provenance.
#[derive(Clone, Debug)]
pub struct Traced<T> {
    pub value: T,
    pub provenance: Provenance,
}

impl<T> Traced<T> {
    pub fn observed(value: T) -> Self {
        Self { value, provenance: Provenance::Observed }
    }
}

#[derive(Clone, Debug)]
pub enum BoundValue {
    One {
        value: Value,
        wire: Option<Arc<Wire>>,
    },
    /// A list bound by `count`, `each` or a group. `ordered` is false for a group: its members have no order.
    Many {
        items: Vec<BoundValue>,
        ordered: bool,
    },
    /// The names bound in a scene or an opening.
    Scene(BTreeMap<String, BoundValue>),
}

impl BoundValue {
    pub fn from_value(value: Value) -> Self {
        Self::One { value, wire: None }
    }

    pub fn to_json(&self) -> Value {
        match self {
            Self::One { value, .. } => value.clone(),
            Self::Many { items, .. } => Value::Array(items.iter().map(BoundValue::to_json).collect()),
            Self::Scene(names) => Value::Object(names.iter().map(|(k, v)| (k.clone(), v.to_json())).collect()),
        }
    }

    pub fn member(&self, name: &str) -> Option<BoundValue> {
        match self {
            // A part of a frame has the wire of the frame.
            Self::One { value, wire } => {
                let wire = wire.as_ref().map(|wire| wire_of_member(wire, name));
                Some(Self::One { value: value.get(name)?.clone(), wire })
            }
            Self::Many { .. } => None,
            Self::Scene(names) => names.get(name).cloned(),
        }
    }

    pub fn item(&self, index: usize) -> Option<BoundValue> {
        match self {
            Self::One { value, wire } => {
                let wire = wire.as_ref().map(|wire| wire_of_member(wire, &index.to_string()));
                Some(Self::One { value: value.get(index)?.clone(), wire })
            }
            Self::Many { items, .. } => items.get(index).cloned(),
            Self::Scene(_) => None,
        }
    }

    /// Returns the wires of all frames in the value.
    pub fn wires(&self) -> Vec<Arc<Wire>> {
        match self {
            Self::One { wire, .. } => wire.iter().cloned().collect(),
            Self::Many { items, .. } => items.iter().flat_map(BoundValue::wires).collect(),
            Self::Scene(names) => names.values().flat_map(BoundValue::wires).collect(),
        }
    }

    /// Returns whether all frames in the value were observed.
    pub fn provenance(&self) -> Provenance {
        Provenance::join_all(self.wires().iter().map(|wire| wire.provenance))
    }

    /// Like [`BoundValue::to_engine`], but converts only these members. Each may be a path, of which the first name
    /// counts; an empty one stands for the whole value.
    pub fn to_engine_for(&self, members: &[&str]) -> Engine {
        match self {
            Self::Scene(names) if !members.contains(&"") => {
                let wanted = |name: &str| members.iter().any(|path| path.split('.').next() == Some(name));
                let shown = names.iter().filter(|(name, _)| wanted(name));
                Engine::from(shown.map(|(k, v)| (k.clone(), v.to_engine())).collect::<BTreeMap<_, _>>())
            }
            other => other.to_engine(),
        }
    }

    /// Converts the value for the expression engine; frames keep their wire for `wire()`.
    pub fn to_engine(&self) -> Engine {
        match self {
            Self::One { value, wire: Some(wire) } if value.is_object() || value.is_array() => {
                FrameObject::to_engine(value, wire)
            }
            Self::One { value, .. } => Engine::from(minijinja::value::Serde(value)),
            Self::Many { items, .. } => Engine::from(items.iter().map(BoundValue::to_engine).collect::<Vec<_>>()),
            Self::Scene(names) => {
                Engine::from(names.iter().map(|(k, v)| (k.clone(), v.to_engine())).collect::<BTreeMap<_, _>>())
            }
        }
    }
}

/// Returns the wire of a member of a frame's value, which may be assumed although the frame was received.
fn wire_of_member(wire: &Arc<Wire>, name: &str) -> Arc<Wire> {
    if wire.assumed_places.is_empty() {
        return Arc::clone(wire);
    }
    let inner = |(place, deviation): &(String, usize)| {
        let rest = place.strip_prefix(&crate::syntax::matcher::member_pointer(name))?;
        (rest.is_empty() || rest.starts_with('/')).then(|| (rest.to_owned(), *deviation))
    };
    let assumed_places: AssumedPlaces = wire.assumed_places.iter().filter_map(inner).collect();
    let whole = assumed_places.iter().find(|(place, _)| place.is_empty());
    let provenance = wire.provenance.join(whole.map_or(Provenance::Observed, |(_, index)| Provenance::assumed(*index)));
    Arc::new(Wire { provenance, assumed_places, ..Wire::clone(wire) })
}

/// A frame in an expression. It behaves like its payload.
#[derive(Debug)]
pub struct FrameObject {
    members: Engine,
    pub wire: Arc<Wire>,
}

impl FrameObject {
    pub fn to_engine(value: &Value, wire: &Arc<Wire>) -> Engine {
        Engine::from_object(Self { members: Engine::from(minijinja::value::Serde(value)), wire: Arc::clone(wire) })
    }
}

impl Object for FrameObject {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        match self.members.kind() {
            minijinja::value::ValueKind::Map => ObjectRepr::Map,
            minijinja::value::ValueKind::Seq => ObjectRepr::Seq,
            _ => ObjectRepr::Plain,
        }
    }

    fn get_value(self: &Arc<Self>, key: &Engine) -> Option<Engine> {
        self.members.get_item(key).ok().filter(|value| !value.is_undefined())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.members.try_iter() {
            Ok(items) if self.members.kind() == minijinja::value::ValueKind::Seq => Enumerator::Seq(items.count()),
            Ok(keys) => Enumerator::Values(keys.collect()),
            Err(_) => Enumerator::NonEnumerable,
        }
    }
}

/// The error of an evaluation. In a check, a missing member is the hub's fault; elsewhere it leaves the step undecided.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum EvalError {
    /// The name was never bound: the step that would have bound it was not reached.
    #[error("`{0}` was never bound")]
    Unbound(String),
    #[error("{0} is missing")]
    Missing(String),
    #[error("{0}")]
    Failed(String),
    /// No value of any hub could be used: the expression names something that does not exist.
    #[error("{0}")]
    Mistake(String),
}

/// Converts a value of the engine to JSON; an undefined value anywhere in it counts as missing, not as null.
pub fn from_engine(value: &Engine, source: &str) -> Result<Value, EvalError> {
    convert(value, source, &mut MAX_BYTES.clone())
}

/// Converts a value; `left` is how many more bytes it may take, since the engine shares parts that JSON copies.
fn convert(value: &Engine, source: &str, left: &mut usize) -> Result<Value, EvalError> {
    use minijinja::value::ValueKind;
    let failed = |error: minijinja::Error| EvalError::Failed(error.to_string());
    let too_large = || EvalError::Failed(format!("`{source}` gives more than 64 MiB"));
    *left = left.checked_sub(32 + value.as_str().map_or(0, str::len)).ok_or_else(too_large)?;
    match value.kind() {
        ValueKind::Undefined => Err(EvalError::Missing(format!("`{source}`"))),
        ValueKind::Seq | ValueKind::Iterable => Ok(Value::Array(
            value.try_iter().map_err(failed)?.map(|item| convert(&item, source, left)).collect::<Result<_, _>>()?,
        )),
        ValueKind::Map => {
            let mut members = serde_json::Map::new();
            for key in value.try_iter().map_err(failed)? {
                let member = value.get_item(&key).map_err(failed)?;
                members.insert(
                    key.as_str().map_or_else(|| key.to_string(), str::to_owned),
                    convert(&member, source, left)?,
                );
            }
            Ok(Value::Object(members))
        }
        _ => serde_json::to_value(value)
            .map_err(|error| EvalError::Failed(format!("`{source}` does not give a JSON value: {error}"))),
    }
}
