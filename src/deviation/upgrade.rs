//! The undocumented parts that a hub's upgrade needs, and the clients that send them.

use std::sync::Arc;

use serde_json::Value;

use super::{DeviationChange, Deviations};
use crate::scenario::functions::FunctionContext;
use crate::scenario::template::{EvalContext, Template};
use crate::scenario::value::{BoundValue, EvalError};
use crate::websocket::dial::Dial;

/// The name of the client's own values in an expression.
const SELF: &str = "self";
/// The member of `self` that names the client's role, unless the role gives a value of that name.
pub const ROLE_MEMBER: &str = "role";

/// Additions to an upgrade request. Values may be expressions over the client's own values (`self`) and the settings
/// (`hub`).
#[derive(Debug, Default)]
pub struct UpgradeChange {
    /// The only role whose clients need the additions; `None` for all roles.
    pub role: Option<String>,
    /// Whether clients that the hub has to refuse send the additions, too.
    pub everyone: bool,
    pub path: Option<Template>,
    pub headers: Vec<(String, Template)>,
    pub query: Vec<(String, Template)>,
    /// Each with its text in the entry.
    pub subprotocols: Vec<(String, Template)>,
}

/// A client that sends an upgrade request.
pub struct UpgradingClient<'a> {
    pub role: &'a str,
    /// Whether its step allows the hub to refuse it.
    pub tries: bool,
    pub names: &'a dyn EvalContext,
}

/// The names that the value of an addition sees.
struct UpgradeNames<'a>(&'a UpgradingClient<'a>);

impl EvalContext for UpgradeNames<'_> {
    fn lookup(&self, name: &str) -> Option<BoundValue> {
        match self.0.names.lookup(name)? {
            BoundValue::Scene(mut own) if name == SELF => {
                own.entry(ROLE_MEMBER.to_owned()).or_insert_with(|| self.role());
                Some(BoundValue::Scene(own))
            }
            other => Some(other),
        }
    }

    fn member(&self, name: &str, member: &str) -> Option<BoundValue> {
        let role = || (name == SELF && member == ROLE_MEMBER).then(|| self.role());
        self.0.names.member(name, member).or_else(role)
    }

    fn function_context(&self) -> &Arc<FunctionContext> {
        self.0.names.function_context()
    }
}

impl UpgradeNames<'_> {
    fn role(&self) -> BoundValue {
        BoundValue::from_value(Value::from(self.0.role))
    }

    /// Returns the text of a value; `None` if the client or the target has no value for an expression in it.
    fn text(&self, value: &Template) -> Result<Option<String>, EvalError> {
        let mut lacks = false;
        value.visit_expressions(&mut |expression| {
            lacks |=
                matches!(expression.eval(self), Ok(Value::Null) | Err(EvalError::Missing(_) | EvalError::Unbound(_)));
        });
        if lacks { Ok(None) } else { value.eval_text(self).map(Some) }
    }
}

impl UpgradeChange {
    /// Whether clients of this role need the additions. `tries`: whether the client's step allows the hub to refuse it.
    pub fn applies_to(&self, role: &str, tries: bool) -> bool {
        self.role.as_ref().is_none_or(|only| only == role) && (!tries || self.everyone)
    }

    /// Describes the additions in one line.
    pub fn describe(&self) -> String {
        let names = |pairs: &[(String, Template)]| pairs.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
        let path = self.path.iter().map(|_| "path".to_owned()).collect();
        let parts = [
            ("", path),
            ("header ", names(&self.headers)),
            ("query ", names(&self.query)),
            ("subprotocol ", names(&self.subprotocols)),
        ];
        let parts = parts.iter().filter(|(_, names)| !names.is_empty());
        let parts: Vec<String> = parts.map(|(what, names)| format!("{what}{}", names.join(", "))).collect();
        let role = self.role.as_ref().map(|role| format!(" of `{role}`")).unwrap_or_default();
        format!("the upgrade{role} needs {}", parts.join(" and "))
    }

    /// Adds the parts that the request does not set itself. Returns whether it added any.
    fn apply(&self, dial: &mut Dial, names: &UpgradeNames<'_>) -> Result<bool, EvalError> {
        let mut applies = false;
        if let (None, Some(path)) = (&dial.path, &self.path) {
            dial.path = names.text(path)?;
            applies |= dial.path.is_some();
        }
        for (name, value) in &self.headers {
            if !dial.named_headers().any(|known| known.eq_ignore_ascii_case(name))
                && let Some(value) = names.text(value)?
            {
                dial.headers.push((name.clone(), value));
                applies = true;
            }
        }
        for (name, value) in &self.query {
            if !dial.query.iter().any(|(known, _)| known == name)
                && let Some(value) = names.text(value)?
            {
                dial.query.push((name.clone(), value));
                applies = true;
            }
        }
        let offered: Vec<Option<String>> =
            self.subprotocols.iter().map(|(_, value)| names.text(value)).collect::<Result<_, _>>()?;
        if let Some(offered) =
            offered.into_iter().collect::<Option<Vec<String>>>().filter(|offered| !offered.is_empty())
        {
            dial.subprotocols = offered;
            applies = true;
        }
        Ok(applies)
    }
}

impl Deviations {
    /// Returns the additions that the upgrade of a client needs, each with the index of its entry.
    pub fn upgrades_of(&self, role: &str, tries: bool) -> impl Iterator<Item = (usize, &UpgradeChange)> {
        self.entries.iter().enumerate().filter_map(move |(index, entry)| match &entry.change {
            DeviationChange::Upgrade(change) if change.applies_to(role, tries) => Some((index, change)),
            _ => None,
        })
    }

    /// Adds the parts that the client's upgrade needs to a request, and returns the indices of the applied entries.
    /// Parts that the request sets itself stay unchanged, and values that the client or the target lacks are left out.
    ///
    /// # Errors
    ///
    /// The name of the entry whose expression cannot be evaluated, and why.
    pub fn apply_to_upgrade(&self, dial: &mut Dial, client: &UpgradingClient<'_>) -> Result<Vec<usize>, String> {
        let names = UpgradeNames(client);
        let mut applied = Vec::new();
        for (index, change) in self.upgrades_of(client.role, client.tries) {
            let applies = change.apply(dial, &names);
            if applies.map_err(|error| format!("{}: {error}", super::entry_name(index)))? {
                applied.push(index);
            }
        }
        Ok(applied)
    }
}
