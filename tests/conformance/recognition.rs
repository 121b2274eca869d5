//! Recognition of the protocol of a hub by its frames, with the built-in packs and the example packs.

use std::sync::Arc;

use hubproof::protocol::recognition::{
    FrameFit, FrameOccasion, HubFrame, PackEvidence, Recognition, recognise_protocol,
};
use hubproof::protocol::{FrameDirection, Pack};
use hubproof::syntax::source::Sources;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::disk;

const EXAMPLES: [&str; 3] = ["graphql-transport-ws", "json-rpc-2.0", "ocpp-1.6j"];

fn example_pack(name: &str) -> Arc<Pack> {
    let mut sources = Sources::default();
    let path = disk::root().join("examples/packs").join(name);
    let folder = hubproof::cli::protocol_files::read_folder(&path, &mut sources).unwrap();
    Arc::new(Pack::load(&folder, &sources).0.unwrap())
}

/// Returns the packs with messages, built-in ones first.
fn all_packs() -> Vec<Arc<Pack>> {
    let built_in = disk::protocols_with_messages();
    built_in.iter().map(|name| disk::pack(name)).chain(EXAMPLES.map(example_pack)).collect()
}

fn recognise(packs: &[Arc<Pack>], frames: &[HubFrame]) -> (Recognition, Vec<PackEvidence>) {
    recognise_protocol(&packs.iter().map(|pack| &**pack).collect::<Vec<_>>(), frames)
}

fn frame(payload: &Value, occasion: FrameOccasion) -> HubFrame {
    HubFrame { payload: Some(payload.clone()), occasion }
}

fn frames(payloads: &[Value], occasion: FrameOccasion) -> Vec<HubFrame> {
    payloads.iter().map(|payload| frame(payload, occasion)).collect()
}

/// Returns the examples of all messages that the hub sends.
fn hub_examples(pack: &Pack) -> Vec<Value> {
    let sent = pack.messages.iter().filter(|message| message.can_go(FrameDirection::FromHub) && !message.abstract_);
    sent.filter_map(|message| message.schema.example.clone()).collect()
}

#[test]
fn the_messages_of_a_hub_make_exactly_its_protocol_certain() {
    let packs = all_packs();
    for (index, pack) in packs.iter().enumerate() {
        let (found, _) = recognise(&packs, &frames(&hub_examples(pack), FrameOccasion::AfterMessage));
        assert_eq!(found, Recognition::Certain(index), "{}", pack.name);
    }
}

#[test]
fn further_members_do_not_hide_a_protocol() {
    let packs = all_packs();
    for (index, pack) in packs.iter().enumerate() {
        let mut examples = hub_examples(pack);
        for example in &mut examples {
            match example {
                Value::Object(members) => drop(members.insert("x_trace".to_owned(), json!({ "span": [1, 2] }))),
                Value::Array(items) => {
                    for item in items.iter_mut().filter_map(Value::as_object_mut) {
                        item.insert("x_trace".to_owned(), json!("1-2"));
                    }
                }
                _ => {}
            }
        }
        let (found, _) = recognise(&packs, &frames(&examples, FrameOccasion::AfterMessage));
        assert!(
            matches!(found, Recognition::Certain(best) | Recognition::Likely(best) if best == index),
            "{}: {found:?}",
            pack.name
        );
    }
}

#[test]
fn two_packs_that_accept_the_same_frames_are_tied() {
    let mut packs = all_packs();
    let copied = packs.iter().position(|pack| pack.name == "concierge").unwrap();
    packs.push(disk::pack("concierge"));
    let examples = hub_examples(&packs[copied]);
    let (found, _) = recognise(&packs, &frames(&examples, FrameOccasion::AfterMessage));
    assert_eq!(found, Recognition::Tied(vec![copied, packs.len() - 1]));
}

/// Frames of hubs that speak none of the protocols.
#[rstest]
#[case::nothing(&[])]
#[case::an_error_of_any_hub(&[json!({ "error": "bad request" })])]
#[case::another_error(&[json!({ "error": { "message": "no", "code": 400 } }), json!({ "ok": false })])]
#[case::a_chat(&[json!({ "event": "joined", "data": { "user": "ann" } }), json!({ "event": "text", "data": "hi" })])]
#[case::plain_values(&[json!(1), json!("text"), json!([]), json!({}), json!(null)])]
#[case::a_number_in_a_list(&[json!([3, "id", {}]) , json!({ "a": 1 }), json!({ "b": 1 })])]
fn frames_of_other_protocols_are_not_recognised(#[case] payloads: &[Value]) {
    let packs = all_packs();
    for occasion in [FrameOccasion::Unasked, FrameOccasion::AfterNonsense, FrameOccasion::AfterMessage] {
        assert_eq!(recognise(&packs, &frames(payloads, occasion)).0, Recognition::Unknown, "{occasion:?}");
    }
}

#[test]
fn text_that_is_not_json_is_evidence_against_every_protocol() {
    let packs = all_packs();
    let garbage = HubFrame { payload: None, occasion: FrameOccasion::AfterMessage };
    assert_eq!(recognise(&packs, &[garbage.clone(), garbage.clone()]).0, Recognition::Unknown);
    // One right message among much garbage may be chance.
    let index = packs.iter().position(|pack| pack.name == "concierge").unwrap();
    let hello = frame(&hub_examples(&packs[index])[0], FrameOccasion::AfterMessage);
    assert_eq!(recognise(&packs, &[hello.clone(), garbage.clone(), garbage.clone()]).0, Recognition::Unknown);
    assert_eq!(recognise(&packs, &[hello, garbage]).0, Recognition::Likely(index));
}

#[test]
fn an_answer_that_the_hub_gives_to_anything_makes_no_protocol_certain() {
    let packs = all_packs();
    let index = packs.iter().position(|pack| pack.name == "concierge").unwrap();
    let error = packs[index].message("status_group_created").unwrap().starting_value();
    let first = frame(&error, FrameOccasion::AfterNonsense);
    let again = frame(&error, FrameOccasion::AfterMessage);
    let (found, evidence) = recognise(&packs, &[first, again.clone()]);
    assert_eq!(found, Recognition::Likely(index));
    assert!(evidence[index].matches.iter().flatten().all(|found| found.generic));
    // A greeting is not an answer, even if it is sent again.
    let greeting = frame(&error, FrameOccasion::Unasked);
    assert_eq!(recognise(&packs, &[greeting, again]).0, Recognition::Certain(index));
}

#[test]
fn a_message_that_breaks_its_schema_makes_its_protocol_only_likely() {
    let packs = all_packs();
    let index = packs.iter().position(|pack| pack.name == "concierge").unwrap();
    let mut examples = hub_examples(&packs[index]);
    let place = examples.iter().position(|example| example["type"] == "HELLO").unwrap();
    examples[place].as_object_mut().unwrap().remove("uuid");
    let (found, evidence) = recognise(&packs, &frames(&examples, FrameOccasion::AfterMessage));
    assert_eq!(found, Recognition::Likely(index));
    let broken = evidence[index].matches[place].as_ref().unwrap();
    assert!(matches!(&broken.fit, FrameFit::Invalid(why) if why.contains("uuid")), "{broken:?}");
}

/// Hubs may send anything, so recognition must be bounded by the size of a frame.
#[test]
fn deep_and_wide_frames_are_compared() {
    let packs = all_packs();
    let deep = (0..100).fold(json!(1), |inner, _| json!({ "type": inner }));
    let wide: Value = (0..4000).map(|n| (format!("m{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
    let long: Value = vec![json!({ "type": "HELLO" }); 4000].into();
    assert_eq!(recognise(&packs, &frames(&[deep, wide, long], FrameOccasion::Unasked)).0, Recognition::Unknown);
}
