//! Checks before a run whether the machine has the resources that it needs, with advice if not.

use super::dialer::PORTS_PER_SOURCE;

/// Bytes of memory per plain connection, buffers included: a measured figure with a margin.
const CONNECTION_BYTES: u64 = 4 << 10;
/// Bytes of memory per TLS connection.
const TLS_CONNECTION_BYTES: u64 = 32 << 10;
/// File descriptors for everything but connections: files, pipes, the runtime.
const SPARE_DESCRIPTORS: u64 = 100;

/// The resources that a run needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceNeeds {
    pub connections: u64,
    pub sources: u64,
    pub tls: bool,
    /// Whether the hub runs in this process, so that every connection takes two descriptors.
    pub embedded: bool,
    /// Whether the hub is on this machine, so that source addresses are free to use.
    pub loopback: bool,
}

/// The resources of the machine; `None` where the system does not report them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineResources {
    pub descriptors: Option<u64>,
    pub ports: Option<u64>,
    pub memory: Option<u64>,
}

/// The most connections that each resource allows; `None` where the system does not report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionCapacity {
    pub descriptors: Option<u64>,
    /// From one source address to one address of a hub.
    pub ports: Option<u64>,
    pub memory: Option<u64>,
}

impl MachineResources {
    /// Returns the most connections to a hub in another process that [`resource_shortages`] does not complain about.
    pub fn connection_capacity(&self, tls: bool) -> ConnectionCapacity {
        ConnectionCapacity {
            descriptors: self.descriptors.map(|limit| limit.saturating_sub(SPARE_DESCRIPTORS)),
            ports: self.ports.map(usable_ports),
            memory: self.memory.map(|free| free / connection_bytes(tls)),
        }
    }
}

/// Returns the memory in bytes that a connection needs.
pub fn connection_bytes(tls: bool) -> u64 {
    if tls { TLS_CONNECTION_BYTES } else { CONNECTION_BYTES }
}

fn usable_ports(ports: u64) -> u64 {
    ports.min(PORTS_PER_SOURCE as u64)
}

/// Reads the machine's resources after raising the limit of descriptors to the maximum for this process.
pub fn machine_resources() -> MachineResources {
    MachineResources { descriptors: descriptors(), ports: ports(), memory: memory() }
}

/// Describes each resource that the machine lacks, with advice.
pub fn resource_shortages(need: &ResourceNeeds, have: &MachineResources) -> Vec<String> {
    let mut shortages = Vec::new();
    let descriptors = need.connections * if need.embedded { 2 } else { 1 } + SPARE_DESCRIPTORS;
    if let Some(limit) = have.descriptors.filter(|limit| *limit < descriptors) {
        let alternative = if need.embedded { ", or run the hub in a separate process (`hubproof serve`)" } else { "" };
        shortages.push(format!(
            "{} connections need {descriptors} file descriptors, but the limit of this process is {limit}: raise the limit (`ulimit -n {descriptors}`, or LimitNOFILE= of the service){alternative}",
            need.connections
        ));
    }
    if let Some(ports) = have.ports {
        let sources = need.sources.max(1);
        let usable = usable_ports(ports);
        if need.connections > usable * sources {
            let wanted = need.connections.div_ceil(usable.max(1));
            let advice = if need.loopback {
                format!("give {wanted} source addresses (`--source 127.0.0.1-127.0.0.{wanted}`)")
            } else {
                format!(
                    "give {wanted} source addresses of this machine (`--source`), or widen net.ipv4.ip_local_port_range"
                )
            };
            shortages.push(format!(
                "{} connections to one address need one port each, but {sources} source {} about {}: {advice}",
                need.connections,
                if sources == 1 { "address has" } else { "addresses have" },
                usable * sources
            ));
        }
    }
    let memory = need.connections * connection_bytes(need.tls);
    if let Some(free) = have.memory.filter(|free| *free < memory) {
        shortages.push(format!(
            "{} connections need about {} MiB of memory, but {} MiB are free: use fewer connections",
            need.connections,
            memory >> 20,
            free >> 20
        ));
    }
    shortages
}

/// The limits of open files of this process; `None` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimits {
    pub soft: Option<u64>,
    /// The limit to which the process can raise the soft one.
    pub hard: Option<u64>,
}

/// Returns the limits of open files; `None` if the system does not report them.
#[cfg(unix)]
pub fn descriptor_limits() -> Option<DescriptorLimits> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Some(DescriptorLimits { soft: limit.current, hard: limit.maximum })
}

#[cfg(not(unix))]
pub fn descriptor_limits() -> Option<DescriptorLimits> {
    None
}

/// Returns the limit of open files after raising it to the maximum for this process.
#[cfg(unix)]
fn descriptors() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        // If raising it fails, the current limit is returned.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
    getrlimit(Resource::Nofile).current
}

#[cfg(not(unix))]
fn descriptors() -> Option<u64> {
    None
}

/// Returns the number of ephemeral ports per source address.
pub fn ports() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace().map(|word| word.parse::<u64>().ok());
    let (first, last) = (words.next()??, words.next()??);
    Some((last + 1).saturating_sub(first))
}

/// Returns the available memory in bytes, within the limit of a container.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available = line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)?;
    Some(container_memory().map_or(available, |free| free.min(available)))
}

/// Returns the bytes that the control group of this process may still use; `None` without a limit.
fn container_memory() -> Option<u64> {
    let read = |name: &str| cgroup_file(name)?.trim().parse::<u64>().ok();
    let (limit, used) = (read("memory.max")?, read("memory.current")?);
    // The system gives these pages back before the limit is reached.
    let cached = cgroup_file("memory.stat")
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("inactive_file "))?.trim().parse::<u64>().ok());
    Some(limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
}

/// Returns the number of cores that the control group of this process may use; `None` without a limit.
pub fn cpu_quota() -> Option<f64> {
    parse_cpu_quota(&cgroup_file("cpu.max")?)
}

/// Parses `150000 100000`: microseconds of CPU time in a period, and its length.
fn parse_cpu_quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok().filter(|period| *period > 0.0)?)
}

/// Reads a file of the control group (version 2) of this process.
fn cgroup_file(name: &str) -> Option<String> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
    let root = std::path::Path::new("/sys/fs/cgroup");
    // In a container, the path may be the one that the host sees.
    let read = |folder: std::path::PathBuf| std::fs::read_to_string(folder.join(name)).ok();
    read(root.join(own)).or_else(|| read(root.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const NEED: ResourceNeeds =
        ResourceNeeds { connections: 18_000, sources: 0, tls: false, embedded: false, loopback: true };
    const HAVE: MachineResources =
        MachineResources { descriptors: Some(20_000), ports: Some(28_232), memory: Some(1 << 30) };

    #[rstest]
    #[case(NEED, HAVE, &[])]
    #[case(ResourceNeeds { connections: 30_000, ..NEED }, HAVE, &["ulimit -n 30100", "--source 127.0.0.1-127.0.0.2"])]
    #[case(ResourceNeeds { connections: 30_000, sources: 2, ..NEED }, HAVE, &["ulimit -n 30100"])]
    #[case(ResourceNeeds { connections: 30_000, loopback: false, ..NEED }, HAVE, &["ulimit -n 30100", "ip_local_port_range"])]
    #[case(ResourceNeeds { embedded: true, ..NEED }, HAVE, &["hubproof serve"])]
    #[case(ResourceNeeds { tls: true, ..NEED }, MachineResources { memory: Some(100 << 20), ..HAVE }, &["100 MiB are free"])]
    #[case(ResourceNeeds { connections: 1_000_000, ..NEED }, MachineResources::default(), &[])]
    fn a_resource_shortage_is_reported_with_advice(
        #[case] need: ResourceNeeds,
        #[case] have: MachineResources,
        #[case] about: &[&str],
    ) {
        let shortages = resource_shortages(&need, &have);
        assert_eq!(shortages.len(), about.len(), "{shortages:?}");
        for (text, about) in shortages.iter().zip(about) {
            assert!(text.contains(about), "{text}");
        }
    }

    #[rstest]
    #[case(MachineResources { descriptors: Some(1_000), ..HAVE })]
    #[case(MachineResources { ports: Some(900), ..HAVE })]
    #[case(MachineResources { memory: Some(10 << 20), ..HAVE })]
    fn the_capacity_is_the_most_connections_without_a_shortage(#[case] have: MachineResources) {
        let ConnectionCapacity { descriptors, ports, memory } = have.connection_capacity(false);
        let most = descriptors.min(ports).min(memory).unwrap();
        let shortages = |connections| resource_shortages(&ResourceNeeds { connections, ..NEED }, &have).len();
        assert_eq!((shortages(most), shortages(most + 1)), (0, 1), "{most}");
    }

    #[rstest]
    #[case("150000 100000\n", Some(1.5))]
    #[case("max 100000\n", None)]
    #[case("150000 0", None)]
    #[case("", None)]
    fn the_cpu_quota_of_a_control_group_is_in_cores(#[case] text: &str, #[case] expected: Option<f64>) {
        assert_eq!(parse_cpu_quota(text), expected);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_resources_of_the_machine_are_read() {
        let have = machine_resources();
        assert!(have.descriptors.is_none_or(|limit| limit > SPARE_DESCRIPTORS), "{have:?}");
        assert!(have.ports.is_some_and(|ports| ports > 100) && have.memory.is_some(), "{have:?}");
    }
}
