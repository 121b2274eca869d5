//! Notification subscriptions with filters (lines 430 to 455), indexed by customer and type.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use super::job::Status;
use super::needs::Amount;
use crate::machine::Conn;

/// The filters of a subscription; `None` lets everything pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// `customer_id`.
    pub customer: Option<Arc<str>>,
    /// `job_types`.
    pub job_types: Option<BTreeSet<Arc<str>>>,
    /// `priority_min`, inclusive.
    pub priority_min: Option<Amount>,
    /// `status`: names of states, some of which may be unknown.
    pub status: Option<BTreeSet<String>>,
}

/// The properties of a notification that filters check.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub customer: Option<&'a Arc<str>>,

    pub job_type: &'a Arc<str>,

    pub priority: Amount,
    /// The new state of the job.
    pub status: Status,
}

impl Filters {
    /// Whether a notification passes.
    pub fn pass(&self, subject: Subject<'_>) -> bool {
        self.customer.as_ref().is_none_or(|customer| subject.customer == Some(customer))
            && self.job_types.as_ref().is_none_or(|types| types.contains(subject.job_type))
            && self.priority_min.is_none_or(|least| subject.priority >= least)
            && self.status.as_ref().is_none_or(|names| names.contains(subject.status.name()))
    }
}

/// The notification subscriptions, one per connection. Subscriptions to a customer or to job types are checked only
/// for notifications about them.
#[derive(Debug, Default)]
pub struct Subscriptions {
    filters: HashMap<Conn, Filters>,
    customers: HashMap<Arc<str>, BTreeSet<Conn>>,
    types: HashMap<Arc<str>, BTreeSet<Conn>>,
    anything: BTreeSet<Conn>,
}

impl Subscriptions {
    /// Counts the subscriptions.
    pub fn len(&self) -> usize {
        self.filters.len()
    }

    /// Subscribes a connection, replacing its earlier subscription.
    pub fn insert(&mut self, conn: Conn, filters: Filters) {
        self.remove(conn);
        if let Some(customer) = &filters.customer {
            self.customers.entry(customer.clone()).or_default().insert(conn);
        } else if let Some(types) = &filters.job_types {
            for name in types {
                self.types.entry(name.clone()).or_default().insert(conn);
            }
        } else {
            self.anything.insert(conn);
        }
        self.filters.insert(conn, filters);
    }

    /// Ends a subscription and returns its filters.
    pub fn remove(&mut self, conn: Conn) -> Option<Filters> {
        let filters = self.filters.remove(&conn)?;
        if let Some(customer) = &filters.customer {
            forget(&mut self.customers, customer, conn);
        } else if let Some(types) = &filters.job_types {
            for name in types {
                forget(&mut self.types, name, conn);
            }
        } else {
            self.anything.remove(&conn);
        }
        Some(filters)
    }

    /// For a fault: returns the subscribers with several filters of which only the status must pass.
    pub fn loosely<'a>(&'a self, subject: Subject<'a>) -> impl Iterator<Item = Conn> + 'a {
        let passes = move |filters: &Filters| {
            let others = [filters.customer.is_some(), filters.job_types.is_some(), filters.priority_min.is_some()];
            let status = Filters { status: filters.status.clone(), ..Filters::default() };
            others.iter().filter(|given| **given).count() > 1 && status.status.is_some() && status.pass(subject)
        };
        self.filters.iter().filter(move |(_, filters)| passes(filters)).map(|(conn, _)| *conn)
    }

    /// For a fault: returns the subscribers whose only filter is a customer.
    pub fn of_customers(&self) -> impl Iterator<Item = Conn> + '_ {
        let only = |filters: &Filters| {
            filters.customer.is_some()
                && *filters == Filters { customer: filters.customer.clone(), ..Filters::default() }
        };
        self.filters.iter().filter(move |(_, filters)| only(filters)).map(|(conn, _)| *conn)
    }

    /// Returns the subscribers whose filters a notification passes.
    pub fn interested<'a>(&'a self, subject: Subject<'a>) -> impl Iterator<Item = Conn> + 'a {
        let by_customer = subject.customer.and_then(|customer| self.customers.get(customer));
        let by_type = self.types.get(subject.job_type);
        (by_customer.into_iter().chain(by_type).chain([&self.anything]).flatten().copied())
            .filter(move |conn| self.filters.get(conn).is_some_and(|filters| filters.pass(subject)))
    }
}

fn forget<K: Hash + Eq>(index: &mut HashMap<K, BTreeSet<Conn>>, key: &K, conn: Conn) {
    if let Some(conns) = index.get_mut(key) {
        conns.remove(&conn);
        if conns.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn names<T: From<&'static str> + Ord>(names: &[&'static str]) -> Option<BTreeSet<T>> {
        Some(names.iter().map(|name| T::from(name)).collect())
    }

    #[rstest]
    #[case(Filters::default(), true)]
    #[case(Filters { customer: Some("c".into()), ..Filters::default() }, true)]
    #[case(Filters { customer: Some("d".into()), ..Filters::default() }, false)]
    #[case(Filters { job_types: names(&["x", "t"]), ..Filters::default() }, true)]
    #[case(Filters { job_types: names(&["x"]), ..Filters::default() }, false)]
    #[case(Filters { job_types: names(&[]), ..Filters::default() }, false)]
    #[case(Filters { priority_min: Some(Amount::new(70.0)), ..Filters::default() }, true)]
    #[case(Filters { priority_min: Some(Amount::new(70.5)), ..Filters::default() }, false)]
    #[case(Filters { status: names(&["queued", "in_progress"]), ..Filters::default() }, true)]
    #[case(Filters { status: names(&["completed"]), ..Filters::default() }, false)]
    #[case(Filters { customer: Some("c".into()), job_types: names(&["x"]), ..Filters::default() }, false)]
    fn every_filter_of_a_subscription_holds_back_what_does_not_pass(#[case] filters: Filters, #[case] passes: bool) {
        let (customer, job_type) = ("c".into(), "t".into());
        let subject = Subject {
            customer: Some(&customer),
            job_type: &job_type,
            priority: Amount::new(70.0),
            status: Status::InProgress,
        };
        assert_eq!(filters.pass(subject), passes);
        let mut all = Subscriptions::default();
        all.insert(1, Filters::default());
        all.insert(1, filters.clone());
        let interested = |all: &Subscriptions| all.interested(subject).collect::<Vec<_>>();
        assert_eq!(interested(&all), if passes { vec![1] } else { vec![] });
        assert_eq!(all.remove(1), Some(filters));
        assert_eq!(interested(&all), [0; 0]);
        assert!(all.customers.is_empty() && all.types.is_empty() && all.anything.is_empty());
    }
}
