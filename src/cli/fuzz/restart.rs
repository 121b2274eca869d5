//! Restarts a hub that is gone, with the hook of its target.

use std::time::Duration;

use serde_json::json;

use crate::hub::hook::{self, HookCall};
use crate::hub::prepare::Prepared;
use crate::hub::process;

/// The hook of a target that starts its hub again.
const HOOK: &str = "restart";
/// How long the hook may take, unless it has a `timeout` of its own, and then the hub, until it accepts connections.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls the hook `restart` of the first instance and waits until the hub accepts connections; `None` where there is no
/// such hook. The error may contain secrets.
pub async fn restart(hub: &Prepared) -> Option<Result<(), String>> {
    let site = hub.first();
    let spec = site.hooks.get(HOOK)?;
    let settings = site.settings.clone().into_iter().collect();
    let (args, trust) = (json!({}), site.trust.as_ref());
    let call = HookCall { name: HOOK, args: &args, message: None, settings: &settings, trust };
    if let Err(error) = hook::run(spec, &call, PATIENCE).await {
        return Some(Err(error.to_string()));
    }
    let listening = process::listening(std::slice::from_ref(&site.endpoint));
    let late = |_| format!("the hook `{HOOK}` was called, but the hub did not listen within {} s", PATIENCE.as_secs());
    Some(tokio::time::timeout(PATIENCE, listening).await.map_err(late))
}
