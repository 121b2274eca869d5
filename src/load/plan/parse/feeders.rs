//! Reads rows of data: CSV with a header line, or JSON lines.

use serde_json::Value;

use super::PlanFileReader;
use crate::load::plan::script::Feeder;
use crate::scenario::parse::journeys::JourneyParser;
use crate::syntax::fields::{choice, table};
use crate::syntax::yaml::{NodeKey, NodeKind, SyntaxNode};

/// Maximum number of rows of one feeder. All rows are kept in memory.
const MAX_ROWS: usize = 10_000_000;

/// Reads `NAME: FILE`, or `NAME: { file: FILE, rows: in turn | at random }`.
pub fn parse_feeder(
    key: &NodeKey,
    node: &SyntaxNode,
    journeys: &mut JourneyParser<'_>,
    files: PlanFileReader<'_>,
) -> Option<Feeder> {
    journeys.bind_name(&key.name, Some(key.span));
    let (file, random) = match &node.kind {
        NodeKind::Map(_) => {
            table(node, &["file", "rows"], "a feeder", journeys.diagnostics());
            let words = [("in turn", false), ("at random", true)];
            let random = choice(node.get("rows"), "`rows`", &words, journeys.diagnostics()).unwrap_or(false);
            (node.get("file"), random)
        }
        _ => (Some(node), false),
    };
    let Some((file, path)) = file.and_then(|node| Some((node, node.text()?))) else {
        journeys.error(node.span, "a feeder needs a file", format!("write `{}: data.csv`", key.name));
        return None;
    };
    let text = match files(path) {
        Ok(text) => text,
        Err(why) => {
            let help = "the path is relative to the plan; CSV files begin with a header line";
            journeys.error(file.span, format!("failed to read {path}: {why}"), help);
            return None;
        }
    };
    let rows = if path.ends_with(".csv") { parse_csv(&text) } else { parse_json_lines(&text) };
    let (columns, rows) = match rows {
        Ok(rows) => rows,
        Err(why) => {
            journeys.error(file.span, format!("{path} cannot be used: {why}"), "a feeder is CSV (.csv) or JSON lines");
            return None;
        }
    };
    Some(Feeder { name: key.name.clone(), span: key.span, columns, rows, random })
}

type FeederTable = (Vec<String>, Vec<Vec<Value>>);

/// Why a file is not a feeder.
#[derive(Debug, thiserror::Error)]
enum FeederError {
    #[error(transparent)]
    Csv(#[from] ::csv::Error),
    #[error("line {line}: {source}")]
    Json { line: usize, source: serde_json::Error },
    #[error("line {0}: this is not a JSON object")]
    NoObject(usize),
    #[error("line {line}: the member `{name}` of the first line is missing")]
    MissingMember { line: usize, name: String },
    #[error("it has no rows")]
    NoRows,
    #[error("it has {0} rows; the limit is {MAX_ROWS}")]
    TooManyRows(usize),
}

fn parse_csv(text: &str) -> Result<FeederTable, FeederError> {
    // Spreadsheets put a byte order mark at the beginning.
    let mut reader = ::csv::Reader::from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let columns: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    let mut rows = Vec::new();
    for record in reader.records() {
        rows.push(record?.iter().map(Value::from).collect());
    }
    check_row_count(columns, rows)
}

/// Parses JSON lines. The members of the first line are the columns; every line must have them.
fn parse_json_lines(text: &str) -> Result<FeederTable, FeederError> {
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    for (line, written) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let row: Value = serde_json::from_str(written).map_err(|source| FeederError::Json { line, source })?;
        let row = row.as_object().ok_or(FeederError::NoObject(line))?;
        if rows.is_empty() {
            columns = row.keys().cloned().collect();
        }
        let missing = |name: &String| FeederError::MissingMember { line, name: name.clone() };
        rows.push(
            columns.iter().map(|name| row.get(name).cloned().ok_or_else(|| missing(name))).collect::<Result<_, _>>()?,
        );
    }
    check_row_count(columns, rows)
}

fn check_row_count(columns: Vec<String>, rows: Vec<Vec<Value>>) -> Result<FeederTable, FeederError> {
    match rows.len() {
        0 => Err(FeederError::NoRows),
        n if n > MAX_ROWS => Err(FeederError::TooManyRows(n)),
        _ => Ok((columns, rows)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("a,b\n1,\"x, y\"\n2,ü\n", Ok(vec![vec![json!("1"), json!("x, y")], vec![json!("2"), json!("ü")]]))]
    #[case("\u{feff}a,b\n1,2\n", Ok(vec![vec![json!("1"), json!("2")]]))]
    #[case("a,b\n1\n", Err("1 fields"))]
    #[case("a,b\n", Err("no rows"))]
    fn the_first_line_of_a_csv_feeder_names_its_columns(
        #[case] text: &str,
        #[case] expected: Result<Vec<Vec<Value>>, &str>,
    ) {
        check(parse_csv(text), expected);
    }

    #[rstest]
    #[case("{\"a\":1,\"b\":[2]}\n\n{\"b\":null,\"a\":3}\n", Ok(vec![vec![json!(1), json!([2])], vec![json!(3), json!(null)]]))]
    #[case("{\"a\":1}\n{\"b\":1}\n", Err("line 2: the member `a`"))]
    #[case("[1]\n", Err("line 1: this is not a JSON object"))]
    #[case("{\n", Err("line 1: EOF"))]
    fn every_line_of_a_json_lines_feeder_has_the_members_of_the_first(
        #[case] text: &str,
        #[case] expected: Result<Vec<Vec<Value>>, &str>,
    ) {
        check(parse_json_lines(text), expected);
    }

    fn check(found: Result<FeederTable, FeederError>, expected: Result<Vec<Vec<Value>>, &str>) {
        match (found, expected) {
            (Ok((columns, rows)), Ok(expected)) => {
                assert_eq!((columns, rows), (vec!["a".to_owned(), "b".to_owned()], expected))
            }
            (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{found}"),
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }
}
