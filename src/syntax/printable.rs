//! Text from hubs and packs, made safe to show.

use std::borrow::Cow;
use std::fmt::Write;

/// Makes text from a hub safe for terminals and legal in XML 1.0: escapes control characters, bidirectional controls,
/// characters without width and noncharacters, and replaces line breaks and tabs with blanks.
pub fn escape_unprintable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(' '),
            '\r' => {}
            c if is_unprintable(c) => {
                // Writing into a String cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Whether a character cannot be seen, or changes how others are shown.
pub fn is_unprintable(c: char) -> bool {
    let bidi = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let no_width = matches!(c, '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    let line_end = matches!(c, '\u{2028}' | '\u{2029}');
    let no_character = u32::from(c) & 0xfffe == 0xfffe;
    c.is_control() || bidi || no_width || line_end || no_character
}

/// Makes the output of a command safe for terminals and for the logs of CI services: escapes unprintable characters
/// other than line breaks, tabs and colour codes, and breaks up whatever those services would run as a command.
pub fn defuse_output(text: &str) -> Cow<'_, str> {
    let odd = |c: char| c != '\n' && c != '\t' && is_unprintable(c);
    let mut out = separate_commands(text);
    if out.contains(odd) {
        let mut escaped = String::with_capacity(out.len() + 8);
        let mut rest = &*out;
        while let Some(at) = rest.find(odd) {
            escaped.push_str(&rest[..at]);
            rest = &rest[at..];
            let length = color_length(rest);
            match rest.chars().next() {
                Some(c) if length == 0 => {
                    let _ = write!(escaped, "\\u{{{:x}}}", u32::from(c));
                    rest = &rest[c.len_utf8()..];
                }
                _ => {
                    escaped.push_str(&rest[..length]);
                    rest = &rest[length..];
                }
            }
        }
        escaped.push_str(rest);
        out = Cow::Owned(escaped);
    }
    if out.lines().any(|line| line.trim_start().starts_with("::")) {
        let line = |line: &str| match line.trim_start().starts_with("::") {
            true => line.replacen("::", ": :", 1),
            false => line.to_owned(),
        };
        out = Cow::Owned(out.split('\n').map(line).collect::<Vec<_>>().join("\n"));
    }
    out
}

/// Makes a document for programs, such as JSON, safe for terminals and logs, and keeps it valid: unprintable characters, which
/// are only in strings, become escapes of JSON.
pub fn defuse_documents(text: &str) -> Cow<'_, str> {
    let odd = |c: char| !matches!(c, '\n' | '\r' | '\t') && is_unprintable(c);
    let out = separate_commands(text);
    if !out.contains(odd) {
        return out;
    }
    let mut escaped = String::with_capacity(out.len() + 8);
    for c in out.chars() {
        if odd(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing into a String cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Separates the letters of the commands that Azure Pipelines and GitHub read anywhere in a line of a log.
fn separate_commands(text: &str) -> Cow<'_, str> {
    let commands = text.contains("##[") || text.contains("##vso[");
    if commands { Cow::Owned(text.replace("##[", "# #[").replace("##vso[", "# #vso[")) } else { Cow::Borrowed(text) }
}

/// Returns the length of the change of colour with which a text begins; 0 if there is none.
fn color_length(text: &str) -> usize {
    let Some(codes) = text.strip_prefix("\u{1b}[") else { return 0 };
    let end = codes.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(codes.len());
    if codes[end..].starts_with('m') { end + 3 } else { 0 }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("grüße 🙂", "grüße 🙂")]
    #[case("a\nb\tc\r", "a b c")]
    #[case("\u{1b}[31mred", "\\u{1b}[31mred")]
    #[case("\0\u{9b}\u{fffe}\u{202e}", "\\u{0}\\u{9b}\\u{fffe}\\u{202e}")]
    #[case("a\u{200b}b\u{2060}\u{e0041}", "a\\u{200b}b\\u{2060}\\u{e0041}")]
    fn control_characters_in_text_of_a_hub_are_escaped(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(escape_unprintable(text), expected);
    }

    #[test]
    fn documents_stay_valid_without_unprintable_characters() {
        let value = serde_json::json!({ "a\u{9b}1m": ["\u{202e}\u{7f}\u{1b}]0;x\u{7}", "\u{e0041}ü\n"] });
        let text = format!("{value:#}\r\n");
        let shown = defuse_documents(&text);
        assert!(!shown.contains(|c| c != '\n' && c != '\r' && is_unprintable(c)), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[rstest]
    #[case("\u{1b}[1;31mred\u{1b}[0m\n\tgrüße\n", "\u{1b}[1;31mred\u{1b}[0m\n\tgrüße\n")]
    #[case("\u{1b}]52;c;aGk=\u{7}\u{1b}[2J\r", "\\u{1b}]52;c;aGk=\\u{7}\\u{1b}[2J\\u{d}")]
    #[case("\u{1b}[31\u{1b}]0;x\u{9b}", "\\u{1b}[31\\u{1b}]0;x\\u{9b}")]
    #[case("\u{202e}abc", "\\u{202e}abc")]
    #[case("a ##vso[task.setvariable] ##[add-mask]x ###[y", "a # #vso[task.setvariable] # #[add-mask]x ## #[y")]
    #[case("a\n  ::stop-commands::x\n::y\na ::z", "a\n  : :stop-commands::x\n: :y\na ::z")]
    fn output_holds_no_commands_for_terminals_or_logs(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(defuse_output(text), expected);
    }
}
