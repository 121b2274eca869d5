//! Finds the words of an expression and their places, for carets, and filters and tests that do not exist, which the engine
//! would notice only when the conversation runs.

use std::ops::Range;

use minijinja::{Environment, ErrorKind};

/// Returns where a dotted name stands in the source of an expression, outside of strings.
pub fn word(source: &str, name: &str) -> Option<Range<usize>> {
    let code = blanked(source);
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(name).map(|(at, name)| at..at + name.len()).find(|found| {
        let before = code[..found.start].chars().next_back();
        let behind = code[found.end..].chars().next();
        !before.is_some_and(|c| part(c) || c == '.') && !behind.is_some_and(part)
    })
}

/// Returns the first filter or test that the engine does not have: where, which of the two, and those that exist.
pub fn unknown_word(
    source: &str,
    engine: &Environment<'_>,
) -> Option<(Range<usize>, &'static str, &'static [&'static str])> {
    let code = blanked(source);
    for (at, _) in code.match_indices('|') {
        let name = identifier(&code, at + 1);
        if !name.is_empty() && !has(engine, &format!("0|{}", &code[name.clone()]), ErrorKind::UnknownFilter) {
            return Some((name, "filter", FILTERS));
        }
    }
    let mut from = 0;
    while let Some(found) = word(&code[from..], "is").map(|found| from + found.start..from + found.end) {
        from = found.end;
        let mut name = identifier(&code, found.end);
        if &code[name.clone()] == "not" {
            name = identifier(&code, name.end);
        }
        if !name.is_empty() && !has(engine, &format!("0 is {}", &code[name.clone()]), ErrorKind::UnknownTest) {
            return Some((name, "test", TESTS));
        }
    }
    None
}

/// Whether the engine knows the filter or test of a probe. It has no list of them, so the probe is evaluated.
fn has(engine: &Environment<'_>, probe: &str, unknown: ErrorKind) -> bool {
    match engine.compile_expression(probe).and_then(|probe| probe.eval(())) {
        Err(error) => error.kind() != unknown,
        Ok(_) => true,
    }
}

/// Returns the range of the identifier behind a place; empty where there is none.
fn identifier(code: &str, from: usize) -> Range<usize> {
    let rest = &code[from..];
    let start = from + rest.len() - rest.trim_start().len();
    let length = code[start..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(code.len() - start);
    let digit = code[start..].starts_with(|c: char| c.is_ascii_digit());
    start..if digit { start } else { start + length }
}

/// Returns the source with every slice `x[a:b]` written as the look-up `x[[a,b]]`, which uses the same names: the engine
/// lists the names of a look-up, but not those of a slice. `None` where there is no slice.
pub fn without_slices(source: &str) -> Option<String> {
    let code = blanked(source);
    // Open brackets, and where in them the pieces of a slice begin.
    let mut open: Vec<(char, Vec<usize>)> = Vec::new();
    let mut edits: Vec<(Range<usize>, &str)> = Vec::new();
    let piece_is_empty = |from: usize, to: usize| code[from..to].trim().is_empty();
    for (at, c) in code.char_indices() {
        match c {
            '[' | '(' | '{' => open.push((c, vec![at + 1])),
            ':' => {
                if let Some(('[', pieces)) = open.last_mut() {
                    let empty = pieces.last().is_some_and(|from| piece_is_empty(*from, at));
                    edits.push((at..at + 1, if empty { "0," } else { "," }));
                    pieces.push(at + 1);
                }
            }
            ']' | ')' | '}' => {
                if let Some((_, pieces)) = open.pop()
                    && let [first, .., last] = pieces.as_slice()
                {
                    edits.push((*first..*first, "["));
                    edits.push((at..at, if piece_is_empty(*last, at) { "0]" } else { "]" }));
                }
            }
            _ => {}
        }
    }
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    let mut rewritten = source.to_owned();
    for (range, with) in edits.iter().rev() {
        rewritten.replace_range(range.clone(), with);
    }
    (!edits.is_empty()).then_some(rewritten)
}

/// Returns the source with the insides of its strings blanked out, byte for byte.
fn blanked(source: &str) -> String {
    let mut quote = None;
    let mut escaped = false;
    let mut blank = |c: char| {
        let inside = quote.is_some();
        match quote {
            _ if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None => {}
        }
        inside && quote.is_some()
    };
    source
        .chars()
        .flat_map(|c| {
            let width = c.len_utf8();
            let hidden = blank(c) || !c.is_ascii();
            std::iter::repeat_n(if hidden { ' ' } else { c }, if hidden { width } else { 1 })
        })
        .collect()
}

/// The filters that expressions can use, for "did you mean".
const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "bool",
    "chain",
    "default",
    "dictsort",
    "differences",
    "epoch_ms",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "json",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "urlencode",
    "zip",
];
const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "even",
    "false",
    "float",
    "ge",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
];

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("anna.hello.uuid != ben.hello.uuid", "ben.hello", Some(19..28))]
    #[case("uniqe('uniqe')", "uniqe", Some(0..5))]
    #[case("'a' ~ a", "a", Some(6..7))]
    #[case("banana.a + a", "a", Some(11..12))]
    #[case("'ü' ~ a", "a", Some(7..8))]
    #[case("'a'", "a", None)]
    fn a_name_in_an_expression_is_found_outside_of_strings(
        #[case] source: &str,
        #[case] name: &str,
        #[case] at: Option<Range<usize>>,
    ) {
        assert_eq!(word(source, name), at);
    }

    #[rstest]
    #[case("1 | frobnicate", Some(("frobnicate", "filter")))]
    #[case("list | map(attribute='seq') | sort|uniqe", Some(("uniqe", "filter")))]
    #[case("x is defined", None)]
    #[case("x is not dfined", Some(("dfined", "test")))]
    #[case("x == ' | y is z'", None)]
    #[case("a.is | json", None)]
    #[case("1 is == 1", None)]
    fn a_filter_or_test_that_does_not_exist_is_reported(#[case] source: &str, #[case] expected: Option<(&str, &str)>) {
        let found = unknown_word(source, &super::super::functions::environment());
        assert_eq!(found.map(|(at, what, _)| (&source[at], what)), expected);
    }

    #[rstest]
    #[case("list[0]", None)]
    #[case("{'a': b}['a']", None)]
    #[case("list[:4]", Some("list[[0,4]]"))]
    #[case("list[a:]", Some("list[[a,0]]"))]
    #[case("list[a:b:c]", Some("list[[a,b,c]]"))]
    #[case("f(x[1:])[:y[0:2][0]] ~ '[:'", Some("f(x[[1,0]])[[0,y[[0,2]][0]]] ~ '[:'"))]
    fn slices_are_rewritten_as_look_ups_with_the_same_names(#[case] source: &str, #[case] expected: Option<&str>) {
        assert_eq!(without_slices(source).as_deref(), expected);
    }

    #[test]
    fn every_suggested_filter_and_test_exists() {
        let engine = super::super::functions::environment();
        for filter in FILTERS {
            assert!(has(&engine, &format!("0|{filter}"), ErrorKind::UnknownFilter), "{filter}");
        }
        for test in TESTS {
            assert!(has(&engine, &format!("0 is {test}"), ErrorKind::UnknownTest), "{test}");
        }
    }
}
