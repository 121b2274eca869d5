//! Between a client and any hub: a relay that changes one thing, at a place computed from facts about the messages.

pub mod facts;
