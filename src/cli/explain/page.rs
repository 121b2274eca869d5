//! The pages of `hubproof explain`.

use std::collections::{BTreeMap, BTreeSet};

use super::names::NameKind;
use crate::cli::protocol_files::ValidProtocol;
use crate::protocol::schema::referenced_rules;
use crate::protocol::{MessageType, Rule, RuleBasis, RuleLevel};
use crate::report::terminal_page::{BOLD, DIM, Page, list};
use crate::report::text::{escape_unprintable, format_count, quote_for_shell, shorten};
use crate::scenario::Need;
use crate::scenario::model::{Check, RuleUse};
use crate::syntax::explanation::Explanation;
use crate::syntax::source::{FileId, Span};
use crate::syntax::yaml::{self, SyntaxNode};

/// Most places of steps and schemas that a page lists.
const MAX_PLACES: usize = 12;
/// Most faults that a page lists.
const MAX_FAULTS: usize = 6;
/// Most scenarios in the line of a place.
const MAX_SCENARIOS: usize = 3;
/// Most characters of the step at a place.
const MAX_STEP_CHARS: usize = 60;

/// A place in a file that judges a rule.
struct JudgingPlace {
    place: String,
    what: String,
}

/// The page's report is the list of arguments that select the user's pack.
impl Page<'_, Vec<String>> {
    pub(super) fn write_name(&mut self, kind: &NameKind, explanation: &Explanation) {
        self.write_title(explanation.name, kind.one);
        self.write_explanation(explanation);
        if kind.one == "a mutation of fuzz" {
            self.write_commands(&[format!("hubproof fuzz URL --protocol NAME --mutation {}", explanation.name)]);
        }
    }

    fn write_explanation(&mut self, explanation: &Explanation) {
        self.field("means", explanation.means);
        if !explanation.usually.is_empty() {
            self.field("usually", explanation.usually);
        }
        if !explanation.next.is_empty() {
            self.field("next", explanation.next);
        }
    }

    pub(super) fn write_oracle(&mut self, rule: &Rule) {
        self.write_title(&rule.id, "an oracle of fuzz, which any hub must keep");
        self.write_rule_text(rule);
        self.field("looks at", &rule.sees);
        self.write_usual_faults(rule);
        let mut commands = vec!["hubproof fuzz URL --protocol NAME".to_owned()];
        if rule.id == crate::fuzz::differential::compare::DIFFERS_RULE {
            commands = vec!["hubproof fuzz URL --protocol NAME --against OTHER_URL".to_owned()];
        }
        commands.extend(
            faults_of(rule)
                .first()
                .map(|fault| format!("hubproof fuzz --protocol {} --fault {}", fault.protocol, fault.id)),
        );
        self.write_commands(&commands);
    }

    pub(super) fn write_rule(&mut self, protocol: &ValidProtocol, rule: &Rule) {
        let pack = &protocol.pack;
        self.write_title(&rule.id, &format!("a rule of {} {}", pack.name, pack.version));
        self.write_rule_text(rule);
        let document = if pack.document.is_empty() { String::new() } else { format!(" of \"{}\"", pack.document) };
        let basis = match rule.basis {
            RuleBasis::Stated => format!("states it in {}{document}", rule.place),
            RuleBasis::Implied => format!("implies it in {}{document}", rule.place),
            RuleBasis::Silent => format!("is silent in {}{document}, so the rule is only a guess", rule.place),
        };
        self.field("document", &escape_unprintable(&basis));
        if let Some(from) = &rule.from {
            self.field("reading", &format!("it follows from: {}", escape_unprintable(from)));
        }
        self.field("in the pack", &self.sources.path_and_line(rule.span));
        if !rule.sees.is_empty() {
            self.field("looks at", &escape_unprintable(&rule.sees));
        }
        if let Some(reason) = &rule.out_of_scope {
            self.field("not checked", &format!("no hub can break it: {}", escape_unprintable(reason)));
            return;
        }
        let steps = self.judging_steps(protocol, rule);
        let schemas = self.judging_schemas(protocol, rule);
        let answers = self.fuzz_places(protocol, rule);
        if steps.is_empty() && schemas.is_empty() && answers.is_empty() {
            self.field("not checked", "no scenario and no schema names it");
        }
        self.write_places("scenarios", &steps);
        self.write_places("schemas", &schemas);
        self.write_places("fuzz", &answers);
        self.write_needs(protocol, rule);
        self.write_usual_faults(rule);
        if steps.is_empty() && schemas.is_empty() {
            return;
        }
        let selection = self.selection(protocol);
        let id = quote_for_shell(&rule.id);
        let mut commands = vec![format!("hubproof check URL {selection} --rule {id}")];
        let fault = faults_of(rule).into_iter().find(|fault| !fault.occasional);
        commands.extend(
            fault.map(|fault| format!("hubproof check --protocol {} --rule {id} --fault {}", fault.protocol, fault.id)),
        );
        self.write_commands(&commands);
    }

    pub(super) fn write_schema(&mut self, protocol: &ValidProtocol, message: &MessageType) {
        let pack = &protocol.pack;
        self.write_title(&format!("schema:{}", message.name), &format!("the schema of a message of {}", pack.name));
        let [_, schema] = crate::interpreter::FRAME_CHECK_EXPLANATIONS;
        self.field("means", schema.means);
        self.field("usually", schema.usually);
        let about = if message.summary.is_empty() { &message.title } else { &message.summary };
        if !about.is_empty() {
            self.field("message", &escape_unprintable(about));
        }
        self.field("declared in", &self.sources.path_and_line(message.span));
        let rules: BTreeSet<&String> = message.schema.rules.iter().chain(&message.schema.should_rules).collect();
        let rules: Vec<String> = rules.into_iter().cloned().collect();
        if !rules.is_empty() {
            self.field("rules", &list(&rules, rules.len()));
        }
        let pack_name = match self.report.iter().position(|word| word == "--pack") {
            Some(at) => self.report.get(at + 1).cloned().unwrap_or_default(),
            None => pack.name.clone(),
        };
        let words = [quote_for_shell(&pack_name), quote_for_shell(&message.name)].join(" ");
        self.write_commands(&[format!("hubproof packs validate {words} FILE")]);
    }

    fn write_title(&mut self, name: &str, what: &str) {
        self.line(&format!("{}   {}", self.paint(BOLD, &escape_unprintable(name)), self.paint(DIM, what)));
        self.gap();
    }

    fn write_rule_text(&mut self, rule: &Rule) {
        self.field("demands", &escape_unprintable(&rule.text));
        let level = match (rule.level, rule.basis) {
            (RuleLevel::Must, RuleBasis::Implied) => {
                "must: a hub that breaks it fails the run; with --stated-only it only warns"
            }
            (RuleLevel::Must, _) => "must: a hub that breaks it fails the run",
            (RuleLevel::Should, _) => "should: a hub that breaks it gets a warning, and fails only with --strict",
            (RuleLevel::May, _) => "may: what the hub does is only recorded",
        };
        self.field("level", level);
    }

    /// Writes how hubs usually break a rule: as the pack says, and by the faults of the reference server.
    fn write_usual_faults(&mut self, rule: &Rule) {
        if let Some(broken_by) = &rule.broken_by {
            self.field("broken by", &escape_unprintable(broken_by));
        }
        let faults = faults_of(rule);
        let mut name = if rule.broken_by.is_some() { "for example" } else { "broken by" };
        for fault in faults.iter().take(MAX_FAULTS) {
            self.field(std::mem::take(&mut name), &format!("{} ({})", fault.text, fault.id));
        }
        if let Some(first) = faults.first()
            && faults.len() > MAX_FAULTS
        {
            let more = format_count(faults.len() - MAX_FAULTS, "more fault");
            self.field("", &format!("{more}; hubproof serve --list-faults {} lists all", first.protocol));
        }
    }

    /// Returns the steps that judge a rule, each once: scenes and cases are played in several scenarios.
    fn judging_steps(&self, protocol: &ValidProtocol, rule: &Rule) -> Vec<JudgingPlace> {
        let mut steps: BTreeMap<(&str, u32), (&Check, &RuleUse, BTreeSet<&str>)> = BTreeMap::new();
        for program in &protocol.scenarios.programs {
            for check in &program.checks {
                if let Some(used) = check.rules.iter().find(|used| used.id == rule.id) {
                    let key = (self.sources.file(check.span.file).path.as_str(), check.span.start);
                    steps.entry(key).or_insert((check, used, BTreeSet::new())).2.insert(&program.id);
                }
            }
        }
        let describe = |(check, used, scenarios): (&Check, &RuleUse, BTreeSet<&str>)| {
            let (line, _) = self.sources.lines(check.span);
            let file = self.sources.file(check.span.file);
            let step = file.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
            let step = step.trim().trim_start_matches("- ");
            let step = shorten(&escape_unprintable(step), MAX_STEP_CHARS).into_owned();
            let lowered = if used.lowered { format!(" (only as {})", used.level.name()) } else { String::new() };
            // The path of a scenario's own file says its name.
            let is_own = |id: &&str| id.split('/').nth(1).is_some_and(|id| file.path.ends_with(&format!("/{id}.yaml")));
            let names: Vec<&str> = scenarios.into_iter().collect();
            let of = match names.len() {
                _ if names.iter().all(is_own) => String::new(),
                few if few <= MAX_SCENARIOS => format!(" (in {})", names.join(", ")),
                many => format!(" (in {})", format_count(many, "scenario")),
            };
            JudgingPlace { place: self.sources.path_and_line(check.span), what: format!("{step}{lowered}{of}") }
        };
        steps.into_values().map(describe).collect()
    }

    /// Returns the places in the schemas of messages that name a rule.
    fn judging_schemas(&self, protocol: &ValidProtocol, rule: &Rule) -> Vec<JudgingPlace> {
        let mut places = Vec::new();
        for message in &protocol.pack.messages {
            let named: Vec<_> =
                referenced_rules(&message.schema.source).into_iter().filter(|named| named.rule == rule.id).collect();
            if named.is_empty() {
                continue;
            }
            let tree = self.schema_file(protocol, message);
            for named in named {
                let span = tree.as_ref().map_or(message.span, |tree| tree.at_pointer(&named.pointer).span);
                let should = if named.should { " (only as should)" } else { "" };
                let what = format!("schema:{}{should}", message.name);
                places.push(JudgingPlace { place: self.sources.path_and_line(span), what });
            }
        }
        places
    }

    /// Returns the tree of the file with the schema of a message; `None` if the schema is part of the document.
    fn schema_file(&self, protocol: &ValidProtocol, message: &MessageType) -> Option<SyntaxNode> {
        let files = protocol.folder.pack.iter().filter(|(path, _)| path.ends_with(".schema.json"));
        let is_its = |file: &FileId| {
            let json = serde_json::from_str::<serde_json::Value>(&self.sources.file(*file).text);
            json.is_ok_and(|json| json == message.schema.source)
        };
        let (_, file) = files.into_iter().find(|(_, file)| is_its(file))?;
        yaml::parse(self.sources, *file).ok()
    }

    /// Returns the places in shared.yaml where the rule demands an answer to fuzzed input.
    fn fuzz_places(&self, protocol: &ValidProtocol, rule: &Rule) -> Vec<JudgingPlace> {
        let file = protocol.folder.scenarios.get("shared.yaml").and_then(|file| yaml::parse(self.sources, *file).ok());
        let mut places = Vec::new();
        if let Some(fuzz) = file.as_ref().and_then(|root| root.get("fuzz")) {
            for span in uses_of_rule(fuzz, &rule.id) {
                let what = "the answer to fuzzed input".to_owned();
                places.push(JudgingPlace { place: self.sources.path_and_line(span), what });
            }
        }
        places
    }

    fn write_places(&mut self, name: &str, places: &[JudgingPlace]) {
        for (index, JudgingPlace { place, what }) in places.iter().take(MAX_PLACES).enumerate() {
            self.field(if index == 0 { name } else { "" }, &format!("{place}  {what}"));
        }
        if places.len() > MAX_PLACES {
            self.field("", &format!("and {}", format_count(places.len() - MAX_PLACES, "more place")));
        }
    }

    /// Writes what a rule's scenarios need from the target.
    fn write_needs(&mut self, protocol: &ValidProtocol, rule: &Rule) {
        let judges = |checks: &[Check]| checks.iter().any(|check| check.rules.iter().any(|used| used.id == rule.id));
        let programs: Vec<_> = protocol.scenarios.programs.iter().filter(|program| judges(&program.checks)).collect();
        let mut needs: BTreeMap<String, usize> = BTreeMap::new();
        for need in programs.iter().flat_map(|program| program.needs.iter().map(Need::name)) {
            *needs.entry(need).or_default() += 1;
        }
        if needs.is_empty() {
            return;
        }
        let mut name = "needs";
        for (need, count) in &needs {
            let some = if *count == programs.len() { "all".to_owned() } else { count.to_string() };
            let text = format!("{}: {some} of {}", escape_unprintable(need), format_count(programs.len(), "scenario"));
            self.field(std::mem::take(&mut name), &text);
        }
        let shared = &protocol.scenarios.shared;
        let words = |text: &str| -> Vec<String> {
            text.split(|c: char| !(c.is_alphanumeric() || c == '_')).map(str::to_owned).collect()
        };
        let named: BTreeSet<String> = needs.keys().flat_map(|need| words(need)).collect();
        for (setting, declared) in shared.settings.iter().filter(|(setting, _)| named.contains(*setting)) {
            let secret = if declared.secret { "secret" } else { "setting" };
            self.field("", &format!("{secret} `{setting}`: {}", escape_unprintable(&declared.about)));
        }
        for (hook, declared) in shared.hooks.iter().filter(|(hook, _)| named.contains(*hook)) {
            self.field("", &format!("hook `{hook}`: {}", escape_unprintable(&declared.about)));
        }
        self.field("", &format!("hubproof check URL {} --list", self.selection(protocol)));
    }

    /// Returns the options that select a protocol.
    fn selection(&self, protocol: &ValidProtocol) -> String {
        let named = ["--protocol".to_owned(), protocol.pack.name.clone()];
        let words = if self.report.is_empty() { &named[..] } else { self.report };
        words.iter().map(|word| quote_for_shell(word)).collect::<Vec<_>>().join(" ")
    }

    /// Writes commands to run next, each on one line, so that they can be copied.
    fn write_commands(&mut self, commands: &[String]) {
        for (index, command) in commands.iter().enumerate() {
            let name = if index == 0 { "next" } else { "" };
            self.line(&format!("  {name:<12}{}", self.paint(BOLD, command)));
        }
    }
}

/// Returns the faults of the reference server that break a rule, the clearest first: those that every conversation shows,
/// and that break few other rules.
fn faults_of(rule: &Rule) -> Vec<&'static hubproof_reference::Fault> {
    let breaks = |fault: &&hubproof_reference::Fault| fault.rules.contains(&rule.id.as_str());
    let mut faults: Vec<_> = hubproof_reference::faults().filter(breaks).collect();
    faults.sort_by_key(|fault| (fault.occasional, fault.rules.len()));
    faults
}

/// Returns the places in the lists of rules of a tree that name a rule.
fn uses_of_rule(node: &SyntaxNode, id: &str) -> Vec<Span> {
    let named = |node: &SyntaxNode| node.text().is_some_and(|text| text.split(' ').next() == Some(id));
    if let Some(members) = node.map() {
        return members.iter().flat_map(|(_, value)| uses_of_rule(value, id)).collect();
    }
    let items = node.list().unwrap_or_default();
    items.iter().flat_map(|item| if named(item) { vec![item.span] } else { uses_of_rule(item, id) }).collect()
}
