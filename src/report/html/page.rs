//! The frame of a page: templates, escaping, the content security policy, and names for links.

use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::report::text::is_unprintable;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("page.js");
const PLOT_STYLE: &str = include_str!("vendor/uPlot.min.css");
const PLOT_SCRIPT: &str = include_str!("vendor/uPlot.iife.min.js");

const TEMPLATES: &[(&str, &str)] = &[
    ("page", include_str!("templates/page.html")),
    ("check", include_str!("templates/check.html")),
    ("finding", include_str!("templates/finding.html")),
    ("conversation", include_str!("templates/conversation.html")),
    ("run", include_str!("templates/run.html")),
    ("fuzz", include_str!("templates/fuzz.html")),
    ("figure", include_str!("templates/figure.html")),
    ("load", include_str!("templates/load.html")),
    ("live", include_str!("templates/live.html")),
    ("ledger", include_str!("templates/ledger.html")),
    ("observed", include_str!("templates/observed.html")),
    ("compare", include_str!("templates/compare.html")),
];

/// Builds the value of a template from members: a name, or `name => expression`.
macro_rules! view {
    (@value $key:ident) => { $key };
    (@value $key:ident $value:expr) => { $value };
    ($($key:ident $(=> $value:expr)?),* $(,)?) => {
        minijinja::value::Value::from(std::collections::BTreeMap::from([$((
            stringify!($key),
            minijinja::value::Value::from(minijinja::value::Serde(&$crate::report::html::page::view!(@value $key $($value)?))),
        )),*]))
    };
}
pub(super) use view;

/// A template cannot be rendered: a mistake of hubproof, not of a report.
#[derive(Debug, thiserror::Error)]
#[error("failed to render the page: {0:#}; please report this")]
pub struct PageError(#[from] minijinja::Error);

/// The templates of all pages.
pub struct Templates(Environment<'static>);

impl Templates {
    pub fn new() -> Result<Self, PageError> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_formatter(|out, state, value| match value.kind() {
            ValueKind::String if !value.is_safe() => {
                let text = visible(value.as_str().unwrap_or_default());
                out.write_str(&escape_markup(&text)).map_err(minijinja::Error::from)
            }
            _ => minijinja::escape_formatter(out, state, value),
        });
        environment.add_filter("grouped", |number: f64| format_number(number));
        environment.add_filter("ms", |number: Option<f64>| number.map_or("-".to_owned(), format_ms));
        environment.add_function("figure", |state: &minijinja::State<'_, '_>, plot: Value| {
            state.env().get_template("figure")?.render(plot).map(Value::from_safe_string)
        });
        environment.add_filter("some", |names: Vec<String>, most: usize| list_some(names.iter(), most));
        environment.add_filter("glyph", |verdict: String| glyph(&verdict));
        for (name, source) in TEMPLATES {
            environment.add_template(name, source)?;
        }
        Ok(Self(environment))
    }

    /// Renders a part of a page, for use in another template.
    pub fn part(&self, name: &str, view: impl Serialize) -> Result<Value, PageError> {
        Ok(Value::from_safe_string(self.0.get_template(name)?.render(Serde(view))?))
    }

    /// Renders a whole page around its body. `plots` is the data of its plots, as JSON.
    pub fn page(&self, title: &str, body: &Value, plots: Option<&serde_json::Value>) -> Result<String, PageError> {
        self.whole_page(title, body, plots, "")
    }

    /// Renders a page with plots that talks to the server from which it came.
    pub fn live_page(&self, title: &str, body: &Value) -> Result<String, PageError> {
        self.whole_page(title, body, Some(&serde_json::json!([])), "; connect-src 'self'")
    }

    fn whole_page(
        &self,
        title: &str,
        body: &Value,
        plots: Option<&serde_json::Value>,
        permitted: &str,
    ) -> Result<String, PageError> {
        let style = if plots.is_some() { format!("{PLOT_STYLE}\n{STYLE}") } else { STYLE.to_owned() };
        let scripts: &[&str] = if plots.is_some() { &[PLOT_SCRIPT, SCRIPT] } else { &[SCRIPT] };
        let hashes: Vec<String> = scripts.iter().map(|script| csp_hash(script)).collect();
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; img-src data:; base-uri 'none'; form-action 'none'{permitted}",
            hashes.join(" "),
            csp_hash(&style)
        );
        let safe = |text: &str| Value::from_safe_string(text.to_owned());
        Ok(self.0.get_template("page")?.render(view! {
            title,
            body,
            policy => safe(&policy),
            style => safe(&style),
            scripts => scripts.iter().map(|script| safe(script)).collect::<Vec<_>>(),
            plots => plots.map(|plots| Value::from_safe_string(script_data(plots))),
        })?)
    }
}

fn csp_hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64.encode(Sha256::digest(text)))
}

/// Writes data for a script block: no text in it can end the block.
fn script_data(data: &serde_json::Value) -> String {
    let mut out = String::new();
    for c in data.to_string().chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Escapes text for HTML, in elements and in attributes.
fn escape_markup(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Replaces characters that cannot be seen by their code: `\u{202e}`. Line breaks and tabs remain.
pub fn visible(text: &str) -> String {
    let hidden = |c: char| is_unprintable(c) && !matches!(c, '\n' | '\t');
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if hidden(c) => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Ids for links: each is unique on its page, whatever the names in a report are.
#[derive(Default)]
pub struct Anchors {
    used: HashSet<String>,
    known: BTreeMap<String, String>,
    placed: HashSet<String>,
}

impl Anchors {
    /// Returns the id for a name; the same name always has the same id.
    pub fn id(&mut self, name: &str) -> String {
        if let Some(id) = self.known.get(name) {
            return id.clone();
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let base: String = name.chars().take(120).map(|c| if plain(c) { c } else { '-' }).collect();
        let mut id = base.clone();
        let mut number = 1;
        while !self.used.insert(id.clone()) {
            number += 1;
            id = format!("{base}-{number}");
        }
        self.known.insert(name.to_owned(), id.clone());
        id
    }

    /// Returns the id of the element that links to a name lead to. If there is one already, the id is a new one.
    pub fn element(&mut self, name: &str) -> String {
        let id = self.id(name);
        if self.placed.insert(id.clone()) {
            return id;
        }
        self.known.remove(name);
        let another = self.id(name);
        self.known.insert(name.to_owned(), id);
        another
    }

    /// Keeps ids that the templates use themselves from being given to a name.
    pub fn reserve(&mut self, ids: impl IntoIterator<Item = String>) {
        self.used.extend(ids);
    }
}

/// Formats `A, B and 3 more`.
pub fn list_some<'a>(names: impl ExactSizeIterator<Item = &'a String> + Clone, most: usize) -> String {
    let shown = names.clone().take(most).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > most { format!("{shown} and {} more", names.len() - most) } else { shown }
}

/// Returns the sign of a verdict or status, shown beside its name.
pub fn glyph(verdict: &str) -> &'static str {
    match verdict {
        "pass" | "holds" | "held" | "valid" => "✓",
        "fail" | "broken" | "invalid" => "✗",
        "warn" | "suspect" | "uncertain" => "!",
        "info" => "i",
        "inconclusive" | "unobserved" => "?",
        "running" => "▶",
        _ => "–",
    }
}

/// Formats a time in milliseconds with three digits.
pub fn format_ms(ms: f64) -> String {
    let (value, unit) = match ms {
        _ if !ms.is_finite() || ms < 0.0 => return "-".to_owned(),
        _ if ms >= 60_000.0 => return format!("{:.0} min {:.0} s", (ms / 60_000.0).floor(), (ms % 60_000.0) / 1e3),
        _ if ms >= 1_000.0 => (ms / 1e3, "s"),
        _ if ms >= 1.0 || ms == 0.0 => (ms, "ms"),
        _ => (ms * 1e3, "µs"),
    };
    let digits = match value {
        _ if value == 0.0 || value >= 100.0 => 0,
        _ if value >= 10.0 => 1,
        _ if unit == "µs" => 0,
        _ => 2,
    };
    format!("{value:.digits$} {unit}")
}

/// Formats a number with groups of three digits, and a fraction only if the number is small.
pub fn format_number(number: f64) -> String {
    if !number.is_finite() {
        return "-".to_owned();
    }
    if number.fract() != 0.0 && number.abs() < 1_000.0 {
        let digits = if number.abs() < 10.0 { 2 } else { 1 };
        return format!("{number:.digits$}");
    }
    let digits = format!("{:.0}", number.abs());
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push('\u{a0}');
        }
        out.push(digit);
    }
    if number < 0.0 { format!("−{out}") } else { out }
}
