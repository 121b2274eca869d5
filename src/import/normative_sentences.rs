//! Finds the normative sentences in a document's descriptions: sentences with a word of RFC 2119, in upper or lower
//! case.

use std::sync::LazyLock;

use regex::Regex;

use super::references::DocumentLibrary;
use super::reply_rules::RuleLine;
use crate::protocol::RuleLevel;
use crate::syntax::source::{Sources, Span};
use crate::syntax::yaml::SyntaxNode;

/// The most sentences taken from a document.
const MAX_SENTENCES: usize = 200;
/// The most characters of a sentence; a longer one is shortened.
const MAX_TEXT: usize = 300;

/// A sentence and its place.
pub struct NormativeSentence {
    pub level: RuleLevel,
    pub text: String,
    pub place: RuleLine,
}

/// The words of RFC 2119. REQUIRED, RECOMMENDED and OPTIONAL are ordinary words in lower case; `may 2026` is a month.
static LEVEL_WORDS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let words = r"\b(?:(?<must>(?i:must|shall)|REQUIRED)|(?<should>(?i:should)|RECOMMENDED)|(?<may>(?i:may)(?: \d+)?|OPTIONAL))\b";
    Regex::new(words).ok()
});

/// Returns the normative sentences of all descriptions and summaries, in the order of the document.
pub fn normative_sentences(library: &DocumentLibrary, sources: &Sources) -> Vec<NormativeSentence> {
    let mut found: Vec<(Span, NormativeSentence)> = Vec::new();
    for place in library.roots() {
        let mut open = vec![place.node];
        while let Some(node) = open.pop() {
            open.extend(node.list().unwrap_or_default());
            for (key, inner) in node.map().unwrap_or_default() {
                // Skip examples, which are payloads, and do not mistake the name of a property for a keyword.
                match (key.name.as_str(), inner.text()) {
                    ("description" | "summary", Some(text)) => add_sentences(text, inner, library, sources, &mut found),
                    ("examples" | "example" | "const" | "enum" | "default", _) => {}
                    _ => open.push(inner),
                }
            }
        }
    }
    found.sort_by_key(|(span, sentence)| (span.file, sentence.place.line, span.start));
    found.truncate(MAX_SENTENCES);
    found.into_iter().map(|(_, sentence)| sentence).collect()
}

fn add_sentences(
    text: &str,
    node: &SyntaxNode,
    library: &DocumentLibrary,
    sources: &Sources,
    found: &mut Vec<(Span, NormativeSentence)>,
) {
    for sentence in split_sentences(text) {
        let Some(level) = highest_level(&sentence) else { continue };
        let mut place = RuleLine::from_span(library, sources, node.span);
        place.line += lines_before(sources.text(node.span), &sentence);
        let text = crate::syntax::matcher::shorten(&sentence, MAX_TEXT);
        found.push((node.span, NormativeSentence { level, text, place }));
    }
}

/// Returns the strictest level that a sentence names.
fn highest_level(sentence: &str) -> Option<RuleLevel> {
    let words = LEVEL_WORDS.as_ref()?.captures_iter(sentence);
    let level = |word: regex::Captures<'_>| {
        if word.name("must").is_some() {
            Some(RuleLevel::Must)
        } else if word.name("should").is_some() {
            Some(RuleLevel::Should)
        } else {
            word.name("may").filter(|may| !may.as_str().ends_with(|c: char| c.is_ascii_digit())).map(|_| RuleLevel::May)
        }
    };
    words.filter_map(level).max()
}

/// Splits a text at the ends of sentences, at empty lines and at items of lists.
fn split_sentences(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for line in text.lines() {
        let item = line.trim_start();
        let begins = item.strip_prefix(['-', '*', '#']).map(|rest| rest.trim_start_matches('#'));
        let line = match begins.filter(|rest| rest.starts_with(' ')) {
            Some(rest) => {
                found.push(String::new());
                rest
            }
            None => line,
        };
        if item.is_empty() {
            found.push(String::new());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        for (index, word) in words.iter().enumerate() {
            let last = found.last_mut();
            let Some(last) = last else { continue };
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
            let ends = word.trim_end_matches(['"', '\'', ')', '`', '*']).ends_with(['.', '!', '?']);
            let continues = words.get(index + 1).is_some_and(|next| next.starts_with(|c: char| c.is_lowercase()));
            if ends && !continues {
                found.push(String::new());
            }
        }
        if item.starts_with('#') {
            found.push(String::new());
        }
    }
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// Returns the number of lines before a sentence in a source, in which the sentence may span several lines.
fn lines_before(source: &str, sentence: &str) -> usize {
    let wanted: Vec<&str> = sentence.split(' ').collect();
    let words: Vec<(usize, &str)> = source
        .lines()
        .enumerate()
        .flat_map(|(line, text)| text.split_whitespace().map(move |word| (line, word)))
        .collect();
    // Quotes and other punctuation of YAML may touch the first and the last word.
    let same = |word: &str, wanted: &str| word == wanted || word.trim_matches(['"', '\'', ',', '}']) == wanted;
    let at = words
        .windows(wanted.len())
        .find(|window| window.iter().zip(&wanted).all(|((_, word), wanted)| same(word, wanted)));
    at.and_then(|window| window.first()).map_or(0, |(line, _)| *line)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("A hub MUST answer.", Some(RuleLevel::Must))]
    #[case("a hub shall not close", Some(RuleLevel::Must))]
    #[case("It should answer, and it may wait.", Some(RuleLevel::Should))]
    #[case("It May wait.", Some(RuleLevel::May))]
    #[case("since may 2026", None)]
    #[case("a required member, mustard", None)]
    #[case("The member is REQUIRED.", Some(RuleLevel::Must))]
    fn keywords_determine_the_level_of_a_sentence(#[case] sentence: &str, #[case] expected: Option<RuleLevel>) {
        assert_eq!(highest_level(sentence), expected);
    }

    #[test]
    fn a_text_is_split_into_sentences() {
        let text = "One must, e.g. so.\nAnother\nmay.  Third\n\n- item should\n# Head\n\"must.\" Last";
        let expected = ["One must, e.g. so.", "Another may.", "Third", "item should", "Head", "\"must.\"", "Last"];
        assert_eq!(split_sentences(text), expected);
        assert_eq!(lines_before(text, "Another may."), 1);
        assert_eq!(lines_before(text, "item should"), 4);
        assert_eq!(lines_before(text, "absent"), 0);
    }
}
