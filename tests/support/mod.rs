//! Helpers of several test modules: processes, servers, simulated connections. No tests here.

/// A test of each built-in protocol with messages, large ones in the thorough tier: its name, and the function to call
/// with the protocol's name.
macro_rules! test_each_protocol {
    ($test:ident, $check:expr) => {
        mod $test {
            use super::*;

            #[rstest::rstest]
            fn small_protocol(
                #[dirs]
                #[files("schemas/*/messages")]
                #[exclude("/(airavata|concierge|emprops)/")]
                path: std::path::PathBuf,
            ) {
                $check(&crate::support::disk::protocol_name(&path));
            }

            #[rstest::rstest]
            #[ignore = "thorough: many minutes of CPU"]
            fn large_protocol(#[values("airavata", "concierge", "emprops")] name: &str) {
                $check(name);
            }
        }
    };
}
pub(crate) use test_each_protocol;

pub mod breakable_checks;
pub mod byte_edits;
pub mod disk;
pub mod evidence;
#[allow(dead_code)]
pub mod fault_matrix;
pub mod hostile_servers;
#[allow(dead_code)]
pub mod live_page;
#[allow(dead_code)]
pub mod mini_protocol;
#[allow(dead_code)]
pub mod mutation_detection;
pub mod process;
pub mod readers;
pub mod samples;
#[allow(dead_code)]
pub mod sim_connection;
pub mod sim_load;
