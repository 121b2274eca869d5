#[allow(dead_code)]
#[path = "../tests/on_disk.rs"]
mod on_disk;
#[path = "../tests/virtual_wire.rs"]
mod virtual_wire;
use hubproof::event::Verdict;
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let protocol = virtual_wire::Protocol::load(&args[0]);
    let only = args.get(1).map(String::as_str).unwrap_or("");
    let fault = args.get(2).map(String::as_str);
    for program in &protocol.scenarios.programs {
        if !program.id.contains(only) {
            continue;
        }
        match protocol.play(program, fault) {
            None => println!("{}: not testable", program.id),
            Some(r) => {
                println!(
                    "{}: {} in {:?} cause={:?} mistake={:?}",
                    r.id,
                    r.verdict.name(),
                    r.duration,
                    r.cause.as_ref().map(|c| &c.message),
                    r.mistake
                );
                for c in &r.checks {
                    if !matches!(c.verdict, Verdict::Pass) || args.len() > 3 {
                        println!(
                            "   {} {} | {} | {} | {:?}",
                            c.verdict.name(),
                            c.name,
                            c.step,
                            c.message,
                            c.detail.as_ref().map(|d| (&d.sent, &d.expected, &d.received))
                        );
                    }
                }
                if !r.leftovers.is_empty() {
                    println!("   left {:?}", r.leftovers);
                }
                if args.len() > 3 {
                    for f in &r.history {
                        println!("      {:?} {} {:?} {} {}", f.at, f.actor, f.direction, f.kind, f.text);
                    }
                }
            }
        }
    }
}
