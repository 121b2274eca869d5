//! The resources that clients can subscribe to, and their subscribers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::machine::ConnectionId;

/// The kinds of resources (lines 565 to 571). `worker` is not among them, but the routing table knows worker
/// subscribers (line 589).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceKind {
    Experiment,
    Task,
    Project,
    User,
    System,
    Worker,
}

/// The kinds by the names that clients use.
pub const RESOURCE_KINDS: &[(&str, ResourceKind)] = &[
    ("experiment", ResourceKind::Experiment),
    ("task", ResourceKind::Task),
    ("project", ResourceKind::Project),
    ("user", ResourceKind::User),
    ("system", ResourceKind::System),
    ("worker", ResourceKind::Worker),
];

impl ResourceKind {
    pub fn from_name(name: &str) -> Option<ResourceKind> {
        RESOURCE_KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    fn name(self) -> &'static str {
        RESOURCE_KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// A resource. The system is one resource, whatever id a client gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceTopic {
    pub kind: ResourceKind,
    pub id: Arc<str>,
}

impl ResourceTopic {
    pub fn new(kind: ResourceKind, id: &str) -> ResourceTopic {
        ResourceTopic { kind, id: if kind == ResourceKind::System { "" } else { id }.into() }
    }

    /// Formats the resource for people: `experiment exp-123`.
    pub fn describe(&self) -> String {
        format!("{} {}", self.kind.name(), self.id).trim_end().to_owned()
    }
}

/// The subscriptions, by topic and by connection.
#[derive(Debug, Default)]
pub struct TopicSubscriptions {
    by_topic: BTreeMap<ResourceTopic, BTreeSet<ConnectionId>>,
    by_conn: BTreeMap<ConnectionId, BTreeSet<ResourceTopic>>,
}

impl TopicSubscriptions {
    /// Subscribes a connection.
    pub fn add(&mut self, conn: ConnectionId, topic: ResourceTopic) {
        self.by_topic.entry(topic.clone()).or_default().insert(conn);
        self.by_conn.entry(conn).or_default().insert(topic);
    }

    /// Ends a subscription, if there is one.
    pub fn remove(&mut self, conn: ConnectionId, topic: &ResourceTopic) {
        if let Some(topics) = self.by_conn.get_mut(&conn) {
            topics.remove(topic);
        }
        self.remove_from_topic(conn, topic);
    }

    /// Ends all subscriptions of a connection.
    pub fn remove_connection(&mut self, conn: ConnectionId) {
        for topic in self.by_conn.remove(&conn).unwrap_or_default() {
            self.remove_from_topic(conn, &topic);
        }
    }

    fn remove_from_topic(&mut self, conn: ConnectionId, topic: &ResourceTopic) {
        if let Some(conns) = self.by_topic.get_mut(topic) {
            conns.remove(&conn);
            if conns.is_empty() {
                self.by_topic.remove(topic);
            }
        }
    }

    /// Counts the subscriptions of a connection.
    pub fn count(&self, conn: ConnectionId) -> usize {
        self.by_conn.get(&conn).map_or(0, BTreeSet::len)
    }

    /// Returns the subscribers of a resource.
    pub fn subscribers(&self, topic: &ResourceTopic) -> impl Iterator<Item = ConnectionId> {
        self.by_topic.get(topic).into_iter().flatten().copied()
    }

    /// Returns all resources with their subscribers.
    pub fn by_topic(&self) -> impl Iterator<Item = (&ResourceTopic, &BTreeSet<ConnectionId>)> {
        self.by_topic.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_a_connection_removes_its_subscriptions() {
        let mut subscriptions = TopicSubscriptions::default();
        let (a, b) = (ResourceTopic::new(ResourceKind::Task, "a"), ResourceTopic::new(ResourceKind::System, "b"));
        for topic in [&a, &a, &b] {
            subscriptions.add(1, topic.clone());
        }
        assert_eq!(b, ResourceTopic::new(ResourceKind::System, "anything"));
        subscriptions.add(2, a.clone());
        assert_eq!((subscriptions.count(1), subscriptions.subscribers(&a).count()), (2, 2));
        subscriptions.remove(1, &a);
        assert_eq!((subscriptions.count(1), subscriptions.subscribers(&a).count()), (1, 1));
        subscriptions.remove_connection(1);
        subscriptions.remove_connection(2);
        assert_eq!(subscriptions.by_topic().count(), 0);
    }
}
