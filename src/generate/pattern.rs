//! Regular expressions of schemas. They have the dialect of ECMA-262, in which `\d` and `\w` are ASCII only. Texts are
//! generated with the translation that the validator uses, so that both agree.

use std::borrow::Cow;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look};
use serde_json::json;

use super::rng::RandomSource;
use crate::syntax::json_schema;

/// The most parts and characters of a generated text.
const MAX_PARTS: usize = 1 << 16;
/// The most repetitions beyond the least, where the expression sets no limit.
const MAX_FREE_REPETITIONS: usize = 8;
/// How many texts are tried where only the validator knows whether one matches.
const ATTEMPTS: usize = 64;

/// Compiles an expression; `None` if it is invalid, looks around, or is too long.
pub fn compile(pattern: &str) -> Option<regex::Regex> {
    regex::Regex::new(&translate(pattern)?).ok()
}

/// Returns an expression in the dialect of the regex crates; `None` if it is invalid or too long.
fn translate(pattern: &str) -> Option<Cow<'_, str>> {
    if pattern.len() > json_schema::MAX_PATTERN_BYTES {
        return None;
    }
    jsonschema_regex::to_rust_regex(pattern).ok()
}

/// Returns a text that matches an expression; `None` if none is found, or if it would be too long.
pub fn draw_match(pattern: &str, dice: &mut RandomSource) -> Option<String> {
    let plain = without_look_around(pattern);
    let translated = translate(&plain)?;
    // The dot of ECMA-262 matches no carriage return either.
    let hir = regex_syntax::ParserBuilder::new().crlf(true).build().parse(&translated).ok()?;
    let mut draw = |attempts: &mut usize| {
        let mut text = String::new();
        *attempts = attempts.checked_sub(1)?;
        write_match(&hir, dice, &mut text, &mut MAX_PARTS.clone())?;
        Some(text)
    };
    if matches!(plain, Cow::Borrowed(_)) && is_anchored_at_ends_only(&hir) {
        return draw(&mut 1);
    }
    let validator = json_schema::build_validator(&json!({ "pattern": pattern })).ok()?;
    let mut attempts = ATTEMPTS;
    std::iter::from_fn(|| draw(&mut attempts)).find(|text| validator.is_valid(&json!(text)))
}

/// Removes all groups that look ahead or behind.
fn without_look_around(pattern: &str) -> Cow<'_, str> {
    if !["(?=", "(?!", "(?<=", "(?<!"].iter().any(|group| pattern.contains(group)) {
        return Cow::Borrowed(pattern);
    }
    let mut kept = String::with_capacity(pattern.len());
    // Where each open group begins in `kept`, if it looks around.
    let mut open: Vec<Option<usize>> = Vec::new();
    let mut in_class = false;
    let mut letters = pattern.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '(' if !in_class => {
                let rest = &pattern[at..];
                let looks = ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|group| rest.starts_with(group));
                open.push(looks.then_some(kept.len()));
            }
            '[' => in_class = true,
            ']' => in_class = false,
            _ => {}
        }
        kept.push(letter);
        match letter {
            '\\' => kept.extend(letters.next().map(|(_, escaped)| escaped)),
            ')' if !in_class => {
                if let Some(start) = open.pop().flatten() {
                    kept.truncate(start);
                }
            }
            _ => {}
        }
    }
    Cow::Owned(kept)
}

/// Whether anchors stand only where a text begins or ends in any case.
fn is_anchored_at_ends_only(hir: &Hir) -> bool {
    let no_look = |hir: &Hir| hir.properties().look_set().is_empty();
    let HirKind::Concat(parts) = hir.kind() else { return no_look(hir) };
    let last = parts.len() - 1;
    parts.iter().enumerate().all(|(index, part)| match part.kind() {
        HirKind::Look(Look::Start) => index == 0,
        HirKind::Look(Look::End) => index == last,
        _ => no_look(part),
    })
}

/// Appends a text that matches apart from what looks around; `None` beyond [`MAX_PARTS`].
fn write_match(hir: &Hir, dice: &mut RandomSource, text: &mut String, left: &mut usize) -> Option<()> {
    *left = left.checked_sub(1)?;
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => {
            *left = left.checked_sub(literal.0.len())?;
            text.push_str(std::str::from_utf8(&literal.0).ok()?);
        }
        HirKind::Class(class) => text.push(draw_letter(class, dice)?),
        HirKind::Capture(group) => write_match(&group.sub, dice, text, left)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write_match(part, dice, text, left))?,
        HirKind::Alternation(parts) => write_match(dice.pick(parts)?, dice, text, left)?,
        HirKind::Repetition(repeated) => {
            let least = repeated.min as usize;
            let more = repeated.max.map_or(MAX_FREE_REPETITIONS, |most| (most as usize).saturating_sub(least));
            let times = least.saturating_add(dice.draw_below(more.saturating_add(1)));
            (0..times).try_for_each(|_| write_match(&repeated.sub, dice, text, left))?;
        }
    }
    Some(())
}

/// Draws a letter of a class: mostly one that can be printed in ASCII, if the class has any.
fn draw_letter(class: &Class, dice: &mut RandomSource) -> Option<char> {
    let Class::Unicode(letters) = class else { return None };
    let mut common = letters.clone();
    common.intersect(&ClassUnicode::new([ClassUnicodeRange::new(' ', '~')]));
    let letters = if common.ranges().is_empty() || dice.one_in(4) { letters } else { &common };
    let size = |range: &ClassUnicodeRange| u32::from(range.end()) - u32::from(range.start()) + 1;
    let range = dice.pick(letters.ranges())?;
    let drawn = u32::from(range.start()) + dice.draw_below(size(range) as usize) as u32;
    // The range around surrogates is the only one with numbers that are not characters.
    Some(char::from_u32(drawn).unwrap_or(range.start()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use std::collections::BTreeSet;

    /// Expressions as public documents have them.
    const PATTERNS: [&str; 37] = [
        r"^\d{4}$",
        r"^\w+$",
        r"[\w-]",
        r"^\d+\.\d\d$",
        r"^\d{5}(-\d{4})?$",
        r"^\d+(\.\d+)?(\.\d+)?$",
        r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z$",
        r"^[\w.-]+@[\w.-]+\.[a-zA-Z]{2,}$",
        r"^[\w\d/\._\-]+$",
        r"^[\w\W]{6,}$",
        r"^[\w\-\.]+:master-data\-\-Thing:[\w\-\.\:\%]+$",
        r"^[\w\p{L}][\w\p{L}\.\-]*$",
        r"^\p{L}[\p{L}0-9_]{2,29}$",
        r"^\P{Cc}{1,55}$",
        r"\S",
        r"^\S+$",
        r"^\s*\S[\s\S]*$",
        r"^(?:\+63|0)9\d{9}$",
        r"^\+[1-9]\d{7,14}$",
        r"^(?:dev|peer|optional|bundled)?[Dd]ependencies$",
        r"^session-\d{8}-daily$",
        r"^[0-9a-fA-F]{8}\b-[0-9a-fA-F]{4}\b-[0-9a-fA-F]{12}$",
        r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)))?$",
        r"^#([A-Fa-f0-9]{6}|[A-Fa-f0-9]{3})$",
        r"^(?=.*[A-Za-z])(?=.*\d)(?=.*[!@#$%^&*])[A-Za-z\d!@#$%^&*]{8,20}$",
        r"^(?=.*?[A-Z])(?=.*?[a-z])(?=.*?[0-9])(?=.*?[#?!@$%^&*-]).{8,}$",
        r"^(?!.*\.\.)[a-z0-9.]{1,20}$",
        r"^(?!\s*$).+",
        r"^(?:(?!--)[a-z-])+$",
        r"^a$|^b\$$",
        r"^arn:aws:[a-z-]+:[\w-]*:\d{12}:.+$",
        r"^([01]\d|2[0-3]):[0-5]\d$",
        r"^[^\s@]+@[^\s@]+$",
        r"^https?://[^/]+(/.*)?$",
        r"^[[\]{}]+$",
        r"^$",
        r"^[^\d\W]\w*$",
    ];

    #[test]
    fn generated_texts_match_as_the_validator_reads_the_expression() {
        for pattern in PATTERNS {
            let validator = json_schema::build_validator(&json!({ "pattern": pattern })).unwrap();
            let mut texts = BTreeSet::new();
            for number in 0..100 {
                let Some(text) = draw_match(pattern, &mut RandomSource::for_case(1, number)) else { continue };
                assert!(validator.is_valid(&json!(text)), "{pattern}: {text:?}");
                texts.insert(text);
            }
            assert!(texts.len() >= if pattern == "^$" { 1 } else { 2 }, "{pattern}: {texts:?}");
        }
    }

    proptest! {
        #[test]
        fn compiled_expressions_match_what_the_validator_accepts(
            pattern in proptest::sample::select(&PATTERNS[..]),
            text in r"[0-9a-zA-Z_.@:٣é\u{a0}\u{feff} \n-]{0,12}|\d{4}|\w{1,8}|\d+\.\d\d|\PC{0,8}",
        ) {
            if let Some(regex) = compile(pattern) {
                let validator = json_schema::build_validator(&json!({ "pattern": pattern })).unwrap();
                prop_assert_eq!(regex.is_match(&text), validator.is_valid(&json!(text)), "{} {:?}", pattern, text);
            }
        }
    }

    #[rstest]
    #[case::digits(r"^\d{4}$")]
    #[case::words(r"^\w+$")]
    fn only_ascii_has_digits_and_word_characters(#[case] pattern: &str) {
        assert!(!compile(pattern).unwrap().is_match("٣٤٥٦"));
        let drawn = |number| draw_match(pattern, &mut RandomSource::for_case(1, number)).unwrap();
        assert!((0..100).all(|number| drawn(number).is_ascii()));
    }

    #[rstest]
    #[case::long("^a{70000}$")]
    #[case::nested("^((((a{1000}){1000}){1000}){1000})$")]
    #[case::nothing("^(){4000000000}b{4000000000}$")]
    #[case::contradictory(r"^(?=a)b$")]
    #[case::empty_class(r"^[^\s\S]$")]
    fn no_text_is_generated_beyond_the_limit_or_without_a_match(#[case] pattern: &str) {
        assert_eq!(draw_match(pattern, &mut RandomSource::for_case(1, 1)), None);
    }
}
