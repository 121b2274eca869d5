//! The harness against correct, faulty and hostile hubs.

pub mod audiences;
pub mod broken_hubs;
pub mod carriers;
pub mod declared_deviations;
pub mod deviating_hubs;
pub mod dialects;
pub mod fault_matrix;
pub mod fault_matrix_sockets;
pub mod hostile;
pub mod hostile_packs;
pub mod late_hubs;
pub mod mutation_detection;
pub mod packs;
pub mod payload_mutants;
pub mod permitted_variants;
pub mod permitted_variants_emprops;
pub mod recognition;
pub mod strangers;
pub mod third_party_hubs;
pub mod variations;
pub mod websocket;
