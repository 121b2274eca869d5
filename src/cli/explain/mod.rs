//! `hubproof explain`: what a printed name means, how hubproof checks it, and what to do next.

mod names;
mod page;

use std::fmt::Write as _;

use clap::Args;

use self::names::{NameKind, fixed_names, is_name};
use super::protocol_files::{self, LoadedProtocol, PackArgs, ValidProtocol};
use super::{CliError, page_style, print_to_stdout};
use crate::fuzz::oracle::oracle_rules;
use crate::protocol::{MessageType, Rule};
use crate::report::terminal_page::Page;
use crate::syntax::diagnostic::nearest;
use crate::syntax::explanation::Explanation;
use crate::syntax::source::Sources;

/// Explain a rule, an oracle, an outcome or an exit code: what it means, how it is checked, what to do next
#[derive(Args)]
#[command(
    after_help = "Examples: hubproof explain CON-042; hubproof explain FUZZ-KEEPS; hubproof explain inconclusive; hubproof explain 3"
)]
pub struct ExplainArgs {
    /// Names that hubproof prints, such as CON-042 or not-testable; without a name, list the kinds of names
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// Protocol in which to look the names up (default: all built-in protocols)
    #[arg(long, value_name = "NAME", conflicts_with = "pack")]
    protocol: Option<String>,
    #[command(flatten)]
    own: PackArgs,
}

/// Something that can be explained.
enum Topic<'a> {
    Rule(&'a ValidProtocol, &'a Rule),
    Oracle(&'a Rule),
    /// The schema of a message.
    Schema(&'a ValidProtocol, &'a MessageType),
    Name(&'a NameKind, &'a Explanation),
}

/// All names that can be explained.
struct Glossary {
    fixed: Vec<NameKind>,
    oracles: Vec<Rule>,
    protocols: Vec<ValidProtocol>,
}

pub fn run_explain(arguments: ExplainArgs) -> Result<u8, CliError> {
    let mut sources = Sources::default();
    let oracles = oracle_rules(&mut sources);
    let mut glossary = Glossary { fixed: fixed_names(), oracles, protocols: Vec::new() };
    let written: Vec<String> = arguments.topics.iter().flat_map(|topic| written_names(topic)).collect();
    // The built-in protocols are read only if a name may be one of theirs.
    let is_selected = arguments.own.pack.is_some() || arguments.protocol.is_some();
    if is_selected || written.is_empty() || written.iter().any(|name| glossary.find(name).is_empty()) {
        glossary.protocols = arguments.load_protocols(&mut sources)?;
    }
    if written.is_empty() {
        print_to_stdout(&glossary.list_kinds());
        return Ok(0);
    }
    let mut topics = Vec::new();
    let mut unknown = Vec::new();
    for name in &written {
        let found = glossary.find(name);
        if found.is_empty() {
            unknown.push(glossary.unknown_name(name));
        }
        topics.extend(found);
    }
    if let Some(error) = CliError::from_all(unknown) {
        return Err(error);
    }
    let style = page_style(false);
    let selection = arguments.own.to_arguments();
    let mut page = Page { out: String::new(), style, sources: &sources, report: &selection };
    for topic in &topics {
        page.gap();
        match topic {
            Topic::Rule(protocol, rule) => page.write_rule(protocol, rule),
            Topic::Oracle(rule) => page.write_oracle(rule),
            Topic::Schema(protocol, message) => page.write_schema(protocol, message),
            Topic::Name(kind, explanation) => page.write_name(kind, explanation),
        }
    }
    print_to_stdout(&page.out);
    Ok(0)
}

/// Returns the names in a text as hubproof prints it: `CON-042#3`, `CON-042,CON-043`, `fail[CON-042]`.
fn written_names(text: &str) -> Vec<String> {
    let inner = text.split_once('[').and_then(|(_, rest)| rest.strip_suffix(']')).unwrap_or(text);
    let name = |part: &str| {
        let part = part.split_once('#').map_or(part, |(name, _)| name);
        part.strip_prefix("deviation:").map_or(part, |_| "deviation").trim().to_owned()
    };
    inner.split(',').map(name).filter(|name| !name.is_empty()).collect()
}

impl ExplainArgs {
    fn load_protocols(&self, sources: &mut Sources) -> Result<Vec<ValidProtocol>, CliError> {
        if let Some(path) = &self.own.pack {
            let loaded = protocol_files::load_user_pack(path, self.own.perspective, sources)?;
            return with_clients(loaded, sources);
        }
        let names = match &self.protocol {
            Some(name) => vec![name.as_str()],
            None => protocol_files::built_in_names(),
        };
        let mut all = Vec::new();
        for name in names {
            let loaded = protocol_files::load_built_in(name, sources)?;
            all.extend(with_clients(loaded, sources)?);
        }
        Ok(all)
    }
}

/// Returns a protocol, and what judges its clients.
fn with_clients(loaded: LoadedProtocol, sources: &Sources) -> Result<Vec<ValidProtocol>, CliError> {
    let clients = loaded.of_clients(sources);
    std::iter::once(loaded).chain(clients).map(|loaded| loaded.into_valid(sources)).collect()
}

impl Glossary {
    /// Returns all things with this name: a name such as `lost` may stand for several.
    fn find(&self, written: &str) -> Vec<Topic<'_>> {
        let mut found = Vec::new();
        if let Some(rest) = written.strip_prefix("schema:") {
            let mut parts = rest.split(':');
            let (message, rule) = (parts.next().unwrap_or_default(), parts.next());
            for protocol in self.protocols.iter().filter(|protocol| !protocol.pack.judges_clients) {
                let Some(message) = protocol.pack.message(message) else { continue };
                found.push(Topic::Schema(protocol, message));
                let rule = rule.and_then(|rule| protocol.pack.rules.get(rule));
                found.extend(rule.map(|rule| Topic::Rule(protocol, rule)));
            }
            return found;
        }
        let oracles = self.oracles.iter().filter(|rule| is_name(&rule.id, written));
        found.extend(oracles.map(Topic::Oracle));
        for protocol in &self.protocols {
            // The pack of the clients has rules of the hub, too.
            let is_known = |rule: &Rule| {
                found.iter().any(
                    |topic| matches!(topic, Topic::Rule(_, known) if known.id == rule.id && known.text == rule.text),
                )
            };
            let rules = protocol.pack.rules.values().filter(|rule| is_name(&rule.id, written) && !is_known(rule));
            let rules: Vec<_> = rules.map(|rule| Topic::Rule(protocol, rule)).collect();
            found.extend(rules);
        }
        for kind in &self.fixed {
            let names = kind.names.iter().filter(|one| is_name(one.name, written));
            found.extend(names.map(|one| Topic::Name(kind, one)));
        }
        found
    }

    /// Returns the kinds of names, each with the number of its names and the first few.
    fn kinds(&self) -> Vec<(String, usize, String)> {
        let examples = |names: &mut dyn Iterator<Item = &str>| names.take(3).collect::<Vec<_>>().join(", ");
        let rules = self.protocols.iter().filter(|protocol| !protocol.pack.rules.is_empty()).map(|protocol| {
            let ids = &protocol.pack.rules;
            (format!("rules of {}", protocol.pack.name), ids.len(), examples(&mut ids.keys().map(String::as_str)))
        });
        let oracles = examples(&mut self.oracles.iter().map(|rule| rule.id.as_str()));
        let fixed = self
            .fixed
            .iter()
            .map(|kind| (kind.all.to_owned(), kind.names.len(), examples(&mut kind.names.iter().map(|one| one.name))));
        rules.chain([("oracles of fuzz".to_owned(), self.oracles.len(), oracles)]).chain(fixed).collect()
    }

    fn list_kinds(&self) -> String {
        let kinds = self.kinds();
        let width = kinds.iter().map(|(all, ..)| all.chars().count()).max().unwrap_or(0);
        let mut out = "hubproof explain TOPIC explains these names:\n\n".to_owned();
        for (all, count, examples) in kinds {
            let dots = if count > 3 { ", ..." } else { "" };
            // Writing into a String cannot fail.
            let _ = writeln!(out, "  {all:<width$}  {count:>4}  {examples}{dots}");
        }
        out.push_str("\nAlso `schema:MESSAGE`, and names of checks as reports print them, such as CON-042#3. For the rules\nof your own pack, add --pack PATH.\n");
        out
    }

    fn unknown_name(&self, written: &str) -> CliError {
        let rules = self.protocols.iter().flat_map(|protocol| protocol.pack.rules.keys().map(String::as_str));
        let schemas: Vec<String> = self
            .protocols
            .iter()
            .flat_map(|protocol| &protocol.pack.messages)
            .map(|message| format!("schema:{}", message.name))
            .collect();
        let fixed = self.fixed.iter().flat_map(|kind| kind.names.iter().map(|one| one.name));
        let oracles = self.oracles.iter().map(|rule| rule.id.as_str());
        let mut known: Vec<&str> = rules.chain(oracles).chain(fixed).collect();
        known.extend(schemas.iter().map(String::as_str));
        let similar: Vec<String> = std::iter::from_fn(|| {
            let name = nearest(written, known.iter().copied())?;
            known.retain(|other| *other != name);
            Some(format!("`{name}`"))
        })
        .take(3)
        .collect();
        let meant = if similar.is_empty() { String::new() } else { format!("did you mean {}? ", similar.join(" or ")) };
        let mut text = format!("there is nothing named `{written}` to explain\n  help: {meant}these names are known:");
        for (all, count, examples) in self.kinds() {
            let _ = write!(text, "\n    {count} {all}: {examples}");
        }
        text.push_str("\n    for the rules of your own pack, add --pack PATH");
        CliError::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_names_of_checks_are_names_of_rules() {
        let names = |text| written_names(text).join(" ");
        assert_eq!(names("CON-042#3"), "CON-042");
        assert_eq!(names("fail[CON-042,CON-043#2]"), "CON-042 CON-043");
        assert_eq!(names("deviation:2"), "deviation");
        assert_eq!(names("schema:hello:CON-017"), "schema:hello:CON-017");
        assert_eq!(names("[]"), "");
    }
}
