//! Parses expectations: messages, closes, refusals, their counts, and alternatives.

use std::collections::BTreeSet;

use super::names::NameOrigin;
use super::rules::MatcherSubject;
use super::shared::unknown_message_error;
use super::steps::StepOptions;
use super::{ScenarioParser, StepPlace};
use crate::protocol::FrameDirection;
use crate::scenario::model::{
    CountRange, Expectation, ExpectedAlternative, ExpectedCodes, ExpectedEvent, GroupQuantity, MessageName,
    SilenceExpectation, StepAction, StepActors,
};
use crate::syntax::diagnostic::suggest;
use crate::syntax::fields::{choice, integer, list, table, text, wrong_kind};
use crate::syntax::yaml::{NodeKind, SyntaxNode};

impl ScenarioParser<'_> {
    pub(super) fn parse_expect_message<'n>(
        &mut self,
        value: &'n SyntaxNode,
        options: &StepOptions<'n>,
        who: &StepActors,
    ) -> StepAction {
        let message = self.parse_message_name(value, Some(FrameDirection::FromHub));
        let subject = MatcherSubject::from_message_name(&message);
        // A step that may also receive nothing needs no message that fits.
        let least = options.get("count").and_then(|count| count.get("min")).and_then(SyntaxNode::integer);
        let may_be_silent = least == Some(0)
            || matches!(who, StepActors::Group { quantity: Some((GroupQuantity::AtMost, _) | (_, 0)), .. });
        let pattern = options.get("where").map(|node| match may_be_silent {
            true => self.parse_pattern(node, &subject),
            false => self.parse_demand(node, &subject),
        });
        let expect = self.parse_expectation(ExpectedEvent::Message { message, pattern }, options, &subject);
        let counted = options.get("count").is_some() || matches!(who, StepActors::Group { quantity: Some(_), .. });
        if let Some(key) = options.key("for").filter(|_| !counted) {
            self.error(
                key.span,
                "`for` without `count` has nothing to count",
                "add `count: { min: 1 }`, or write `within` to say how long to wait",
            );
        }
        StepAction::Expect(Box::new(expect))
    }

    pub(super) fn parse_expect_control<'n>(&mut self, value: &'n SyntaxNode, options: &StepOptions<'n>) -> StepAction {
        let want = self.parse_control(value, "`expects frame`", options.get("where"));
        StepAction::Expect(Box::new(self.parse_expectation(want, options, &MatcherSubject::CONTROL)))
    }

    fn parse_control(&mut self, value: &SyntaxNode, what: &str, condition: Option<&SyntaxNode>) -> ExpectedEvent {
        let words = [("ping", false), ("pong", true)];
        let pong = choice(Some(value), what, &words, &mut self.diagnostics).unwrap_or(true);
        let pattern = condition.map(|node| self.parse_pattern(node, &MatcherSubject::CONTROL));
        ExpectedEvent::Control { pong, pattern }
    }

    pub(super) fn parse_expect_close<'n>(&mut self, value: &'n SyntaxNode, options: &StepOptions<'n>) -> StepAction {
        let codes = self.parse_codes(value, "expects close: [4004, drop]");
        StepAction::Expect(Box::new(self.parse_expectation(
            ExpectedEvent::Close(codes),
            options,
            &MatcherSubject::CLOSE,
        )))
    }

    pub(super) fn parse_expect_refusal<'n>(&mut self, value: &'n SyntaxNode, options: &StepOptions<'n>) -> StepAction {
        let codes = self.parse_codes(value, "expects refusal: [401, 403]");
        StepAction::Expect(Box::new(self.parse_expectation(
            ExpectedEvent::Refusal(codes),
            options,
            &MatcherSubject::REFUSAL,
        )))
    }

    pub(super) fn parse_expect_end<'n>(&mut self, options: &StepOptions<'n>) -> StepAction {
        let within = self.time_option(options, "within");
        StepAction::ExpectEnd { within, has: self.parse_has(options.get("has"), &MatcherSubject::END) }
    }

    pub(super) fn parse_expect_nothing<'n>(&mut self, value: &'n SyntaxNode, options: &StepOptions<'n>) -> StepAction {
        let message = self.parse_message_name(value, Some(FrameDirection::FromHub));
        let subject = MatcherSubject::from_message_name(&message);
        let pattern = options.get("where").map(|node| self.parse_pattern(node, &subject));
        let after = options.get("after").and_then(|node| self.parse_after(node));
        let for_ = self.time_option(options, "for");
        StepAction::ExpectNothing(Box::new(SilenceExpectation { message, pattern, after, for_ }))
    }

    pub(super) fn parse_expect_one_of<'n>(
        &mut self,
        value: &'n SyntaxNode,
        options: &StepOptions<'n>,
        who: &StepActors,
    ) -> StepAction {
        StepAction::ExpectOneOf {
            alternatives: self.parse_alternatives(value, NameOrigin::of_actors(who)),
            after: options.get("after").and_then(|node| self.parse_after(node)),
            within: self.time_option(options, "within"),
        }
    }

    fn parse_expectation<'n>(
        &mut self,
        want: ExpectedEvent,
        options: &StepOptions<'n>,
        subject: &MatcherSubject,
    ) -> Expectation {
        Expectation {
            want,
            after: options.get("after").and_then(|node| self.parse_after(node)),
            within: self.time_option(options, "within"),
            count: options.get("count").and_then(|node| self.parse_count(node, options)),
            for_: self.time_option(options, "for"),
            has: self.parse_has(options.get("has"), subject),
        }
    }

    /// Parses the name of a frame after which another is expected.
    fn parse_after(&mut self, node: &SyntaxNode) -> Option<String> {
        let name = self.parse_bound_name(node, "after")?;
        self.require_wire(&name, node);
        Some(name)
    }

    /// Reports a name whose value is neither sent nor received and therefore has no place in an order.
    pub(super) fn require_wire(&mut self, name: &str, node: &SyntaxNode) {
        if let Some(bound) = self.find_binding(name).filter(|bound| bound.origin == NameOrigin::Computed) {
            let error = crate::syntax::diagnostic::Diagnostic::error(
                node.span,
                format!("`{name}` is neither sent nor received, so nothing can come before or after it"),
            )
            .help("use the name of a message that was sent or received");
            self.diagnostics.push(match bound.at {
                Some(at) => error.also(at, "it is bound to a value here"),
                None => error,
            });
        }
    }

    fn parse_codes(&mut self, node: &SyntaxNode, example: &str) -> ExpectedCodes {
        let mut codes = ExpectedCodes::default();
        let single = std::slice::from_ref(node);
        let items = node.list().unwrap_or(single);
        for item in items {
            match &item.kind {
                NodeKind::Number(n) if n.as_u64().is_some_and(|n| n <= 4999) => {
                    codes.codes.push(n.as_u64().unwrap_or_default() as u16)
                }
                NodeKind::Text(text) if text.value == "any" => codes.any = true,
                NodeKind::Text(text) if text.value == "drop" => codes.drop = true,
                NodeKind::Text(text) if parse_code_range(&text.value).is_some() => {
                    codes.codes.extend(parse_code_range(&text.value).into_iter().flatten())
                }
                NodeKind::Null => self.error(item.span, "a code is missing", format!("write `{example}`, or `any`")),
                _ => self.error(
                    item.span,
                    "a code must be a number up to 4999, a range such as 3000-3999, `any` or `drop`",
                    format!("write `{example}`"),
                ),
            }
        }
        if items.is_empty() {
            self.error(node.span, "the list of codes is empty", format!("write `{example}`, or `any`"));
        }
        codes
    }

    fn parse_count(&mut self, node: &SyntaxNode, options: &StepOptions<'_>) -> Option<CountRange> {
        let example = "write `count: 3`, or `count: { min: 2, max: 4 }` and `for: 3s`";
        let bound = |node: &SyntaxNode| node.integer().and_then(|n| usize::try_from(n).ok());
        if let Some(n) = bound(node) {
            if n == 0 {
                self.error(node.span, "a count of 0 is written `expects nothing`", "write `expects nothing: MESSAGE`");
            }
            return Some(CountRange { min: n, max: Some(n) });
        }
        if node.map().is_none() {
            self.diagnostics.push(wrong_kind(node, "`count`", "a number or a range", example));
            return None;
        }
        let before = self.diagnostics.len();
        table(node, &["min", "max"], "`count`", &mut self.diagnostics);
        for name in ["min", "max"] {
            integer(node.get(name), &format!("`{name}`"), 0..=u64::MAX, &mut self.diagnostics);
        }
        let (min, max) = (node.get("min").and_then(bound), node.get("max").and_then(bound));
        // With only `min: 0`, a step takes all received frames, to bind or to claim them.
        match (min, max) {
            _ if self.diagnostics.len() > before => return None,
            (None, None) => self.error(node.span, "`count` has neither `min` nor `max`", example),
            (Some(0), None) if options.get("rules").is_some() => {
                self.error(
                    node.span,
                    "`min: 0` without `max` allows any number, so it proves nothing",
                    "raise `min`, add a `max`, or leave `rules` out",
                );
            }
            (_, Some(0)) => {
                self.error(node.span, "a count of 0 is written `expects nothing`", "write `expects nothing: MESSAGE`");
            }
            (Some(min), Some(max)) if min > max => {
                self.error(node.span, format!("no number is at least {min} and at most {max}"), example);
            }
            _ => {}
        }
        if options.get("for").is_none() {
            self.error(
                node.span,
                "a `count` with a range needs `for`",
                "add `for: 3s`, the time during which to count",
            );
        }
        Some(CountRange { min: min.unwrap_or(0), max })
    }

    pub(super) fn parse_alternatives(&mut self, node: &SyntaxNode, origin: NameOrigin) -> Vec<ExpectedAlternative> {
        let example = "expects one of: [ { message: hello }, { close: any } ]";
        let items = list(Some(node), "`expects one of`", example, &mut self.diagnostics);
        if node.is_null() || node.list().is_some_and(<[_]>::is_empty) {
            self.error(node.span, "`expects one of` has no alternatives", format!("write `{example}`"));
        }
        let mut names = BTreeSet::new();
        items.iter().filter_map(|item| self.parse_alternative(item, origin, &mut names)).collect()
    }

    fn parse_alternative(
        &mut self,
        item: &SyntaxNode,
        origin: NameOrigin,
        names: &mut BTreeSet<String>,
    ) -> Option<ExpectedAlternative> {
        const KINDS: [&str; 5] = ["message", "frame", "close", "refusal", "nothing"];
        let help = "write `- message: MESSAGE`, `- frame: pong`, `- close: CODE`, `- refusal: STATUS` or `- nothing:`";
        let known = ["message", "frame", "close", "refusal", "nothing", "where", "as", "warn", "info", "fail"];
        let alternative = table(item, &known, "an alternative", &mut self.diagnostics);
        let (kind, value) = alternative.one_of(&KINDS, help, &mut self.diagnostics)?;
        if !matches!(kind, "message" | "frame") && item.get("where").is_some() {
            let at = item.key_at_pointer("/where");
            self.error(
                at,
                format!("`where` belongs to `message` or `frame`, not to `{kind}`"),
                "write codes as the value of `close` or `refusal`",
            );
        }
        let (want, text_) = match kind {
            "message" => {
                let message = self.parse_message_name(value, Some(FrameDirection::FromHub));
                let subject = MatcherSubject::from_message_name(&message);
                let pattern = item.get("where").map(|n| self.parse_pattern(n, &subject));
                (
                    Some(ExpectedEvent::Message { message, pattern }),
                    format!("message {}", value.text().unwrap_or_default()),
                )
            }
            "frame" => {
                let want = self.parse_control(value, "`frame`", item.get("where"));
                (Some(want), format!("frame {}", value.text().unwrap_or_default()))
            }
            "close" => (
                Some(ExpectedEvent::Close(self.parse_codes(value, "close: [1009, drop]"))),
                format!("close {}", value.to_json()),
            ),
            "refusal" => (
                Some(ExpectedEvent::Refusal(self.parse_codes(value, "refusal: [401, 403]"))),
                format!("refusal {}", value.to_json()),
            ),
            _ => {
                if !value.is_null() {
                    self.error(
                        value.span,
                        "`nothing` takes no value",
                        "write `- nothing:`, which means silence until `within` has passed",
                    );
                }
                (None, "nothing".to_owned())
            }
        };
        let as_ = item.get("as").and_then(|node| match node.text() {
            // Only one alternative happens, so several may share a name.
            Some(name) if names.contains(name) => Some(name.to_owned()),
            _ => {
                let name = self.parse_free_name(node)?;
                self.bind_name(&name, Some(node.span), if kind == "nothing" { NameOrigin::Unknown } else { origin });
                names.insert(name.clone());
                Some(name)
            }
        });
        let outcomes: Vec<&str> = ["warn", "info", "fail"].into_iter().filter(|key| item.get(key).is_some()).collect();
        if let [first, second, ..] = outcomes[..] {
            let at = item.key_at_pointer(&format!("/{second}"));
            let help = "keep one: `warn` reports a warning, `info` only records, `fail` fails the step";
            self.error(at, format!("`{first}` or `{second}`, not both"), help);
        }
        let warn = text(item.get("warn"), "`warn`", &mut self.diagnostics).map(str::to_owned);
        let info = text(item.get("info"), "`info`", &mut self.diagnostics).map(str::to_owned);
        let fail = text(item.get("fail"), "`fail`", &mut self.diagnostics).map(str::to_owned);
        Some(ExpectedAlternative { want, as_, warn, info, fail, text: text_ })
    }

    /// Parses the name of a message of the pack, or `any` where frames are received.
    pub(super) fn parse_message_name(&mut self, node: &SyntaxNode, way: Option<FrameDirection>) -> MessageName {
        // The name may be known before the run, as a case's name is.
        let known = node.text().filter(|name| name.contains("${") && self.place == StepPlace::Scenario);
        if let Some(known) = known.and_then(|name| self.row_text(name, node.span)) {
            self.parse_template(node);
            return self.parse_message_name(&SyntaxNode::from_json(&known.into(), node.span), way);
        }
        match node.text() {
            Some(name) if name.contains("${") => return MessageName::Computed(self.parse_template(node)),
            Some("any") if way.is_some() => return MessageName::Any,
            _ => {}
        }
        let pack = self.pack;
        let Some(message) = node.text().and_then(|name| pack.message(name)) else {
            self.diagnostics.push(unknown_message_error(node, pack));
            return MessageName::Any;
        };
        let name = &message.name;
        let server = self.own_role().is_some_and(|role| role.server && !self.pack.judges_clients);
        if way == Some(FrameDirection::FromHub) && !message.directions.from_hub && !server && !self.any_actor {
            let others: Vec<&str> =
                pack.messages.iter().filter(|m| m.directions.from_hub).map(|m| m.name.as_str()).collect();
            let shown = format!("`hubproof packs show {}` lists who sends what", pack.name);
            self.error(node.span, format!("a hub never sends `{name}`"), suggest(name, others, &shown));
        }
        MessageName::Named(name.clone())
    }
}

/// Parses a range of close codes: `3000-4999`.
fn parse_code_range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last && last <= 4999).then_some(first..=last)
}
