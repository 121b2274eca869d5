//! The registered workers, and an index of those to which jobs are offered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::needs::{Amount, Capabilities, Needs};
use super::queue::JobNo;
use crate::machine::Conn;

/// A registered worker, until its connection ends or another worker replaces it.
#[derive(Debug)]
pub struct Worker {
    pub id: Arc<str>,
    pub capabilities: Capabilities,
    /// Whether the worker gets `job_available` (line 115).
    pub subscribed: bool,
    /// Whether the worker is idle, by its own messages or because its last job has ended.
    pub idle: bool,

    pub held: BTreeSet<JobNo>,
    /// When the worker's last message arrived.
    pub seen: Duration,
    /// Whether the worker has missed its heartbeats and not sent a message since.
    pub lost: bool,
    /// When the worker's heartbeat is checked.
    pub due: Duration,
}

impl Worker {
    fn listens(&self) -> bool {
        self.subscribed && self.idle && !self.lost
    }
}

/// All workers, by connection.
#[derive(Debug, Default)]
pub struct Workers {
    workers: BTreeMap<Conn, Worker>,
    names: HashMap<Arc<str>, Conn>,
    lost: usize,
    /// The workers to which jobs are offered, by GPU memory; then the same by service and by component.
    listening: Listening,
    services: HashMap<Arc<str>, Listening>,
    components: HashMap<Arc<str>, Listening>,
}

type Listening = BTreeSet<(Amount, Conn)>;

impl Workers {
    /// Returns the worker of a connection.
    pub fn get(&self, conn: Conn) -> Option<&Worker> {
        self.workers.get(&conn)
    }

    /// Finds the connection of a worker by its id.
    pub fn named(&self, id: &str) -> Option<Conn> {
        self.names.get(id).copied()
    }

    /// Counts the workers that are not lost.
    pub fn active(&self) -> usize {
        self.workers.len() - self.lost
    }

    /// Returns all workers.
    pub fn iter(&self) -> impl Iterator<Item = (Conn, &Worker)> {
        self.workers.iter().map(|(conn, worker)| (*conn, worker))
    }

    /// Adds a worker. Its connection and its id must be free.
    pub fn insert(&mut self, conn: Conn, worker: Worker) {
        self.names.insert(worker.id.clone(), conn);
        self.lost += usize::from(worker.lost);
        self.workers.insert(conn, worker);
        self.index(conn, true);
    }

    pub fn remove(&mut self, conn: Conn) -> Option<Worker> {
        self.index(conn, false);
        let worker = self.workers.remove(&conn)?;
        if self.names.get(&worker.id) == Some(&conn) {
            self.names.remove(&worker.id);
        }
        self.lost -= usize::from(worker.lost);
        Some(worker)
    }

    /// Changes a worker and updates the indexes.
    pub fn change<T>(&mut self, conn: Conn, change: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        let listened = self.workers.get(&conn)?.listens();
        if listened {
            self.index(conn, false);
        }
        let worker = self.workers.get_mut(&conn)?;
        self.lost -= usize::from(worker.lost);
        let result = change(worker);
        self.lost += usize::from(worker.lost);
        self.index(conn, true);
        Some(result)
    }

    /// Records a message from a worker; returns whether the worker had been lost.
    pub fn mark_alive(&mut self, conn: Conn, now: Duration) -> bool {
        let Some(worker) = self.workers.get_mut(&conn) else { return false };
        worker.seen = now;
        worker.lost && self.change(conn, |worker| worker.lost = false).is_some()
    }

    /// Sets when the heartbeat of a worker is checked; `false` if there is no such worker.
    pub fn expect(&mut self, conn: Conn, due: Duration) -> bool {
        self.workers.get_mut(&conn).map(|worker| worker.due = due).is_some()
    }

    /// Assigns a job to a worker, which is busy from then on.
    pub fn hold(&mut self, conn: Conn, job: JobNo) {
        let Some(worker) = self.workers.get_mut(&conn) else { return };
        worker.held.insert(job);
        if worker.idle {
            self.change(conn, |worker| worker.idle = false);
        }
    }

    /// Takes a job from a worker, which becomes idle with its last one.
    pub fn release(&mut self, conn: Conn, job: JobNo) {
        let Some(worker) = self.workers.get_mut(&conn) else { return };
        if worker.held.remove(&job) && worker.held.is_empty() && !worker.idle {
            self.change(conn, |worker| worker.idle = true);
        }
    }

    /// Returns the workers to which a job is offered: subscribed, idle and capable.
    pub fn listening<'a>(&'a self, needs: &'a Needs) -> impl Iterator<Item = Conn> + 'a {
        static NO_WORKERS: Listening = Listening::new();
        let by_service = needs.service.as_ref().map(|name| self.services.get(name).unwrap_or(&NO_WORKERS));
        let by_component = needs.component.as_ref().map(|name| self.components.get(name).unwrap_or(&NO_WORKERS));
        let fewest = match (by_service, by_component) {
            (Some(a), Some(b)) if b.len() < a.len() => b,
            (Some(some), _) | (None, Some(some)) => some,
            (None, None) => &self.listening,
        };
        let least = needs.gpu_memory().unwrap_or(Amount::new(f64::MIN));
        fewest
            .range((least, 0)..)
            .map(|(_, conn)| *conn)
            .filter(|conn| self.workers.get(conn).is_some_and(|worker| worker.capabilities.meet(needs)))
    }

    /// Adds a worker to the indexes if jobs are offered to it, or removes it.
    fn index(&mut self, conn: Conn, there: bool) {
        let Some(worker) = self.workers.get(&conn).filter(|worker| worker.listens()) else { return };
        let key = (worker.capabilities.gpu_memory(), conn);
        let named = [
            (&mut self.services, &worker.capabilities.services),
            (&mut self.components, &worker.capabilities.components),
        ];
        for (index, names) in named {
            for name in names {
                if there {
                    index.entry(name.clone()).or_default().insert(key);
                } else if let Some(listening) = index.get_mut(name) {
                    listening.remove(&key);
                    if listening.is_empty() {
                        index.remove(name);
                    }
                }
            }
        }
        if there {
            self.listening.insert(key);
        } else {
            self.listening.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::needs::{GPU_MEMORY, Trait};
    use super::*;

    fn worker(services: &BTreeSet<u8>, components: &BTreeSet<u8>, gpu: u8, subscribed: bool, idle: bool) -> Worker {
        let name = |prefix: &str, number: &u8| Arc::from(format!("{prefix}{number}"));
        Worker {
            id: format!("{services:?}{gpu}").into(),
            capabilities: Capabilities {
                services: services.iter().map(|number| name("s", number)).collect(),
                components: components.iter().map(|number| name("c", number)).collect(),
                hardware: [(GPU_MEMORY.to_owned(), Trait::Amount(Amount::new(gpu.into())))].into(),
            },
            subscribed,
            idle,
            held: BTreeSet::new(),
            seen: Duration::ZERO,
            lost: false,
            due: Duration::ZERO,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// After any changes, the indexes find the same workers as a scan.
        #[test]
        fn the_indexes_find_the_same_workers_as_a_scan_of_all(
            workers in prop::collection::vec(
                (prop::collection::btree_set(0u8..3, 0..3), prop::collection::btree_set(0u8..3, 0..3), 0u8..4, any::<bool>(), any::<bool>()),
                0..12,
            ),
            changes in prop::collection::vec((0u64..12, 0u8..5), 0..40),
            service in prop::option::of(0u8..3),
            component in prop::option::of(0u8..3),
            gpu in prop::option::of(1u8..4),
        ) {
            let mut all = Workers::default();
            for (conn, (services, components, gpu, subscribed, idle)) in workers.iter().enumerate() {
                all.insert(conn as u64, worker(services, components, *gpu, *subscribed, *idle));
            }
            for (conn, what) in changes {
                match what {
                    0 => drop(all.remove(conn)),
                    1 => all.hold(conn, 7),
                    2 => all.release(conn, 7),
                    3 => drop(all.change(conn, |worker| worker.lost = true)),
                    _ => drop(all.mark_alive(conn, Duration::from_secs(1))),
                }
            }
            let needs = Needs {
                service: service.map(|number| format!("s{number}").into()),
                component: component.map(|number| format!("c{number}").into()),
                hardware: gpu.map(|gb| (GPU_MEMORY.to_owned(), Trait::Amount(Amount::new(gb.into())))).into_iter().collect(),
                ..Needs::default()
            };
            let found: BTreeSet<Conn> = all.listening(&needs).collect();
            let want = all.iter().filter(|(_, worker)| worker.listens() && worker.capabilities.meet(&needs));
            prop_assert_eq!(found, want.map(|(conn, _)| conn).collect::<BTreeSet<_>>());
            prop_assert_eq!(all.active(), all.iter().filter(|(_, worker)| !worker.lost).count());
            for conn in 0..12 {
                all.remove(conn);
            }
            prop_assert!(all.listening.is_empty() && all.services.is_empty() && all.components.is_empty() && all.names.is_empty());
        }
    }
}
