//! The grammar of hubproof's own files. The published schemas (`schemas/hubproof/`) state it: editors read them, and
//! readers take the keys of mappings from them.

use std::sync::LazyLock;

use serde_json::{Map, Value};

/// A format of files with a published schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    Baseline,
    Plan,
    Scenario,
    Shared,
    Target,
}

static SCHEMAS: LazyLock<[Value; 5]> = LazyLock::new(|| {
    [
        include_str!("../../schemas/hubproof/baseline.schema.json"),
        include_str!("../../schemas/hubproof/plan.schema.json"),
        include_str!("../../schemas/hubproof/scenario.schema.json"),
        include_str!("../../schemas/hubproof/shared.schema.json"),
        include_str!("../../schemas/hubproof/target.schema.json"),
    ]
    .map(|text| serde_json::from_str(text).expect("the published schemas are JSON"))
});

impl FileFormat {
    pub fn schema(self) -> &'static Value {
        &SCHEMAS[self as usize]
    }

    /// Returns the keys of the mapping whose schema is at a JSON pointer, in their order there.
    pub fn keys(self, pointer: &str) -> Vec<&'static str> {
        let schema = self.schema().pointer(pointer).unwrap_or(&Value::Null);
        let forms = ["anyOf", "oneOf"].into_iter().filter_map(|name| schema.get(name)?.as_array()).flatten();
        let members = std::iter::once(schema).chain(forms).filter_map(|form| form.get("properties")?.as_object());
        let mut keys: Vec<&str> = Vec::new();
        for key in members.flat_map(Map::keys).map(String::as_str) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}
