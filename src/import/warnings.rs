//! Merges equal warnings about several parts of a document.

use crate::syntax::diagnostic::{Diagnostic, Severity};

/// The most names in a merged warning.
const MAX_NAMES: usize = 12;

/// The words of a warning about one part of a document, and about several.
const PLURALS: [(&str, &str); 9] = [
    ("this example of ", "examples of "),
    ("the channel ", "the channels "),
    ("the operation ", "the operations "),
    (" is ignored", " are ignored"),
    ("it is ", "they are "),
    ("it cannot ", "they cannot "),
    ("it does not match its schema", "they do not match their schemas"),
    ("its payload is ", "their payloads are "),
    ("no payload was found that matches its schema", "no payloads were found that match their schemas"),
];

/// Merges warnings that differ only in the first name that they quote; the merged warning has the place of the first.
pub fn merge_warnings(diagnostics: &mut Vec<Diagnostic>) {
    let mut kept: Vec<(Diagnostic, Vec<String>)> = Vec::new();
    for diagnostic in std::mem::take(diagnostics) {
        let quoted = quoted_name(&diagnostic).map(|(_, name, _)| name.to_owned());
        let same = |(known, _): &&mut (Diagnostic, Vec<String>)| match (quoted_name(known), quoted_name(&diagnostic)) {
            (Some((before, _, after)), Some(other)) => {
                (before, after) == (other.0, other.2) && known.help == diagnostic.help
            }
            _ => false,
        };
        match kept.iter_mut().find(same) {
            Some((_, names)) => names.extend(quoted.filter(|name| !names.contains(name))),
            None => kept.push((diagnostic, quoted.into_iter().collect())),
        }
    }
    diagnostics.extend(kept.into_iter().map(|(mut diagnostic, names)| {
        if names.len() > 1
            && let Some((before, _, after)) = quoted_name(&diagnostic)
        {
            let list = names.iter().take(MAX_NAMES).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let more = names.len().saturating_sub(MAX_NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let plural = |text: &str| PLURALS.iter().fold(text.to_owned(), |text, (one, many)| text.replace(one, many));
            diagnostic.message = format!("{}{list}{more}{}", plural(before), plural(after));
        }
        diagnostic
    }));
}

/// Splits the message of a warning about an ignored part into the text before its first quoted name, that name, and the
/// text after it.
fn quoted_name(diagnostic: &Diagnostic) -> Option<(&str, &str, &str)> {
    let warning = diagnostic.severity == Severity::Warning && diagnostic.message.contains(" is ignored");
    let (before, rest) = diagnostic.message.split_once('`').filter(|_| warning)?;
    let (name, after) = rest.split_once('`')?;
    Some((before, name, after))
}
