//! The command line: arguments, reports, exit codes.

pub mod baseline;
pub mod check;
pub mod compare;
pub mod documents;
pub mod exec;
pub mod explain;
pub mod fuzz;
pub mod init;
pub mod load;
pub mod mistakes;
pub mod observe;
pub mod packs;
pub mod paths;
pub mod progress;
pub mod record;
pub mod relay;
pub mod report;
pub mod report_formats;
pub mod scenario_files;
pub mod secrets;
pub mod serve;
pub mod shell;
pub mod tls;
