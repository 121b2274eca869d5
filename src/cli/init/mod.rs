//! `hubproof init`: recognises the protocol of a hub, and writes the files with which the hub is checked.

mod contact;
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::protocol_files::{self, PackArgs, ValidProtocol};
use super::tls_args::TlsArgs;
use super::{CliError, build_runtime, exit, hub, packs, print_to_stdout};
use crate::config::{self, Override, Target, TargetDraft, TlsOptions};
use crate::protocol::PackFolder;
use crate::redact::{SecretMasker, address_secrets};
use crate::report::text::quote_for_shell;
use crate::syntax::diagnostic::suggest;
use crate::syntax::source::Sources;
use contact::{Contact, Finding};
use page::{InitPage, WrittenFiles};

/// The files that `init` writes, relative to its folder.
const TARGET_FILE: &str = "hub.toml";
const WORKFLOW_FILE: &str = ".github/workflows/hubproof.yml";
/// The address of the hub while its URL is not known; nothing connects to it.
const NO_URL: &str = "ws://127.0.0.1:4000";

#[derive(Args)]
pub struct InitArgs {
    /// URL of the hub: ws:// or wss://; without it, the files are for a hub that is not running yet
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// Protocol the hub speaks, instead of recognising it
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    #[command(flatten)]
    own: PackArgs,
    /// Set a setting of the hub, such as secrets.jwt_secret=...; secrets are used but never written
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Folder to write the files to, the root of the hub's repository (default: the current folder)
    #[arg(long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    to: PathBuf,
    /// Overwrite the files if they exist
    #[arg(long)]
    force: bool,
}

/// The pack that `--pack` names.
struct OwnPack {
    protocol: ValidProtocol,
    /// The path of the pack for later commands.
    path: PathBuf,
    /// The files of a starter pack that is made from an AsyncAPI document, by their paths in its folder.
    starter: BTreeMap<String, String>,
}

pub fn run_init(arguments: &InitArgs) -> Result<u8, CliError> {
    if arguments.url.is_none() && arguments.protocol.is_none() && arguments.own.pack.is_none() {
        return Err(CliError::usage(
            "neither the hub nor its protocol is given",
            format!(
                "for a running hub: hubproof init ws://127.0.0.1:4000\n        for one that is not running: hubproof init --protocol {}",
                protocol_files::built_in_names().join(" | ")
            ),
        ));
    }
    let mut sources = Sources::default();
    let own = arguments.load_own_pack(&mut sources)?;
    let overrides = arguments.parse_overrides()?;
    let target = arguments.parse_target(&overrides, &mut sources)?;
    // Reported before anything is sent to the hub.
    arguments.check_files_new(own.as_ref())?;
    let own_name = own.as_ref().map(|own| own.protocol.pack.name.clone());
    let own_pack = own.as_ref().map(|own| (own.path.clone(), own.starter.clone()));
    let named = arguments.protocol.clone().or_else(|| own_name.clone().filter(|_| arguments.url.is_none()));
    let candidates = load_candidates(named.as_deref(), own, &mut sources)?;
    check_settings_known(&target, &candidates)?;
    let masker = SecretMasker::new(address_secrets(&target.instances[0].url));
    let shown_url = arguments.url.as_deref().map(|url| masker.mask(url).into_owned());
    let mut page = InitPage::new(shown_url.as_deref(), &arguments.tls.to_arguments(), &sources);
    let contact = match &arguments.url {
        None => None,
        Some(_) => {
            let runtime = build_runtime()?;
            let contact = runtime.block_on(contact::make_contact(&candidates, &target, named.is_some()))?;
            // A connection that is still open has shown enough.
            runtime.shutdown_timeout(std::time::Duration::from_millis(200));
            Some(contact)
        }
    };
    let chosen = choose_protocol(&candidates, named.as_deref(), own_name.as_deref(), contact.as_ref());
    if let Some(contact) = &contact {
        page.write_contact(contact, &candidates, chosen, named.is_some());
    }
    let Some(chosen) = chosen else {
        let given = arguments.own.pack.as_ref().map(|path| path.display().to_string());
        page.write_advice(contact.as_ref(), &candidates, own_name.as_deref().zip(given.as_deref()));
        print_to_stdout(&page.finish());
        return Ok(exit::INCONCLUSIVE);
    };
    let protocol = &candidates[chosen];
    hub::check_settings_known(&target, std::slice::from_ref(protocol))?;
    hub::check_setting_kinds(&target, protocol)?;
    let own_pack = own_pack.filter(|_| own_name.as_deref() == Some(protocol.pack.name.as_str()));
    let upgrade = contact.as_ref().and_then(|contact| contact.upgrade.as_ref());
    arguments.write_files(protocol, &target, own_pack, upgrade, &mut page)?;
    print_to_stdout(&page.finish());
    Ok(0)
}

/// Rejects a setting that none of the candidates has.
fn check_settings_known(target: &Target, candidates: &[ValidProtocol]) -> Result<(), CliError> {
    let known = || candidates.iter().flat_map(|protocol| protocol.scenarios.shared.settings.keys());
    let mut set = target.instances[0].settings.keys();
    let Some(name) = set.find(|name| !known().any(|known| known == *name)) else { return Ok(()) };
    let help = suggest(name, known().map(String::as_str), "`hubproof packs show NAME` describes a protocol");
    Err(CliError::usage(format!("no protocol has a setting `{name}`"), help))
}

/// Returns the index of the protocol for which the files are written; `None` if it is not known.
fn choose_protocol(
    candidates: &[ValidProtocol],
    named: Option<&str>,
    own: Option<&str>,
    contact: Option<&Contact>,
) -> Option<usize> {
    let index_of = |name: &str| candidates.iter().position(|protocol| protocol.pack.name == name);
    if let Some(name) = named {
        return index_of(name);
    }
    match contact?.finding() {
        // `--pack` says what the hub speaks, unless the hub shows that it speaks something else.
        Finding::Recognised { protocol, .. } => {
            Some(*protocol).filter(|index| own.is_none_or(|own| candidates[*index].pack.name == own))
        }
        Finding::Tied(_) => None,
        Finding::Unknown => index_of(own?),
        Finding::NoContact => None,
    }
}

/// Loads the protocols that the hub may speak: the named one, or all.
fn load_candidates(
    named: Option<&str>,
    own: Option<OwnPack>,
    sources: &mut Sources,
) -> Result<Vec<ValidProtocol>, CliError> {
    let mut candidates: Vec<ValidProtocol> = own.into_iter().map(|own| own.protocol).collect();
    if let Some(name) = named {
        if !candidates.iter().any(|protocol| protocol.pack.name == name) {
            candidates = vec![protocol_files::load_built_in(name, sources)?.into_valid(sources)?];
        }
        candidates.retain(|protocol| protocol.pack.name == name);
        return Ok(candidates);
    }
    for name in protocol_files::built_in_names() {
        if candidates.iter().any(|protocol| protocol.pack.name == name) {
            continue;
        }
        let protocol = protocol_files::load_built_in(name, sources)?.into_valid(sources)?;
        // Without messages, nothing could show that the hub speaks it.
        if !protocol.pack.messages.is_empty() {
            candidates.push(protocol);
        }
    }
    Ok(candidates)
}

impl InitArgs {
    fn load_own_pack(&self, sources: &mut Sources) -> Result<Option<OwnPack>, CliError> {
        let Some(path) = &self.own.pack else { return Ok(None) };
        let Some(document) = protocol_files::find_plain_document(path) else {
            let protocol = protocol_files::load_user_pack(path, self.own.perspective, sources)?.into_valid(sources)?;
            return Ok(Some(OwnPack { protocol, path: path.clone(), starter: BTreeMap::new() }));
        };
        let (name, files) = packs::import_document(&document, self.own.perspective, sources)?;
        let added =
            files.iter().map(|(path, text)| (path.clone(), sources.add(format!("{name}/{path}"), text.clone())));
        let folder = PackFolder::from_files(&name, added.collect::<Vec<_>>());
        let protocol = protocol_files::load_folder(folder, sources).into_valid(sources)?;
        Ok(Some(OwnPack { protocol, path: PathBuf::from(name), starter: files }))
    }

    fn parse_overrides(&self) -> Result<Vec<Override>, CliError> {
        let mut texts = self.sets.clone();
        texts.extend(self.tls.overrides());
        let parsed = texts.iter().map(|text| config::parse_override(text));
        parsed.map(|parsed| parsed.map_err(CliError::from)).collect()
    }

    /// Makes the target from the arguments.
    fn parse_target(&self, overrides: &[Override], sources: &mut Sources) -> Result<Target, CliError> {
        let url = self.url.as_deref().unwrap_or(NO_URL);
        let mut make = |overrides: &[Override]| {
            config::target_from_url(sources, url, overrides, &hub::read_environment, &hub::read_secret)
                .map_err(|found| CliError::from_diagnostics(&found, sources))
        };
        let (plain, target) = (make(&[])?, make(overrides)?);
        let mut rest = target.clone();
        rest.tls = TlsOptions::default();
        rest.instances[0].settings.clear();
        if rest != plain {
            return Err(CliError::usage(
                "`init` takes only settings",
                format!("write other keys into {TARGET_FILE} afterwards"),
            ));
        }
        Ok(target)
    }

    /// Writes the target file, the workflow and, if it is new, the pack; `own` is its path, with the files of a starter pack.
    /// `deviation` is an entry without which the hub refuses clients.
    fn write_files(
        &self,
        protocol: &ValidProtocol,
        target: &Target,
        own: Option<(PathBuf, BTreeMap<String, String>)>,
        deviation: Option<&Value>,
        page: &mut InitPage<'_>,
    ) -> Result<(), CliError> {
        let instance = &target.instances[0];
        let tls = self.written_tls();
        let draft = TargetDraft {
            protocol: own.is_none().then_some(protocol.pack.name.as_str()),
            title: &protocol.pack.title,
            url: self.url.as_deref(),
            tls: &tls,
            settings: &instance.settings,
            shared: &protocol.scenarios.shared,
            programs: &protocol.scenarios.programs,
            deviation,
        };
        let drafted = draft.write();
        let starts_hub = instance.url.is_loopback();
        let (pack, starter) = own.unzip();
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        if let Some((folder, starter)) = pack.as_ref().zip(starter) {
            files.extend(starter.into_iter().map(|(path, text)| (format!("{}/{path}", folder.display()), text)));
        }
        let pack_files = files.len();
        let workflow = write_workflow(pack.as_deref(), &drafted.environment, starts_hub);
        files.insert(TARGET_FILE.to_owned(), drafted.text);
        files.insert(WORKFLOW_FILE.to_owned(), workflow);
        packs::write_files(&self.to, &files)?;
        let written = WrittenFiles {
            folder: &self.to,
            pack: pack.as_deref(),
            pack_files,
            environment: &drafted.environment,
            needs_url: self.url.is_none(),
            secret_url: address_secrets(&instance.url).next().is_some(),
            starts_hub,
        };
        page.write_files(&written, protocol);
        Ok(())
    }

    /// Returns the TLS options for the target file, whose folder its paths are relative to.
    fn written_tls(&self) -> TlsOptions {
        let here = self.to.as_os_str() == ".";
        let written = |path: PathBuf| if here { path } else { std::path::absolute(&path).unwrap_or(path) };
        let TlsOptions { ca, cert, key, insecure } = self.tls.options();
        TlsOptions { ca: ca.map(written), cert: cert.map(written), key: key.map(written), insecure }
    }

    /// Checks that no file would be overwritten, unless `--force` allows it.
    fn check_files_new(&self, own: Option<&OwnPack>) -> Result<(), CliError> {
        let mut paths: BTreeSet<PathBuf> = [TARGET_FILE, WORKFLOW_FILE].iter().map(PathBuf::from).collect();
        if let Some(own) = own {
            paths.extend(own.starter.keys().map(|path| own.path.join(path)));
        }
        let found: Vec<String> = paths
            .iter()
            .map(|path| joined(&self.to, path))
            .filter(|path| path.symlink_metadata().is_ok())
            .map(|path| path.display().to_string())
            .collect();
        if found.is_empty() || self.force {
            return Ok(());
        }
        let (verb, them) = if found.len() == 1 { ("exists", "it") } else { ("exist", "them") };
        Err(CliError::usage(
            format!("{} already {verb}", found.join(", ")),
            format!("write to another folder with --to DIR, or overwrite {them} with --force"),
        ))
    }
}

/// Joins a path to a folder; the current folder is not shown.
fn joined(folder: &Path, path: &Path) -> PathBuf {
    if folder.as_os_str() == "." { path.to_owned() } else { folder.join(path) }
}

/// Returns the GitHub workflow. `starts_hub` if the hub runs on the machine of the workflow.
fn write_workflow(pack: Option<&Path>, environment: &[String], starts_hub: bool) -> String {
    let repository = env!("CARGO_PKG_REPOSITORY").trim_start_matches("https://github.com/");
    let released = !repository.is_empty();
    let (action, replaced) = if released {
        (format!("{repository}@v{}", env!("CARGO_PKG_VERSION")), "")
    } else {
        (format!("OWNER/hubproof@v{}", env!("CARGO_PKG_VERSION")), "  # replace OWNER")
    };
    let mut with = String::new();
    if !released {
        with.push_str("          # Remove this line once hubproof has releases.\n          version: source\n");
    }
    with.push_str(&format!("          target: {TARGET_FILE}\n"));
    if let Some(pack) = pack {
        with.push_str(&format!("          pack: {}\n", yaml_text(&pack.display().to_string())));
    }
    let mut logs = "";
    if starts_hub {
        with.push_str("          # Replace ./hub by the command that starts your hub.\n");
        with.push_str("          args: --exec './hub --port 4000' --exec-log hub.log\n");
        logs = "            hub.log\n";
    }
    let secrets: String =
        environment.iter().map(|name| format!("          {name}: ${{{{ secrets.{name} }}}}\n")).collect();
    let secrets = if secrets.is_empty() { secrets } else { format!("        env:\n{secrets}") };
    let build = if starts_hub { "      # Build your hub here.\n" } else { "" };
    format!(
        "# Checks the hub on every push and pull request.
name: hubproof

on:
  push:
    branches: [main]
  pull_request:

permissions:
  contents: read

jobs:
  hub:
    runs-on: ubuntu-latest
    timeout-minutes: 15
    steps:
      - uses: actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2
{build}      - name: Check the hub
        uses: {action}{replaced}
        with:
{with}          report: |
            junit=report.xml
            json=report.json
{secrets}      - uses: actions/upload-artifact@b7c566a772e6b6bfb58ed0dc250532a479d7789f # v6.0.0
        if: always()
        with:
          name: hubproof
          path: |
            report.xml
            report.json
{logs}"
    )
}

/// Quotes a text for YAML, if necessary. A JSON string is a YAML string.
fn yaml_text(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let simple = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '.') && text.chars().all(plain);
    if simple { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// Returns the command that checks the hub with the written files.
fn check_command(folder: &Path, pack: Option<&Path>) -> String {
    let shown = |path: &Path| quote_for_shell(&joined(folder, path).display().to_string()).into_owned();
    let pack = pack.map(|pack| format!(" --pack {}", shown(pack))).unwrap_or_default();
    format!("hubproof check --target {}{pack}", shown(Path::new(TARGET_FILE)))
}
