//! The resources that clients can subscribe to, and their subscribers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::machine::Conn;

/// The kinds of resources (lines 565 to 571). `worker` is not among them, but the routing table knows worker
/// subscribers (line 589).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Experiment,
    Task,
    Project,
    User,
    System,
    Worker,
}

/// The kinds by the names that clients use.
pub const KINDS: &[(&str, Kind)] = &[
    ("experiment", Kind::Experiment),
    ("task", Kind::Task),
    ("project", Kind::Project),
    ("user", Kind::User),
    ("system", Kind::System),
    ("worker", Kind::Worker),
];

impl Kind {
    pub fn named(name: &str) -> Option<Kind> {
        KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// A resource. The system is one resource, whatever id a client gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Topic {
    pub kind: Kind,
    pub id: Arc<str>,
}

impl Topic {
    pub fn new(kind: Kind, id: &str) -> Topic {
        Topic { kind, id: if kind == Kind::System { "" } else { id }.into() }
    }

    /// Formats the resource for people: `experiment exp-123`.
    pub fn show(&self) -> String {
        format!("{} {}", self.kind.name(), self.id).trim_end().to_owned()
    }
}

/// The subscriptions, by topic and by connection.
#[derive(Debug, Default)]
pub struct Subscriptions {
    by_topic: BTreeMap<Topic, BTreeSet<Conn>>,
    by_conn: BTreeMap<Conn, BTreeSet<Topic>>,
}

impl Subscriptions {
    /// Subscribes a connection.
    pub fn add(&mut self, conn: Conn, topic: Topic) {
        self.by_topic.entry(topic.clone()).or_default().insert(conn);
        self.by_conn.entry(conn).or_default().insert(topic);
    }

    /// Ends a subscription, if there is one.
    pub fn remove(&mut self, conn: Conn, topic: &Topic) {
        if let Some(topics) = self.by_conn.get_mut(&conn) {
            topics.remove(topic);
        }
        self.forget(conn, topic);
    }

    /// Ends all subscriptions of a connection.
    pub fn leave(&mut self, conn: Conn) {
        for topic in self.by_conn.remove(&conn).unwrap_or_default() {
            self.forget(conn, &topic);
        }
    }

    fn forget(&mut self, conn: Conn, topic: &Topic) {
        if let Some(conns) = self.by_topic.get_mut(topic) {
            conns.remove(&conn);
            if conns.is_empty() {
                self.by_topic.remove(topic);
            }
        }
    }

    /// Counts the subscriptions of a connection.
    pub fn count(&self, conn: Conn) -> usize {
        self.by_conn.get(&conn).map_or(0, BTreeSet::len)
    }

    /// Returns the subscribers of a resource.
    pub fn of(&self, topic: &Topic) -> impl Iterator<Item = Conn> {
        self.by_topic.get(topic).into_iter().flatten().copied()
    }

    /// Returns all resources with their subscribers.
    pub fn all(&self) -> impl Iterator<Item = (&Topic, &BTreeSet<Conn>)> {
        self.by_topic.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_ends_leaves_no_subscription() {
        let mut subscriptions = Subscriptions::default();
        let (a, b) = (Topic::new(Kind::Task, "a"), Topic::new(Kind::System, "b"));
        for topic in [&a, &a, &b] {
            subscriptions.add(1, topic.clone());
        }
        assert_eq!(b, Topic::new(Kind::System, "anything"));
        subscriptions.add(2, a.clone());
        assert_eq!((subscriptions.count(1), subscriptions.of(&a).count()), (2, 2));
        subscriptions.remove(1, &a);
        assert_eq!((subscriptions.count(1), subscriptions.of(&a).count()), (1, 1));
        subscriptions.leave(1);
        subscriptions.leave(2);
        assert_eq!(subscriptions.all().count(), 0);
    }
}
