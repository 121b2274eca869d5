//! The target: where a hub listens, how it is configured, and which hooks it has.
//!
//! It comes from a TOML file, from `--set`, or from a bare URL. Parsing is pure: environment and files are passed in.
//! The format is published as `schemas/hubproof/target.schema.json`.

mod draft;
mod exec;
mod hook;
mod overrides;
mod parse;
pub mod template;
pub(crate) mod tree;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

pub use parse::top_level_keys;
use serde_json::Value;

pub use crate::syntax::duration::{format_duration, parse_duration};
pub use draft::{DraftedTarget, TargetDraft};
pub use exec::ExecCommand;
pub use hook::HookSpec;
pub use overrides::{Override, parse_override};

use crate::redact::{address_secrets, collect_texts};
use crate::syntax::diagnostic::Diagnostic;
use crate::syntax::source::{FileId, Sources};
use crate::syntax::yaml::SyntaxNode;
use crate::websocket::endpoint::Endpoint;

pub const DEFAULT_CONNECTIONS: usize = 500;
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(5);
pub const DEFAULT_QUIET: Duration = Duration::from_millis(300);
/// The name of the only instance of a target that lists none.
pub const ONLY_INSTANCE: &str = "default";

#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub protocol: Option<String>,
    /// At least one; a scenario runs on the first that meets its needs.
    pub instances: Vec<Instance>,
    /// Maximum number of connections open at a time, at least one. `None`: the protocol's limit, else
    /// [`DEFAULT_CONNECTIONS`].
    pub connections: Option<usize>,
    /// How long to wait for an expected frame.
    pub patience: Duration,
    /// How long to wait before concluding that no frame comes.
    pub quiet: Duration,
    /// Whether scenarios may leave the hub unusable.
    pub restartable: bool,
    /// Command that starts the hub of every instance that has no command itself.
    pub exec: Option<ExecCommand>,
    /// Hooks of every instance that does not define a hook of the same name.
    pub hooks: BTreeMap<String, HookSpec>,
    pub tls: TlsOptions,
    /// The declared departures of the hub from its document. They are checked together with its pack.
    pub deviations: Vec<DeviationEntry>,
    /// The secrets in the deviations.
    pub deviation_secrets: Vec<String>,
}

/// An entry `[[deviation]]` as it was written, with secrets in place of their names.
#[derive(Clone, Debug)]
pub struct DeviationEntry(pub SyntaxNode);

impl PartialEq for DeviationEntry {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_json() == other.0.to_json()
    }
}

/// One address of the hub, and the configuration of the hub at that address.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub name: String,
    pub url: Endpoint,
    /// Names that scenarios may list under `needs`, including those of the whole target.
    pub provides: BTreeSet<String>,
    /// Settings by name, `hub.NAME` in scenarios, including those of the whole target.
    pub settings: BTreeMap<String, SettingValue>,
    /// Command that starts the hub at this address.
    pub exec: Option<ExecCommand>,
    /// Hooks by name, including those of the whole target.
    pub hooks: BTreeMap<String, HookSpec>,
}

/// The value of a setting. A time is text with a unit. `Debug` does not show a secret.
#[derive(Clone, PartialEq)]
pub struct SettingValue {
    pub value: Value,
    pub secret: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// A file of certificates (PEM) to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// A file with the client certificate (PEM), for a hub that asks for one.
    pub cert: Option<PathBuf>,
    /// A file with the key of the client certificate (PEM); `None` if `cert` contains it.
    pub key: Option<PathBuf>,
    /// Whether to trust any certificate.
    pub insecure: bool,
}

impl TlsOptions {
    /// Returns the files, each with its key in a target file.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let files = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        files.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?)))
    }
}

/// Parses a target file and applies `overrides` in their order.
///
/// `environment` returns a variable, `read` the text of a secret's file; both are called only for names in the file.
/// Relative paths in the file are relative to its folder, in an override to the working directory.
///
/// # Errors
///
/// All errors, in the order of the file. No diagnostic and no source they point into shows a secret.
pub fn parse(
    sources: &mut Sources,
    file: FileId,
    overrides: &[Override],
    environment: &dyn Fn(&str) -> Option<String>,
    read: &dyn Fn(&str) -> io::Result<String>,
) -> Result<Target, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let (root, complete) = tree::parse_toml(sources, file, &mut errors);
    parse::parse_target_tree(sources, root, complete, overrides, environment, read, errors)
}

/// Makes a target from a bare URL, with one instance and everything else at its default or from `overrides`.
///
/// # Errors
///
/// As [`parse`]; also when `url` is not `ws://` or `wss://` with a host.
pub fn target_from_url(
    sources: &mut Sources,
    url: &str,
    overrides: &[Override],
    environment: &dyn Fn(&str) -> Option<String>,
    read: &dyn Fn(&str) -> io::Result<String>,
) -> Result<Target, Vec<Diagnostic>> {
    let file = sources.add("URL", url);
    let root = tree::url_only_tree(file, url);
    parse::parse_target_tree(sources, root, true, overrides, environment, read, Vec::new())
}

impl Target {
    /// Returns the target of another hub with the same settings.
    pub fn moved_to(&self, url: Endpoint) -> Self {
        let first = self.instances.first().cloned();
        let instances = first.map(|first| Instance { url, hooks: BTreeMap::new(), exec: None, ..first });
        Self {
            instances: instances.into_iter().collect(),
            restartable: false,
            exec: None,
            hooks: BTreeMap::new(),
            deviations: Vec::new(),
            ..self.clone()
        }
    }

    /// Returns every command that a run has to start, with the indices in `instances` of the hubs it starts.
    pub fn launch_commands(&self) -> Vec<(ExecCommand, Vec<usize>)> {
        let own = |(place, instance): (usize, &Instance)| Some((instance.exec.clone()?, vec![place]));
        let mut launches: Vec<_> = self.instances.iter().enumerate().filter_map(own).collect();
        let shared: Vec<usize> =
            (0..self.instances.len()).filter(|place| self.instances[*place].exec.is_none()).collect();
        if let Some(exec) = self.exec.clone().filter(|_| !shared.is_empty()) {
            launches.insert(0, (exec, shared));
        }
        launches
    }

    /// Returns all secrets of all instances, for a [`SecretMasker`](crate::redact::SecretMasker).
    pub fn secrets(&self) -> impl Iterator<Item = String> + '_ {
        let settings = self.instances.iter().flat_map(|instance| instance.settings.values());
        let secret = settings.filter(|setting| setting.secret).flat_map(|setting| collect_texts(&setting.value));
        let addresses = self.instances.iter().flat_map(|instance| address_secrets(&instance.url));
        secret.chain(addresses).chain(self.deviation_secrets.iter().cloned())
    }

    /// Returns TOML that [`parse`] reads back, with secrets in plain text. Paths are written unchanged: make them
    /// absolute if the file will be in another folder. A setting that is null is left out.
    pub fn to_toml(&self) -> String {
        write::to_toml(self)
    }
}

impl fmt::Debug for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.secret {
            true => f.write_str("***"),
            false => self.value.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
