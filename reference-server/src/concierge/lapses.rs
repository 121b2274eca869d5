//! The concierge on some occasions only: what goes wrong once, in one situation or for one kind of frame, and is right elsewhere.

use super::PROTOCOL as P;
use crate::fault::{Act, Cond, Fault, close, frame, inside, outside};

/// All of them.
pub static LAPSES: &[Fault] = &[
    outside(
        P,
        "concierge-seq-text",
        "Every seq of a status is a string.",
        &["CON-039", "CON-040", "CON-072", "CON-089"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Has("/seq")]).does(Act::Retype("/seq"))] },
    ),
    outside(
        P,
        "concierge-bad-without-seq",
        "BAD has no seq.",
        &["CON-040"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "BAD")]).does(Act::Remove("/seq"))] },
    ),
    outside(
        P,
        "concierge-group-already-created-without-seq",
        "GROUP_ALREADY_CREATED has no seq.",
        &["CON-040"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "GROUP_ALREADY_CREATED")])
                .does(Act::Remove("/seq"))]
        },
    ),
    outside(
        P,
        "concierge-no-such-group-without-seq",
        "NO_SUCH_GROUP has no seq.",
        &["CON-040"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "NO_SUCH_GROUP")]).does(Act::Remove("/seq"))] },
    ),
    outside(
        P,
        "concierge-no-such-name-without-seq",
        "NO_SUCH_NAME has no seq.",
        &["CON-040"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "NO_SUCH_NAME")]).does(Act::Remove("/seq"))] },
    ),
    outside(
        P,
        "concierge-no-such-uuid-without-seq",
        "NO_SUCH_UUID has no seq.",
        &["CON-040"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "NO_SUCH_UUID")]).does(Act::Remove("/seq"))] },
    ),
    outside(
        P,
        "concierge-protocol-without-seq",
        "PROTOCOL has no seq.",
        &["CON-040"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "PROTOCOL")]).does(Act::Remove("/seq"))] },
    ),
    outside(
        P,
        "concierge-unsuported-without-seq",
        "UNSUPORTED has no seq.",
        &["CON-040"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "UNSUPORTED")]).does(Act::Remove("/seq"))] },
    ),
    outside(
        P,
        "concierge-owner-uuid-no-uuid",
        "Owners of groups are told by something that is no UUID.",
        &["CON-026", "CON-074", "CON-077", "CON-080", "CON-084", "CON-089"],
        const { &[frame(&[Cond::Has("/owner_uuid")]).does(Act::Set("/owner_uuid", r#""the owner""#))] },
    ),
    outside(
        P,
        "concierge-listed-owner-no-uuid",
        "Owners of listed groups are told by something that is no UUID.",
        &["CON-026", "CON-074"],
        const { &[frame(&[Cond::Has("/groups")]).does(Act::Set("/groups/*/owner_uuid", r#""the owner""#))] },
    ),
    outside(
        P,
        "concierge-listed-uuid-no-uuid",
        "Listed clients have something as uuid that is no UUID.",
        &["CON-026", "CON-102"],
        const { &[frame(&[Cond::Has("/clients")]).does(Act::Set("/clients/*/uuid", r#""a client""#))] },
    ),
    outside(
        P,
        "concierge-self-uuid-no-uuid",
        "SELF_FETCH_RESULT has something as uuid that is no UUID.",
        &[
            "CON-026", "CON-043", "CON-051", "CON-074", "CON-077", "CON-080", "CON-081", "CON-084", "CON-089",
            "CON-102", "CON-105",
        ],
        const { &[frame(&[Cond::Is("/type", "SELF_FETCH_RESULT")]).does(Act::Set("/uuid", r#""myself""#))] },
    ),
    outside(
        P,
        "concierge-origin-uuid-no-uuid",
        "The uuid of an origin is no UUID.",
        &["CON-026", "CON-030", "CON-051"],
        const { &[frame(&[Cond::Has("/origin")]).does(Act::Set("/origin/uuid", r#""somebody""#))] },
    ),
    outside(
        P,
        "concierge-target-type-other",
        "The target of a MESSAGE arrives with an unknown type.",
        &["CON-055"],
        const { &[frame(&[Cond::Is("/type", "MESSAGE")]).does(Act::Set("/target/type", r#""PLANET""#))] },
    ),
    outside(
        P,
        "concierge-group-deleted-without-subscribers",
        "GROUP_DELETED has no subscribers.",
        &["CON-089"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "GROUP_DELETED")])
                .does(Act::Remove("/subscribers"))]
        },
    ),
    outside(
        P,
        "concierge-unsubscribed-without-subscribers",
        "UNSUBSCRIBED has no subscribers.",
        &["CON-084"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "UNSUBSCRIBED")])
                .does(Act::Remove("/subscribers"))]
        },
    ),
    outside(
        P,
        "concierge-bystander-seq-number",
        "A status that answers nothing has a seq.",
        &["CON-039", "CON-092"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Lacks("/seq")]).does(Act::Set("/seq", "3"))] },
    ),
    outside(
        P,
        "concierge-bystander-seq-null",
        "A status that answers nothing has a seq that is null.",
        &["CON-039"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Lacks("/seq")]).does(Act::Set("/seq", "null"))] },
    ),
    outside(
        P,
        "concierge-bad-seq-null",
        "The seq of BAD is null.",
        &["CON-039", "CON-040"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "BAD")]).does(Act::Set("/seq", "null"))] },
    ),
    outside(
        P,
        "concierge-self-fetch-result-first-lost",
        "The first SELF_FETCH_RESULT is lost.",
        &["CON-012", "CON-105", "CON-112", "CON-116"],
        const { &[frame(&[Cond::Is("/type", "SELF_FETCH_RESULT")]).only(1).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-self-fetch-result-second-lost",
        "The second SELF_FETCH_RESULT is lost.",
        &["CON-112"],
        const { &[frame(&[Cond::Is("/type", "SELF_FETCH_RESULT")]).only(2).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-self-fetch-result-third-lost",
        "The third SELF_FETCH_RESULT is lost.",
        &["CON-105", "CON-112", "CON-113"],
        const { &[frame(&[Cond::Is("/type", "SELF_FETCH_RESULT")]).only(3).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-self-fetch-result-fourth-lost",
        "The fourth SELF_FETCH_RESULT is lost.",
        &["CON-106", "CON-112", "CON-113"],
        const { &[frame(&[Cond::Is("/type", "SELF_FETCH_RESULT")]).only(4).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-self-fetch-result-fifth-lost",
        "The fifth SELF_FETCH_RESULT is lost.",
        &["CON-106", "CON-112"],
        const { &[frame(&[Cond::Is("/type", "SELF_FETCH_RESULT")]).only(5).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-client-fetch-all-result-first-lost",
        "The first CLIENT_FETCH_ALL_RESULT is lost.",
        &["CON-102"],
        const { &[frame(&[Cond::Is("/type", "CLIENT_FETCH_ALL_RESULT")]).only(1).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-group-fetch-result-first-lost",
        "The first GROUP_FETCH_RESULT is lost.",
        &["CON-098", "CON-100"],
        const { &[frame(&[Cond::Is("/type", "GROUP_FETCH_RESULT")]).only(1).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-group-fetch-result-third-lost",
        "The third GROUP_FETCH_RESULT is lost.",
        &["CON-098", "CON-100"],
        const { &[frame(&[Cond::Is("/type", "GROUP_FETCH_RESULT")]).only(3).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-group-fetch-all-result-first-lost",
        "The first GROUP_FETCH_ALL_RESULT is lost.",
        &["CON-101"],
        const { &[frame(&[Cond::Is("/type", "GROUP_FETCH_ALL_RESULT")]).only(1).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-hello-second-lost",
        "The second HELLO is lost.",
        &["CON-007", "CON-017", "CON-018", "CON-024"],
        const { &[frame(&[Cond::Is("/type", "HELLO")]).only(2).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-hello-third-lost",
        "The third HELLO is lost.",
        &["CON-020"],
        const { &[frame(&[Cond::Is("/type", "HELLO")]).only(3).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-message-first-lost",
        "The first MESSAGE is lost.",
        &["CON-042", "CON-047", "CON-048"],
        const { &[frame(&[Cond::Is("/type", "MESSAGE")]).only(1).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-message-second-lost",
        "The second MESSAGE is lost.",
        &["CON-012", "CON-042", "CON-043", "CON-044", "CON-048"],
        const { &[frame(&[Cond::Is("/type", "MESSAGE")]).only(2).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-message-third-lost",
        "The third MESSAGE is lost.",
        &["CON-042", "CON-044"],
        const { &[frame(&[Cond::Is("/type", "MESSAGE")]).only(3).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-message-fourth-lost",
        "The fourth MESSAGE is lost.",
        &["CON-042", "CON-049"],
        const { &[frame(&[Cond::Is("/type", "MESSAGE")]).only(4).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-group-created-third-lost",
        "The third GROUP_CREATED is lost.",
        &["CON-076"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "GROUP_CREATED")]).only(3).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-group-created-fourth-lost",
        "The fourth GROUP_CREATED is lost.",
        &["CON-072", "CON-075"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "GROUP_CREATED")]).only(4).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-group-already-created-second-lost",
        "The second GROUP_ALREADY_CREATED is lost.",
        &["CON-077"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "GROUP_ALREADY_CREATED")]).only(2).does(Act::Drop)]
        },
    ),
    outside(
        P,
        "concierge-message-sent-second-lost",
        "The second MESSAGE_SENT is lost.",
        &["CON-033", "CON-057"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "MESSAGE_SENT")]).only(2).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-message-sent-third-lost",
        "The third MESSAGE_SENT is lost.",
        &["CON-033", "CON-057"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "MESSAGE_SENT")]).only(3).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-message-sent-fourth-lost",
        "The fourth MESSAGE_SENT is lost.",
        &["CON-033", "CON-057"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "MESSAGE_SENT")]).only(4).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-message-sent-fifth-lost",
        "The fifth MESSAGE_SENT is lost.",
        &["CON-056", "CON-057"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "MESSAGE_SENT")]).only(5).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-typeless-stays",
        "What has no type does not end the connection of somebody unidentified.",
        &["CON-004"],
        const {
            &[
                close(4002).after(&[Cond::Lacks("/type")]).does(Act::Drop),
                close(4003).after(&[Cond::Lacks("/type")]).does(Act::Drop),
            ]
        },
    ),
    outside(
        P,
        "concierge-typeless-code",
        "What has no type ends the connection of somebody unidentified with code 4000.",
        &["CON-008", "CON-021"],
        const {
            &[
                close(4002).after(&[Cond::Lacks("/type")]).does(Act::Code(4000)),
                close(4003).after(&[Cond::Lacks("/type")]).does(Act::Code(4000)),
            ]
        },
    ),
    outside(
        P,
        "concierge-already-created-nickname",
        "GROUP_ALREADY_CREATED gives another nickname.",
        &["CON-075", "CON-077"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "GROUP_ALREADY_CREATED")])
                .does(Act::Set("/nickname", r#""Another Group""#))]
        },
    ),
    outside(
        P,
        "concierge-already-created-seq-text",
        "The seq of GROUP_ALREADY_CREATED is a string.",
        &["CON-040"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "GROUP_ALREADY_CREATED")])
                .does(Act::Retype("/seq"))]
        },
    ),
    outside(
        P,
        "concierge-message-sent-twice",
        "A delivered message is acknowledged twice.",
        &["CON-057"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "MESSAGE_SENT")]).does(Act::Double)] },
    ),
    outside(
        P,
        "concierge-no-auth-served",
        "A payload before identification closes the connection, and yet the groups are listed first.",
        &["CON-117"],
        const { &[close(4003).does(Act::Before(r#"{"type":"GROUP_FETCH_ALL_RESULT","groups":[],"seq":0}"#))] },
    ),
    outside(
        P,
        "concierge-late-hears-of-others",
        "Who does not identify in time hears that a message of somebody else was sent.",
        &["CON-117"],
        const { &[close(4004).does(Act::Before(r#"{"type":"STATUS","code":"MESSAGE_SENT","seq":0}"#))] },
    ),
    outside(
        P,
        "concierge-message-fortieth-lost",
        "The fortieth MESSAGE is lost.",
        &["CON-042"],
        const { &[frame(&[Cond::Is("/type", "MESSAGE")]).only(40).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-message-sent-fortieth-lost",
        "The fortieth MESSAGE_SENT is lost.",
        &["CON-057"],
        const { &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "MESSAGE_SENT")]).only(40).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-group-message-eighth-lost",
        "The eighth MESSAGE to a group is lost.",
        &["CON-044"],
        const { &[frame(&[Cond::Is("/type", "MESSAGE"), Cond::Is("/target/type", "GROUP")]).only(8).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-conflict-greeted-first",
        "Who takes a name that is taken is greeted before the connection is closed.",
        &["CON-011"],
        const {
            &[close(4005).does(Act::Before(
                r#"{"type":"HELLO","uuid":"6c1c3e3a-9c1a-4bb0-a3a8-51f1a3a4c0de","version":"0.1.0"}"#,
            ))]
        },
    ),
    outside(
        P,
        "concierge-wrong-secret-greeted-first",
        "Who has a wrong secret is greeted before the connection is closed.",
        &["CON-013"],
        const {
            &[close(4006).does(Act::Before(
                r#"{"type":"HELLO","uuid":"6c1c3e3a-9c1a-4bb0-a3a8-51f1a3a4c0de","version":"0.1.0"}"#,
            ))]
        },
    ),
    outside(
        P,
        "concierge-second-alien-stays",
        "The second client of an incompatible version is not sent away.",
        &["CON-018"],
        const { &[close(4007).only(2).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-self-fetch-result-sixth-lost",
        "The sixth SELF_FETCH_RESULT is lost.",
        &["CON-112", "CON-114"],
        const { &[frame(&[Cond::Is("/type", "SELF_FETCH_RESULT")]).only(6).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-self-fetch-result-seventh-lost",
        "The seventh SELF_FETCH_RESULT is lost.",
        &["CON-112", "CON-114"],
        const { &[frame(&[Cond::Is("/type", "SELF_FETCH_RESULT")]).only(7).does(Act::Drop)] },
    ),
    outside(
        P,
        "concierge-unknown-uuid-sent",
        "A message to an unknown uuid is refused and then reported as sent.",
        &["CON-033", "CON-063"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "NO_SUCH_UUID")])
                .after(&[Cond::Is("/type", "MESSAGE")])
                .does(Act::Also(r#"{"type":"STATUS","code":"MESSAGE_SENT","seq":1}"#))]
        },
    ),
    outside(
        P,
        "concierge-unknown-group-sent",
        "A message to an unknown group is refused and then reported as sent.",
        &["CON-033", "CON-063"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "NO_SUCH_GROUP")])
                .after(&[Cond::Is("/type", "MESSAGE")])
                .does(Act::Also(r#"{"type":"STATUS","code":"MESSAGE_SENT","seq":1}"#))]
        },
    ),
    outside(
        P,
        "concierge-data-gone",
        "A MESSAGE arrives without data.",
        &["CON-042", "CON-044", "CON-048", "CON-054", "CON-066"],
        const { &[frame(&[Cond::Is("/type", "MESSAGE")]).does(Act::Remove("/data"))] },
    ),
    outside(
        P,
        "concierge-unsubscribed-seq-stale",
        "The seq of UNSUBSCRIBED is 0, that of the first payload.",
        &["CON-033"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "UNSUBSCRIBED"), Cond::Has("/seq")])
                .does(Act::Set("/seq", "0"))]
        },
    ),
    outside(
        P,
        "concierge-subscribed-seq-stale",
        "The seq of SUBSCRIBED is 0, that of the first payload.",
        &["CON-033"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "SUBSCRIBED"), Cond::Has("/seq")])
                .does(Act::Set("/seq", "0"))]
        },
    ),
    outside(
        P,
        "concierge-group-already-created-seq-stale",
        "The seq of GROUP_ALREADY_CREATED is 0, that of the first payload.",
        &["CON-033"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "GROUP_ALREADY_CREATED"), Cond::Has("/seq")])
                .does(Act::Set("/seq", "0"))]
        },
    ),
    outside(
        P,
        "concierge-message-sent-seq-stale",
        "The seq of MESSAGE_SENT is 0, that of the first payload.",
        &["CON-033"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "MESSAGE_SENT"), Cond::Has("/seq")])
                .does(Act::Set("/seq", "0"))]
        },
    ),
    outside(
        P,
        "concierge-no-such-uuid-seq-stale",
        "The seq of NO_SUCH_UUID is 0, that of the first payload.",
        &["CON-033"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "NO_SUCH_UUID"), Cond::Has("/seq")])
                .does(Act::Set("/seq", "0"))]
        },
    ),
    outside(
        P,
        "concierge-no-such-group-seq-stale",
        "The seq of NO_SUCH_GROUP is 0, that of the first payload.",
        &["CON-033"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "NO_SUCH_GROUP"), Cond::Has("/seq")])
                .does(Act::Set("/seq", "0"))]
        },
    ),
    outside(
        P,
        "concierge-no-such-name-seq-stale",
        "The seq of NO_SUCH_NAME is 0, that of the first payload.",
        &["CON-033"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "NO_SUCH_NAME"), Cond::Has("/seq")])
                .does(Act::Set("/seq", "0"))]
        },
    ),
    outside(
        P,
        "concierge-group-created-seq-stale",
        "The seq of GROUP_CREATED is 0, that of the first payload.",
        &["CON-033"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "GROUP_CREATED"), Cond::Has("/seq")])
                .does(Act::Set("/seq", "0"))]
        },
    ),
    outside(
        P,
        "concierge-group-deleted-seq-stale",
        "The seq of GROUP_DELETED is 0, that of the first payload.",
        &["CON-033"],
        const {
            &[frame(&[Cond::Is("/type", "STATUS"), Cond::Is("/code", "GROUP_DELETED"), Cond::Has("/seq")])
                .does(Act::Set("/seq", "0"))]
        },
    ),
    outside(
        P,
        "concierge-self-fetch-result-seq-stale",
        "The seq of SELF_FETCH_RESULT is 0, that of the first payload.",
        &["CON-033", "CON-035", "CON-036", "CON-037", "CON-038"],
        const { &[frame(&[Cond::Is("/type", "SELF_FETCH_RESULT")]).does(Act::Set("/seq", "0"))] },
    ),
    outside(
        P,
        "concierge-client-fetch-all-result-seq-stale",
        "The seq of CLIENT_FETCH_ALL_RESULT is 0, that of the first payload.",
        &["CON-033", "CON-034"],
        const { &[frame(&[Cond::Is("/type", "CLIENT_FETCH_ALL_RESULT")]).does(Act::Set("/seq", "0"))] },
    ),
    outside(
        P,
        "concierge-group-fetch-result-seq-stale",
        "The seq of GROUP_FETCH_RESULT is 0, that of the first payload.",
        &["CON-033"],
        const { &[frame(&[Cond::Is("/type", "GROUP_FETCH_RESULT")]).does(Act::Set("/seq", "0"))] },
    ),
    outside(
        P,
        "concierge-group-fetch-all-result-seq-stale",
        "The seq of GROUP_FETCH_ALL_RESULT is 0, that of the first payload.",
        &["CON-033"],
        const { &[frame(&[Cond::Is("/type", "GROUP_FETCH_ALL_RESULT")]).does(Act::Set("/seq", "0"))] },
    ),
    inside(
        P,
        "concierge-refused-creation-takes-over",
        "Who asks for a group that exists is refused and owns it from then on.",
        &["CON-075", "CON-077", "CON-078"],
    ),
    inside(
        P,
        "concierge-refused-deletion-announced",
        "A deletion that is refused is announced to the others all the same.",
        &["CON-088"],
    ),
    inside(
        P,
        "concierge-subscription-stays-listed",
        "Who has left a group still finds it among the subscriptions.",
        &["CON-106"],
    ),
    inside(P, "concierge-sender-gets-copy", "The sender of a message to a name gets a copy.", &["CON-042"]),
    inside(
        P,
        "concierge-oldest-copied-by-name",
        "Messages to a name go to the client that has been there longest as well.",
        &["CON-042"],
    ),
    inside(
        P,
        "concierge-oldest-copied-by-uuid",
        "Messages to a uuid go to the client that has been there longest as well.",
        &["CON-043"],
    ),
    inside(
        P,
        "concierge-unknown-name-broadcast",
        "A message to an unknown name is refused, and goes to everybody.",
        &["CON-063"],
    ),
    inside(
        P,
        "concierge-second-owner-group-stays",
        "The group of the first owner who leaves ends, those of later ones stay.",
        &["CON-093"],
    ),
    inside(
        P,
        "concierge-owner-leaving-announces-all",
        "When an owner leaves, the end of all groups is announced.",
        &["CON-098"],
    ),
    inside(
        P,
        "concierge-first-subprotocol-selected",
        "Of several subprotocols the hub selects the first, whichever it is.",
        &["CON-001"],
    ),
    inside(
        P,
        "concierge-early-hello-answered",
        "What only a hub may send is answered with UNSUPORTED even before identification, and the connection stays.",
        &["CON-004", "CON-008"],
    ),
    outside(
        P,
        "concierge-early-hello-code",
        "A HELLO before identification closes with 4000, as if it were an error of the hub.",
        &["CON-008", "CON-021"],
        const { &[close(4003).after(&[Cond::Is("/type", "HELLO")]).does(Act::Code(4000))] },
    ),
    inside(
        P,
        "concierge-ping-restarts-timer",
        "A ping gives a client that has not identified the whole time again.",
        &["CON-005"],
    ),
    inside(
        P,
        "concierge-timer-of-newest-stopped",
        "Whoever identifies stops the timer of the connection that was opened last as well.",
        &["CON-005"],
    ),
    inside(
        P,
        "concierge-name-given-at-second-attempt",
        "A name in use is refused once, and given to whoever asks for it next.",
        &["CON-011"],
    ),
    inside(
        P,
        "concierge-name-looked-up-early",
        "Whether a name is taken is looked up when the connection opens, not when it identifies.",
        &["CON-011"],
    ),
    inside(
        P,
        "concierge-older-versions-accepted",
        "Every version that is older than the hub's is let in.",
        &["CON-019"],
    ),
    inside(P, "concierge-hello-version-echoed", "HELLO has the version of the client.", &["CON-120"]),
    inside(P, "concierge-seq-one-byte", "The counter of payloads begins again at 256.", &["CON-033"]),
    inside(
        P,
        "concierge-messages-in-a-row-one-seq",
        "All MESSAGE_SENT for messages in a row have the seq of the first.",
        &["CON-033"],
    ),
    inside(P, "concierge-accents-dropped", "Combining accents are dropped from the names of clients.", &["CON-042"]),
    inside(
        P,
        "concierge-old-name-removed-late",
        "The name of a client that left is removed only when somebody else has taken it.",
        &["CON-042"],
    ),
    inside(P, "concierge-large-messages-lost", "A message of more than 64 KiB is not delivered.", &["CON-042"]),
    inside(
        P,
        "concierge-old-uuid-reaches-heir",
        "The uuid of a client that left leads to whoever has its name now.",
        &["CON-043", "CON-061"],
    ),
    inside(
        P,
        "concierge-needless-unsubscribe-removes-last",
        "Who unsubscribes without a subscription ends that of another client.",
        &["CON-044"],
    ),
    inside(
        P,
        "concierge-message-sent-for-each-recipient",
        "MESSAGE_SENT comes once for every client that receives the message.",
        &["CON-057"],
    ),
    inside(
        P,
        "concierge-empty-group-silent",
        "A message to a group without subscribers is not answered.",
        &["CON-057"],
    ),
    inside(
        P,
        "concierge-own-name-unknown",
        "A message to one's own name is answered with NO_SUCH_NAME.",
        &["CON-059", "CON-060"],
    ),
    inside(
        P,
        "concierge-inherited-names-taken",
        "A group with a name that every object has is said to be created already.",
        &["CON-072"],
    ),
    inside(
        P,
        "concierge-creations-in-a-row-unannounced",
        "Of several groups that a client creates in a row, only the first is announced to the others.",
        &["CON-076"],
    ),
    inside(
        P,
        "concierge-group-list-kept",
        "The list of groups is kept as it was when somebody asked for it, until the next group is created.",
        &["CON-081", "CON-093"],
    ),
    inside(P, "concierge-subscriptions-counted", "Who has subscribed twice has to unsubscribe twice.", &["CON-085"]),
    inside(P, "concierge-leaving-ends-one-group", "Of the groups of an owner who leaves only one ends.", &["CON-093"]),
    inside(
        P,
        "concierge-ended-group-stays-subscribed",
        "A group that has ended is still listed among the subscriptions of its members.",
        &["CON-106"],
    ),
    inside(
        P,
        "concierge-subscriptions-resumed",
        "Who comes back with the same name has the subscriptions of the client that left.",
        &["CON-106"],
    ),
    inside(
        P,
        "concierge-owned-listed-as-subscribed",
        "A client finds the groups it owns among its subscriptions.",
        &["CON-106"],
    ),
    inside(P, "concierge-null-crashes", "The text null ends the connection with 4000.", &["CON-021", "CON-110"]),
];
