//! The languages of files: scenarios, packs, schemas for editors; and the interpreter.

mod absent_messages;
mod arrays;
pub mod asyncapi_conversations;
pub mod asyncapi_import;
mod cases;
mod deviation_forms;
mod deviations;
mod diagnostics;
pub mod grammar;
pub mod interpreter;
pub mod interpreter_incomplete;
mod lifecycles;
pub mod parser_robustness;
pub mod proposals;
pub mod reference_examples;
mod replies;
pub mod shortened_waits;
mod steps;
mod value_shapes;
pub mod verdicts;
