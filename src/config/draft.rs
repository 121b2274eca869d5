//! Drafts the target file of a hub. Settings and hooks that the protocol could use are comments, which say what each of
//! them makes possible.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use toml::Value as Toml;

use super::parse::settings::SECRET_TABLES;
use super::{SettingValue, TlsOptions};
use crate::deviation::proposal::to_toml;
use crate::scenario::{Need, Program, SharedDefinitions};
use crate::syntax::printable::escape_unprintable;

/// Width of the comments in columns.
const WIDTH: usize = 100;
/// Most scenarios that a comment names.
const MAX_NAMES: usize = 3;

/// What is known about a hub.
pub struct TargetDraft<'a> {
    /// The name of a built-in protocol; `None` if the command line names the pack.
    pub protocol: Option<&'a str>,
    /// Title of the protocol.
    pub title: &'a str,
    /// `None` if it is not known yet where the hub will listen.
    pub url: Option<&'a str>,
    pub tls: &'a TlsOptions,
    /// The settings that are known, by name.
    pub settings: &'a BTreeMap<String, SettingValue>,
    pub shared: &'a SharedDefinitions,
    pub programs: &'a [Arc<Program>],
    /// An entry without which the hub refuses clients.
    pub deviation: Option<&'a Value>,
}

/// A drafted target file.
pub struct DraftedTarget {
    pub text: String,
    /// The environment variables from which the file reads secrets.
    pub environment: Vec<String>,
}

impl TargetDraft<'_> {
    /// Writes the file. A line of the file that begins with `#` and no blank can be used without the `#`.
    pub fn write(&self) -> DraftedTarget {
        let mut draft = DraftedTarget { text: String::new(), environment: Vec::new() };
        draft.comment(
            "What hubproof knows about this hub. Lines that begin with # are not in effect: remove the # to use one.",
        );
        draft.comment(&format!("Protocol: {}", self.title));
        if let Some(protocol) = self.protocol {
            draft.line(&format!("protocol = {}", toml_text(protocol)));
        }
        match self.url {
            Some(url) => draft.line(&format!("url = {}", toml_text(url))),
            None => {
                draft.gap("Where the hub will listen.");
                draft.line("#url = \"ws://127.0.0.1:4000\"");
            }
        }
        draft.gap("The command that starts the hub before a run, if it does not run already.");
        draft.line("#exec = \"./hub --port 4000\"");
        self.write_properties(&mut draft);
        self.write_tls(&mut draft);
        self.write_settings(false, &mut draft);
        self.write_settings(true, &mut draft);
        self.write_hooks(&mut draft);
        if let Some(entry) = self.deviation {
            draft.gap(
                "Where the hub takes the credentials or the role of its clients, which its document does not say.",
            );
            draft.text.push_str(&to_toml(&[entry]));
        }
        draft
    }

    /// Writes the words under `provides` that scenarios need. Settings, and `tls`, need no such word.
    fn write_properties(&self, draft: &mut DraftedTarget) {
        let mut words = BTreeSet::new();
        for need in self.programs.iter().flat_map(|program| &program.needs) {
            if let Need::Word(word) = need
                && word != "tls"
                && !self.shared.settings.contains_key(word)
            {
                words.insert(word.as_str());
            }
        }
        for (index, word) in words.iter().enumerate() {
            let needed = self.needed_by(&|need| matches!(need, Need::Word(name) if name == word));
            let text = format!("The property `{word}`, if the hub or this machine has it.{needed}");
            if index == 0 { draft.gap(&text) } else { draft.comment(&text) }
        }
        if !words.is_empty() {
            let listed: Vec<String> = words.into_iter().map(toml_text).collect();
            draft.line(&format!("#provides = [{}]", listed.join(", ")));
        }
    }

    fn write_tls(&self, draft: &mut DraftedTarget) {
        if *self.tls == TlsOptions::default() {
            return;
        }
        draft.text.push_str("\n[tls]\n");
        for (name, path) in self.tls.files() {
            draft.line(&format!("{name} = {}", toml_text(&path.to_string_lossy())));
        }
        if self.tls.insecure {
            draft.line("insecure = true");
        }
    }

    fn write_settings(&self, secret: bool, draft: &mut DraftedTarget) {
        let declared: Vec<_> = self.shared.settings.iter().filter(|(_, setting)| setting.secret == secret).collect();
        if declared.is_empty() {
            return;
        }
        draft.text.push_str(if secret { "\n[secrets]\n" } else { "\n[settings]\n" });
        for (name, setting) in declared {
            let needed = self.needed_by(&|need| match need {
                Need::Setting(needed) | Need::Word(needed) => needed == name,
                Need::Expression { expr, .. } => {
                    let dotted = format!("hub.{name}");
                    expr.uses.iter().any(|used| *used == dotted || used.starts_with(&format!("{dotted}.")))
                }
                Need::Hook(_) => false,
            });
            draft.comment(&format!("{}{needed}", sentence(&setting.about)));
            let known = self.settings.get(name).map(|setting| &setting.value);
            let value = if secret {
                secret_reference(name, known.or(setting.default.as_ref()), known.is_some(), draft)
            } else {
                toml_value(known.or(setting.default.as_ref()).unwrap_or(&Value::Null))
            };
            let mark = if known.is_some() { "" } else { "#" };
            draft.line(&format!("{mark}{} = {value}", toml_key(name)));
        }
    }

    fn write_hooks(&self, draft: &mut DraftedTarget) {
        if self.shared.hooks.is_empty() {
            return;
        }
        draft.gap(
            "Hooks make something happen outside the socket: an HTTP request as below, or a command: [hooks.NAME] with \
             command = [\"./script\"].",
        );
        for (name, hook) in &self.shared.hooks {
            let needed = self.needed_by(&|need| matches!(need, Need::Hook(needed) if needed == name));
            let args: Vec<String> = hook.args.iter().map(|arg| format!("args.{arg}")).collect();
            let message = hook.message.then(|| "message".to_owned());
            let given: Vec<String> = message.into_iter().chain(args).collect();
            let given = if given.is_empty() { String::new() } else { format!(" It is given {}.", given.join(", ")) };
            draft.gap(&format!("{}{given}{needed}", sentence(&hook.about)));
            draft.line(&format!("#[hooks.{}.http]", toml_key(name)));
            draft.line(&format!("#url = {}", toml_text(&format!("http://127.0.0.1:9000/{name}"))));
        }
    }

    /// Returns a sentence about the scenarios with such a need; empty if there are none.
    fn needed_by(&self, is: &dyn Fn(&Need) -> bool) -> String {
        let needing = self.programs.iter().filter(|program| program.needs.iter().any(is));
        let names: Vec<&str> = needing.map(|program| program.id.as_str()).collect();
        match names.len() {
            0 => String::new(),
            count if count > MAX_NAMES => {
                format!(
                    " Makes {count} scenarios possible: {} and {} more.",
                    names[..MAX_NAMES].join(", "),
                    count - MAX_NAMES
                )
            }
            1 => format!(" Makes one scenario possible: {}.", names[0]),
            count => format!(" Makes {count} scenarios possible: {}.", names.join(", ")),
        }
    }
}

impl DraftedTarget {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Writes a comment after an empty line.
    fn gap(&mut self, text: &str) {
        self.text.push('\n');
        self.comment(text);
    }

    fn comment(&mut self, text: &str) {
        let options = textwrap::Options::new(WIDTH).initial_indent("# ").subsequent_indent("# ").break_words(false);
        for line in textwrap::wrap(&escape_unprintable(text), options) {
            self.line(&line);
        }
    }
}

/// Returns a reference to the environment variable of a secret, or to several if the secret is a table. `used` if the
/// line is in effect.
fn secret_reference(name: &str, value: Option<&Value>, used: bool, draft: &mut DraftedTarget) -> String {
    let mut variable = |name: &str| {
        let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
        let variable = format!("HUB_{}", letters.collect::<String>());
        let text = format!("{{ env = {} }}", toml_text(&variable));
        if used {
            draft.environment.push(variable);
        }
        text
    };
    if !SECRET_TABLES.contains(&name) {
        return variable(name);
    }
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    let mut names: Vec<&str> = entries.map(|(entry, _)| entry.as_str()).collect();
    if names.is_empty() {
        names.push(if name == "headers" { "Authorization" } else { "alice" });
    }
    let entries = names.iter().map(|entry| format!("{} = {}", toml_key(entry), variable(&format!("{name}_{entry}"))));
    format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
}

/// Returns a value as TOML in one line; the text `...` for a value that is not known.
fn toml_value(value: &Value) -> String {
    match value {
        Value::Null => toml_text("..."),
        Value::String(text) => toml_text(text),
        Value::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{} = {}", toml_key(name), toml_value(value)));
            let members = members.collect::<Vec<_>>().join(", ");
            if members.is_empty() { "{}".to_owned() } else { format!("{{ {members} }}") }
        }
        other => other.to_string(),
    }
}

/// Returns a name as a key, in quotes if necessary.
fn toml_key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { name.to_owned() } else { toml_text(name) }
}

/// Quotes a text in one line.
fn toml_text(text: &str) -> String {
    let quoted = Toml::String(text.to_owned()).to_string();
    // A text with line breaks would become one of several lines. JSON's escapes are valid in TOML, which alone forbids
    // DEL.
    if quoted.contains('\n') { Value::from(text).to_string().replace('\u{7f}', "\\u007f") } else { quoted }
}

/// Makes a sentence of a description.
fn sentence(about: &str) -> String {
    let about = about.trim().trim_end_matches('.');
    let mut letters = about.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
