//! What the facts and measurements of a machine mean for load tests.

use std::time::Duration;

use super::measure::{Disturbance, RoundTrips, TimerLateness};
use crate::load::engine::preflight::{self, DescriptorLimits, MachineResources, connection_bytes};
use crate::load::format::{format_grouped, format_nanos, format_percent};

/// Fewer connections than this are a warning.
const FEW_CONNECTIONS: u64 = 10_000;
/// The share of a core that the load engine can use before its own delays grow.
const USABLE_SHARE: f64 = 0.9;
/// A clock with longer steps is a warning.
const COARSE_STEP: Duration = Duration::from_micros(1);
/// Timers that are later than this at the 99th percentile are a warning.
const LATE_TIMER: Duration = Duration::from_millis(1);
/// Clock sources of Linux that are slow to read.
const SLOW_CLOCKS: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];
/// Other processes with a greater share of the CPU time are a warning.
const MUCH_CPU: f64 = 0.15;

/// The machine as its system describes it; `None` where the system does not report something.
#[derive(Clone, Debug, Default)]
pub struct MachineFacts {
    /// The limits before the process raised its own.
    pub limits: Option<DescriptorLimits>,
    pub resources: MachineResources,
    /// The cores that this process may use.
    pub cores: usize,
    /// The cores that a container may use on average.
    pub quota: Option<f64>,
    pub clock_source: Option<String>,
    /// The number of tasks that wanted to run, over the last minute.
    pub load_average: Option<f64>,
    /// Bytes.
    pub swap_used: Option<u64>,
}

impl MachineFacts {
    /// Reads what the system reports about itself.
    pub fn read() -> Self {
        let first_word = |path: &str| {
            let text = std::fs::read_to_string(path).ok()?;
            text.split_whitespace().next().map(str::to_owned)
        };
        let meminfo = std::fs::read_to_string("/proc/meminfo").ok();
        let swap_used = meminfo.and_then(|text| {
            let kib = |name: &str| -> Option<u64> {
                text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
            };
            Some(kib("SwapTotal:")?.saturating_sub(kib("SwapFree:")?) << 10)
        });
        // The limits are read before `machine_resources` raises the soft one.
        let limits = preflight::descriptor_limits();
        Self {
            limits,
            resources: preflight::machine_resources(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            quota: preflight::cpu_quota(),
            clock_source: first_word("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            load_average: first_word("/proc/loadavg").and_then(|word| word.parse().ok()),
            swap_used,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Measurements {
    pub clock_step: Duration,
    pub timers: TimerLateness,
    pub round_trips: RoundTrips,
    pub disturbance: Disturbance,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: &'static str,
    pub found: String,
    pub allows: String,
    /// What to do; empty if all is well.
    pub advice: String,
}

const UNREPORTED: &str = "not reported by this system";

/// Returns the rows of the table.
pub fn findings(facts: &MachineFacts, measured: &Measurements) -> Vec<Finding> {
    vec![
        descriptors(facts),
        ports(facts),
        memory(facts),
        cores(facts),
        clock(facts, measured),
        timers(measured),
        round_trips(facts, measured),
        other_load(facts, measured),
        swap(facts, measured),
        temperature(measured),
    ]
}

/// Says what the machine can do, and what limits it.
pub fn conclusion(facts: &MachineFacts, measured: &Measurements) -> String {
    let capacity = facts.resources.connection_capacity(false);
    let limits =
        [("file descriptors", capacity.descriptors), ("ephemeral ports", capacity.ports), ("memory", capacity.memory)];
    let least = limits.into_iter().filter_map(|(what, most)| Some((most?, what))).min();
    let number = |number: f64| format_grouped(rounded(number));
    let here = number(measured.round_trips.per_second);
    let elsewhere = number(messages_per_second(facts, &measured.round_trips));
    let messages = format!("about {elsewhere} messages a second from hubproof ({here} with the hub on this machine)");
    let cores = match facts.quota {
        Some(quota) if quota < facts.cores as f64 => format!("a CPU quota of {quota:.1} cores (messages)"),
        _ if facts.cores == 1 => "one core (messages)".to_owned(),
        _ => format!("{} cores (messages)", facts.cores),
    };
    match least {
        Some((most, what)) => format!(
            "This machine can hold about {} connections and send {messages}; limited by {what} (connections) and {cores}.",
            number(most as f64)
        ),
        None => {
            format!("This machine can send {messages}; limited by {cores}. The system reports no limit of connections.")
        }
    }
}

/// How much load a run generates in total.
#[derive(Clone, Copy, Debug)]
pub struct WantedLoad {
    pub connections: u64,
    pub messages_per_second: u64,
}

/// Says how many machines like this one generate a load, as shares of one run.
pub fn shares_needed(facts: &MachineFacts, measured: &Measurements, wanted: WantedLoad) -> String {
    let capacity = facts.resources.connection_capacity(false);
    let most = [capacity.descriptors, capacity.ports, capacity.memory].into_iter().flatten().min();
    let for_connections = most.map_or(1, |most| wanted.connections.div_ceil(most.max(1)));
    let rate = rounded(messages_per_second(facts, &measured.round_trips)).max(1);
    let for_messages = wanted.messages_per_second.div_ceil(rate);
    let shares = for_connections.max(for_messages).max(1);
    let WantedLoad { connections, messages_per_second } = wanted;
    let (connections, messages) = (format_grouped(connections), format_grouped(messages_per_second));
    let load = format!("{connections} connections and {messages} messages a second");
    if shares == 1 {
        return format!("One such machine is enough for {load}.");
    }
    let shares = format_grouped(shares);
    let [for_connections, for_messages] = [for_connections, for_messages].map(|part| format_grouped(part.max(1)));
    format!(
        "{load} take {shares} such machines ({for_connections} for the connections, {for_messages} for the messages): `hubproof load ... --share 1/{shares}` on the first of them."
    )
}

/// Returns the messages per second that the load engine can send to a hub on another machine: the measured rate, scaled
/// to the CPU time that the engine would have without a hub on the same cores.
fn messages_per_second(facts: &MachineFacts, measured: &RoundTrips) -> f64 {
    let cores = facts.quota.map_or(facts.cores as f64, |quota| quota.min(facts.cores as f64));
    let scale = if measured.busy_cores > 0.0 { cores * USABLE_SHARE / measured.busy_cores } else { 1.0 };
    measured.per_second * scale.max(1.0)
}

/// Rounds down to two digits: such a figure is an estimate.
fn rounded(number: f64) -> u64 {
    let number = number.max(0.0) as u64;
    let unit = 10_u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1));
    number / unit * unit
}

fn connections(most: u64) -> String {
    format!("{} connections", format_grouped(most))
}

fn descriptors(facts: &MachineFacts) -> Finding {
    let limit = |limit: Option<u64>| limit.map_or_else(|| "no limit".to_owned(), format_grouped);
    let found = match facts.limits {
        None => UNREPORTED.to_owned(),
        Some(DescriptorLimits { soft, hard }) if soft == hard => limit(soft),
        Some(DescriptorLimits { soft, hard }) => {
            format!("soft limit {}, which hubproof raises to {}", limit(soft), limit(hard))
        }
    };
    let most = facts.resources.connection_capacity(false).descriptors;
    let allows = most.map_or_else(
        || "any number of connections".to_owned(),
        |most| format!("{}; half of them if the hub runs in this process", connections(most)),
    );
    let few = most.filter(|most| *most < FEW_CONNECTIONS);
    let advice = few.map_or_else(String::new, |_| {
        "raise the hard limit: `ulimit -n 100000` as root, LimitNOFILE= of a service, or `nofile` in /etc/security/limits.conf".to_owned()
    });
    Finding { what: "descriptors", found, allows, advice }
}

fn ports(facts: &MachineFacts) -> Finding {
    let Some(ports) = facts.resources.ports else { return unreported("ports") };
    let most = facts.resources.connection_capacity(false).ports.unwrap_or(ports);
    let advice = if most < FEW_CONNECTIONS {
        "widen the range: `sysctl net.ipv4.ip_local_port_range=\"10240 65535\"` as root; or give several addresses of this machine to `load --source`"
    } else {
        ""
    };
    Finding {
        what: "ports",
        found: format!("{} ephemeral ports", format_grouped(ports)),
        allows: format!(
            "{} from one source address to one address of a hub; more with `load --source`, and by itself on loopback",
            connections(most)
        ),
        advice: advice.to_owned(),
    }
}

fn memory(facts: &MachineFacts) -> Finding {
    let Some(free) = facts.resources.memory else { return unreported("memory") };
    let most = |tls| facts.resources.connection_capacity(tls).memory.unwrap_or(0);
    let advice =
        if most(true) < FEW_CONNECTIONS { "end other programs, or give the container more memory" } else { "" };
    let kib = |tls| connection_bytes(tls) >> 10;
    Finding {
        what: "memory",
        found: format!("{} MiB available", format_grouped(free >> 20)),
        allows: format!(
            "{} of {} KiB, or {} of {} KiB with TLS",
            connections(most(false)),
            kib(false),
            format_grouped(most(true)),
            kib(true)
        ),
        advice: advice.to_owned(),
    }
}

fn cores(facts: &MachineFacts) -> Finding {
    let cores = facts.cores;
    let plural = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    let quota = facts.quota.filter(|quota| *quota < cores as f64);
    let found = match facts.quota {
        Some(quota) => format!("{}, quota of {quota:.1}", plural(cores, "core")),
        None => plural(cores, "core"),
    };
    let advice = match quota {
        Some(_) => {
            "raise the quota to whole cores: a thread that has used it up stops until the next period, and messages are late"
        }
        None if cores == 1 => "run the hub on another machine: on one core, hub and hubproof wait for each other",
        None => "",
    };
    Finding {
        what: "cores",
        found,
        allows: format!("{} with connections", plural(cores, "thread")),
        advice: advice.to_owned(),
    }
}

fn clock(facts: &MachineFacts, measured: &Measurements) -> Finding {
    let source = facts.clock_source.as_deref();
    let slow = source.is_some_and(|source| SLOW_CLOCKS.contains(&source));
    let of = source.map(|source| format!(", source {source}")).unwrap_or_default();
    let advice = if slow {
        "use another clock source, such as tsc (kernel option `clocksource=tsc`): each reading of this one takes long"
    } else if measured.clock_step > COARSE_STEP {
        "times shorter than this step cannot be measured; run hubproof on another system"
    } else {
        ""
    };
    Finding {
        what: "clock",
        found: format!("steps of {}{of}", format_short(measured.clock_step)),
        allows: format!("times from {} on", format_short(measured.clock_step.max(COARSE_STEP))),
        advice: advice.to_owned(),
    }
}

fn timers(measured: &Measurements) -> Finding {
    let TimerLateness { p50, p99, max } = measured.timers;
    let advice = if p99 > LATE_TIMER {
        "messages are sent this late: run on a machine with less other load, or in a virtual machine with dedicated cores"
    } else {
        ""
    };
    Finding {
        what: "timers",
        found: format!(
            "a sleep of 1 ms ends late by {} (p50), {} (p99), {} (max)",
            format_short(p50),
            format_short(p99),
            format_short(max)
        ),
        allows: format!("messages on time to within {}", format_short(p99)),
        advice: advice.to_owned(),
    }
}

fn round_trips(facts: &MachineFacts, measured: &Measurements) -> Finding {
    let RoundTrips { per_second, connections, p50, p99, busy_cores } = measured.round_trips;
    let rate = |rate: f64| format_grouped(rate.round() as u64);
    let elsewhere = format_grouped(rounded(messages_per_second(facts, &measured.round_trips)));
    let share = busy_cores / facts.cores.max(1) as f64;
    let why = if busy_cores > 0.0 {
        format!(", because hubproof used {} of the CPU time", format_percent(share.min(1.0)))
    } else {
        String::new()
    };
    Finding {
        what: "round trips",
        found: format!(
            "{} a second over {connections} connections, p50 {}, p99 {}, with the built-in server on the same cores",
            rate(per_second),
            format_nanos(p50),
            format_nanos(p99)
        ),
        allows: format!("about {elsewhere} messages a second to a hub on another machine{why}"),
        advice: String::new(),
    }
}

fn other_load(facts: &MachineFacts, measured: &Measurements) -> Finding {
    let Disturbance { others, stolen, .. } = measured.disturbance;
    let Some(others) = others else { return unreported("other load") };
    let stolen = stolen.filter(|share| *share > 0.005);
    let mut found = format!("other processes used {} of the CPU time", format_percent(others));
    if let Some(stolen) = stolen {
        found.push_str(&format!(", other virtual machines {}", format_percent(stolen)));
    }
    if let Some(average) = facts.load_average {
        found.push_str(&format!("; load average {average:.1}"));
    }
    let taken = others + stolen.unwrap_or(0.0);
    let advice = if taken > MUCH_CPU {
        "end other programs before a load run, and repeat this: the figures above were measured beside them"
    } else {
        ""
    };
    Finding {
        what: "other load",
        found,
        allows: format!("{} of the CPU time for hubproof and a hub", format_percent((1.0 - taken).max(0.0))),
        advice: advice.to_owned(),
    }
}

fn swap(facts: &MachineFacts, measured: &Measurements) -> Finding {
    let (Some(used), Some(pages)) = (facts.swap_used, measured.disturbance.swapped) else { return unreported("swap") };
    let used = if used == 0 { "none in use".to_owned() } else { format!("{} MiB in use", format_grouped(used >> 20)) };
    let advice = if pages > 0 {
        "the machine is swapping now, which delays messages: free memory before a load run"
    } else {
        ""
    };
    Finding {
        what: "swap",
        found: format!("{used}, {} pages moved while measuring", format_grouped(pages)),
        allows: String::new(),
        advice: advice.to_owned(),
    }
}

fn temperature(measured: &Measurements) -> Finding {
    let Some(times) = measured.disturbance.throttled else { return unreported("temperature") };
    let (found, advice) = match times {
        0 => ("no core was throttled".to_owned(), ""),
        times => (
            format!("cores were throttled {} times", format_grouped(times)),
            "let the machine cool down, or cool it better: hot cores are slowed down, and figures change with time",
        ),
    };
    Finding { what: "temperature", found, allows: String::new(), advice: advice.to_owned() }
}

fn unreported(what: &'static str) -> Finding {
    Finding { what, found: UNREPORTED.to_owned(), allows: String::new(), advice: String::new() }
}

/// Formats a time; a clock may have steps of nanoseconds.
fn format_short(time: Duration) -> String {
    match time.as_nanos() {
        nanos if nanos < 1_000 => format!("{nanos} ns"),
        nanos => format_nanos(nanos as f64),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn facts() -> MachineFacts {
        MachineFacts {
            limits: Some(DescriptorLimits { soft: Some(1_024), hard: Some(1_048_576) }),
            resources: MachineResources { descriptors: Some(1_048_576), ports: Some(28_232), memory: Some(2 << 30) },
            cores: 4,
            quota: None,
            clock_source: Some("tsc".to_owned()),
            load_average: Some(0.2),
            swap_used: Some(0),
        }
    }

    fn measurements() -> Measurements {
        let us = Duration::from_micros;
        Measurements {
            clock_step: Duration::from_nanos(30),
            timers: TimerLateness { p50: us(55), p99: us(120), max: us(900) },
            round_trips: RoundTrips { per_second: 40_000.0, connections: 32, p50: 3e5, p99: 9e5, busy_cores: 1.8 },
            disturbance: Disturbance { others: Some(0.01), stolen: Some(0.0), swapped: Some(0), throttled: Some(0) },
        }
    }

    fn warnings(facts: &MachineFacts, measured: &Measurements) -> Vec<&'static str> {
        let warned = |finding: &Finding| !finding.advice.is_empty();
        findings(facts, measured).iter().filter(|finding| warned(finding)).map(|finding| finding.what).collect()
    }

    #[test]
    fn a_good_machine_has_no_warning_and_a_plain_conclusion() {
        assert_eq!(warnings(&facts(), &measurements()), [""; 0]);
        assert_eq!(
            conclusion(&facts(), &measurements()),
            "This machine can hold about 25 000 connections and send about 80 000 messages a second from hubproof (40 000 with the hub on this machine); limited by ephemeral ports (connections) and 4 cores (messages)."
        );
    }

    #[rstest]
    #[case::descriptors(|facts: &mut MachineFacts, _: &mut Measurements| facts.resources.descriptors = Some(1_024), "descriptors", "924 connections; half")]
    #[case::ports(|facts: &mut MachineFacts, _: &mut Measurements| facts.resources.ports = Some(5_000), "ports", "5 000 connections from one source address")]
    #[case::memory(|facts: &mut MachineFacts, _: &mut Measurements| facts.resources.memory = Some(32 << 20), "memory", "8 192 connections of 4 KiB, or 1 024 of 32 KiB with TLS")]
    #[case::quota(|facts: &mut MachineFacts, _: &mut Measurements| facts.quota = Some(1.5), "cores", "4 threads with connections")]
    #[case::one_core(|facts: &mut MachineFacts, _: &mut Measurements| facts.cores = 1, "cores", "1 thread with connections")]
    #[case::clock_source(|facts: &mut MachineFacts, _: &mut Measurements| facts.clock_source = Some("hpet".to_owned()), "clock", "times from 1 µs on")]
    #[case::coarse_clock(|_: &mut MachineFacts, measured: &mut Measurements| measured.clock_step = Duration::from_millis(1), "clock", "times from 1.00 ms on")]
    #[case::timers(|_: &mut MachineFacts, measured: &mut Measurements| measured.timers.p99 = Duration::from_millis(4), "timers", "messages on time to within 4.00 ms")]
    #[case::other_load(|_: &mut MachineFacts, measured: &mut Measurements| measured.disturbance.others = Some(0.4), "other load", "60 % of the CPU time")]
    #[case::stolen(|_: &mut MachineFacts, measured: &mut Measurements| measured.disturbance.stolen = Some(0.3), "other load", "69 % of the CPU time")]
    #[case::swap(|_: &mut MachineFacts, measured: &mut Measurements| measured.disturbance.swapped = Some(7), "swap", "")]
    #[case::heat(|_: &mut MachineFacts, measured: &mut Measurements| measured.disturbance.throttled = Some(2), "temperature", "")]
    fn each_lack_is_one_warning_with_advice(
        #[case] change: fn(&mut MachineFacts, &mut Measurements),
        #[case] what: &str,
        #[case] allows: &str,
    ) {
        let (mut facts, mut measured) = (facts(), measurements());
        change(&mut facts, &mut measured);
        assert_eq!(warnings(&facts, &measured), [what]);
        let all = findings(&facts, &measured);
        let found = all.iter().find(|finding| finding.what == what).unwrap();
        assert!(found.allows.contains(allows), "{found:?}");
    }

    #[rstest]
    #[case::descriptors(|facts: &mut MachineFacts| facts.resources.descriptors = Some(1_124), "about 1 000 connections", "file descriptors (connections)")]
    #[case::memory(|facts: &mut MachineFacts| facts.resources.memory = Some(40 << 20), "about 10 000 connections", "memory (connections)")]
    #[case::quota(|facts: &mut MachineFacts| facts.quota = Some(2.0), "about 40 000 messages", "a CPU quota of 2.0 cores (messages)")]
    #[case::one_core(|facts: &mut MachineFacts| facts.cores = 1, "about 40 000 messages", "one core (messages)")]
    #[case::nothing_reported(|facts: &mut MachineFacts| facts.resources = MachineResources::default(), "send about 80 000 messages", "reports no limit of connections")]
    fn the_conclusion_names_what_limits_the_machine(
        #[case] change: fn(&mut MachineFacts),
        #[case] figure: &str,
        #[case] limit: &str,
    ) {
        let mut facts = facts();
        change(&mut facts);
        let text = conclusion(&facts, &measurements());
        assert!(text.contains(figure) && text.contains(limit), "{text}");
    }

    #[rstest]
    #[case(25_000, 80_000, "One such machine is enough for 25 000 connections and 80 000 messages a second.")]
    #[case(25_001, 0, "25 001 connections and 0 messages a second take 2 such machines (2 for the connections, 1 for")]
    #[case(
        9,
        400_001,
        "9 connections and 400 001 messages a second take 6 such machines (1 for the connections, 6 for"
    )]
    fn a_load_takes_so_many_machines(
        #[case] connections: u64,
        #[case] messages_per_second: u64,
        #[case] expected: &str,
    ) {
        let text = shares_needed(&facts(), &measurements(), WantedLoad { connections, messages_per_second });
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_system_that_reports_nothing_has_rows_without_warnings() {
        let facts = MachineFacts { cores: 2, ..MachineFacts::default() };
        let mut measured = measurements();
        (measured.disturbance, measured.round_trips.busy_cores) = (Disturbance::default(), 0.0);
        assert_eq!(warnings(&facts, &measured), [""; 0]);
        let rows = findings(&facts, &measured);
        assert_eq!(rows.iter().filter(|row| row.found == UNREPORTED).count(), 6, "{rows:?}");
        assert!(conclusion(&facts, &measured).contains("send about 40 000 messages a second"));
    }
}
