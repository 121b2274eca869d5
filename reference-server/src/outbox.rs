//! What waits to be sent on one connection: filled by the machine's task, which never waits, emptied by the
//! connection's task, which waits for its peer. Bounded: who does not read is cut off.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::machine::Utf8Bytes;

/// How many items may wait.
const MAX_ITEMS: usize = 16_384;
/// How many bytes of text may wait; a single larger text may still wait alone.
const MAX_BYTES: usize = 64 << 20;

/// One thing to do on a connection.
#[derive(Debug)]
pub enum Item {
    /// Grant the upgrade.
    Accept(Option<String>),
    /// Answer the upgrade request otherwise.
    Refuse(u16, String),
    /// Send a text.
    Text(Utf8Bytes),
    /// Send bytes.
    Binary(Vec<u8>),
    /// Close with a code and a reason.
    Close(u16, String),
    /// Cut the connection.
    Drop,
}

/// The peer reads too slowly.
#[derive(Debug)]
pub struct Overflow;

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
}

/// The queue of one connection.
#[derive(Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    cut: Notify,
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here can be left half done, so a poisoned lock is as good as any.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item.
    ///
    /// # Errors
    /// [`Overflow`] when too much waits already; the item is gone.
    pub fn push(&self, item: Item) -> Result<(), Overflow> {
        let mut waiting = self.waiting();
        let bytes = match &item {
            Item::Text(text) => Some(text.len()),
            Item::Binary(data) => Some(data.len()),
            _ => None,
        };
        if let Some(bytes) = bytes {
            if waiting.items.len() >= MAX_ITEMS || (waiting.bytes > 0 && waiting.bytes + bytes > MAX_BYTES) {
                return Err(Overflow);
            }
            waiting.bytes += bytes;
        }
        waiting.items.push_back(item);
        if waiting.items.len() == 1 {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for items and moves them to `batch`. Losing the race against another future loses nothing.
    pub async fn take(&self, batch: &mut VecDeque<Item>) {
        loop {
            {
                let mut waiting = self.waiting();
                if !waiting.items.is_empty() {
                    std::mem::swap(&mut waiting.items, batch);
                    waiting.bytes = 0;
                    return;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Waits for the first item alone: the answer to the upgrade request.
    pub async fn first(&self) -> Item {
        loop {
            if let Some(item) = self.waiting().items.pop_front() {
                return item;
            }
            self.filled.notified().await;
        }
    }

    /// Gives the connection up: whatever it is waiting for, it ends.
    pub fn cut(&self) {
        *self.waiting() = Waiting::default();
        self.cut.notify_one();
    }

    /// Resolves once the connection has been given up.
    pub async fn is_cut(&self) {
        self.cut.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_items_overflow() {
        let outbox = Outbox::default();
        for _ in 0..MAX_ITEMS {
            outbox.push(Item::Text("x".into())).unwrap();
        }
        assert!(outbox.push(Item::Text("x".into())).is_err());
        assert!(outbox.push(Item::Close(1000, String::new())).is_ok(), "an end always fits");
    }

    #[test]
    fn too_many_bytes_overflow_but_one_giant_passes() {
        let outbox = Outbox::default();
        let giant = Utf8Bytes::from("x".repeat(MAX_BYTES + 1));
        assert!(outbox.push(Item::Text(giant.clone())).is_ok());
        assert!(outbox.push(Item::Text("x".into())).is_err());
    }

    #[tokio::test]
    async fn first_leaves_the_rest_to_take() {
        let outbox = Outbox::default();
        outbox.push(Item::Accept(None)).unwrap();
        outbox.push(Item::Text("greeting".into())).unwrap();
        assert!(matches!(outbox.first().await, Item::Accept(None)));
        let mut batch = VecDeque::new();
        outbox.take(&mut batch).await;
        assert!(matches!(&batch[0], Item::Text(text) if text.as_str() == "greeting"));
    }
}
