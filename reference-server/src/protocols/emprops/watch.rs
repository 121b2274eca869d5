//! Notification subscriptions with filters (lines 430 to 455), indexed by customer and type.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use super::job::JobStatus;
use super::needs::Amount;
use crate::machine::ConnectionId;

/// The filters of a subscription; `None` lets everything pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotificationFilters {
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
pub struct NotificationSubject<'a> {
    pub customer: Option<&'a Arc<str>>,

    pub job_type: &'a Arc<str>,

    pub priority: Amount,
    /// The new state of the job.
    pub status: JobStatus,
}

impl NotificationFilters {
    /// Whether a notification passes.
    pub fn matches(&self, subject: NotificationSubject<'_>) -> bool {
        self.customer.as_ref().is_none_or(|customer| subject.customer == Some(customer))
            && self.job_types.as_ref().is_none_or(|types| types.contains(subject.job_type))
            && self.priority_min.is_none_or(|least| subject.priority >= least)
            && self.status.as_ref().is_none_or(|names| names.contains(subject.status.name()))
    }
}

/// The notification subscriptions, one per connection. Subscriptions to a customer or to job types are checked only
/// for notifications about them.
#[derive(Debug, Default)]
pub struct NotificationSubscriptions {
    filters: HashMap<ConnectionId, NotificationFilters>,
    customers: HashMap<Arc<str>, BTreeSet<ConnectionId>>,
    types: HashMap<Arc<str>, BTreeSet<ConnectionId>>,
    anything: BTreeSet<ConnectionId>,
}

impl NotificationSubscriptions {
    /// Counts the subscriptions.
    pub fn len(&self) -> usize {
        self.filters.len()
    }

    /// Subscribes a connection, replacing its earlier subscription.
    pub fn insert(&mut self, conn: ConnectionId, filters: NotificationFilters) {
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
    pub fn remove(&mut self, conn: ConnectionId) -> Option<NotificationFilters> {
        let filters = self.filters.remove(&conn)?;
        if let Some(customer) = &filters.customer {
            remove_from_index(&mut self.customers, customer, conn);
        } else if let Some(types) = &filters.job_types {
            for name in types {
                remove_from_index(&mut self.types, name, conn);
            }
        } else {
            self.anything.remove(&conn);
        }
        Some(filters)
    }

    /// For a fault: returns the subscribers with several filters of which only the status must pass.
    pub fn subscribers_matching_status_only<'a>(
        &'a self,
        subject: NotificationSubject<'a>,
    ) -> impl Iterator<Item = ConnectionId> + 'a {
        let passes = move |filters: &NotificationFilters| {
            let others = [filters.customer.is_some(), filters.job_types.is_some(), filters.priority_min.is_some()];
            let status = NotificationFilters { status: filters.status.clone(), ..NotificationFilters::default() };
            others.iter().filter(|given| **given).count() > 1 && status.status.is_some() && status.matches(subject)
        };
        self.filters.iter().filter(move |(_, filters)| passes(filters)).map(|(conn, _)| *conn)
    }

    /// For a fault: returns the subscribers whose only filter is a customer.
    pub fn customer_only_subscribers(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        let only = |filters: &NotificationFilters| {
            filters.customer.is_some()
                && *filters
                    == NotificationFilters { customer: filters.customer.clone(), ..NotificationFilters::default() }
        };
        self.filters.iter().filter(move |(_, filters)| only(filters)).map(|(conn, _)| *conn)
    }

    /// Returns the subscribers whose filters a notification passes.
    pub fn matching_subscribers<'a>(
        &'a self,
        subject: NotificationSubject<'a>,
    ) -> impl Iterator<Item = ConnectionId> + 'a {
        let by_customer = subject.customer.and_then(|customer| self.customers.get(customer));
        let by_type = self.types.get(subject.job_type);
        (by_customer.into_iter().chain(by_type).chain([&self.anything]).flatten().copied())
            .filter(move |conn| self.filters.get(conn).is_some_and(|filters| filters.matches(subject)))
    }
}

fn remove_from_index<K: Hash + Eq>(index: &mut HashMap<K, BTreeSet<ConnectionId>>, key: &K, conn: ConnectionId) {
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
    #[case(NotificationFilters::default(), true)]
    #[case(NotificationFilters { customer: Some("c".into()), ..NotificationFilters::default() }, true)]
    #[case(NotificationFilters { customer: Some("d".into()), ..NotificationFilters::default() }, false)]
    #[case(NotificationFilters { job_types: names(&["x", "t"]), ..NotificationFilters::default() }, true)]
    #[case(NotificationFilters { job_types: names(&["x"]), ..NotificationFilters::default() }, false)]
    #[case(NotificationFilters { job_types: names(&[]), ..NotificationFilters::default() }, false)]
    #[case(NotificationFilters { priority_min: Some(Amount::new(70.0)), ..NotificationFilters::default() }, true)]
    #[case(NotificationFilters { priority_min: Some(Amount::new(70.5)), ..NotificationFilters::default() }, false)]
    #[case(NotificationFilters { status: names(&["queued", "in_progress"]), ..NotificationFilters::default() }, true)]
    #[case(NotificationFilters { status: names(&["completed"]), ..NotificationFilters::default() }, false)]
    #[case(NotificationFilters { customer: Some("c".into()), job_types: names(&["x"]), ..NotificationFilters::default() }, false)]
    fn every_subscription_filter_withholds_updates_that_do_not_match(
        #[case] filters: NotificationFilters,
        #[case] passes: bool,
    ) {
        let (customer, job_type) = ("c".into(), "t".into());
        let subject = NotificationSubject {
            customer: Some(&customer),
            job_type: &job_type,
            priority: Amount::new(70.0),
            status: JobStatus::InProgress,
        };
        assert_eq!(filters.matches(subject), passes);
        let mut all = NotificationSubscriptions::default();
        all.insert(1, NotificationFilters::default());
        all.insert(1, filters.clone());
        let interested = |all: &NotificationSubscriptions| all.matching_subscribers(subject).collect::<Vec<_>>();
        assert_eq!(interested(&all), if passes { vec![1] } else { vec![] });
        assert_eq!(all.remove(1), Some(filters));
        assert_eq!(interested(&all), [0; 0]);
        assert!(all.customers.is_empty() && all.types.is_empty() && all.anything.is_empty());
    }
}
