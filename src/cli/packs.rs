//! `hubproof packs`: lists, shows and validates packs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::load::plans::lint_plans;
use super::protocol_files::{self, DescribedParty, LoadedProtocol, PackArgs, ValidProtocol};
use super::{CliError, print_document, print_to_stdout, uses_color};
use crate::import::{self, from_recording};
use crate::protocol::{FrameDirection, Pack, PackFolder, RulePlace};
use crate::report::text::format_count;
use crate::scenario::Need;
use crate::syntax::diagnostic::{Diagnostic, has_errors, render_all, suggest};
use crate::syntax::source::Sources;

#[derive(Args)]
pub struct PacksArgs {
    #[command(subcommand)]
    command: PacksCommand,
}

#[derive(Subcommand)]
enum PacksCommand {
    /// List the built-in protocols
    List {
        #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
    },
    /// Show the messages, rules and scenarios of a protocol, and which scenarios prove which rules
    Show {
        /// Name of a built-in protocol, folder of a pack, or plain AsyncAPI document
        #[arg(required_unless_present = "pack", conflicts_with = "pack")]
        name: Option<String>,
        #[command(flatten)]
        own: PackArgs,
        /// Show only the rules, each with the scenarios that prove it
        #[arg(long)]
        rules: bool,
        #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
    },
    /// Report all errors in a pack and its scenarios
    #[command(visible_alias = "check")]
    Lint {
        /// Name of a built-in protocol, folder of a pack, or plain AsyncAPI document
        #[arg(required_unless_present = "pack", conflicts_with = "pack")]
        directory: Option<PathBuf>,
        #[command(flatten)]
        own: PackArgs,
    },
    /// Generate a starter pack from an AsyncAPI document or a recording
    Init(InitArgs),
    /// Validate a payload against the schema of a message
    Validate {
        /// Name of a built-in protocol, folder of a pack, or plain AsyncAPI document
        name: String,
        /// Name of the message
        message: String,
        /// File that contains the payload as JSON; - reads stdin
        file: PathBuf,
        /// Whose operations a plain AsyncAPI document describes
        #[arg(long, value_name = "WHO", value_enum, default_value_t = DescribedParty::Hub)]
        perspective: DescribedParty,
    },
}

/// The source and the folder of a new pack.
#[derive(Args)]
struct InitArgs {
    /// AsyncAPI document, version 2 or 3
    #[arg(required_unless_present = "from_recording", conflicts_with = "from_recording")]
    document: Option<PathBuf>,
    /// Generate the pack from a recording of `hubproof record` instead of a document
    #[arg(long, value_name = "FILE")]
    from_recording: Option<PathBuf>,
    /// Folder to write the pack to, new or empty (default: named after the document)
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Whose operations the document describes
    #[arg(long, value_name = "WHO", value_enum, default_value_t = DescribedParty::Hub)]
    perspective: DescribedParty,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    Text,
    Json,
}

pub fn run_packs(arguments: PacksArgs) -> Result<u8, CliError> {
    match arguments.command {
        PacksCommand::List { format } => list_packs(format),
        PacksCommand::Show { name, own, rules, format } => {
            show_pack(&own.path_or(name), own.perspective, rules, format)
        }
        PacksCommand::Lint { directory, own } => {
            let directory = directory.map(|path| path.to_string_lossy().into_owned());
            lint_pack(std::path::Path::new(&own.path_or(directory)), own.perspective)
        }
        PacksCommand::Init(arguments) => init_pack(&arguments),
        PacksCommand::Validate { name, message, file, perspective } => {
            validate_payload(&name, &message, &file, perspective)
        }
    }
}

/// Loads a built-in protocol, or the protocol at a path.
fn load_pack(name: &str, described: DescribedParty, sources: &mut Sources) -> Result<LoadedProtocol, CliError> {
    let path = std::path::Path::new(name);
    if protocol_files::built_in_names().contains(&name) || !path.exists() && !name.contains(['/', '.']) {
        return protocol_files::load_built_in(name, sources);
    }
    protocol_files::load_user_pack(path, described, sources)
}

fn list_packs(format: OutputFormat) -> Result<u8, CliError> {
    let mut out = String::new();
    let mut all = Vec::new();
    for name in protocol_files::built_in_names() {
        let mut sources = Sources::default();
        let protocol = protocol_files::load_built_in(name, &mut sources)?.into_valid(&sources)?;
        let (pack, scenarios) = (&protocol.pack, protocol.scenarios.programs.len());
        let _ = writeln!(
            out,
            "{name:12} {:8} {:3} messages  {:3} rules  {scenarios:3} scenarios  {}",
            pack.version,
            pack.messages.len(),
            pack.rules.len(),
            pack.title
        );
        all.push(json!({ "name": name, "version": pack.version, "hash": pack.hash, "title": pack.title, "messages": pack.messages.len(), "rules": pack.rules.len(), "scenarios": scenarios }));
    }
    print_result(format, out, Value::Array(all))
}

fn print_result(format: OutputFormat, text: String, value: Value) -> Result<u8, CliError> {
    match format {
        OutputFormat::Text => print_to_stdout(&text),
        OutputFormat::Json => print_document(&format!("{value:#}\n")),
    }
    Ok(0)
}

/// Explains which messages of a plain document clients send and which the hub sends, because `publish` and `subscribe`
/// are often confused. Returns an empty text for packs, which are written from the hub's point of view.
fn describe_directions(folder: &PackFolder, pack: &Pack, described: DescribedParty) -> String {
    if folder.document.is_none() {
        return String::new();
    }
    let names = |way: FrameDirection| {
        let named = pack.messages.iter().filter(|message| message.can_go(way) && !message.abstract_);
        let names: Vec<&str> = named.map(|message| message.name.as_str()).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let explained = match described {
        DescribedParty::Hub => {
            "The document describes the hub: `publish` is what clients send to it, and `subscribe` is what it sends (in \
             version 3, `receive` and `send`). If it describes a client of the hub, add --perspective client."
        }
        DescribedParty::Client => {
            "The document describes a client of the hub: `publish` is what the hub sends to it, and `subscribe` is what it \
             sends (in version 3, `receive` and `send`). If it describes the hub, leave out --perspective client."
        }
    };
    format!(
        "clients send: {}\nthe hub sends: {}\n{explained}\n",
        names(FrameDirection::ToHub),
        names(FrameDirection::FromHub)
    )
}

/// Returns the scenarios that prove each rule at its own level, and the schemas as `schema:MESSAGE`.
fn proving_scenarios(protocol: &ValidProtocol) -> BTreeMap<&str, Vec<String>> {
    let mut provers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for program in &protocol.scenarios.programs {
        for rule in program.proves() {
            provers.entry(rule).or_default().push(program.id.clone());
        }
    }
    for message in &protocol.pack.messages {
        for rule in message.schema.rules.iter().chain(&message.schema.should_rules) {
            provers.entry(rule).or_default().push(format!("schema:{}", message.name));
        }
    }
    provers
}

fn show_pack(name: &str, described: DescribedParty, only_rules: bool, format: OutputFormat) -> Result<u8, CliError> {
    let mut sources = Sources::default();
    let protocol = load_pack(name, described, &mut sources)?.into_valid(&sources)?;
    let pack = &protocol.pack;
    let provers = proving_scenarios(&protocol);
    let mut out = String::new();
    let mut rules = serde_json::Map::new();
    for rule in pack.rules.values() {
        let by = provers.get(rule.id.as_str()).cloned().unwrap_or_default();
        let state = match (&rule.out_of_scope, by.is_empty()) {
            (Some(reason), _) => format!("out of scope: {reason}"),
            (None, true) => "no check".to_owned(),
            (None, false) => by.join(", "),
        };
        let _ = writeln!(
            out,
            "  {:8} {:6} {:12} {:<9} {}",
            rule.id,
            rule.level.name(),
            rule.basis.name(),
            rule.place.to_string(),
            rule.text
        );
        let _ = writeln!(out, "           {state}");
        let (line, section) = match &rule.place {
            RulePlace::Line(line) => (Some(line), None),
            RulePlace::Section(section) => (None, Some(section)),
            RulePlace::Oracle => (None, None),
        };
        rules.insert(
            rule.id.clone(),
            json!({ "level": rule.level.name(), "basis": rule.basis.name(), "line": line, "section": section, "text": rule.text, "from": rule.from, "sees": rule.sees, "out_of_scope": rule.out_of_scope, "checked_by": by }),
        );
    }
    if only_rules {
        return print_result(format, out, Value::Object(rules));
    }
    let mut text = format!(
        "{} {}: {} ({})\n{}\n\nmessages\n",
        pack.name,
        pack.version,
        pack.title,
        pack.hash,
        pack.description.trim()
    );
    let mut messages = Vec::new();
    for message in &pack.messages {
        let direction = match (message.directions.to_hub, message.directions.from_hub) {
            (true, false) => "to the hub",
            (false, true) => "from the hub",
            _ => "both ways",
        };
        let _ = writeln!(text, "  {:32} {direction:13} {}", message.name, message.summary);
        messages.push(json!({ "name": message.name, "direction": direction, "title": message.title, "summary": message.summary, "envelope": message.abstract_, "documented_example": message.schema.documented, "replies": message.replies }));
    }
    let directions = describe_directions(&protocol.folder, pack, described);
    if !directions.is_empty() {
        let _ = write!(text, "\n{directions}");
    }
    let _ = writeln!(text, "\nrules ({})\n{out}\nscenarios", pack.document);
    let mut scenarios = Vec::new();
    for program in &protocol.scenarios.programs {
        let proves: Vec<&str> = program.proves().into_iter().collect();
        let needs: Vec<String> = program.needs.iter().map(Need::name).collect();
        let _ = writeln!(text, "  {}: {}", program.id, program.title);
        let _ = writeln!(text, "      {}", proves.join(" "));
        if !needs.is_empty() {
            let _ = writeln!(text, "      needs {}", needs.join(", "));
        }
        scenarios.push(json!({ "id": program.id, "title": program.title, "proves": proves, "needs": needs, "checks": program.checks.len() }));
    }
    let value = json!({ "name": pack.name, "version": pack.version, "hash": pack.hash, "title": pack.title, "document": pack.document, "messages": messages, "rules": rules, "scenarios": scenarios });
    print_result(format, text, value)
}

fn lint_pack(directory: &std::path::Path, described: DescribedParty) -> Result<u8, CliError> {
    let mut sources = Sources::default();
    let loaded = match directory.to_str() {
        Some(name) if !directory.is_dir() => load_pack(name, described, &mut sources)?,
        _ => protocol_files::load_user_pack(directory, described, &mut sources)?,
    };
    let failed = lint_loaded(&loaded, described, &sources);
    let of_clients = loaded.of_clients(&sources).is_some_and(|clients| lint_loaded(&clients, described, &sources));
    Ok(if failed || of_clients { super::exit::USAGE } else { 0 })
}

/// Prints what is wrong with a pack, and what is in it. Returns whether it has errors.
fn lint_loaded(loaded: &LoadedProtocol, described: DescribedParty, sources: &Sources) -> bool {
    let hints = loaded.scenarios.iter().flat_map(|scenarios| &scenarios.hints);
    let mut diagnostics: Vec<Diagnostic> = loaded.diagnostics.iter().chain(hints).cloned().collect();
    if let Some(pack) = &loaded.pack {
        diagnostics.extend(lint_plans(&loaded.folder, pack, sources));
    }
    if !diagnostics.is_empty() {
        print_to_stdout(&format!("{}\n", render_all(&diagnostics, sources, uses_color())));
    }
    let errors = diagnostics.iter().filter(|d| d.severity == crate::syntax::diagnostic::Severity::Error).count();
    let warnings = diagnostics.len() - errors;
    let messages = loaded.pack.as_ref().map_or(0, |pack| pack.messages.len());
    let scenarios = loaded.scenarios.as_ref().map_or(0, |scenarios| scenarios.programs.len());
    print_to_stdout(&format!(
        "{}: {}, {}, {}, {}\n",
        loaded.folder.name,
        format_count(messages, "message"),
        format_count(scenarios, "scenario"),
        format_count(errors, "error"),
        format_count(warnings, "warning")
    ));
    match &loaded.pack {
        Some(pack) if loaded.folder.judges_clients => {
            let rules: Vec<&str> = pack.rules.keys().map(String::as_str).collect();
            print_to_stdout(&format!(
                "{} that bind clients: {}\n",
                format_count(rules.len(), "rule"),
                rules.join(", ")
            ));
        }
        Some(pack) => print_to_stdout(&describe_directions(&loaded.folder, pack, described)),
        None => {}
    }
    if !loaded.folder.unjudged.is_empty() {
        let parts: Vec<&str> = loaded.folder.unjudged.iter().map(String::as_str).collect();
        print_to_stdout(&format!("Not judged: {}\n", parts.join(", ")));
    }
    has_errors(&diagnostics)
}

fn init_pack(arguments: &InitArgs) -> Result<u8, CliError> {
    let mut sources = Sources::default();
    let path = arguments.from_recording.as_ref().or(arguments.document.as_ref());
    let path = path.ok_or_else(|| CliError::new("no document"))?;
    let (name, files) = if arguments.from_recording.is_some() {
        let file = protocol_files::read_file(path, &mut sources)?;
        let name = path.file_stem().map_or("pack".into(), |stem| stem.to_string_lossy()).into_owned();
        let (files, diagnostics) = from_recording::pack_from_recording(&name, file, &mut sources);
        (name, unless_erroneous(files, &diagnostics, &sources)?)
    } else {
        import_document(path, arguments.perspective, &mut sources)?
    };
    let folder = arguments.to.clone().unwrap_or_else(|| PathBuf::from(name));
    write_new_folder(&folder, &files)?;
    let shown = folder.display();
    let listed: String = files.keys().map(|path| format!("  {path}\n")).collect();
    print_to_stdout(&format!(
        "{shown}: {} written\n{listed}next: hubproof packs lint {shown}\n      hubproof check --pack {shown} URL\n",
        format_count(files.len(), "file")
    ));
    Ok(0)
}

/// Returns the name and the files of a starter pack from a plain AsyncAPI document, and prints the warnings.
pub fn import_document(
    document: &std::path::Path,
    described: DescribedParty,
    sources: &mut Sources,
) -> Result<(String, BTreeMap<String, String>), CliError> {
    let (name, library) = protocol_files::read_plain_document(document, sources)?;
    let (files, diagnostics) = import::import_pack(&library, described.perspective(), sources);
    Ok((name, unless_erroneous(files, &diagnostics, sources)?))
}

/// Returns the files of a starter pack and prints the warnings, or returns the errors.
fn unless_erroneous(
    files: BTreeMap<String, String>,
    diagnostics: &[Diagnostic],
    sources: &Sources,
) -> Result<BTreeMap<String, String>, CliError> {
    if has_errors(diagnostics) || files.is_empty() {
        return Err(CliError::from_diagnostics(diagnostics, sources));
    }
    if !diagnostics.is_empty() {
        eprintln!("{}", render_all(diagnostics, sources, uses_color()));
    }
    Ok(files)
}

/// Writes files into a folder that is new or empty.
fn write_new_folder(folder: &std::path::Path, files: &BTreeMap<String, String>) -> Result<(), CliError> {
    let shown = folder.display();
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Ok(false) => {
            let help = "choose a new folder with --to DIR: an existing pack is never overwritten";
            return Err(CliError::usage(format!("{shown} is not empty"), help));
        }
        Err(error) => return Err(CliError::failed(format!("failed to write {shown}"), error)),
    }
    write_files(folder, files)
}

/// Writes files below a folder, and creates the folders that they need.
pub fn write_files(folder: &std::path::Path, files: &BTreeMap<String, String>) -> Result<(), CliError> {
    for (path, text) in files {
        let path = folder.join(path);
        let folders = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        folders
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| CliError::failed(format!("failed to write {}", path.display()), error))?;
    }
    Ok(())
}

fn validate_payload(
    name: &str,
    message: &str,
    file: &std::path::Path,
    described: DescribedParty,
) -> Result<u8, CliError> {
    let mut sources = Sources::default();
    let protocol = load_pack(name, described, &mut sources)?.into_valid(&sources)?;
    let Some(found) = protocol.pack.message(message) else {
        let known: Vec<&str> = protocol.pack.messages.iter().map(|message| message.name.as_str()).collect();
        return Err(CliError::usage(
            format!("{name} has no message `{message}`"),
            suggest(message, known, &format!("`hubproof packs show {name}` lists them")),
        ));
    };
    let shown = if file.as_os_str() == "-" { "stdin".to_owned() } else { file.display().to_string() };
    let text = if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin()
            .take(crate::syntax::source::MAX_FILE as u64)
            .read_to_string(&mut text)
            .map_err(|error| CliError::failed("failed to read stdin", error))?;
        text
    } else {
        let id = protocol_files::read_file(file, &mut sources)?;
        sources.file(id).text.clone()
    };
    let payload: Value =
        serde_json::from_str(&text).map_err(|error| CliError::failed(format!("{shown} is not JSON"), error))?;
    let violations = found.schema.violations(&payload);
    let mut out = String::new();
    for violation in &violations {
        let place = if violation.path.is_empty() { "the whole" } else { &violation.path };
        let word = if violation.should { "warning" } else { "error" };
        let rules =
            if violation.rules.is_empty() { String::new() } else { format!(" [{}]", violation.rules.join(", ")) };
        let _ = writeln!(out, "{word}{rules}: {place}: expected {}, found {}", violation.expected, violation.found);
    }
    let broken = violations.iter().any(|violation| !violation.should);
    if !found.matcher.fits(&payload) {
        let _ = writeln!(
            out,
            "note: it would not be recognised as `{message}`: {}",
            found.matcher.difference(&payload).map(|d| d.to_string()).unwrap_or_default()
        );
    }
    let _ = writeln!(out, "{}", if broken { "invalid" } else { "valid" });
    print_to_stdout(&out);
    Ok(u8::from(broken))
}
