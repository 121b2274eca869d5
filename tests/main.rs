//! One binary for all integration tests, so that they link once.
#![allow(clippy::unwrap_used)]

mod cli_baseline;
mod cli_check;
mod cli_compare;
mod cli_exec;
mod cli_fuzz;
mod cli_fuzz_saved;
mod cli_load;
mod cli_mistakes;
mod cli_packs;
mod cli_process;
mod cli_relay;
mod cli_scenario_files;
mod cli_secrets;
mod cli_serve;
mod cli_tls;
#[allow(dead_code)]
mod detection;
mod diagnostics;
#[path = "cli/documents.rs"]
mod documents;
mod editor_schema;
mod foreign;
mod fuzz_cases;
mod fuzz_differ;
mod fuzz_faults;
mod fuzz_shrink;
mod fuzz_walk;
mod hostile;
mod hostile_hubs;
mod hostile_load;
mod interpreter;
mod interpreter_doubt;
mod judging;
mod language;
mod legal_emprops;
mod legal_habits;
mod load_language;
mod load_plans;
mod load_truth;
mod load_virtual;
mod matrix;
mod matrix_sockets;
mod matrix_tests;
mod mutants;
mod on_disk;
mod packs;
mod packs_bare;
mod parsers;
mod parsers_edits;
mod schema_checks;
#[allow(dead_code)]
mod small_talk;
mod virtual_load;
#[allow(dead_code)]
mod virtual_wire;
mod websocket;
