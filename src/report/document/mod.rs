//! The JSON documents of reports. Each is one set of types, with which a run writes the document, and pages and
//! comparisons read it. Members that this version does not know are ignored; members with a default are not in reports of
//! earlier versions.

pub mod check;
pub mod comparison;
pub mod load;

use serde::{Deserialize, Serialize};

/// The program that wrote a report.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tool {
    pub name: String,
    pub version: String,
}
