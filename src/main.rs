//! The binary: all of it is in the library.

use std::process::ExitCode;

/// Cases of fuzzing are made and dropped on all cores at once, where glibc's allocator waits for itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hubproof::cli::run(std::env::args_os())
}
