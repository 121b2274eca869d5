//! The registered workers, and an index of those to which jobs are offered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::needs::{Amount, JobNeeds, WorkerCapabilities};
use super::queue::JobNumber;
use crate::machine::ConnectionId;

/// A registered worker, until its connection ends or another worker replaces it.
#[derive(Debug)]
pub struct Worker {
    pub id: Arc<str>,
    pub capabilities: WorkerCapabilities,
    /// Whether the worker gets `job_available` (line 115).
    pub subscribed: bool,
    /// Whether the worker is idle, by its own messages or because its last job has ended.
    pub idle: bool,

    pub held: BTreeSet<JobNumber>,
    /// When the worker's last message arrived.
    pub seen: Duration,
    /// Whether the worker has missed its heartbeats and not sent a message since.
    pub lost: bool,
    /// When the worker's heartbeat is checked.
    pub due: Duration,
}

impl Worker {
    fn is_listening(&self) -> bool {
        self.subscribed && self.idle && !self.lost
    }
}

/// All workers, by connection.
#[derive(Debug, Default)]
pub struct WorkerTable {
    workers: BTreeMap<ConnectionId, Worker>,
    names: HashMap<Arc<str>, ConnectionId>,
    lost: usize,
    /// The workers to which jobs are offered, by GPU memory; then the same by service and by component.
    listening: ListeningWorkers,
    services: HashMap<Arc<str>, ListeningWorkers>,
    components: HashMap<Arc<str>, ListeningWorkers>,
}

type ListeningWorkers = BTreeSet<(Amount, ConnectionId)>;

impl WorkerTable {
    /// Returns the worker of a connection.
    pub fn get(&self, conn: ConnectionId) -> Option<&Worker> {
        self.workers.get(&conn)
    }

    /// Finds the connection of a worker by its id.
    pub fn find_by_id(&self, id: &str) -> Option<ConnectionId> {
        self.names.get(id).copied()
    }

    /// Counts the workers that are not lost.
    pub fn active_count(&self) -> usize {
        self.workers.len() - self.lost
    }

    /// Returns all workers.
    pub fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Worker)> {
        self.workers.iter().map(|(conn, worker)| (*conn, worker))
    }

    /// Adds a worker. Its connection and its id must be free.
    pub fn insert(&mut self, conn: ConnectionId, worker: Worker) {
        self.names.insert(worker.id.clone(), conn);
        self.lost += usize::from(worker.lost);
        self.workers.insert(conn, worker);
        self.update_indexes(conn, true);
    }

    pub fn remove(&mut self, conn: ConnectionId) -> Option<Worker> {
        self.update_indexes(conn, false);
        let worker = self.workers.remove(&conn)?;
        if self.names.get(&worker.id) == Some(&conn) {
            self.names.remove(&worker.id);
        }
        self.lost -= usize::from(worker.lost);
        Some(worker)
    }

    /// Changes a worker and updates the indexes.
    pub fn change_worker<T>(&mut self, conn: ConnectionId, change: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        let listened = self.workers.get(&conn)?.is_listening();
        if listened {
            self.update_indexes(conn, false);
        }
        let worker = self.workers.get_mut(&conn)?;
        self.lost -= usize::from(worker.lost);
        let result = change(worker);
        self.lost += usize::from(worker.lost);
        self.update_indexes(conn, true);
        Some(result)
    }

    /// Records a message from a worker; returns whether the worker had been lost.
    pub fn mark_alive(&mut self, conn: ConnectionId, now: Duration) -> bool {
        let Some(worker) = self.workers.get_mut(&conn) else { return false };
        worker.seen = now;
        worker.lost && self.change_worker(conn, |worker| worker.lost = false).is_some()
    }

    /// Sets when the heartbeat of a worker is checked; `false` if there is no such worker.
    pub fn set_heartbeat_due(&mut self, conn: ConnectionId, due: Duration) -> bool {
        self.workers.get_mut(&conn).map(|worker| worker.due = due).is_some()
    }

    /// Assigns a job to a worker, which is busy from then on.
    pub fn assign_job(&mut self, conn: ConnectionId, job: JobNumber) {
        let Some(worker) = self.workers.get_mut(&conn) else { return };
        worker.held.insert(job);
        if worker.idle {
            self.change_worker(conn, |worker| worker.idle = false);
        }
    }

    /// Takes a job from a worker, which becomes idle with its last one.
    pub fn release_job(&mut self, conn: ConnectionId, job: JobNumber) {
        let Some(worker) = self.workers.get_mut(&conn) else { return };
        if worker.held.remove(&job) && worker.held.is_empty() && !worker.idle {
            self.change_worker(conn, |worker| worker.idle = true);
        }
    }

    /// Returns the workers to which a job is offered: subscribed, idle and capable.
    pub fn workers_listening_for<'a>(&'a self, needs: &'a JobNeeds) -> impl Iterator<Item = ConnectionId> + 'a {
        static NO_WORKERS: ListeningWorkers = ListeningWorkers::new();
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
    fn update_indexes(&mut self, conn: ConnectionId, there: bool) {
        let Some(worker) = self.workers.get(&conn).filter(|worker| worker.is_listening()) else { return };
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

    use super::super::needs::{GPU_MEMORY, HardwareValue};
    use super::*;

    fn worker(services: &BTreeSet<u8>, components: &BTreeSet<u8>, gpu: u8, subscribed: bool, idle: bool) -> Worker {
        let name = |prefix: &str, number: &u8| Arc::from(format!("{prefix}{number}"));
        Worker {
            id: format!("{services:?}{gpu}").into(),
            capabilities: WorkerCapabilities {
                services: services.iter().map(|number| name("s", number)).collect(),
                components: components.iter().map(|number| name("c", number)).collect(),
                hardware: [(GPU_MEMORY.to_owned(), HardwareValue::Amount(Amount::new(gpu.into())))].into(),
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
        fn the_indexes_find_the_same_workers_as_a_full_scan(
            workers in prop::collection::vec(
                (prop::collection::btree_set(0u8..3, 0..3), prop::collection::btree_set(0u8..3, 0..3), 0u8..4, any::<bool>(), any::<bool>()),
                0..12,
            ),
            changes in prop::collection::vec((0u64..12, 0u8..5), 0..40),
            service in prop::option::of(0u8..3),
            component in prop::option::of(0u8..3),
            gpu in prop::option::of(1u8..4),
        ) {
            let mut all = WorkerTable::default();
            for (conn, (services, components, gpu, subscribed, idle)) in workers.iter().enumerate() {
                all.insert(conn as u64, worker(services, components, *gpu, *subscribed, *idle));
            }
            for (conn, what) in changes {
                match what {
                    0 => drop(all.remove(conn)),
                    1 => all.assign_job(conn, 7),
                    2 => all.release_job(conn, 7),
                    3 => drop(all.change_worker(conn, |worker| worker.lost = true)),
                    _ => drop(all.mark_alive(conn, Duration::from_secs(1))),
                }
            }
            let needs = JobNeeds {
                service: service.map(|number| format!("s{number}").into()),
                component: component.map(|number| format!("c{number}").into()),
                hardware: gpu.map(|gb| (GPU_MEMORY.to_owned(), HardwareValue::Amount(Amount::new(gb.into())))).into_iter().collect(),
                ..JobNeeds::default()
            };
            let found: BTreeSet<ConnectionId> = all.workers_listening_for(&needs).collect();
            let want = all.iter().filter(|(_, worker)| worker.is_listening() && worker.capabilities.meet(&needs));
            prop_assert_eq!(found, want.map(|(conn, _)| conn).collect::<BTreeSet<_>>());
            prop_assert_eq!(all.active_count(), all.iter().filter(|(_, worker)| !worker.lost).count());
            for conn in 0..12 {
                all.remove(conn);
            }
            prop_assert!(all.listening.is_empty() && all.services.is_empty() && all.components.is_empty() && all.names.is_empty());
        }
    }
}
