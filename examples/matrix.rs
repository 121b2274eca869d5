#[allow(dead_code)]
#[path = "../tests/on_disk.rs"]
mod on_disk;
#[path = "../tests/virtual_wire.rs"]
mod virtual_wire;
use hubproof::event::Verdict;
use std::collections::{BTreeMap, BTreeSet};
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let p = virtual_wire::Protocol::load(&args[0]);
    let only = args.get(1).cloned().unwrap_or_default();
    let start = std::time::Instant::now();
    let mut base: BTreeMap<(String, String), Verdict> = BTreeMap::new();
    for program in &p.scenarios.programs {
        if let Some(r) = p.play(program, None) {
            for c in r.checks {
                base.insert((r.id.clone(), c.name.clone()), c.verdict);
            }
        }
    }
    let (mut killed, mut surviving, mut over) = (0, 0, 0);
    let mut proven: BTreeSet<String> = BTreeSet::new();
    for fault in hubproof_reference::faults().filter(|f| f.protocol == args[0] && f.id.contains(&only)) {
        let mut hit: BTreeSet<String> = BTreeSet::new();
        let mut outside: Vec<String> = vec![];
        let mut broke = false;
        let mut untagged = vec![];
        for program in &p.scenarios.programs {
            let r = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| p.play(program, Some(fault.id)))) {
                Ok(Some(r)) => r,
                Ok(None) => continue,
                Err(_) => {
                    println!("PANIC {} {}", fault.id, program.id);
                    continue;
                }
            };
            if let Some(m) = &r.mistake {
                println!("MISTAKE {} {} {m}", fault.id, r.id);
            }
            if r.verdict == Verdict::Inconclusive {
                broke = true;
            }
            for c in &r.checks {
                let b = base.get(&(r.id.clone(), c.name.clone())).copied();
                let worse = match c.verdict {
                    Verdict::Fail | Verdict::Warn => b != Some(c.verdict),
                    Verdict::Info => b == Some(Verdict::Pass) || b == Some(Verdict::NotTestable),
                    _ => false,
                };
                if !worse {
                    continue;
                }
                if c.rules.is_empty() {
                    untagged.push(format!("{} {} {}", r.id, c.name, c.message));
                }
                for (rule, v) in &c.rules {
                    let bad = matches!(v, Verdict::Fail | Verdict::Warn) || *v == Verdict::Info;
                    if !bad {
                        continue;
                    }
                    if fault.rules.contains(&rule.id.as_str()) {
                        hit.insert(rule.id.clone());
                        if !rule.lowered {
                            proven.insert(rule.id.clone());
                        }
                    } else if *v != Verdict::Info {
                        outside.push(format!(
                            "{} {} [{}] {}: {}",
                            r.id,
                            rule.id,
                            v.name(),
                            c.step,
                            c.message.chars().take(160).collect::<String>()
                        ));
                    }
                }
            }
        }
        if hit.is_empty() {
            surviving += 1;
            println!("SURVIVES {} {:?} {} broke={broke} {untagged:?}", fault.id, fault.rules, fault.text);
        } else {
            killed += 1;
        }
        if !outside.is_empty() {
            over += 1;
            println!("OUTSIDE {} {:?} {}", fault.id, fault.rules, fault.text);
            outside.sort();
            outside.dedup();
            for o in outside.iter().take(6) {
                println!("      {o}");
            }
        }
    }
    println!("killed {killed} surviving {surviving} with outside {over} in {:?}", start.elapsed());
    let unproven: Vec<_> = p
        .pack
        .rules
        .values()
        .filter(|r| !proven.contains(&r.id))
        .map(|r| format!("{}({},{})", r.id, r.level.name(), r.basis.name()))
        .collect();
    println!("unproven: {}", unproven.join(" "));
}
