//! Helpers of several test modules: processes, servers, simulated connections. No tests here.

pub mod breakable_checks;
pub mod byte_edits;
pub mod disk;
pub mod evidence;
#[allow(dead_code)]
pub mod fault_matrix;
pub mod hostile_servers;
#[allow(dead_code)]
pub mod mini_protocol;
#[allow(dead_code)]
pub mod mutation_detection;
pub mod process;
#[allow(dead_code)]
pub mod sim_connection;
pub mod sim_load;
