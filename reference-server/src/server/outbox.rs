//! What waits to be sent on one connection: filled in a step of the machine, which never waits, emptied by the
//! connection's task, which waits for its peer. Bounded: who does not read is cut off.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

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
    /// Whom to wake when there is something to do.
    waker: Option<Waker>,
    cut: bool,
}

/// The connection has been given up.
#[derive(Debug)]
pub struct Cut;

/// The queue of one connection.
#[derive(Default)]
pub struct Outbox(Mutex<Waiting>);

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here can be left half done, so a poisoned lock is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item; whom to wake of it, if anybody waits.
    ///
    /// # Errors
    /// [`Overflow`] when too much waits already; the item is gone.
    pub fn push(&self, item: Item) -> Result<Option<Waker>, Overflow> {
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
        Ok(waiting.waker.take())
    }

    /// Moves what waits to `batch`, which is empty; otherwise waits for something.
    pub fn poll_take(&self, context: &mut Context<'_>, batch: &mut VecDeque<Item>) -> Poll<Result<(), Cut>> {
        let mut waiting = self.waiting();
        if waiting.cut {
            return Poll::Ready(Err(Cut));
        }
        if waiting.items.is_empty() {
            wait(&mut waiting, context);
            return Poll::Pending;
        }
        std::mem::swap(&mut waiting.items, batch);
        waiting.bytes = 0;
        Poll::Ready(Ok(()))
    }

    /// Whoever empties this is at it already, and need not be woken.
    pub fn attend(&self) {
        self.waiting().waker = None;
    }

    /// Waits for the first item alone: the answer to the upgrade request.
    pub async fn first(&self) -> Item {
        poll_fn(|context| {
            let mut waiting = self.waiting();
            match waiting.items.pop_front() {
                Some(item) => Poll::Ready(item),
                None if waiting.cut => Poll::Ready(Item::Drop),
                None => {
                    wait(&mut waiting, context);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Gives the connection up: whatever it is waiting for, it ends. Whom to wake of it, if anybody waits.
    pub fn cut(&self) -> Option<Waker> {
        std::mem::replace(&mut *self.waiting(), Waiting { cut: true, ..Waiting::default() }).waker
    }

    /// Whether the connection has been given up; otherwise waits until it is, or until there is something to do.
    pub fn poll_cut(&self, context: &mut Context<'_>) -> Poll<Cut> {
        let mut waiting = self.waiting();
        if waiting.cut {
            return Poll::Ready(Cut);
        }
        wait(&mut waiting, context);
        Poll::Pending
    }
}

fn wait(waiting: &mut Waiting, context: &Context<'_>) {
    match &mut waiting.waker {
        Some(waker) => waker.clone_from(context.waker()),
        none => *none = Some(context.waker().clone()),
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
        poll_fn(|context| outbox.poll_take(context, &mut batch)).await.unwrap();
        assert!(matches!(&batch[0], Item::Text(text) if text.as_str() == "greeting"));
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_hears_of_it_and_of_nothing_else() {
        let outbox = Outbox::default();
        outbox.push(Item::Text("lost".into())).unwrap();
        outbox.cut();
        let mut batch = VecDeque::new();
        assert!(poll_fn(|context| outbox.poll_take(context, &mut batch)).await.is_err() && batch.is_empty());
        let Cut = poll_fn(|context| outbox.poll_cut(context)).await;
    }
}
