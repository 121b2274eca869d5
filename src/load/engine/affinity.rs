//! CPU affinity and priority of threads: shards come first, since a late shard sends messages late, while counting may
//! be late.

/// The `nice` increment of the other threads; each step costs about a tenth of the core.
#[cfg(target_os = "linux")]
const NICE_INCREMENT: i32 = 10;

/// Pins the calling thread, number `own` of `all`, to its own core. Otherwise the system would sometimes run two
/// threads on one core while another core is idle. With fewer cores than threads the system decides.
#[cfg(target_os = "linux")]
pub fn pin_to_core(own: usize, all: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    if cores.len() == all && all > 1 {
        let mut one = CpuSet::new();
        one.set(cores[own]);
        // If this fails, the run continues, only less evenly.
        let _ = sched_setaffinity(None, &one);
    }
}

/// Lowers the priority of the calling thread below the shards.
#[cfg(target_os = "linux")]
pub fn lower_priority() {
    use rustix::process::{getpriority_process, setpriority_process};
    // On Linux every thread has its own nice value.
    if let Ok(rank) = getpriority_process(None) {
        let _ = setpriority_process(None, rank + NICE_INCREMENT);
    }
}

/// Left to the system on other platforms.
#[cfg(not(target_os = "linux"))]
pub fn pin_to_core(_own: usize, _all: usize) {}

/// Left to the system on other platforms.
#[cfg(not(target_os = "linux"))]
pub fn lower_priority() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;
    use rustix::thread::sched_getaffinity;

    #[test]
    fn each_shard_is_pinned_to_its_own_core_and_other_threads_have_lower_priority() {
        let all = sched_getaffinity(None).expect("known").count() as usize;
        let taken = |own| {
            let thread = std::thread::spawn(move || {
                pin_to_core(own, all);
                (sched_getaffinity(None).expect("known"), getpriority_process(None).expect("known"))
            });
            thread.join().expect("no panic")
        };
        let rank = getpriority_process(None).expect("known");
        let mut sets = Vec::new();
        for own in 0..all {
            let (set, ours) = taken(own);
            assert_eq!((set.count(), ours), (1, rank));
            sets.push(set);
        }
        assert!((1..all).all(|own| sets[own] != sets[own - 1]));
        let other = std::thread::spawn(|| {
            lower_priority();
            getpriority_process(None).expect("known")
        });
        assert_eq!(other.join().expect("no panic"), (rank + NICE_INCREMENT).min(19));
        assert_eq!(getpriority_process(None).expect("known"), rank, "only the thread's priority changes");
    }
}
