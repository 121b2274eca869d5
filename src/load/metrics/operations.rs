//! The operations of a plan: the labels that its steps give to messages, each with separate times and counts.
//!
//! A label may come from data, so it is known only when its message is sent. All shards share one table of bounded size,
//! which only grows. Looking up a known label compares a few texts; it neither locks nor allocates.

use std::sync::{Arc, OnceLock};

/// The most operations of a plan; messages with other labels count together.
pub const MAX_OPERATIONS: usize = 64;
/// The label of messages without room for their own.
const OTHER: &str = "other";
/// The longest label in bytes.
const MAX_LABEL_BYTES: usize = 100;

/// The index of a message, and a label.
type Operation = (usize, Box<str>);

/// The operations of a plan, by message and label. Cheap to clone: clones share one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationTable {
    /// The messages that have labels, by their index; each has one operation for all labels without room.
    labelled: Arc<[usize]>,
    operations: Arc<[OnceLock<Operation>]>,
}

impl OperationTable {
    /// Creates a table for the messages with these indexes.
    pub fn new(labelled: Vec<usize>) -> Self {
        let most = if labelled.is_empty() { 0 } else { MAX_OPERATIONS };
        Self { labelled: labelled.into(), operations: (0..most).map(|_| OnceLock::new()).collect() }
    }

    /// Returns the number of operations that the table can hold.
    pub fn capacity(&self) -> usize {
        self.labelled.len() + self.operations.len()
    }

    /// Returns the operation of a message with this label, which is added if there is room. `message` has labels.
    pub fn find_or_add(&self, message: usize, label: &str) -> usize {
        let label = &label[..label.floor_char_boundary(MAX_LABEL_BYTES)];
        if label == OTHER {
            return self.other(message);
        }
        let is_it = |known: &Operation| known.0 == message && *known.1 == *label;
        let found = self.operations.iter().position(|one| is_it(one.get_or_init(|| (message, label.into()))));
        match found {
            Some(place) => self.labelled.len() + place,
            None => self.other(message),
        }
    }

    /// Returns the operation of messages whose label has no room, or no value.
    pub fn other(&self, message: usize) -> usize {
        self.labelled.iter().position(|known| *known == message).unwrap_or_default()
    }

    /// Returns the message and the label of an operation; `None` if the operation does not occur.
    pub fn get(&self, operation: usize) -> Option<(usize, &str)> {
        match operation.checked_sub(self.labelled.len()) {
            None => Some((self.labelled[operation], OTHER)),
            Some(place) => self.operations.get(place)?.get().map(|(message, label)| (*message, &**label)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_beyond_the_limit_count_together_per_message() {
        let table = OperationTable::new(vec![3, 5]);
        let shared = table.clone();
        let add = table.find_or_add(3, "add");
        assert_eq!(shared.get(add), Some((3, "add")));
        assert_ne!(shared.find_or_add(5, "add"), add);
        assert_eq!(shared.find_or_add(3, "add"), add);
        let long = "\u{e9}".repeat(MAX_LABEL_BYTES);
        assert_eq!(table.get(table.find_or_add(3, &long)).map(|(_, label)| label.len()), Some(MAX_LABEL_BYTES));
        for number in 3..MAX_OPERATIONS {
            assert!(table.find_or_add(3, &number.to_string()) < table.capacity());
        }
        let (one, other) = (table.find_or_add(3, "one more"), table.find_or_add(5, "one more"));
        assert_eq!((table.get(one), table.get(other)), (Some((3, "other")), Some((5, "other"))));
        assert_eq!((table.find_or_add(3, "add"), table.capacity()), (add, MAX_OPERATIONS + 2));
    }

    #[test]
    fn a_plan_without_labels_has_no_operations() {
        assert_eq!(OperationTable::new(Vec::new()).capacity(), 0);
    }
}
