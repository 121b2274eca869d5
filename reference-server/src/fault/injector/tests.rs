use rstest::rstest;
use serde_json::json;

use super::*;
use crate::fault::{FaultEffect, parse};

#[rstest]
#[case(ChangeAction::Set("/a".into(), "1".into()), r#"{"a":1,"big":9007199254740993.5}"#)]
#[case(ChangeAction::Set("/new".into(), "[]".into()), r#"{"a":{"b":"x"},"big":9007199254740993.5,"new":[]}"#)]
#[case(ChangeAction::Fill("/a".into(), 3), r#"{"a":"AAA","big":9007199254740993.5}"#)]
#[case(ChangeAction::Fill("/new".into(), 1), r#"{"a":{"b":"x"},"big":9007199254740993.5,"new":"A"}"#)]
#[case(ChangeAction::Set("/a/c".into(), "null".into()), r#"{"a":{"b":"x","c":null},"big":9007199254740993.5}"#)]
#[case(ChangeAction::Remove("/a".into()), r#"{"big":9007199254740993.5}"#)]
#[case(ChangeAction::Remove("/a/b".into()), r#"{"a":{},"big":9007199254740993.5}"#)]
#[case(ChangeAction::Remove("/nothing".into()), "same")]
#[case(ChangeAction::Retype("/a/b".into()), r#"{"a":{"b":["x"]},"big":9007199254740993.5}"#)]
#[case(ChangeAction::Retype("/a".into()), r#"{"a":"{\"b\":\"x\"}","big":9007199254740993.5}"#)]
#[case(ChangeAction::Alter("/a/b".into()), r#"{"a":{"b":"xx"},"big":9007199254740993.5}"#)]
#[case(ChangeAction::Alter("/a".into()), r#"{"a":{},"big":9007199254740993.5}"#)]
#[case(ChangeAction::Rename("/a".into(), "z".into()), r#"{"z":{"b":"x"},"big":9007199254740993.5}"#)]
#[case(ChangeAction::Rename("/a/b".into(), "z".into()), r#"{"a":{"z":"x"},"big":9007199254740993.5}"#)]
fn an_edit_changes_only_the_named_member(#[case] act: ChangeAction, #[case] want: &str) {
    let text = r#"{"a":{"b":"x"},"big":9007199254740993.5}"#;
    assert_eq!(edit_frame(text, &act).unwrap_or_else(|| "same".to_owned()), want);
}

#[rstest]
#[case(ChangeAction::Set("/1".into(), "7".into()), r#"[3,7,{"n":9007199254740993.5,"l":[1,2]}]"#)]
#[case(ChangeAction::Remove("/1".into()), r#"[3,{"n":9007199254740993.5,"l":[1,2]}]"#)]
#[case(ChangeAction::Retype("/1".into()), r#"[3,["id"],{"n":9007199254740993.5,"l":[1,2]}]"#)]
#[case(ChangeAction::Alter("/0".into()), r#"[-4,"id",{"n":9007199254740993.5,"l":[1,2]}]"#)]
#[case(ChangeAction::Remove("/2/n".into()), r#"[3,"id",{"l":[1,2]}]"#)]
#[case(ChangeAction::Remove("/*".into()), "[]")]
#[case(ChangeAction::Alter("/7".into()), "same")]
#[case(ChangeAction::Alter("/name".into()), "same")]
fn an_edit_changes_only_the_named_element(#[case] act: ChangeAction, #[case] want: &str) {
    let text = r#"[3,"id",{"n":9007199254740993.5,"l":[1,2]}]"#;
    assert_eq!(edit_frame(text, &act).unwrap_or_else(|| "same".to_owned()), want);
}

#[test]
fn an_element_of_an_inner_array_is_edited() {
    let edited = |act: ChangeAction| edit_frame(r#"{"l":[[1,"a"],[2,"b"]]}"#, &act).unwrap();
    assert_eq!(edited(ChangeAction::Alter("/l/*/1".into())), r#"{"l":[[1,"xa"],[2,"xb"]]}"#);
    assert_eq!(edited(ChangeAction::Remove("/l/0".into())), r#"{"l":[[2,"b"]]}"#);
    assert_eq!(
        edit_frame(r#"[{"a":1},{"b":1},2]"#, &ChangeAction::Alter("/*/a".into())).unwrap(),
        r#"[{"a":-2},{"b":1},2]"#
    );
}

#[test]
fn a_star_in_a_pointer_stands_for_every_array_element() {
    let edited =
        edit_frame(r#"{"l":[{"a":1,"b":2},{"b":3},{"a":4}]}"#, &ChangeAction::Remove("/l/*/a".into())).unwrap();
    assert_eq!(edited, r#"{"l":[{"b":2},{"b":3},{}]}"#);
}

/// Accepts every connection, sends each text to all, closes with 4000 on a binary message.
#[derive(Default)]
struct EchoMachine(BTreeSet<ConnectionId>);

impl Machine for EchoMachine {
    fn handle(&mut self, _: Duration, input: MachineInput, out: &mut Vec<MachineOutput>) {
        match input {
            MachineInput::Open { conn, .. } => {
                self.0.insert(conn);
                out.push(MachineOutput::Accept { conn, subprotocol: Some("echo".to_owned()) });
            }
            MachineInput::Text { text, .. } => {
                out.extend(self.0.iter().map(|&conn| MachineOutput::Text { conn, text: text.clone() }));
            }
            MachineInput::Binary { conn, .. } => {
                self.0.remove(&conn);
                out.push(MachineOutput::Close { conn, code: 4000, reason: String::new() });
            }
            MachineInput::Closed { conn } => {
                if self.0.remove(&conn) {
                    let text = Utf8Bytes::from(format!("{{\"left\":{conn}}}"));
                    out.extend(self.0.iter().map(|&conn| MachineOutput::Text { conn, text: text.clone() }));
                }
            }
            MachineInput::Ping { .. }
            | MachineInput::Connected { .. }
            | MachineInput::ConnectFailed { .. }
            | MachineInput::Tick => {}
        }
    }
    fn state(&self) -> Value {
        json!(self.0)
    }
}

use crate::machine::Utf8Bytes;

/// Returns what connections 1, 2 and 3 receive when 1 sends `{"t":"x"}` at time 0 and one second passes.
fn received(changes: &'static [OutputChange]) -> Vec<String> {
    let mut machine = Injector::new(Box::new(EchoMachine::default()), changes);
    let mut out = Vec::new();
    for conn in 1..=3 {
        machine.handle(Duration::ZERO, MachineInput::Open { conn, handshake: Default::default() }, &mut out);
    }
    out.clear();
    machine.handle(Duration::ZERO, MachineInput::Text { conn: 1, text: r#"{"t":"x"}"#.into() }, &mut out);
    if machine.deadline().is_some_and(|due| due <= Duration::from_secs(1)) {
        machine.handle(Duration::from_secs(1), MachineInput::Tick, &mut out);
    }
    out.into_iter()
        .map(|output| match output {
            MachineOutput::Text { conn, text } => format!("{conn} {text}"),
            MachineOutput::Close { conn, code, .. } => format!("{conn} close {code}"),
            other => format!("{other:?}"),
        })
        .collect()
}

/// Parses changes as a file of faults has them.
fn changes(yaml: &str) -> &'static [OutputChange] {
    let yaml = format!("qi-x: {{ text: X., breaks: [QI-001], {yaml} }}");
    let fault = parse::parse_faults("qi", "QI", &yaml).unwrap().remove(0);
    let FaultEffect::Outside(changes) = fault.effect else { panic!("{fault:?}") };
    changes
}

#[rstest]
#[case::initiator("when: { /t: x, to: initiator }, act: drop", &["2 {\"t\":\"x\"}", "3 {\"t\":\"x\"}"])]
#[case::others("when: { /t: x, to: others }, act: drop", &["1 {\"t\":\"x\"}"])]
#[case::other_cause("when: { after: { lacks: [/t] } }, act: drop", &["1 {\"t\":\"x\"}", "2 {\"t\":\"x\"}", "3 {\"t\":\"x\"}"])]
#[case::only("when: { /t: x, only: 3 }, act: double", &["1 {\"t\":\"x\"}", "2 {\"t\":\"x\"}", "3 {\"t\":\"x\"}", "3 {\"t\":\"x\"}"])]
#[case::every("when: { /t: x, every: 2 }, act: drop", &["1 {\"t\":\"x\"}", "3 {\"t\":\"x\"}"])]
#[case::delay("when: { /t: x, only: 1 }, act: { delay: 500ms }", &["2 {\"t\":\"x\"}", "3 {\"t\":\"x\"}", "1 {\"t\":\"x\"}"])]
#[case::swap_without_partner("when: { /t: x, only: 1 }, act: swap", &["2 {\"t\":\"x\"}", "3 {\"t\":\"x\"}", "1 {\"t\":\"x\"}"])]
#[case::close("when: { /t: x, only: 2 }, act: { close-instead: 4009 }", &["1 {\"t\":\"x\"}", "2 close 4009", "3 {\"t\":\"x\"}", "1 {\"left\":2}", "3 {\"left\":2}"])]
#[case::misroute_without_receiver("when: { /t: x, only: 2 }, act: misroute", &["1 {\"t\":\"x\"}", "3 {\"t\":\"x\"}"])]
fn a_change_applies_only_to_the_outputs_that_it_selects(#[case] yaml: &str, #[case] want: &[&str]) {
    assert_eq!(received(changes(yaml)), want);
}

#[rstest]
#[case::one("when: { has: [/first] }, act: swap")]
#[case::each("when: {}, act: swap")]
fn a_swapped_text_is_sent_after_the_next_one(#[case] yaml: &str) {
    let applied = Arc::default();
    let mut machine = Injector::with_counter(Box::new(EchoMachine::default()), changes(yaml), Arc::clone(&applied));
    let mut out = Vec::new();
    machine.handle(Duration::ZERO, MachineInput::Open { conn: 1, handshake: Default::default() }, &mut out);
    out.clear();
    for text in [r#"{"first":1}"#, r#"{"second":1}"#] {
        machine.handle(Duration::ZERO, MachineInput::Text { conn: 1, text: text.into() }, &mut out);
    }
    let texts = [r#"{"second":1}"#, r#"{"first":1}"#];
    assert_eq!(out, texts.map(|text| MachineOutput::Text { conn: 1, text: text.into() }));
    assert_eq!((machine.deadline(), applied.load(Ordering::Relaxed)), (None, 1));
}

#[rstest]
#[case(vec![FrameCondition::Equals("/t".into(), true.into())], true)]
#[case(vec![FrameCondition::Type("/n".into(), "null".into())], true)]
#[case(vec![FrameCondition::Type("/i".into(), "number".into()), FrameCondition::Type("/i".into(), "integer".into())], true)]
#[case(vec![FrameCondition::Type("/absent".into(), "null".into())], false)]
#[case(vec![FrameCondition::Not(vec![FrameCondition::Has("/n".into()), FrameCondition::Has("/absent".into())])], true)]
#[case(vec![FrameCondition::Not(vec![FrameCondition::Has("/n".into())])], false)]
fn conditions_test_values_and_types_of_members(#[case] conditions: Vec<FrameCondition>, #[case] want: bool) {
    assert_eq!(conditions_hold(&conditions, Some(&json!({ "t": true, "n": null, "i": 3 }))), want);
}

#[test]
fn changes_also_apply_to_closes_and_upgrades() {
    let changes = changes(
        "changes: [{ when: { upgrade: granted }, act: no-subprotocol }, { when: { close: 4000 }, act: { code: 1000 } }]",
    );
    let mut machine = Injector::new(Box::new(EchoMachine::default()), changes);
    let mut out = Vec::new();
    machine.handle(Duration::ZERO, MachineInput::Open { conn: 1, handshake: Default::default() }, &mut out);
    machine.handle(Duration::ZERO, MachineInput::Binary { conn: 1, data: Vec::new() }, &mut out);
    assert_eq!(
        out,
        [
            MachineOutput::Accept { conn: 1, subprotocol: None },
            MachineOutput::Close { conn: 1, code: 1000, reason: String::new() }
        ]
    );
}
