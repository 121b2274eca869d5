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
//! seed                            chance that can be repeated
//! shape, value                    what a schema allows at a place, and values of that kind
//! payload, mutation               a message that differs from its example; one named thing wrong with it
//! malformed, framing              texts that are no JSON; frames that are unusual
//! material                        who says what, when: read off the scenarios
//! answers                         what the document says of input
//! scene, draft                    what comes before something odd; what is odd about what is said
//! case, oracle, text              one case of all this: what must be true; as a file
//! ground, walk                    cases in which several actors say right things by chance
//! plan                            which case comes when
//! adaptive                        cases that go where a hub says something new
//! campaign                        plays cases on a hub, with the machinery of `hubproof check`
//! control                         whether it is so where nothing is odd, too
//! pace                            whether a hub is slower at the end
//! cause, outcome                  what a finding is about; what came of many cases
//! shrink, smaller                 the smallest scenario that still fails; played on a hub
//! saved, replay                   a finding as a file of its own; what became of it
//! transcript, twins, differ       what two hubs said in the same case, side by side
//! against                         plays cases on two hubs at once
//! ```

pub mod campaign;
pub mod case;
pub mod corpus;
pub mod differential;
pub mod feedback;
pub mod mutate;
pub mod oracle;
pub mod regression;
pub mod scheduler;
pub mod shrink;
pub mod stateful;
