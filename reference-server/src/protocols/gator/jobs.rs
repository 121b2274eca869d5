//! Jobs, for the effect of `stop` (lines 105 to 107). Their tasks execute nothing: the admin side starts jobs, finishes
//! tasks, and sees the effect of a stop.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The largest number of jobs; beyond it, ended jobs are removed, or the new one is refused.
const MAX_JOBS: usize = 1000;
/// The largest number of tasks of a job.
const MAX_TASKS: usize = 1000;
/// The longest name of a job in bytes.
const MAX_NAME: usize = 128;

/// A job to start: `{"name": N, "tasks": 3, "concurrency": 1}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartJob {
    pub name: String,
    pub tasks: usize,
    /// How many tasks run at the same time.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
}

fn default_concurrency() -> usize {
    1
}

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// It waits until a running task ends.
    Queued,
    Running,
    /// It ended on its own.
    Finished,
    /// A stop ended it while it ran.
    Stopped,
    /// A stop ended it while it was queued.
    Cancelled,
}

/// A job and its tasks.
#[derive(Debug, Serialize)]
pub struct GatorJob {
    name: String,
    /// Whether a stop has ended the job.
    stopped: bool,
    #[serde(skip)]
    concurrency: usize,
    /// The job's tasks, in the order in which they start.
    tasks: Vec<TaskState>,
}

#[derive(Debug, Default)]
pub struct GatorJobs(BTreeMap<String, GatorJob>);

/// What a faulty stop does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopFault {
    None,
    /// Running tasks keep running.
    Survives,
    /// Queued tasks still start.
    Schedules,
}

impl GatorJobs {
    /// Starts a job, and as many of its tasks as may run.
    pub fn start_job(&mut self, start: StartJob) -> Result<&GatorJob, String> {
        let StartJob { name, tasks, concurrency } = start;
        if name.is_empty() || name.len() > MAX_NAME || tasks > MAX_TASKS || concurrency == 0 {
            return Err(format!(
                "a job needs a name of 1 to {MAX_NAME} bytes, at most {MAX_TASKS} tasks, and a concurrency of 1 or more"
            ));
        }
        if self.0.contains_key(&name) {
            return Err(format!("job {name:?} already exists"));
        }
        if self.0.len() >= MAX_JOBS {
            self.0.retain(|_, job| job.tasks.iter().any(|task| matches!(task, TaskState::Queued | TaskState::Running)));
        }
        if self.0.len() >= MAX_JOBS {
            return Err(format!("there are already {MAX_JOBS} unfinished jobs"));
        }
        let mut job =
            GatorJob { name: name.clone(), stopped: false, concurrency, tasks: vec![TaskState::Queued; tasks] };
        job.start_tasks();
        Ok(self.0.entry(name).or_insert(job))
    }

    /// Finishes a task and starts the next.
    pub fn finish_task(&mut self, name: &str, task: usize) -> Result<&GatorJob, String> {
        let job = self.0.get_mut(name).ok_or_else(|| unknown_job(name))?;
        match job.tasks.get_mut(task) {
            Some(task @ TaskState::Running) => *task = TaskState::Finished,
            _ => return Err(format!("job {name:?} has no running task {task}")),
        }
        job.start_tasks();
        Ok(job)
    }

    /// Finds a job.
    pub fn find_job(&self, name: &str) -> Result<&GatorJob, String> {
        self.0.get(name).ok_or_else(|| unknown_job(name))
    }

    /// Ends all current jobs.
    pub fn stop_all(&mut self, defect: StopFault) {
        for job in self.0.values_mut() {
            job.stopped = true;
            for task in &mut job.tasks {
                *task = match *task {
                    TaskState::Running if defect != StopFault::Survives => TaskState::Stopped,
                    TaskState::Queued if defect != StopFault::Schedules => TaskState::Cancelled,
                    other => other,
                };
            }
            job.start_tasks();
        }
    }

    /// Counts the jobs.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl GatorJob {
    fn start_tasks(&mut self) {
        let running = self.tasks.iter().filter(|task| **task == TaskState::Running).count();
        let free = self.concurrency.saturating_sub(running);
        for task in self.tasks.iter_mut().filter(|task| **task == TaskState::Queued).take(free) {
            *task = TaskState::Running;
        }
    }
}

fn unknown_job(name: &str) -> String {
    let shown: String = name.chars().take(64).collect();
    format!("there is no job {shown:?}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(StopFault::None, json!(["finished", "stopped", "cancelled", "cancelled"]))]
    #[case(StopFault::Survives, json!(["finished", "running", "cancelled", "cancelled"]))]
    #[case(StopFault::Schedules, json!(["finished", "stopped", "running", "queued"]))]
    fn a_stop_ends_running_and_queued_tasks(#[case] defect: StopFault, #[case] want: serde_json::Value) {
        let mut jobs = GatorJobs::default();
        let job = jobs.start_job(StartJob { name: "j".to_owned(), tasks: 4, concurrency: 1 }).unwrap();
        assert_eq!(json!(job.tasks), json!(["running", "queued", "queued", "queued"]));
        jobs.finish_task("j", 0).unwrap();
        jobs.stop_all(defect);
        assert_eq!(json!(jobs.find_job("j").unwrap()), json!({ "name": "j", "stopped": true, "tasks": want }));
        let later = jobs.start_job(StartJob { name: "k".to_owned(), tasks: 2, concurrency: 5 }).unwrap();
        assert_eq!(json!(later.tasks), json!(["running", "running"]));
    }

    #[test]
    fn the_numbers_of_jobs_and_of_tasks_are_limited() {
        let mut jobs = GatorJobs::default();
        let start = |tasks| StartJob { name: "j".to_owned(), tasks, concurrency: 1 };
        assert!(jobs.start_job(start(MAX_TASKS + 1)).is_err());
        jobs.start_job(start(1)).unwrap();
        assert!(jobs.start_job(start(1)).is_err());
        for number in 1..MAX_JOBS {
            jobs.start_job(StartJob { name: number.to_string(), tasks: 1, concurrency: 1 }).unwrap();
        }
        let extra = || StartJob { name: "extra".to_owned(), tasks: 1, concurrency: 1 };
        assert!(jobs.start_job(extra()).is_err());
        jobs.finish_task("j", 0).unwrap();
        jobs.start_job(extra()).unwrap();
        assert_eq!(jobs.count(), MAX_JOBS);
    }
}
