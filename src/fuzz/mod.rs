//! Finds what no script foresees: odd input, said at every moment of a protocol's conversations, and oracles that say
//! what must be true all the same.
//!
//! Nothing here knows a protocol. Messages and their schemas come from the pack, conversations from its scenarios; a
//! [`case`] is an ordinary scenario made of both, so the engine that plays it, the report that shows it, and the file
//! that reproduces it are those of `hubproof check`.
//!
//! `hubproof fuzz` plays them against any hub.
//!
//! ```text
//! placement, actors   when a case says what is odd; what it calls its own actors and steps
//! mutate              one thing made wrong: in a payload, in the text of a message, in its frames
//! corpus              messages and who sends them when, read off the scenarios; expected answers; prefixes of cases
//! oracle              what must be true of a hub whatever it has received
//! case                one case of all this; its message, or the churn of its connections
//! stateful            a model of what actors may send, and random walks through it
//! scheduler           which case comes when
//! differential        what two hubs answered in the same case, compared up to what may differ
//! shrink              the smallest scenario that still fails, proposed step by step
//! campaign            plays cases on a hub, with the machinery of `hubproof check`: control runs, latency drift, a second
//!                     hub, fingerprints of findings, shrinking what was found
//! feedback            cases that go where a hub answers something new
//! regression          a finding as a file of its own, and playing it again
//! ```

pub mod actors;
pub mod campaign;
pub mod case;
pub mod corpus;
pub mod differential;
pub mod feedback;
pub mod mutate;
pub mod oracle;
pub mod placement;
pub mod regression;
pub mod scheduler;
pub mod shrink;
pub mod stateful;
