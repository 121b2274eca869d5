//! The files that the recipes for changes name (CONTRIBUTING.md, the chapters "Adding a ..." of the book).

use std::collections::BTreeSet;
use std::path::PathBuf;

use regex::Regex;
use rstest::rstest;

use crate::support::disk;

/// Returns the paths in backticks that begin with a folder of the repository, for the scenario `names` of the
/// concierge.
fn paths_in(text: &str) -> BTreeSet<String> {
    let path = Regex::new(r"`((?:\.ci|docs|reference-server|reports|scenarios|schemas|src|tests)/[^` ]*)`").unwrap();
    let paths = path.captures_iter(text).map(|found| found[1].replace("NAME", "concierge").replace("TOPIC", "names"));
    paths.collect()
}

/// Whether a file or folder exists; `*` in the last part of the path stands for any text.
fn exists(path: &str) -> bool {
    let Some((before, after)) = path.split_once('*') else { return disk::root().join(path).exists() };
    let folder = disk::root().join(before.rsplit_once('/').unwrap().0);
    let begin = disk::root().join(before).to_str().unwrap().to_owned();
    disk::files_under(&folder)
        .iter()
        .filter_map(|file| file.to_str())
        .any(|file| file.starts_with(&begin) && file.ends_with(after))
}

#[rstest]
fn every_file_that_a_recipe_names_exists(
    #[files("CONTRIBUTING.md")]
    #[files("docs/src/adding-*.md")]
    page: PathBuf,
) {
    let paths = paths_in(&std::fs::read_to_string(&page).unwrap());
    let missing: Vec<&String> = paths.iter().filter(|path| !exists(path)).collect();
    assert!(paths.len() >= 3 && missing.is_empty(), "{}: {missing:?} of {paths:?}", page.display());
}

#[test]
fn every_boundary_that_the_page_on_trust_lists_has_its_tests() {
    let page = std::fs::read_to_string(disk::root().join("docs/src/trust.md")).unwrap();
    let named = Regex::new(r"`([^` ]+\.rs)::(\w+)`").unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    for row in &rows {
        let tests: Vec<_> = named.captures_iter(row).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            let file = std::fs::read_to_string(disk::root().join(&test[1])).unwrap_or_default();
            assert!(file.contains(&format!("fn {}(", &test[2])), "there is no test {}", &test[0]);
        }
    }
    assert!(rows.len() > 10, "{rows:?}");
}

#[rstest]
#[case("src/lib.rs", true)]
#[case("src/load/client/", true)]
#[case("schemas/concierge/messages/*.schema.json", true)]
#[case("src/no-such-file.rs", false)]
#[case("schemas/concierge/messages/*.no-such-form", false)]
fn a_file_that_does_not_exist_is_noticed(#[case] path: &str, #[case] expected: bool) {
    assert_eq!(exists(path), expected);
}
