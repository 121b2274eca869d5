//! The binary: all of it is in the library.

use std::process::ExitCode;

/// Cases of fuzzing are made and dropped on all cores at once, which glibc's allocator spends a third of the time on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hubproof::cli::run(std::env::args_os())
}
