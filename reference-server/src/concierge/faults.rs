//! The concierge's deliberate defects, in the order of the document.

use std::time::Duration;

use super::PROTOCOL as P;
use crate::fault::{Act, Cond, Fault, accept, close, frame, inside, outside};

const HELLO: &[Cond] = &[Cond::Is("/type", "HELLO")];
const MESSAGE: &[Cond] = &[Cond::Is("/type", "MESSAGE")];
const STATUS: Cond = Cond::Is("/type", "STATUS");
const MESSAGE_SENT: &[Cond] = &[STATUS, Cond::Is("/code", "MESSAGE_SENT")];
const SUBSCRIBED: &[Cond] = &[STATUS, Cond::Is("/code", "SUBSCRIBED")];
const UNSUBSCRIBED: &[Cond] = &[STATUS, Cond::Is("/code", "UNSUBSCRIBED")];
const GROUP_CREATED: &[Cond] = &[STATUS, Cond::Is("/code", "GROUP_CREATED")];
const GROUP_DELETED: &[Cond] = &[STATUS, Cond::Is("/code", "GROUP_DELETED")];
const ALREADY_CREATED: &[Cond] = &[STATUS, Cond::Is("/code", "GROUP_ALREADY_CREATED")];
const BAD: &[Cond] = &[STATUS, Cond::Is("/code", "BAD")];
const UNSUPORTED: &[Cond] = &[STATUS, Cond::Is("/code", "UNSUPORTED")];
const PROTOCOL: &[Cond] = &[STATUS, Cond::Is("/code", "PROTOCOL")];
const NO_SUCH_NAME: &[Cond] = &[STATUS, Cond::Is("/code", "NO_SUCH_NAME")];
const NO_SUCH_UUID: &[Cond] = &[STATUS, Cond::Is("/code", "NO_SUCH_UUID")];
const NO_SUCH_GROUP: &[Cond] = &[STATUS, Cond::Is("/code", "NO_SUCH_GROUP")];
const GROUP_FETCH_RESULT: &[Cond] = &[Cond::Is("/type", "GROUP_FETCH_RESULT")];
const GROUP_FETCH_ALL_RESULT: &[Cond] = &[Cond::Is("/type", "GROUP_FETCH_ALL_RESULT")];
const CLIENT_FETCH_ALL_RESULT: &[Cond] = &[Cond::Is("/type", "CLIENT_FETCH_ALL_RESULT")];
const SELF_FETCH_RESULT: &[Cond] = &[Cond::Is("/type", "SELF_FETCH_RESULT")];

const BY_HELLO: &[Cond] = &[Cond::Is("/type", "HELLO")];
const BY_MESSAGE: &[Cond] = &[Cond::Is("/type", "MESSAGE")];
const BY_SUBSCRIBE: &[Cond] = &[Cond::Is("/type", "SELF_SUBSCRIBE")];
const BY_UNSUBSCRIBE: &[Cond] = &[Cond::Is("/type", "SELF_UNSUBSCRIBE")];
const BY_CREATE: &[Cond] = &[Cond::Is("/type", "GROUP_CREATE")];
const BY_DELETE: &[Cond] = &[Cond::Is("/type", "GROUP_DELETE")];
const BY_FETCH: &[Cond] = &[Cond::Is("/type", "GROUP_FETCH")];

/// A uuid that is nobody's, as JSON.
const NOBODY: &str = r#""00000000-0000-4000-8000-000000000000""#;

/// What a client sees of an identification that should succeed and does not.
const NO_HELLO: &[&str] = &[
    "CON-004", "CON-007", "CON-011", "CON-012", "CON-015", "CON-016", "CON-017", "CON-018", "CON-019", "CON-024",
    "CON-025", "CON-026", "CON-027", "CON-029", "CON-116",
];
/// What a client sees of a hub whose messages never look like messages.
const NO_MESSAGE: &[&str] = &[
    "CON-030", "CON-042", "CON-043", "CON-044", "CON-046", "CON-047", "CON-048", "CON-049", "CON-050", "CON-051",
    "CON-052", "CON-054", "CON-055", "CON-056", "CON-058", "CON-059", "CON-066", "CON-083",
];

/// All of them.
pub static FAULTS: &[Fault] = &[
    // Connecting.
    outside(
        P,
        "concierge-subprotocol-not-selected",
        "The offered subprotocol ert-concierge is not selected.",
        &["CON-001"],
        const { &[accept().does(Act::NoSubprotocol)] },
    ),
    outside(
        P,
        "concierge-payload-without-type",
        "After each SELF_FETCH_RESULT comes a payload without a type.",
        &["CON-003"],
        const { &[frame(SELF_FETCH_RESULT).does(Act::Also(r#"{"notice":"this payload has no type"}"#))] },
    ),
    outside(
        P,
        "concierge-payload-not-object",
        "After each SELF_FETCH_RESULT comes an array.",
        &["CON-003"],
        const { &[frame(SELF_FETCH_RESULT).does(Act::Also(r#"["this payload is an array"]"#))] },
    ),
    outside(
        P,
        "concierge-type-not-string",
        "After each SELF_FETCH_RESULT comes a payload whose type is a number.",
        &["CON-003"],
        const { &[frame(SELF_FETCH_RESULT).does(Act::Also(r#"{"type":7}"#))] },
    ),
    // Identification.
    inside(
        P,
        "concierge-unidentified-ignored",
        "A payload other than IDENTIFY before identification is ignored, the connection stays.",
        &["CON-004", "CON-008", "CON-023"],
    ),
    inside(
        P,
        "concierge-unidentified-served",
        "GROUP_FETCH_ALL is answered before identification.",
        &["CON-004", "CON-008", "CON-023", "CON-117"],
    ),
    inside(
        P,
        "concierge-timeout-never",
        "A connection that never identifies is never closed.",
        &["CON-005", "CON-006"],
    ),
    inside(
        P,
        "concierge-timeout-late",
        "A connection that never identifies is closed after three times the documented time.",
        &["CON-005", "CON-006"],
    ),
    inside(
        P,
        "concierge-timeout-early",
        "The identification timer runs out after two fifths of the documented time.",
        &["CON-005", "CON-006", "CON-007"],
    ),
    outside(
        P,
        "concierge-timeout-code",
        "The identification timeout closes with 1000.",
        &["CON-006", "CON-022"],
        const { &[close(4004).does(Act::Code(1000))] },
    ),
    outside(
        P,
        "concierge-timeout-drops",
        "The identification timeout is forgotten by the socket: the client is no longer served and never closed.",
        &["CON-005", "CON-006"],
        const { &[close(4004).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-no-auth-code",
        "A payload before identification closes with 4005.",
        &["CON-008"],
        const { &[close(4003).does(Act::Code(4005))] },
    ),
    outside(
        P,
        "concierge-no-auth-slow",
        "A payload before identification closes the connection only three seconds later.",
        &["CON-004", "CON-008", "CON-023"],
        const { &[close(4003).does(Act::Delay(Duration::from_secs(3)))] },
    ),
    outside(
        P,
        "concierge-no-auth-answered",
        "A payload before identification is answered with STATUS BAD and then closed.",
        &["CON-117"],
        const { &[close(4003).does(Act::Before(r#"{"type":"STATUS","code":"BAD","seq":0}"#))] },
    ),
    outside(
        P,
        "concierge-decode-code",
        "Undecodable input before identification closes with 4007.",
        &["CON-009", "CON-010"],
        const { &[close(4002).does(Act::Code(4007))] },
    ),
    outside(
        P,
        "concierge-decode-code-undefined",
        "Undecodable input before identification closes with 4001, which is not documented.",
        &["CON-009", "CON-010", "CON-022"],
        const { &[close(4002).does(Act::Code(4001))] },
    ),
    outside(
        P,
        "concierge-decode-slow",
        "Undecodable input before identification closes the connection only three seconds later.",
        &["CON-009", "CON-010", "CON-023"],
        const { &[close(4002).does(Act::Delay(Duration::from_secs(3)))] },
    ),
    inside(
        P,
        "concierge-identify-half-accepted",
        "An IDENTIFY without name or version is accepted under a made-up name.",
        &["CON-010"],
    ),
    outside(
        P,
        "concierge-duplicate-code",
        "A name in use closes the newcomer with 4000.",
        &["CON-011"],
        const { &[close(4005).does(Act::Code(4000))] },
    ),
    inside(
        P,
        "concierge-duplicate-name-accepted",
        "A name in use is given to the newcomer too.",
        &["CON-011", "CON-012", "CON-042"],
    ),
    inside(
        P,
        "concierge-conflict-kicks-holder",
        "A name in use is taken from its holder, who is closed.",
        &["CON-011", "CON-012"],
    ),
    inside(
        P,
        "concierge-conflict-closes-both",
        "A name conflict closes the first holder together with the newcomer.",
        &["CON-012"],
    ),
    inside(P, "concierge-secret-unchecked", "Any secret is accepted.", &["CON-013"]),
    outside(
        P,
        "concierge-secret-code",
        "A wrong or missing secret closes with 4003.",
        &["CON-013", "CON-014"],
        const { &[close(4006).does(Act::Code(4003))] },
    ),
    inside(
        P,
        "concierge-missing-secret-accepted",
        "A client without a secret is let into a hub that has one.",
        &["CON-014"],
    ),
    inside(P, "concierge-right-secret-refused", "The right secret is refused.", &["CON-015"]),
    inside(P, "concierge-secret-demanded", "A hub without a secret refuses clients that send none.", NO_HELLO),
    inside(P, "concierge-version-unchecked", "Any semantic version is accepted.", &["CON-018", "CON-019"]),
    outside(
        P,
        "concierge-version-code",
        "An incompatible version closes with 4003.",
        &["CON-018", "CON-019", "CON-020"],
        const { &[close(4007).does(Act::Code(4003))] },
    ),
    inside(
        P,
        "concierge-version-minor-unchecked",
        "Of the version only the major number is compared, also before 1.0.",
        &["CON-019"],
    ),
    inside(
        P,
        "concierge-version-not-semver-accepted",
        "A version that is no semantic version is accepted.",
        &["CON-020"],
    ),
    outside(
        P,
        "concierge-hello-missing",
        "A successful identification is not answered.",
        NO_HELLO,
        const { &[frame(HELLO).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-hello-not-first",
        "A STATUS OK comes before the HELLO.",
        &["CON-024", "CON-040", "CON-117"],
        const { &[frame(HELLO).does(Act::Before(r#"{"type":"STATUS","code":"OK"}"#))] },
    ),
    outside(
        P,
        "concierge-hello-missing-uuid",
        "HELLO lacks its uuid.",
        &["CON-025", "CON-026"],
        const { &[frame(HELLO).does(Act::Remove("/uuid"))] },
    ),
    outside(
        P,
        "concierge-hello-uuid-array",
        "HELLO's uuid is an array.",
        &["CON-025", "CON-026", "CON-043", "CON-051", "CON-074", "CON-081", "CON-105"],
        const { &[frame(HELLO).does(Act::Retype("/uuid"))] },
    ),
    outside(
        P,
        "concierge-hello-missing-version",
        "HELLO lacks its version.",
        &["CON-025", "CON-027"],
        const { &[frame(HELLO).does(Act::Remove("/version"))] },
    ),
    outside(
        P,
        "concierge-hello-version-number",
        "HELLO's version is a number.",
        &["CON-025", "CON-027"],
        const { &[frame(HELLO).does(Act::Set("/version", "1"))] },
    ),
    outside(
        P,
        "concierge-hello-uuid-not-uuid",
        "HELLO's uuid is a word, the same for everybody.",
        &["CON-026", "CON-043", "CON-051", "CON-074", "CON-081", "CON-082", "CON-105"],
        const { &[frame(HELLO).does(Act::Set("/uuid", r#""client""#))] },
    ),
    inside(
        P,
        "concierge-uuid-shared",
        "All clients get the uuid of the first.",
        &["CON-026", "CON-043", "CON-044", "CON-051", "CON-077", "CON-081", "CON-082", "CON-102", "CON-105"],
    ),
    outside(
        P,
        "concierge-hello-version-not-semver",
        "HELLO's version is no semantic version.",
        &["CON-019", "CON-027"],
        const { &[frame(HELLO).does(Act::Set("/version", r#""v1""#))] },
    ),
    inside(P, "concierge-name-not-freed", "A name stays taken when its holder has left.", &["CON-029"]),
    inside(
        P,
        "concierge-origin-of-newest",
        "The origin of every message is the client that identified last: identity is the hub's, not the socket's.",
        &["CON-030", "CON-049", "CON-050", "CON-051", "CON-052"],
    ),
    inside(
        P,
        "concierge-tags-forgotten",
        "The tags given at identification are forgotten.",
        &["CON-031", "CON-052", "CON-102", "CON-105"],
    ),
    inside(
        P,
        "concierge-timer-outlives-identify",
        "An identified client is closed when its identification timer would have run out.",
        &["CON-116"],
    ),
    // Sequence numbers.
    inside(
        P,
        "concierge-seq-stuck",
        "Every answer has the sequence number 1.",
        &["CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-041"],
    ),
    inside(
        P,
        "concierge-seq-steps-two",
        "Every payload advances the sequence number by two.",
        &["CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-041"],
    ),
    inside(
        P,
        "concierge-seq-global",
        "Payloads are counted over all connections.",
        &["CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-041"],
    ),
    inside(P, "concierge-seq-skips-identify", "IDENTIFY is not counted.", &["CON-035"]),
    inside(P, "concierge-seq-counts-binary", "Binary frames are counted.", &["CON-036"]),
    inside(P, "concierge-seq-counts-pings", "WebSocket pings are counted.", &["CON-037"]),
    inside(P, "concierge-seq-skips-malformed", "Payloads that cannot be decoded are not counted.", &["CON-038"]),
    outside(
        P,
        "concierge-bystander-created-seq",
        "GROUP_CREATED carries a seq also for clients that did not create the group.",
        &["CON-039", "CON-076"],
        const { &[frame(GROUP_CREATED).to_others().does(Act::Set("/seq", "1"))] },
    ),
    outside(
        P,
        "concierge-bystander-deleted-seq",
        "GROUP_DELETED carries a seq also for clients that did not delete the group.",
        &["CON-039", "CON-090", "CON-095"],
        const { &[frame(GROUP_DELETED).to_others().does(Act::Set("/seq", "1"))] },
    ),
    outside(
        P,
        "concierge-bystander-unsubscribed-seq",
        "UNSUBSCRIBED carries a seq also for clients that did not unsubscribe.",
        &["CON-039", "CON-091", "CON-094"],
        const { &[frame(UNSUBSCRIBED).to_others().does(Act::Set("/seq", "1"))] },
    ),
    outside(
        P,
        "concierge-message-sent-without-seq",
        "MESSAGE_SENT lacks its seq.",
        &["CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-057"],
        const { &[frame(MESSAGE_SENT).does(Act::Remove("/seq"))] },
    ),
    outside(
        P,
        "concierge-self-fetch-without-seq",
        "SELF_FETCH_RESULT lacks its seq.",
        &["CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-105"],
        const { &[frame(SELF_FETCH_RESULT).does(Act::Remove("/seq"))] },
    ),
    outside(
        P,
        "concierge-seq-string",
        "The seq of a CLIENT_FETCH_ALL_RESULT is a string.",
        &["CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-102"],
        const { &[frame(CLIENT_FETCH_ALL_RESULT).does(Act::Retype("/seq"))] },
    ),
    // Messages.
    inside(P, "concierge-name-broadcast", "A message to a name reaches all clients.", &["CON-042"]),
    inside(
        P,
        "concierge-name-misdelivered",
        "A message to a name reaches another client.",
        &[
            "CON-012", "CON-030", "CON-031", "CON-042", "CON-049", "CON-050", "CON-051", "CON-052", "CON-054",
            "CON-055", "CON-056", "CON-058", "CON-059", "CON-066",
        ],
    ),
    inside(P, "concierge-uuid-broadcast", "A message to a uuid reaches all clients.", &["CON-043"]),
    inside(
        P,
        "concierge-uuid-misdelivered",
        "A message to a uuid reaches another client.",
        &["CON-030", "CON-043", "CON-049", "CON-050", "CON-051", "CON-052", "CON-054", "CON-055", "CON-059"],
    ),
    inside(
        P,
        "concierge-group-first-only",
        "A message to a group reaches only one of its subscribers, and never the sender.",
        &["CON-044", "CON-047"],
    ),
    outside(
        P,
        "concierge-message-twice",
        "Every message is delivered twice.",
        &["CON-042", "CON-043", "CON-044", "CON-047", "CON-048", "CON-058", "CON-083"],
        const { &[frame(MESSAGE).does(Act::Double)] },
    ),
    inside(
        P,
        "concierge-group-to-everybody",
        "A message to a group reaches also clients that have not subscribed.",
        &["CON-045", "CON-047", "CON-085", "CON-118"],
    ),
    inside(
        P,
        "concierge-group-members-only",
        "A message to a group is refused unless the sender has subscribed.",
        &[
            "CON-044", "CON-045", "CON-046", "CON-047", "CON-050", "CON-051", "CON-053", "CON-054", "CON-055",
            "CON-057", "CON-058", "CON-083", "CON-085", "CON-118",
        ],
    ),
    inside(P, "concierge-all-first-only", "A message to ALL reaches only one client.", &["CON-048"]),
    inside(
        P,
        "concierge-all-reaches-unidentified",
        "A message to ALL reaches also connections that have not identified.",
        &["CON-117"],
    ),
    inside(
        P,
        "concierge-origin-forgeable",
        "An origin sent by a client is believed.",
        &["CON-030", "CON-049", "CON-050", "CON-051"],
    ),
    outside(
        P,
        "concierge-origin-missing",
        "Relayed messages have no origin.",
        NO_MESSAGE,
        const { &[frame(MESSAGE).does(Act::Remove("/origin"))] },
    ),
    outside(
        P,
        "concierge-origin-name-missing",
        "The origin of a message lacks the sender's name.",
        &["CON-030", "CON-049", "CON-050", "CON-051"],
        const { &[frame(MESSAGE).does(Act::Remove("/origin/name"))] },
    ),
    outside(
        P,
        "concierge-origin-uuid-missing",
        "The origin of a message lacks the sender's uuid.",
        &["CON-030", "CON-049", "CON-050", "CON-051"],
        const { &[frame(MESSAGE).does(Act::Remove("/origin/uuid"))] },
    ),
    outside(
        P,
        "concierge-origin-uuid-wrong",
        "The origin of a message has a uuid that is nobody's.",
        &["CON-030", "CON-049", "CON-051"],
        const { &[frame(MESSAGE).does(Act::Set("/origin/uuid", NOBODY))] },
    ),
    outside(
        P,
        "concierge-origin-without-tags",
        "The origin of a message lacks the sender's tags.",
        &["CON-031", "CON-052"],
        const { &[frame(MESSAGE).does(Act::Remove("/origin/tags"))] },
    ),
    inside(
        P,
        "concierge-data-numbers-rounded",
        "Large numbers in data lose their last digits in a double.",
        &["CON-054"],
    ),
    inside(P, "concierge-null-data-dropped", "A data of null is not relayed.", &["CON-054"]),
    outside(
        P,
        "concierge-target-lost",
        "Relayed messages have no target.",
        &["CON-055"],
        const { &[frame(MESSAGE).does(Act::Remove("/target"))] },
    ),
    inside(
        P,
        "concierge-target-members-refused",
        "A target with more members than documented is refused.",
        &[
            "CON-012", "CON-030", "CON-031", "CON-042", "CON-049", "CON-050", "CON-051", "CON-052", "CON-054",
            "CON-055", "CON-056", "CON-057", "CON-058", "CON-059", "CON-060", "CON-063", "CON-112",
        ],
    ),
    outside(
        P,
        "concierge-message-sent-missing",
        "A delivered message is not acknowledged.",
        &[
            "CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-056",
            "CON-057", "CON-058", "CON-059",
        ],
        const { &[frame(MESSAGE_SENT).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-message-sent-ok",
        "A delivered message is acknowledged with OK.",
        &[
            "CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-056",
            "CON-057", "CON-058", "CON-059",
        ],
        const { &[frame(MESSAGE_SENT).does(Act::Set("/code", r#""OK""#))] },
    ),
    outside(
        P,
        "concierge-messages-overtake",
        "Every tenth message is late and overtaken by the next.",
        &["CON-058"],
        const { &[frame(MESSAGE).every(10).does(Act::Delay(Duration::from_millis(150)))] },
    ),
    outside(
        P,
        "concierge-no-such-name-sent",
        "A message to an unknown name is acknowledged as sent.",
        &["CON-060", "CON-063"],
        const { &[frame(NO_SUCH_NAME).does(Act::Set("/code", r#""MESSAGE_SENT""#))] },
    ),
    outside(
        P,
        "concierge-no-such-name-bare",
        "NO_SUCH_NAME lacks the name.",
        &["CON-060"],
        const { &[frame(NO_SUCH_NAME).does(Act::Remove("/name"))] },
    ),
    outside(
        P,
        "concierge-no-such-uuid-bad",
        "A message to an unknown uuid is answered with BAD.",
        &["CON-061", "CON-063"],
        const { &[frame(NO_SUCH_UUID).does(Act::Set("/code", r#""BAD""#))] },
    ),
    outside(
        P,
        "concierge-no-such-uuid-bare",
        "NO_SUCH_UUID lacks the uuid.",
        &["CON-061"],
        const { &[frame(NO_SUCH_UUID).does(Act::Remove("/uuid"))] },
    ),
    outside(
        P,
        "concierge-message-no-such-group-sent",
        "A message to an unknown group is acknowledged as sent.",
        &["CON-062", "CON-063", "CON-096"],
        const { &[frame(NO_SUCH_GROUP).after(BY_MESSAGE).does(Act::Set("/code", r#""MESSAGE_SENT""#))] },
    ),
    outside(
        P,
        "concierge-no-such-group-bare",
        "NO_SUCH_GROUP lacks the group.",
        &["CON-062", "CON-068", "CON-069", "CON-070", "CON-071", "CON-096"],
        const { &[frame(NO_SUCH_GROUP).does(Act::Remove("/group"))] },
    ),
    outside(
        P,
        "concierge-failed-message-sent-too",
        "A message to an unknown name is answered twice, the second time as sent.",
        &["CON-063"],
        const { &[frame(NO_SUCH_NAME).does(Act::Also(r#"{"type":"STATUS","code":"MESSAGE_SENT","seq":1}"#))] },
    ),
    inside(
        P,
        "concierge-bad-target-swallowed",
        "A missing or unknown target is acknowledged as sent.",
        &["CON-064", "CON-065"],
    ),
    // Groups.
    inside(P, "concierge-subscribe-creates", "Subscribing to an unknown group creates it.", &["CON-067", "CON-068"]),
    outside(
        P,
        "concierge-subscribe-no-such-group-bad",
        "Subscribing to an unknown group is answered with BAD.",
        &["CON-067", "CON-068"],
        const { &[frame(NO_SUCH_GROUP).after(BY_SUBSCRIBE).does(Act::Set("/code", r#""BAD""#))] },
    ),
    outside(
        P,
        "concierge-subscribe-no-such-group-silent",
        "Subscribing to an unknown group is not answered.",
        &["CON-040", "CON-067", "CON-068"],
        const { &[frame(NO_SUCH_GROUP).after(BY_SUBSCRIBE).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-unsubscribe-no-such-group-bad",
        "Unsubscribing from an unknown group is answered with BAD.",
        &["CON-069"],
        const { &[frame(NO_SUCH_GROUP).after(BY_UNSUBSCRIBE).does(Act::Set("/code", r#""BAD""#))] },
    ),
    outside(
        P,
        "concierge-delete-no-such-group-bad",
        "Deleting an unknown group is answered with BAD.",
        &["CON-070"],
        const { &[frame(NO_SUCH_GROUP).after(BY_DELETE).does(Act::Set("/code", r#""BAD""#))] },
    ),
    outside(
        P,
        "concierge-fetch-no-such-group-silent",
        "Fetching an unknown group is not answered.",
        &["CON-071"],
        const { &[frame(NO_SUCH_GROUP).after(BY_FETCH).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-creation-unanswered",
        "The creator of a group is not answered.",
        &[
            "CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-067",
            "CON-072", "CON-073", "CON-074", "CON-075", "CON-079", "CON-097", "CON-119",
        ],
        const { &[frame(GROUP_CREATED).to_initiator().does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-creation-without-seq",
        "GROUP_CREATED lacks its seq for the creator.",
        &["CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-072"],
        const { &[frame(GROUP_CREATED).to_initiator().does(Act::Remove("/seq"))] },
    ),
    outside(
        P,
        "concierge-created-without-owner",
        "GROUP_CREATED lacks the owner's uuid.",
        &["CON-073", "CON-074", "CON-076"],
        const { &[frame(GROUP_CREATED).does(Act::Remove("/owner_uuid"))] },
    ),
    outside(
        P,
        "concierge-created-without-subscribers",
        "GROUP_CREATED lacks the subscribers.",
        &["CON-073", "CON-076", "CON-079"],
        const { &[frame(GROUP_CREATED).does(Act::Remove("/subscribers"))] },
    ),
    outside(
        P,
        "concierge-created-without-nickname",
        "GROUP_CREATED lacks the nickname.",
        &["CON-073", "CON-075", "CON-076"],
        const { &[frame(GROUP_CREATED).does(Act::Remove("/nickname"))] },
    ),
    outside(
        P,
        "concierge-created-owner-wrong",
        "GROUP_CREATED names an owner that is nobody.",
        &["CON-074", "CON-076", "CON-077", "CON-080", "CON-089", "CON-100", "CON-101"],
        const { &[frame(GROUP_CREATED).does(Act::Set("/owner_uuid", NOBODY))] },
    ),
    outside(
        P,
        "concierge-nickname-forgotten",
        "Later descriptions of a group lack its nickname.",
        &["CON-075"],
        const {
            &[
                frame(GROUP_FETCH_RESULT).does(Act::Remove("/nickname")),
                frame(GROUP_FETCH_ALL_RESULT).does(Act::Remove("/groups/*/nickname")),
                frame(SUBSCRIBED).does(Act::Remove("/nickname")),
            ]
        },
    ),
    outside(
        P,
        "concierge-creation-not-announced",
        "Other clients are not told of a new group.",
        &["CON-039", "CON-076"],
        const { &[frame(GROUP_CREATED).to_others().does(Act::Drop)] },
    ),
    inside(
        P,
        "concierge-creation-reaches-unidentified",
        "A new group is announced also to connections that have not identified.",
        &["CON-117"],
    ),
    outside(
        P,
        "concierge-second-creation-created",
        "Creating an existing group is answered with GROUP_CREATED.",
        &["CON-077", "CON-078", "CON-119"],
        const { &[frame(ALREADY_CREATED).does(Act::Set("/code", r#""GROUP_CREATED""#))] },
    ),
    outside(
        P,
        "concierge-second-creation-owner-wrong",
        "GROUP_ALREADY_CREATED names an owner that is not the group's.",
        &["CON-077"],
        const { &[frame(ALREADY_CREATED).does(Act::Set("/owner_uuid", NOBODY))] },
    ),
    outside(
        P,
        "concierge-second-creation-without-owner",
        "GROUP_ALREADY_CREATED lacks the owner's uuid.",
        &["CON-077"],
        const { &[frame(ALREADY_CREATED).does(Act::Remove("/owner_uuid"))] },
    ),
    inside(
        P,
        "concierge-refused-creation-announced",
        "A refused creation is announced to the other clients all the same.",
        &["CON-078", "CON-119"],
    ),
    outside(
        P,
        "concierge-subscribe-unanswered",
        "Subscribing is not answered.",
        &[
            "CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-067",
            "CON-080", "CON-081", "CON-082", "CON-083",
        ],
        const { &[frame(SUBSCRIBED).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-subscribed-without-seq",
        "SUBSCRIBED lacks its seq.",
        &["CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-080"],
        const { &[frame(SUBSCRIBED).does(Act::Remove("/seq"))] },
    ),
    outside(
        P,
        "concierge-subscribed-without-subscribers",
        "SUBSCRIBED lacks the subscribers.",
        &["CON-080", "CON-081", "CON-082"],
        const { &[frame(SUBSCRIBED).does(Act::Remove("/subscribers"))] },
    ),
    inside(
        P,
        "concierge-subscribers-missing-newest",
        "Descriptions of a group leave out the newest subscriber.",
        &["CON-081", "CON-098", "CON-100", "CON-101"],
    ),
    inside(
        P,
        "concierge-subscribers-are-names",
        "subscribers lists names, not UUIDs.",
        &["CON-080", "CON-081", "CON-082", "CON-100", "CON-101"],
    ),
    outside(
        P,
        "concierge-unsubscribe-unanswered",
        "Unsubscribing is not answered.",
        &[
            "CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-084",
            "CON-086", "CON-098",
        ],
        const { &[frame(UNSUBSCRIBED).after(BY_UNSUBSCRIBE).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-unsubscribed-without-seq",
        "UNSUBSCRIBED lacks its seq where the client unsubscribed.",
        &["CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-084"],
        const { &[frame(UNSUBSCRIBED).after(BY_UNSUBSCRIBE).does(Act::Remove("/seq"))] },
    ),
    inside(
        P,
        "concierge-unsubscribe-forgotten",
        "A client that unsubscribed still gets the group's messages.",
        &["CON-084", "CON-085", "CON-100"],
    ),
    inside(P, "concierge-delete-by-anybody", "Anybody can delete a group.", &["CON-087", "CON-088"]),
    outside(
        P,
        "concierge-refused-delete-ok",
        "A refused GROUP_DELETE is answered with OK.",
        &["CON-088"],
        const { &[frame(BAD).after(BY_DELETE).does(Act::Set("/code", r#""OK""#))] },
    ),
    outside(
        P,
        "concierge-delete-unanswered",
        "Deleting a group is not answered.",
        &["CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-089"],
        const { &[frame(GROUP_DELETED).to_initiator().does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-deleted-without-seq",
        "GROUP_DELETED lacks its seq for the owner.",
        &["CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-089"],
        const { &[frame(GROUP_DELETED).to_initiator().does(Act::Remove("/seq"))] },
    ),
    outside(
        P,
        "concierge-deletion-not-announced",
        "Other clients are not told of a deleted group.",
        &["CON-039", "CON-090"],
        const { &[frame(GROUP_DELETED).after(BY_DELETE).to_others().does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-subscribers-not-told-of-deletion",
        "Subscribers are not told when the owner deletes the group.",
        &["CON-039", "CON-091"],
        const { &[frame(UNSUBSCRIBED).after(BY_DELETE).to_others().does(Act::Drop)] },
    ),
    inside(
        P,
        "concierge-group-outlives-owner",
        "A group stays when its owner leaves.",
        &["CON-093", "CON-094", "CON-095", "CON-097"],
    ),
    outside(
        P,
        "concierge-subscribers-not-told-of-leaving",
        "Subscribers are not told when the group ends with its owner.",
        &["CON-039", "CON-094"],
        const { &[frame(UNSUBSCRIBED).after_leaving().does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-leaving-not-announced",
        "Other clients are not told of a group that ends with its owner.",
        &["CON-039", "CON-095"],
        const { &[frame(GROUP_DELETED).after_leaving().does(Act::Drop)] },
    ),
    inside(
        P,
        "concierge-deleted-group-swallows",
        "A message to a deleted group is acknowledged as sent.",
        &["CON-096"],
    ),
    inside(
        P,
        "concierge-deleted-name-unusable",
        "The name of a deleted group cannot be used again.",
        &["CON-097", "CON-118"],
    ),
    inside(P, "concierge-owner-unsubscribe-deletes", "A group ends when its owner unsubscribes.", &["CON-098"]),
    inside(P, "concierge-left-subscriber-stays", "A subscriber that left is still listed.", &["CON-082", "CON-099"]),
    inside(
        P,
        "concierge-subscribers-outlive-group",
        "A group created again has the subscribers of the old one.",
        &["CON-118"],
    ),
    outside(
        P,
        "concierge-creation-twice",
        "The creator of a group is answered twice.",
        &["CON-119"],
        const { &[frame(GROUP_CREATED).after(BY_CREATE).to_initiator().does(Act::Double)] },
    ),
    // Fetches.
    outside(
        P,
        "concierge-group-fetch-without-subscribers",
        "GROUP_FETCH_RESULT lacks the subscribers.",
        &["CON-081", "CON-082", "CON-098", "CON-099", "CON-100", "CON-118"],
        const { &[frame(GROUP_FETCH_RESULT).does(Act::Remove("/subscribers"))] },
    ),
    outside(
        P,
        "concierge-group-fetch-without-seq",
        "GROUP_FETCH_RESULT lacks its seq.",
        &["CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-100"],
        const { &[frame(GROUP_FETCH_RESULT).does(Act::Remove("/seq"))] },
    ),
    outside(
        P,
        "concierge-group-fetch-name-wrong",
        "GROUP_FETCH_RESULT has another group's name.",
        &["CON-100"],
        const { &[frame(GROUP_FETCH_RESULT).does(Act::Set("/name", r#""another-group""#))] },
    ),
    inside(
        P,
        "concierge-groups-of-others-hidden",
        "GROUP_FETCH_ALL lists only the caller's own groups.",
        &["CON-087", "CON-101"],
    ),
    outside(
        P,
        "concierge-group-list-without-owner",
        "The groups of a GROUP_FETCH_ALL_RESULT lack their owner's uuid.",
        &["CON-101"],
        const { &[frame(GROUP_FETCH_ALL_RESULT).does(Act::Remove("/groups/*/owner_uuid"))] },
    ),
    outside(
        P,
        "concierge-group-list-without-seq",
        "GROUP_FETCH_ALL_RESULT lacks its seq.",
        &["CON-033", "CON-034", "CON-035", "CON-036", "CON-037", "CON-038", "CON-040", "CON-041", "CON-101"],
        const { &[frame(GROUP_FETCH_ALL_RESULT).does(Act::Remove("/seq"))] },
    ),
    inside(P, "concierge-other-clients-hidden", "CLIENT_FETCH_ALL lists only the caller.", &["CON-031", "CON-102"]),
    outside(
        P,
        "concierge-client-list-without-tags",
        "The clients of a CLIENT_FETCH_ALL_RESULT lack their tags.",
        &["CON-031", "CON-032", "CON-102"],
        const { &[frame(CLIENT_FETCH_ALL_RESULT).does(Act::Remove("/clients/*/tags"))] },
    ),
    inside(
        P,
        "concierge-requester-not-listed",
        "CLIENT_FETCH_ALL leaves out the caller.",
        &["CON-031", "CON-102", "CON-103"],
    ),
    inside(
        P,
        "concierge-unidentified-listed",
        "CLIENT_FETCH_ALL lists connections that have not identified.",
        &["CON-082", "CON-103"],
    ),
    inside(P, "concierge-left-client-listed", "A client that left is still listed.", &["CON-104"]),
    outside(
        P,
        "concierge-self-fetch-name-wrong",
        "SELF_FETCH_RESULT has another client's name.",
        &["CON-030", "CON-105", "CON-113"],
        const { &[frame(SELF_FETCH_RESULT).does(Act::Set("/name", r#""somebody-else""#))] },
    ),
    outside(
        P,
        "concierge-self-fetch-without-uuid",
        "SELF_FETCH_RESULT lacks the uuid.",
        &["CON-105"],
        const { &[frame(SELF_FETCH_RESULT).does(Act::Remove("/uuid"))] },
    ),
    outside(
        P,
        "concierge-subscriptions-empty",
        "SELF_FETCH_RESULT never lists a subscription.",
        &["CON-105", "CON-106"],
        const { &[frame(SELF_FETCH_RESULT).does(Act::Set("/subscriptions", "[]"))] },
    ),
    // Statuses and refusals.
    outside(
        P,
        "concierge-status-without-code",
        "After each SELF_FETCH_RESULT comes a STATUS without a code.",
        &["CON-107"],
        const { &[frame(SELF_FETCH_RESULT).does(Act::Also(r#"{"type":"STATUS"}"#))] },
    ),
    outside(
        P,
        "concierge-status-code-number",
        "After each SELF_FETCH_RESULT comes a STATUS whose code is a number.",
        &["CON-107"],
        const { &[frame(SELF_FETCH_RESULT).does(Act::Also(r#"{"type":"STATUS","code":200}"#))] },
    ),
    outside(
        P,
        "concierge-status-code-unknown",
        "A refused GROUP_DELETE is answered with a code that is not documented.",
        &["CON-107"],
        const { &[frame(BAD).after(BY_DELETE).does(Act::Set("/code", r#""FORBIDDEN""#))] },
    ),
    outside(
        P,
        "concierge-hello-from-client-ignored",
        "A HELLO from a client is not answered.",
        &["CON-108", "CON-112"],
        const { &[frame(UNSUPORTED).after(BY_HELLO).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-hello-from-client-ok",
        "A HELLO from a client is answered with OK.",
        &["CON-108"],
        const { &[frame(UNSUPORTED).after(BY_HELLO).does(Act::Set("/code", r#""OK""#))] },
    ),
    outside(
        P,
        "concierge-results-from-client-ignored",
        "STATUS and results from a client are not answered.",
        &["CON-109"],
        const {
            &[
                frame(UNSUPORTED).after(&[STATUS]).does(Act::Drop),
                frame(UNSUPORTED).after(SELF_FETCH_RESULT).does(Act::Drop),
                frame(UNSUPORTED).after(GROUP_FETCH_RESULT).does(Act::Drop),
                frame(UNSUPORTED).after(GROUP_FETCH_ALL_RESULT).does(Act::Drop),
                frame(UNSUPORTED).after(CLIENT_FETCH_ALL_RESULT).does(Act::Drop),
            ]
        },
    ),
    outside(
        P,
        "concierge-unsuported-closes",
        "An unsupported payload is answered and then closes the connection.",
        &["CON-108", "CON-109", "CON-112", "CON-113"],
        const { &[frame(UNSUPORTED).does(Act::ThenClose(1008))] },
    ),
    outside(
        P,
        "concierge-undecodable-ignored",
        "What cannot be decoded is not answered.",
        &["CON-038", "CON-064", "CON-065", "CON-066", "CON-110", "CON-111", "CON-112"],
        const { &[frame(PROTOCOL).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-protocol-without-desc",
        "PROTOCOL lacks its desc.",
        &["CON-064", "CON-065", "CON-110", "CON-111"],
        const { &[frame(PROTOCOL).does(Act::Remove("/desc"))] },
    ),
    outside(
        P,
        "concierge-undecodable-closes",
        "What cannot be decoded closes the connection, also after identification.",
        &["CON-038", "CON-064", "CON-065", "CON-066", "CON-110", "CON-111", "CON-112"],
        const { &[frame(PROTOCOL).does(Act::CloseInstead(4002))] },
    ),
    inside(P, "concierge-unknown-type-ignored", "A payload of unknown type is not answered.", &["CON-111"]),
    outside(
        P,
        "concierge-no-such-name-closes",
        "NO_SUCH_NAME is followed by a close.",
        &["CON-060", "CON-063", "CON-112"],
        const { &[frame(NO_SUCH_NAME).does(Act::ThenClose(1008))] },
    ),
    inside(P, "concierge-second-identify-renames", "A second IDENTIFY changes the client's name.", &["CON-113"]),
];
