//! One binary for all integration tests, so that they link once.
#![allow(clippy::unwrap_used)]

mod cli_check;
mod cli_mistakes;
mod cli_packs;
mod cli_process;
mod cli_secrets;
mod cli_serve;
mod cli_tls;
mod diagnostics;
mod editor_schema;
mod hostile;
mod hostile_hubs;
mod interpreter;
mod language;
mod legal_emprops;
mod legal_habits;
mod matrix;
mod matrix_sockets;
mod matrix_tests;
mod mutants;
mod on_disk;
mod packs;
mod schema_checks;
#[allow(dead_code)]
mod virtual_wire;
