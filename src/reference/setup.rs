//! The reference server as a target. `reference.toml`, next to a protocol's scenarios, declares the server's instances,
//! their configuration and the target file for them, so that a further protocol needs no code here.

use toml::{Table, Value};

use crate::protocol::PackFolder;
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::source::{Sources, Span};

/// The configuration of the reference server for one protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceSetups {
    pub instances: Vec<InstanceSetup>,
    /// Whether the protocol is tested only when named, because it is not a protocol in its own right.
    pub on_request: bool,
    /// The target file, without the addresses.
    target: Table,
}

/// One differently configured hub.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceSetup {
    pub name: String,
    /// Settings of the reference server, with name and value as its `--set` takes them.
    pub serve: Vec<(String, String)>,
    pub tls: bool,
}

/// Addresses of the started hubs.
#[derive(Clone, Debug, Default)]
pub struct ReferenceAddresses {
    /// The URLs of the hubs, in the order of the instances.
    pub urls: Vec<String>,
    /// The `http://` address of the admin interface; replaces `${admin}` in hooks.
    pub admin: Option<String>,
    /// The file with the certificate to trust, if an instance uses TLS.
    pub ca: Option<String>,
}

impl ReferenceSetups {
    /// Reads the protocol's reference.toml. A protocol without that file has one instance with the documented settings.
    ///
    /// # Errors
    ///
    /// The file is not TOML, or an instance has no name.
    pub fn from_folder(folder: &PackFolder, sources: &Sources) -> Result<Self, Diagnostic> {
        let Some(file) = folder.scenarios.get("reference.toml") else {
            return Ok(Self {
                instances: vec![InstanceSetup { name: "default".to_owned(), serve: Vec::new(), tls: false }],
                on_request: false,
                target: Table::new(),
            });
        };
        let mut target: Table = sources.file(*file).text.parse().map_err(|error: toml::de::Error| {
            let range = error.span().unwrap_or(0..0);
            Diagnostic::error(Span::new(*file, range), error.message().to_owned())
        })?;
        let whole = Span::new(*file, 0..0);
        let on_request = matches!(target.remove("on_request"), Some(Value::Boolean(true)));
        let mut instances = Vec::new();
        match target.get_mut("instance") {
            Some(Value::Array(list)) => {
                for instance in list {
                    instances.push(take_setup(instance).ok_or_else(|| {
                        Diagnostic::error(whole, "an instance needs a `name`, and its `serve` must be a table")
                    })?);
                }
            }
            _ => return Err(Diagnostic::error(whole, "reference.toml has no [[instance]]")),
        }
        Ok(Self { instances, on_request, target })
    }

    /// Returns the text of a target file for the started hubs.
    pub fn render_target_file(&self, protocol: &str, addresses: &ReferenceAddresses) -> String {
        let mut target = self.target.clone();
        target.insert("protocol".to_owned(), Value::String(protocol.to_owned()));
        if let Some(Value::Array(list)) = target.get_mut("instance") {
            for (instance, url) in list.iter_mut().zip(&addresses.urls) {
                if let Some(table) = instance.as_table_mut() {
                    table.insert("url".to_owned(), Value::String(url.clone()));
                }
            }
        } else {
            target.insert("url".to_owned(), Value::String(addresses.urls.first().cloned().unwrap_or_default()));
        }
        if let Some(ca) = &addresses.ca {
            let tls = Table::from_iter([("ca".to_owned(), Value::String(ca.clone()))]);
            target.insert("tls".to_owned(), Value::Table(tls));
        }
        let text = toml::to_string(&target).unwrap_or_default();
        text.replace("${admin}", addresses.admin.as_deref().unwrap_or("http://127.0.0.1:0"))
    }
}

/// Removes the server's own keys from an instance of the target file and returns them.
fn take_setup(instance: &mut Value) -> Option<InstanceSetup> {
    let table = instance.as_table_mut()?;
    let name = table.get("name")?.as_str()?.to_owned();
    let serve = match table.remove("serve") {
        None => Vec::new(),
        Some(Value::Table(serve)) => serve.into_iter().map(|(name, value)| (name, plain_text(value))).collect(),
        Some(_) => return None,
    };
    let tls = matches!(table.remove("tls"), Some(Value::Boolean(true)));
    Some(InstanceSetup { name, serve, tls })
}

fn plain_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
