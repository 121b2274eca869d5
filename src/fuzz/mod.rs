//! Sends input that no scenario contains to a hub, at every point of a protocol's conversations, and checks what must
//! hold for any hub. Nothing here knows a protocol: messages and their schemas come from the pack, conversations from
//! its scenarios. A case is an ordinary scenario: the engine of `hubproof check` plays it, and it has a scenario's report
//! and file.
//!
//! # Terms
//!
//! - *case*: one fuzz test, determined by seed and number: a prefix, one mutation (many of its kind for the placements
//!   `repeated`, `kept` and `anew`), and the steps of the oracles that follow.
//! - *mutation*: what makes a message, its JSON text, its frames or its connection differ from the documented
//!   example, by a name such as `wrong-type`. What is sent is the *mutated message*.
//! - *placement*: when and on which connection the mutated message is sent: `first`, `joined`, `within`, ...
//! - *cell*: a combination of message, mutation and placement. The scheduler covers all cells evenly.
//! - *prefix*: the actors and steps before the mutated message: an opening, or a scenario up to some step. The client
//!   that then sends it is the *sender*.
//! - *observer client*: the actor `innocent`. It connects before the sender, sends nothing wrong, must be served
//!   throughout, and must not receive what belongs to the sender. Its role is `fuzz.bystander` of shared.yaml.
//! - *new client*: the actor `newcomer`. It connects after the mutated message, and must be accepted and served.
//! - *fence*: the scene of shared.yaml with a cheap request and its reply; a client that gets the reply is served.
//! - *oracle*: a property that must hold for any hub (`FUZZ-...`, see oracles.yaml); reported like a rule.
//! - *control run*: a replay of a case without its mutated message. If the same check fails there, the mutation is not
//!   the cause.
//! - *fingerprint*: failed check, message, mutation and shape of the answer; findings with equal ones are counted as
//!   one.
//!
//! # Modules
//!
//! ```text
//! actors              names of a case's own actors and steps
//! expressions         expressions in messages and steps
//! case_scenario       the scenario of a case, and its steps
//! step_rule           the rules of a step, and their levels
//! placement           when and on which connection the mutated message is sent
//! mutate              mutations of a payload, of the text of a message, of its frames
//! corpus              messages, roles and conversations of a pack; expected answers; prefixes of cases
//! oracle              the steps that check what must hold for any hub
//! case                one case; its mutated message, or its connection churn
//! stateful            a model of what actors may send, and random walks through it
//! scheduler           the cell and the case of a number, and the order of cases
//! differential        compares what two hubs answer to the same case
//! shrink              proposes ever smaller scenarios of a finding
//! campaign            plays cases on a hub: control runs, latency drift, a second hub, fingerprints, shrinking
//! feedback            prefers cases whose neighbours got answers of a new shape
//! regression          findings as files, and their replay
//! ```

pub mod actors;
pub mod campaign;
pub mod case;
pub mod case_scenario;
pub mod corpus;
pub mod differential;
pub mod expressions;
pub mod feedback;
pub mod mutate;
pub mod oracle;
pub mod placement;
pub mod regression;
pub mod scheduler;
pub mod shrink;
pub mod stateful;
pub mod step_rule;
