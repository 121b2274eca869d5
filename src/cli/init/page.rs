//! The page of `init`: what was found, what was written, and what to do next.

use std::path::Path;

use super::super::protocol_files::ValidProtocol;
use super::contact::{Contact, Finding};
use super::{TARGET_FILE, WORKFLOW_FILE, check_command, joined};
use crate::check::first_contact::ContactRecord;
use crate::deviation::proposal::to_toml;
use crate::outcome::FrameKind;
use crate::protocol::recognition::{FrameFit, FrameMatch};
use crate::report::terminal::{UNREACHABLE_HELP, describe_credentials};
use crate::report::terminal_page::{Page, Style};
use crate::report::text::{escape_unprintable, format_count, quote_for_shell, shorten};
use crate::syntax::source::Sources;

/// Most characters of a frame that are shown.
const MAX_SHOWN: usize = 200;
/// The same in a list of all connections.
const MAX_LISTED: usize = 80;
/// Most frames that are shown as evidence, and most rules that are named.
const MAX_EVIDENCE: usize = 3;
const MAX_RULES: usize = 8;
/// The least weight of evidence that is shown for a protocol that was not recognised: one constant.
const MIN_CLOSE: usize = 2;

pub struct InitPage<'a> {
    page: Page<'a, ()>,
    /// How a command names the hub: its URL without secrets, then the TLS options. Empty if no hub was given.
    hub: String,
}

/// What `init` has written.
pub struct WrittenFiles<'a> {
    pub folder: &'a Path,
    pub pack: Option<&'a Path>,
    /// Number of files of the starter pack.
    pub pack_files: usize,
    /// The environment variables that the target file reads.
    pub environment: &'a [String],
    /// Whether the user has to write the URL into the target file.
    pub needs_url: bool,
    /// Whether the URL in the target file contains a secret.
    pub secret_url: bool,
    /// Whether the workflow starts the hub.
    pub starts_hub: bool,
}

impl<'a> InitPage<'a> {
    pub fn new(url: Option<&str>, tls: &[String], sources: &'a Sources) -> Self {
        let words: Vec<_> = url.into_iter().chain(tls.iter().map(String::as_str)).map(quote_for_shell).collect();
        let hub = url.unwrap_or("a hub that is not running yet");
        let page = Page::new(env!("CARGO_PKG_VERSION"), hub, &(), sources, Style::default());
        Self { page, hub: words.join(" ") }
    }

    pub fn finish(self) -> String {
        self.page.out
    }

    /// Shows the evidence for the hub's protocol; `chosen` is the index of the protocol for which files are written.
    pub fn write_contact(
        &mut self,
        contact: &Contact,
        candidates: &[ValidProtocol],
        chosen: Option<usize>,
        named: bool,
    ) {
        self.page.gap();
        let name = |index: usize| {
            let pack = &candidates[index].pack;
            format!("{}: {}", pack.name, escape_unprintable(&pack.title))
        };
        match contact.finding() {
            found if named => {
                let index = chosen.unwrap_or_default();
                self.page.wrapped("", &format!("You gave the protocol, {}.", name(index)));
                if let Some(entry) = &contact.upgrade {
                    let what =
                        "The hub refuses its clients as documented, but accepts them with this entry of a target file:";
                    self.page.wrapped("", what);
                    to_toml(&[entry]).trim_end().lines().for_each(|line| self.page.line(&format!("  {line}")));
                }
                match found {
                    Finding::Recognised { .. } => self.write_evidence(contact, candidates, index),
                    Finding::NoContact => self.write_no_contact(contact, candidates),
                    _ if candidates[index].pack.messages.is_empty() => self.page.line("The hub accepts connections."),
                    _ => {
                        let sent = "The hub accepts connections, but nothing that it sent shows this protocol.";
                        self.page.wrapped("", sent);
                        self.write_tries(contact, candidates);
                    }
                }
            }
            Finding::Recognised { protocol, certain } => {
                let sure = if *certain { "speaks" } else { "probably speaks" };
                self.page.wrapped("", &format!("The hub {sure} {}", name(*protocol)));
                self.write_evidence(contact, candidates, *protocol);
            }
            Finding::Tied(tied) => {
                let names: Vec<String> = tied.iter().map(|index| candidates[*index].pack.name.clone()).collect();
                let what = format!("The hub fits {} equally well.", names.join(" and "));
                self.page.wrapped("", &what);
                self.write_evidence(contact, candidates, tied[0]);
            }
            Finding::Unknown => {
                self.page.wrapped("", "The protocol of the hub was not recognised. This is what was tried:");
                self.write_tries(contact, candidates);
                let weights = contact.evidence.iter().map(|evidence| evidence.weight).enumerate();
                if let Some((closest, MIN_CLOSE..)) = weights.max_by_key(|(_, weight)| *weight) {
                    self.page.gap();
                    self.page.wrapped("", &format!("This comes closest to {}, but is not enough:", name(closest)));
                    self.write_evidence(contact, candidates, closest);
                }
                if let Some(index) = chosen {
                    let given = format!("Nothing that the hub sent confirms that it speaks {}.", name(index));
                    self.page.gap();
                    self.page.wrapped("", &given);
                }
            }
            Finding::NoContact => self.write_no_contact(contact, candidates),
        }
        self.write_credentials(contact, candidates, chosen);
    }

    /// Shows the frames that fit a protocol best.
    fn write_evidence(&mut self, contact: &Contact, candidates: &[ValidProtocol], protocol: usize) {
        let own = &contact.evidence[protocol];
        let mut shown: Vec<(usize, &FrameMatch)> =
            own.matches.iter().enumerate().filter_map(|(place, found)| Some((place, found.as_ref()?))).collect();
        shown.sort_by_key(|(place, found)| (found.generic, std::cmp::Reverse(found.weight), *place));
        let mut messages = std::collections::BTreeSet::new();
        shown.retain(|(_, found)| messages.insert(found.message.as_str()));
        for (place, found) in shown.into_iter().take(MAX_EVIDENCE) {
            let seen = &contact.frames[place];
            self.page.gap();
            self.page.field("sent", &seen.sent.as_deref().map_or("nothing yet".to_owned(), show_frame));
            self.page.field("received", &show_frame(&seen.text));
            let fit = match &found.fit {
                FrameFit::Valid => "valid under its schema".to_owned(),
                FrameFit::FurtherMembers => "valid under its schema, apart from further members".to_owned(),
                FrameFit::Invalid(why) => format!("not valid under its schema: {}", escape_unprintable(why)),
            };
            let others = candidates.iter().zip(&contact.evidence).enumerate();
            let rivals = others.filter(|(index, (_, other))| *index != protocol && other.rivals(place, found.weight));
            let rivals: Vec<&str> = rivals.map(|(_, (other, _))| other.pack.name.as_str()).collect();
            let rivals = match rivals.as_slice() {
                [] if candidates.len() > 1 => "; no other known protocol has it".to_owned(),
                [] => String::new(),
                some => format!("; also known in {}", some.join(", ")),
            };
            let generic = if found.generic { "; the hub answers anything like this" } else { "" };
            self.page.field(
                "this is",
                &format!("`{}` of {}, {fit}{rivals}{generic}", found.message, candidates[protocol].pack.name),
            );
        }
        let accepted = own.matches.iter().flatten().filter(|found| found.accepted()).count();
        if accepted < own.matches.len() {
            self.page.gap();
            let all = format_count(own.matches.len(), "frame");
            self.page
                .wrapped("  ", &format!("Of {all} that the hub sent, {accepted} are valid messages of this protocol."));
        } else if matches!(contact.finding(), Finding::Recognised { certain: false, .. }) {
            self.page.gap();
            self.page.wrapped("  ", "None of these frames alone tells this protocol from every other.");
        }
    }

    /// Shows every connection; those with the same result share a line.
    fn write_tries(&mut self, contact: &Contact, candidates: &[ValidProtocol]) {
        let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
        if !contact.plain.frames.is_empty() {
            lines.push((describe_record(&contact.plain), vec!["no protocol"]));
        }
        for (protocol, records) in candidates.iter().zip(&contact.tries) {
            let mut results: Vec<String> = records.iter().map(describe_record).collect();
            if results.is_empty() {
                results.push("not tried: its scenarios need settings or hooks".to_owned());
            }
            for result in results {
                let name = protocol.pack.name.as_str();
                match lines.iter_mut().find(|(known, _)| *known == result) {
                    Some((_, names)) if names.contains(&name) => {}
                    Some((_, names)) => names.push(name),
                    None => lines.push((result, vec![name])),
                }
            }
        }
        self.page.gap();
        for (result, names) in &lines {
            match names.as_slice() {
                [name] if name.len() <= 11 => self.page.field(name, result),
                names => {
                    self.page.wrapped("  ", &names.join(", "));
                    self.page.field("", result);
                }
            }
        }
    }

    /// Explains why the connection failed, and what to do.
    fn write_no_contact(&mut self, contact: &Contact, candidates: &[ValidProtocol]) {
        let Some(refusal) = contact.records().find_map(ContactRecord::refusal) else { return };
        let reason = escape_unprintable(&refusal.text).into_owned();
        let end = if reason.ends_with(['.', '?', '!', ')']) { "" } else { "." };
        match refusal.kind {
            FrameKind::Unreachable => {
                self.page.wrapped("", &format!("The hub could not be reached: {reason}{end}"));
                if !reason.starts_with("TLS") {
                    self.page.wrapped("  ", UNREACHABLE_HELP);
                }
            }
            FrameKind::NoUpgrade => {
                self.page.wrapped("", &format!("This is not a WebSocket server, or it does not answer: {reason}{end}"));
                self.page.wrapped("  ", UNREACHABLE_HELP);
            }
            _ => {
                self.page.wrapped("", "The server answers with HTTP, but does not open a WebSocket:");
                self.write_tries(contact, candidates);
            }
        }
    }

    /// Says where credentials go, if the hub asks for some, or if some were invented.
    fn write_credentials(&mut self, contact: &Contact, candidates: &[ValidProtocol], chosen: Option<usize>) {
        let everywhere = contact.plain.wants_credentials();
        for (index, (protocol, records)) in candidates.iter().zip(&contact.tries).enumerate() {
            let secrets = protocol.scenarios.shared.settings.iter().filter(|(_, setting)| setting.secret);
            let secrets: Vec<String> = secrets.map(|(name, _)| name.clone()).collect();
            let name = &protocol.pack.name;
            if records.iter().any(ContactRecord::wants_credentials) && !everywhere {
                let only = if contact.plain.frames.is_empty() { "Where" } else { "Only where" };
                let what = format!("{only} clients of {name} connect, it asks for credentials.");
                self.page.gap();
                self.page.wrapped("", &format!("{what} {}", describe_credentials(&secrets)));
            } else if chosen == Some(index) && records.iter().any(|record| record.invented_secrets) {
                let secrets = secrets.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
                let what =
                    format!("hubproof does not know the secrets of the hub, and sent invented ones: set {secrets}");
                self.page.gap();
                self.page.wrapped("", &format!("{what} in {TARGET_FILE}."));
            }
        }
        if everywhere {
            self.page.gap();
            self.page.wrapped(
                "",
                "The server asks for credentials. In the target file, which --protocol NAME writes in any case, they go \
                 under [secrets], or into a header of a [[deviation]] with `upgrade`; `check --explore` tries the usual places.",
            );
        }
    }

    /// Shows what to do if the protocol is not known. `own` are the name and the path of the pack that the user gave.
    pub fn write_advice(&mut self, contact: Option<&Contact>, candidates: &[ValidProtocol], own: Option<(&str, &str)>) {
        let names = |indices: &[usize]| {
            indices.iter().map(|index| candidates[*index].pack.name.as_str()).collect::<Vec<_>>().join(" | ")
        };
        let all: Vec<usize> = (0..candidates.len()).collect();
        let pack = own.map(|(_, path)| format!(" --pack {}", quote_for_shell(path))).unwrap_or_default();
        let init = format!("hubproof init {}", self.hub);
        let with_protocol = |names: &str| format!("{init}{pack} --protocol {names}");
        let describe = format!("If you have an AsyncAPI document of its protocol: {init} --pack asyncapi.yaml");
        let record = format!(
            "Or record its traffic, and make a pack of that: hubproof record {} --listen 127.0.0.1:4001 --to hub.jsonl, \
             then hubproof packs init --from-recording hub.jsonl",
            self.hub
        );
        let websocket = format!("To test only the WebSocket layer: {init} --protocol websocket");
        let advice = match contact.map(Contact::finding) {
            Some(Finding::Tied(tied)) => vec![format!("Choose one: {}", with_protocol(&names(tied)))],
            Some(Finding::Recognised { .. }) => {
                let name = own.map(|(name, _)| name).unwrap_or_default();
                vec![format!("If that is right: {init}"), format!("If your pack is right: {}", with_protocol(name))]
            }
            Some(Finding::NoContact) => vec![
                format!("When the hub accepts connections: {init}{pack}"),
                format!("If you know its protocol, to write the files now: {}", with_protocol(&names(&all))),
            ],
            _ => {
                let known = format!("If it speaks a known protocol: {}", with_protocol(&names(&all)));
                vec![known, describe, record, websocket]
            }
        };
        self.page.gap();
        self.page.line("Nothing was written. What to do:");
        for one in advice {
            self.page.wrapped("  - ", &one);
        }
    }

    /// Shows which files were written, and the next command.
    pub fn write_files(&mut self, written: &WrittenFiles<'_>, protocol: &ValidProtocol) {
        let shown = |path: &str| joined(written.folder, Path::new(path)).display().to_string();
        self.page.gap();
        self.page.line("Written:");
        self.page.line(&format!("  {}", shown(TARGET_FILE)));
        let shared = &protocol.scenarios.shared;
        let uses = format!(
            "the target: where the hub is, and, as comments, the {} and {} that would let hubproof check more",
            format_count(shared.settings.len(), "setting"),
            format_count(shared.hooks.len(), "hook")
        );
        self.page.field("", &uses);
        self.page.line(&format!("  {}", shown(WORKFLOW_FILE)));
        let starts = if written.starts_hub { "; it has to start the hub, so name its command there" } else { "" };
        self.page.field("", &format!("checks the hub on every push{starts}"));
        if let (Some(pack), 1..) = (written.pack, written.pack_files) {
            self.page.line(&format!("  {}/", shown(&pack.display().to_string())));
            let rules: Vec<String> = protocol.pack.rules.keys().cloned().collect();
            let more = rules.len().saturating_sub(MAX_RULES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let named = rules[..rules.len().min(MAX_RULES)].join(", ");
            let what = format!(
                "a starter pack of {}: {}, {}, {} ({named}{more})",
                format_count(written.pack_files, "file"),
                format_count(protocol.pack.messages.len(), "message"),
                format_count(protocol.scenarios.programs.len(), "scenario"),
                format_count(rules.len(), "rule"),
            );
            self.page.field("", &what);
        }
        self.page.gap();
        self.page.line("Next:");
        if written.needs_url {
            self.page.line(&format!("  write the url of the hub into {}, then", shown(TARGET_FILE)));
        }
        if written.secret_url {
            self.page.line(&format!("  do not publish {}: its url contains a secret", shown(TARGET_FILE)));
        }
        for name in written.environment {
            self.page.line(&format!("  export {name}=..."));
        }
        self.page.line(&format!("  {}", check_command(written.folder, written.pack)));
    }
}

/// Describes what happened on a connection in one line.
fn describe_record(record: &ContactRecord) -> String {
    if let Some(refusal) = record.refusal() {
        // Only the first sentence; and a query may contain invented credentials.
        let text = escape_unprintable(&refusal.text);
        let (address, reason) = match text.split_once(": ") {
            Some((address, reason)) if address.contains("://") => (address.split('?').next(), reason),
            _ => (None, &*text),
        };
        let end = reason.find(['.', '?']).map_or(reason.len(), |at| at + 1);
        let address = address.map(|address| format!("{address}: ")).unwrap_or_default();
        let invented = if record.invented_secrets { " (with invented credentials)" } else { "" };
        return format!("{address}{}{invented}", shorten(reason[..end].trim_end_matches('.'), MAX_SHOWN));
    }
    let mut parts = Vec::new();
    let sent: Vec<String> =
        record.sent().map(|frame| shorten(&show_frame(&frame.text), MAX_LISTED).into_owned()).collect();
    match sent.as_slice() {
        [] => parts.push("sent nothing".to_owned()),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            parts.push(format!("sent {first}{more}"));
        }
    }
    let received: Vec<_> = record.received().collect();
    match received.as_slice() {
        [] => parts.push("received nothing".to_owned()),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            let text = if first.kind == FrameKind::Binary {
                "a binary frame".into()
            } else {
                shorten(&escape_unprintable(&first.text), MAX_LISTED).into_owned()
            };
            parts.push(format!("received {text}{more}"));
        }
    }
    if let Some(end) = record.last_of(&[FrameKind::Close, FrameKind::Broken, FrameKind::End]) {
        let what = match end.kind {
            FrameKind::Close => "the hub closed",
            FrameKind::Broken => "then a broken frame",
            _ => "the connection ended",
        };
        parts.push(format!("{what}: {}", shorten(&escape_unprintable(&end.text), MAX_SHOWN)));
    }
    parts.join("; ")
}

fn show_frame(text: &str) -> String {
    // Escaped first: an escape sequence is longer than its character.
    let escaped = escape_unprintable(text);
    shorten(&escaped, MAX_SHOWN).into_owned()
}
