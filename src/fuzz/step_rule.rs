//! The rules of a step, as scenarios name them.

use std::fmt;

use serde_json::Value;

use crate::protocol::{Pack, RuleLevel};

/// A rule of a step, perhaps at a lower level than its own: `RULE as should`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(into = "String")]
pub struct StepRule {
    pub id: String,
    pub lowered: Option<RuleLevel>,
}

impl StepRule {
    pub fn new(id: &str, lowered: Option<RuleLevel>) -> Self {
        Self { id: id.to_owned(), lowered }
    }

    /// Returns the rule at this level at most.
    pub fn at_most(id: &str, level: RuleLevel) -> Self {
        Self::new(id, (level < RuleLevel::Must).then_some(level))
    }

    /// Reads a list of rules; items that are not rules are left out.
    pub fn read_all(rules: Option<&Value>) -> Vec<Self> {
        rules.and_then(Value::as_array).into_iter().flatten().filter_map(Self::read).collect()
    }

    /// Reads an item of a list of rules; `None` if it is not a rule.
    pub fn read(item: &Value) -> Option<Self> {
        let text = item.as_str()?;
        match text.split_once(" as ") {
            Some((id, level)) => Some(Self::new(id.trim(), Some(RuleLevel::from_name(level.trim())?))),
            None => Some(Self::new(text.trim(), None)),
        }
    }

    /// Returns the level at which a step demands the rule; `None` for a rule that the pack lacks.
    pub fn level(&self, pack: &Pack) -> Option<RuleLevel> {
        let own = pack.rules.get(&self.id)?.level;
        Some(self.lowered.map_or(own, |level| level.min(own)))
    }
}

impl fmt::Display for StepRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lowered {
            Some(level) => write!(f, "{} as {}", self.id, level.name()),
            None => f.write_str(&self.id),
        }
    }
}

impl From<StepRule> for String {
    fn from(rule: StepRule) -> Self {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("A-1", "A-1", None)]
    #[case("A-1 as should", "A-1", Some(RuleLevel::Should))]
    #[case("A-1 as may", "A-1", Some(RuleLevel::May))]
    fn a_rule_is_read_and_written_as_a_step_names_it(
        #[case] text: &str,
        #[case] id: &str,
        #[case] lowered: Option<RuleLevel>,
    ) {
        let rules = StepRule::read_all(Some(&json!([text])));
        assert_eq!(rules, [StepRule::new(id, lowered)]);
        assert_eq!(json!(rules), json!([text]));
    }
}
