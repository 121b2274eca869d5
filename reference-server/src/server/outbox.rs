//! The bounded queue of one connection's outputs, filled by a step of the machine, which never waits, and emptied by
//! the connection's task, which waits for its peer. A peer that does not read is cut off.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::machine::Utf8Bytes;

/// The largest number of items.
const MAX_ITEMS: usize = 16_384;
/// The largest number of bytes; a single larger message is allowed.
const MAX_BYTES: usize = 64 << 20;

/// An output for a connection.
#[derive(Debug)]
pub enum OutboxItem {
    /// Grant the upgrade.
    Accept(Option<String>),
    /// Refuse the upgrade, with a status and a text.
    Refuse(u16, String),
    /// Send a text.
    Text(Utf8Bytes),
    /// Send a binary message.
    Binary(Vec<u8>),
    /// Close with a code and a reason.
    Close(u16, String),
    /// Cut the connection.
    Drop,
}

/// The peer reads too slowly.
#[derive(Debug)]
pub struct OverflowError;

#[derive(Default)]
struct OutboxQueue {
    items: VecDeque<OutboxItem>,
    bytes: usize,
    /// The task to wake when there is an item.
    waker: Option<Waker>,
    cut: bool,
}

/// The connection has been cut.
#[derive(Debug)]
pub struct CutError;

/// The queue of one connection.
#[derive(Default)]
pub struct Outbox(Mutex<OutboxQueue>);

impl Outbox {
    /// Adds an item and returns the task to wake, if one waits. If the queue is full, the item is dropped.
    pub fn push(&self, item: OutboxItem) -> Result<Option<Waker>, OverflowError> {
        let mut waiting = self.0.lock();
        let bytes = match &item {
            OutboxItem::Text(text) => Some(text.len()),
            OutboxItem::Binary(data) => Some(data.len()),
            _ => None,
        };
        if let Some(bytes) = bytes {
            if waiting.items.len() >= MAX_ITEMS || (waiting.bytes > 0 && waiting.bytes + bytes > MAX_BYTES) {
                return Err(OverflowError);
            }
            waiting.bytes += bytes;
        }
        waiting.items.push_back(item);
        Ok(waiting.waker.take())
    }

    /// Moves all items to `batch`, which must be empty; waits if there are none.
    pub fn poll_take(&self, context: &mut Context<'_>, batch: &mut VecDeque<OutboxItem>) -> Poll<Result<(), CutError>> {
        let mut waiting = self.0.lock();
        if waiting.cut {
            return Poll::Ready(Err(CutError));
        }
        if waiting.items.is_empty() {
            register_waker(&mut waiting, context);
            return Poll::Pending;
        }
        std::mem::swap(&mut waiting.items, batch);
        waiting.bytes = 0;
        Poll::Ready(Ok(()))
    }

    /// Notes that the task is running and need not be woken.
    pub fn mark_running(&self) {
        self.0.lock().waker = None;
    }

    /// Waits for the first item, the answer to the upgrade request.
    pub async fn take_first(&self) -> OutboxItem {
        poll_fn(|context| {
            let mut waiting = self.0.lock();
            match waiting.items.pop_front() {
                Some(item) => Poll::Ready(item),
                None if waiting.cut => Poll::Ready(OutboxItem::Drop),
                None => {
                    register_waker(&mut waiting, context);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Cuts the connection and returns the task to wake, if one waits.
    pub fn cut(&self) -> Option<Waker> {
        std::mem::replace(&mut *self.0.lock(), OutboxQueue { cut: true, ..OutboxQueue::default() }).waker
    }

    /// Waits until the connection is cut, or until there is an item.
    pub fn poll_cut(&self, context: &mut Context<'_>) -> Poll<CutError> {
        let mut waiting = self.0.lock();
        if waiting.cut {
            return Poll::Ready(CutError);
        }
        register_waker(&mut waiting, context);
        Poll::Pending
    }
}

fn register_waker(waiting: &mut OutboxQueue, context: &Context<'_>) {
    match &mut waiting.waker {
        Some(waker) => waker.clone_from(context.waker()),
        none => *none = Some(context.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_queued_items_overflow_the_outbox() {
        let outbox = Outbox::default();
        for _ in 0..MAX_ITEMS {
            outbox.push(OutboxItem::Text("x".into())).unwrap();
        }
        assert!(outbox.push(OutboxItem::Text("x".into())).is_err());
        assert!(outbox.push(OutboxItem::Close(1000, String::new())).is_ok(), "a close is never refused");
    }

    #[test]
    fn too_many_bytes_overflow_the_outbox_but_one_long_message_is_taken() {
        let outbox = Outbox::default();
        let giant = Utf8Bytes::from("x".repeat(MAX_BYTES + 1));
        assert!(outbox.push(OutboxItem::Text(giant.clone())).is_ok());
        assert!(outbox.push(OutboxItem::Text("x".into())).is_err());
    }

    #[tokio::test]
    async fn the_answer_to_the_upgrade_is_taken_alone() {
        let outbox = Outbox::default();
        outbox.push(OutboxItem::Accept(None)).unwrap();
        outbox.push(OutboxItem::Text("greeting".into())).unwrap();
        assert!(matches!(outbox.take_first().await, OutboxItem::Accept(None)));
        let mut batch = VecDeque::new();
        poll_fn(|context| outbox.poll_take(context, &mut batch)).await.unwrap();
        assert!(matches!(&batch[0], OutboxItem::Text(text) if text.as_str() == "greeting"));
    }

    #[tokio::test]
    async fn a_cut_connection_takes_no_more_items() {
        let outbox = Outbox::default();
        outbox.push(OutboxItem::Text("lost".into())).unwrap();
        outbox.cut();
        let mut batch = VecDeque::new();
        assert!(poll_fn(|context| outbox.poll_take(context, &mut batch)).await.is_err() && batch.is_empty());
        let CutError = poll_fn(|context| outbox.poll_cut(context)).await;
    }
}
