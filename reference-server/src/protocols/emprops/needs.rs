//! The requirements of jobs and the capabilities of workers (lines 148 to 154 and 107 to 114).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The only member of `hardware` that the document defines: gigabytes of GPU memory.
pub const GPU_MEMORY: &str = "gpu_memory_gb";

/// A finite number with a total order.
#[derive(Debug, Clone, Copy)]
pub struct Amount(f64);

impl Amount {
    /// The number, or 0 if it is not finite.
    pub fn new(number: f64) -> Amount {
        // Adding 0 turns -0 into 0, so that both are equal.
        Amount(if number.is_finite() { number + 0.0 } else { 0.0 })
    }

    /// Returns the number with the opposite sign.
    pub fn negated(self) -> Amount {
        Amount::new(-self.0)
    }

    /// Returns the next larger number.
    pub fn next_larger(self) -> Amount {
        Amount::new(self.0.next_up())
    }
}

impl Serialize for Amount {
    /// Writes whole numbers without a fraction.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;
        if self.0.fract() == 0.0 && self.0.abs() <= MAX_EXACT_INTEGER {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Amount) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Amount) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Amount) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Hash for Amount {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// The value of one member of `hardware`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HardwareValue {
    /// An amount; a worker must have at least this much.
    Amount(Amount),
    /// Any other value: the string, or the JSON text of anything else; a worker must have the same.
    Other(String),
}

/// Members of `hardware` by name.
pub type Hardware = BTreeMap<String, HardwareValue>;

/// The requirements and the type of a job. To workers, jobs with equal needs are interchangeable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct JobNeeds {
    /// `job_type`, for which workers can have preferences.
    pub job_type: Arc<str>,
    /// `requirements.service_type`.
    pub service: Option<Arc<str>>,
    /// `requirements.component`.
    pub component: Option<Arc<str>>,
    /// `requirements.hardware`.
    pub hardware: Hardware,
}

impl JobNeeds {
    /// Returns the required GPU memory.
    pub fn gpu_memory(&self) -> Option<Amount> {
        gpu_memory(&self.hardware)
    }
}

/// The capabilities of a worker.
#[derive(Debug, Clone, Default)]
pub struct WorkerCapabilities {
    /// `capabilities.services`.
    pub services: BTreeSet<Arc<str>>,
    /// `capabilities.components`.
    pub components: BTreeSet<Arc<str>>,
    /// `capabilities.hardware`.
    pub hardware: Hardware,
}

impl WorkerCapabilities {
    /// Whether a worker with these capabilities can do a job.
    pub fn meet(&self, needs: &JobNeeds) -> bool {
        self.has_service(needs) && self.has_component(needs) && self.has_sufficient_hardware(needs)
    }

    /// Whether the worker has the required service (line 149).
    pub fn has_service(&self, needs: &JobNeeds) -> bool {
        needs.service.as_ref().is_none_or(|service| self.services.contains(service))
    }

    /// Whether the worker has the required component (line 150).
    pub fn has_component(&self, needs: &JobNeeds) -> bool {
        needs.component.as_ref().is_none_or(|component| self.components.contains(component))
    }

    /// Whether the worker's hardware is sufficient (lines 151 to 153).
    pub fn has_sufficient_hardware(&self, needs: &JobNeeds) -> bool {
        needs.hardware.iter().all(|(name, need)| match (self.hardware.get(name), need) {
            (Some(HardwareValue::Amount(have)), HardwareValue::Amount(need)) => have >= need,
            (have, need) => have == Some(need),
        })
    }

    /// Returns the GPU memory, by default 0.
    pub fn gpu_memory(&self) -> Amount {
        gpu_memory(&self.hardware).unwrap_or(Amount::new(0.0))
    }
}

fn gpu_memory(hardware: &Hardware) -> Option<Amount> {
    match hardware.get(GPU_MEMORY) {
        Some(HardwareValue::Amount(amount)) => Some(*amount),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn hardware(members: &[(&str, HardwareValue)]) -> Hardware {
        members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn gb(amount: f64) -> HardwareValue {
        HardwareValue::Amount(Amount::new(amount))
    }

    #[rstest]
    #[case(None, None, &[], true)]
    #[case(Some("comfyui"), Some("xl"), &[(GPU_MEMORY, gb(8.0))], true)]
    #[case(Some("a1111"), None, &[], false)]
    #[case(None, Some("upscaling"), &[], false)]
    #[case(None, None, &[(GPU_MEMORY, gb(16.0))], true)]
    #[case(None, None, &[(GPU_MEMORY, gb(16.5))], false)]
    #[case(None, None, &[("gpu_model", HardwareValue::Other("RTX 4090".into()))], true)]
    #[case(None, None, &[("gpu_model", HardwareValue::Other("T4".into()))], false)]
    #[case(None, None, &[("cpus", gb(1.0))], false)]
    fn a_worker_fits_a_job_if_it_meets_all_its_needs(
        #[case] service: Option<&str>,
        #[case] component: Option<&str>,
        #[case] needed: &[(&str, HardwareValue)],
        #[case] fits: bool,
    ) {
        let worker = WorkerCapabilities {
            services: ["comfyui".into()].into(),
            components: ["xl".into()].into(),
            hardware: hardware(&[(GPU_MEMORY, gb(16.0)), ("gpu_model", HardwareValue::Other("RTX 4090".into()))]),
        };
        let needs = JobNeeds {
            job_type: "x".into(),
            service: service.map(Into::into),
            component: component.map(Into::into),
            hardware: hardware(needed),
        };
        assert_eq!(worker.meet(&needs), fits);
    }

    #[test]
    fn amounts_have_a_total_order_and_zero_equals_negative_zero() {
        assert!(Amount::new(-1.0) < Amount::new(0.0) && Amount::new(2.0) > Amount::new(1.5));
        assert_eq!(Amount::new(-0.0), Amount::new(0.0));
        assert_eq!(Amount::new(f64::NAN), Amount::new(0.0));
    }
}
