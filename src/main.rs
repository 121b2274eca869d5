//! The binary; all code is in the library.

use std::process::ExitCode;

/// Fuzz cases are allocated and freed on all cores at once, where glibc's allocator has contention.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hubproof::cli::run_command_line(std::env::args_os())
}
