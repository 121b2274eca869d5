//! Snapshots of the diagnostics of mistakes in scenarios and packs, each with its place and advice.

use hubproof::protocol::{Pack, PackFolder};
use hubproof::scenario::{ScenarioSet, SharedFile, parse};
use hubproof::syntax::diagnostic::{render_all, without_duplicates};
use hubproof::syntax::source::Sources;
use hubproof::syntax::yaml;

use crate::support::disk::CONCIERGE;

/// Returns the diagnostics of every mistake of a table. `diagnose` renders those of one text.
fn diagnostics_of(mistakes: &[(&str, &str)], diagnose: impl Fn(&str) -> String) -> String {
    let one = |(what, text): &(&str, &str)| {
        let diagnostics = diagnose(text);
        assert!(!diagnostics.is_empty(), "not noticed: {what}");
        format!("## {what}\n\n{diagnostics}")
    };
    mistakes.iter().map(one).collect::<Vec<_>>().join("\n\n\n")
}

/// A scenario file of the concierge.
fn scenario_diagnostics(text: &str) -> String {
    let mut sources = CONCIERGE.sources.clone();
    let file = sources.add("scenarios/concierge/mistake.yaml", text);
    let diagnostics = match yaml::parse(&sources, file) {
        Err(diagnostic) => vec![diagnostic],
        Ok(root) => parse::parse_scenario("concierge/mistake", &root, &CONCIERGE.shared, &CONCIERGE.pack).1,
    };
    render_all(&diagnostics, &sources, false)
}

/// Steps of a scenario of the concierge in which anna and ben have joined.
fn step_diagnostics(text: &str) -> String {
    scenario_diagnostics(&format!(
        "title: A mistake\nactors: {{ anna: client, ben: client }}\nsteps:\n  - anna joins:\n  - ben joins:\n{text}"
    ))
}

/// A shared.yaml of the concierge, used by a scenario in which a client joins and plays `scene`.
fn shared_diagnostics(text: &str) -> String {
    let mut sources = Sources::default();
    let file = sources.add("scenarios/concierge/shared.yaml", text);
    let mut diagnostics = Vec::new();
    match yaml::parse(&sources, file) {
        Err(diagnostic) => diagnostics.push(diagnostic),
        Ok(root) => {
            let shared = SharedFile::parse(root, &CONCIERGE.pack, &mut diagnostics);
            diagnostics.extend(shared.check(&CONCIERGE.pack));
            let file = sources
                .add("scenarios/concierge/user.yaml", "title: t\nsteps:\n  - client joins:\n  - client plays: scene\n");
            diagnostics.extend(
                parse::parse_scenario(
                    "concierge/user",
                    &yaml::parse(&sources, file).unwrap(),
                    &shared,
                    &CONCIERGE.pack,
                )
                .1,
            );
        }
    }
    render_all(&without_duplicates(diagnostics), &sources, false)
}

#[test]
fn wrong_names_in_a_scenario_are_reported_at_their_place() {
    let mistakes = [
        ("a message that does not exist", "  - anna sends: selffetch\n"),
        ("a message that is like no other", "  - anna expects: goodbye\n"),
        ("a message that only a hub sends", "  - anna sends: hello\n"),
        ("a message that a hub never sends", "  - anna expects: identify\n"),
        ("an actor that does not exist", "  - ana sends: self_fetch\n"),
        ("a verb that does not exist", "  - anna expect noting: hello\n"),
        ("a word that does not exist", "  - chek: \"${1}\"\n    rules: [CON-024]\n"),
        ("a scene that does not exist", "  - anna plays: create_grop\n"),
        ("a value that the scene is not given", "  - anna plays: create_group\n    with: { name: x }\n"),
        (
            "a value that the role is not given",
            "  - each: i\n    in: 2\n    do:\n      - client joins:\n        with: { nmae: x }\n",
        ),
        ("a hook that does not exist", "  - hook: emit\n"),
        ("a step without an actor", "  - sends: self_fetch\n"),
        ("a step without an actor, within `each`", "  - each: i\n    in: 2\n    do:\n      - expects close: 4004\n"),
        ("a member of a crowd that does not exist", "  - crowd[0] sends: self_fetch\n"),
        ("a scene without actors that no actor plays", "  - play: fence\n"),
        ("a scene between actors that are not there", "  - play: greets\n"),
        ("a scene without a name", "  - anna plays:\n"),
        ("`any` cannot be sent", "  - anna sends: any\n"),
        ("a message instead of its name", "  - anna sends: { type: SELF_FETCH }\n"),
        ("no message", "  - anna expects:\n"),
        ("a message that only a hub sends, composed", "  - compose: hello\n    as: x\n"),
        ("a rule that does not exist", "  - anna expects: hello\n    rules: [CON-204]\n"),
        ("a rule of another protocol", "  - anna expects: hello\n    has:\n      QI-001: { version: x }\n"),
        (
            "a name used before it is bound",
            "  - check: \"${answer.seq}\"\n    fits: { minimum: 1 }\n    rules: [CON-040]\n  - anna expects: hello\n    as: answer\n",
        ),
        ("a name bound twice", "  - anna expects: hello\n    as: hello\n  - ben expects: hello\n    as: hello\n"),
        ("a reserved name", "  - anna expects: hello\n    as: unique\n"),
        ("a name that is an actor", "  - anna expects: hello\n    as: ben\n"),
        ("an actor that is a name", "  - anna expects: hello\n    as: client\n  - client joins:\n"),
        ("a name without a letter", "  - anna expects: hello\n    as: \"\"\n"),
        ("a name that begins with a number", "  - anna expects: hello\n    as: 1st\n"),
        (
            "a name bound by an alternative, too",
            "  - anna expects: hello\n    as: x\n  - anna expects one of:\n      - { message: hello, as: x }\n      - { close: any, as: 3 }\n",
        ),
        ("a variable called hub", "  - each: hub\n    in: 2\n    do: []\n"),
        ("a variable called like a function", "  - each: unique\n    in: 2\n    do: []\n"),
        ("a variable called like an actor", "  - either: anna\n    in: [1]\n    do: []\n"),
        ("a function that is not called", "  - anna sends: self_subscribe\n    with: { name: \"${unique}\" }\n"),
        ("all settings at once", "  - anna sends: self_subscribe\n    with: { name: \"${hub}\" }\n"),
        ("a filter that does not exist", "  - check: \"${[1] | frist}\"\n    rules: [CON-024]\n"),
        (
            "a test that does not exist, in a filter",
            "  - check: \"${[hello] | selectattr('uuid', 'containing', 'a') | list == []}\"\n    rules: [CON-024]\n",
        ),
        ("a test that does not exist", "  - check: \"${anna.hello is not dfined}\"\n    rules: [CON-024]\n"),
        ("a filter of a name that does not exist", "  - check: \"${ahello | length}\"\n    rules: [CON-024]\n"),
        (
            "one of several names",
            "  - check: \"${anna.hello.uuid ~ 'ann.hello' ~ ann.hello.uuid}\"\n    rules: [CON-024]\n",
        ),
        (
            "a name of an actor's that is not there",
            "  - anna sends: message_to_uuid\n    with: { target: { uuid: \"${ben.helo.uuid}\" } }\n",
        ),
        (
            "a function that does not exist",
            "  - anna sends: self_subscribe\n    with: { name: \"${uniqe('group')}\" }\n",
        ),
        ("a setting that does not exist", "  - anna sends: identify\n    with: { version: \"${hub.versoin}\" }\n"),
        ("`if` of an unbound name", "  - anna sends: self_fetch\n    if: answer\n"),
        ("`after` an unbound name", "  - anna expects: hello\n    after: claim\n"),
        ("`after` an actor", "  - anna expects: hello\n    after: anna\n"),
        (
            "`after` a value",
            "  - compose: self_fetch\n    as: question\n  - anna expects: self_fetch_result\n    after: question\n",
        ),
        ("an order that is no list", "  - order: first\n    rules: [CON-058]\n"),
        (
            "an order over several connections",
            "  - anna expects: hello\n    as: a\n  - ben expects: hello\n    as: b\n  - order: [a, b]\n    rules: [CON-058]\n",
        ),
        (
            "an order of what each of several got",
            "  - each: i\n    in: 2\n    do:\n      - client joins:\n      - client sends: self_fetch\n        as: asked\n      - client expects: self_fetch_result\n        as: answered\n  - order: [asked, answered]\n    rules: [CON-058]\n",
        ),
        ("an order of one thing", "  - anna expects: hello\n    as: a\n  - order: [a, a]\n    rules: [CON-058]\n"),
        ("an order of one", "  - anna expects: hello\n    as: first\n  - order: [first]\n    rules: [CON-058]\n"),
        (
            "an order of an unbound name",
            "  - anna expects: hello\n    as: first\n  - order: [first, second]\n    rules: [CON-058]\n",
        ),
    ];
    insta::assert_snapshot!(diagnostics_of(&mistakes, step_diagnostics));
}

#[test]
fn wrong_keys_in_a_scenario_are_reported_at_their_place() {
    let mistakes = [
        ("an option that does not exist", "  - anna expects: hello\n    were: { version: x }\n"),
        ("an option of another verb", "  - anna sends: identify\n    where: { name: x }\n"),
        ("an option of no use there", "  - anna expects nothing: hello\n    within: 2s\n    rules: [CON-024]\n"),
        ("the head does not come first", "  - rules: [CON-024]\n    anna expects: hello\n"),
        ("two heads", "  - anna sends: self_fetch\n    anna expects: self_fetch_result\n"),
        ("options under the verb instead of under the step", "  - anna joins:\n      with: { tags: [] }\n"),
        ("a step that is text", "  - anna joins\n"),
        ("a wait without a reason", "  - wait: 2s\n"),
        ("a time without a unit", "  - anna expects: hello\n    within: 5\n"),
        ("a time with another unit", "  - anna expects: hello\n    within: 5 seconds\n"),
        ("expects nothing without rules", "  - anna expects nothing: hello\n"),
        ("a check without rules", "  - check: \"${anna.hello.version}\"\n    equals: 0.1.0\n"),
        ("rules that are no list", "  - anna expects: hello\n    rules: CON-024\n"),
        ("a rule raised", "  - anna expects: hello\n    rules: [CON-026 as must]\n"),
        ("a rule lowered to where it is", "  - anna expects: hello\n    rules: [CON-052 as should]\n"),
        ("a level that does not exist", "  - anna expects: hello\n    rules: [CON-024 as warning]\n"),
        ("a rule twice", "  - anna expects: hello\n    rules: [CON-024, CON-024]\n"),
        ("no rules at all", "  - anna expects: hello\n    rules: []\n"),
        ("a computed rule", "  - anna expects: hello\n    rules: [\"CON-${1 + 23}\"]\n"),
        ("a number of one actor", "  - exactly 1 of anna expect: hello\n"),
        ("a number that is a word", "  - exactly one of anna expect: hello\n"),
        ("a number of those that send", "  - exactly 1 of anna send: self_fetch\n"),
        ("raw of two kinds", "  - anna sends raw: { text: x, binary: 'ff' }\n"),
        ("a close code that is none", "  - anna expects close: [4004, dropped]\n"),
        ("a close code that does not exist", "  - anna expects close: 5000\n"),
        ("no close code", "  - anna expects close:\n"),
        ("no alternatives", "  - anna expects one of: []\n"),
        ("an alternative of two kinds", "  - anna expects one of:\n      - message: hello\n        close: any\n"),
        ("`where` beside a close", "  - anna expects one of:\n      - close: any\n        where: { code: 1 }\n"),
        ("`nothing` with a value", "  - anna expects one of:\n      - nothing: hello\n"),
        (
            "an alternative that warns and records",
            "  - anna expects one of:\n      - nothing:\n        warn: silence\n        info: silence\n",
        ),
        ("an alternative of no kind", "  - anna expects one of:\n      - status_ok\n      - closed: 1000\n"),
        ("a count of no kind", "  - anna expects: hello\n    count: several\n"),
        ("a count of none", "  - anna expects: hello\n    count: 0\n"),
        ("a count that is impossible", "  - anna expects: hello\n    count: { min: 5, max: 2 }\n    for: 1s\n"),
        (
            "a count that proves nothing",
            "  - anna expects: hello\n    count: { min: 0 }\n    for: 1s\n    rules: [CON-024]\n",
        ),
        ("a count without bounds", "  - anna expects: hello\n    count: {}\n    for: 1s\n"),
        ("a range without a window", "  - anna expects: hello\n    count: { min: 1, max: 2 }\n"),
        ("a window without a count", "  - anna expects: hello\n    for: 1s\n"),
        ("a repetition without steps", "  - retry: 5s\n"),
        ("a repetition of no time", "  - retry: 0s\n    do: []\n"),
        ("no time", "  - wait:\n    because: it is early\n"),
        ("a time of a negative length", "  - anna expects: hello\n    within: -1s\n"),
        ("a time beyond all times", "  - anna expects: hello\n    within: 99999999999999999999m\n"),
        (
            "a check of what is always the same",
            "  - check: anna.hello.version\n    equals: 0.1.0\n    rules: [CON-025]\n",
        ),
        ("a check of a number", "  - check: 1\n    rules: [CON-025]\n"),
        ("`has` of nothing", "  - anna expects: hello\n    has: {}\n"),
        ("a line of `has` that asks nothing", "  - anna expects: hello\n    has: { CON-025: {} }\n"),
        ("no values", "  - each: i\n    in: []\n    do: []\n"),
        ("values that are text", "  - each: i\n    in: three\n    do: []\n"),
        ("no `in`", "  - each: i\n    do: []\n"),
        ("accepting by a client", "  - anna accepts:\n"),
        ("a second head of the first person", "  - anna sends: self_fetch\n    expects: self_fetch_result\n"),
        ("a list without a name", "  - each: [a, b]\n    do: []\n"),
    ];
    insta::assert_snapshot!(diagnostics_of(&mistakes, step_diagnostics));
}

#[test]
fn values_of_the_wrong_kind_are_reported_at_their_place() {
    let mistakes = [
        ("`with` of a message is a list", "  - anna sends: self_fetch\n    with: [a]\n"),
        ("`with` of a role is text", "  - each: i\n    in: 1\n    do:\n      - client joins:\n        with: x\n"),
        ("`with` of a scene is an expression", "  - anna plays: create_group\n    with: \"${anna}\"\n"),
        ("`without` is text", "  - anna sends: self_subscribe\n    without: /name\n"),
        (
            "`without` is an expression",
            "  - each: name\n    in: [uuid, group]\n    do:\n      - anna sends: self_subscribe\n        without: [\"/${name}\"]\n",
        ),
        ("a path is a number", "  - anna connects: 3\n"),
        ("`query` is text", "  - anna connects:\n    query: x\n"),
        ("`headers` is a list", "  - anna connects:\n    headers: [x]\n"),
        ("`subprotocols` is text", "  - anna connects:\n    subprotocols: ert-concierge\n"),
        ("`closes` nothing", "  - anna closes:\n"),
        ("`closes` soon", "  - anna closes: soon\n"),
        ("`closes` with a code beyond all", "  - anna closes: 99999\n"),
        ("a reason is a number", "  - anna closes: 1000\n    reason: 3\n"),
        ("raw of no kind", "  - anna sends raw: hello\n"),
        ("raw of an unknown kind", "  - anna sends raw: { txt: x }\n"),
        ("raw text is a mapping", "  - anna sends raw: { text: { type: X } }\n"),
        ("raw bytes are not hexadecimal", "  - anna sends raw: { binary: xyz }\n"),
        ("raw bytes are a number", "  - anna sends raw: { bytes: 12 }\n"),
        ("raw frames are no list", "  - anna sends raw: { frames: ping }\n"),
        ("raw frames are none", "  - anna sends raw: { frames: [] }\n"),
        ("a raw frame with an unknown key", "  - anna sends raw: { frames: [ { opcod: ping } ] }\n"),
        (
            "a raw frame that is wrong altogether",
            "  - anna sends raw: { frames: [ { opcode: pnig, fin: 1, rsv: 8, data: x, hex: ff }, { opcode: 16, hex: f } ] }\n",
        ),
        ("`drops` in another way", "  - anna drops: later\n"),
        ("`expects frame` of a message", "  - anna expects frame: hello\n"),
        ("`after` is a list", "  - anna expects: hello\n    after: [a]\n"),
        ("`fragments` are none", "  - anna sends: self_fetch\n    fragments: 0\n"),
        ("a rule is a number", "  - anna expects: hello\n    rules: [24]\n"),
        ("`has` is a list", "  - anna expects: hello\n    has: [CON-025]\n"),
        ("`warn` is a number", "  - anna expects one of:\n      - { message: hello, warn: 3 }\n"),
    ];
    insta::assert_snapshot!(diagnostics_of(&mistakes, step_diagnostics));
}

#[test]
fn wrong_values_in_a_scenario_are_reported_at_their_place() {
    let mistakes = [
        ("a sent message that breaks its schema", "  - anna sends: identify\n    with: { version: 1.0 }\n"),
        ("a sent message without a required member", "  - anna sends: self_subscribe\n    without: [/name]\n"),
        (
            "a member deep within that breaks the schema",
            "  - anna sends: message_to_name\n    with: { target: { type: NAME, name: 3 }, /data: 1 }\n",
        ),
        ("a pointer that breaks the schema", "  - anna sends: identify\n    with: { /tags: [a, 2] }\n"),
        ("`breaks` that breaks nothing", "  - anna sends: self_fetch\n    breaks: it is unexpected\n"),
        ("`breaks` without a reason", "  - anna sends: hello\n    breaks:\n"),
        ("an undocumented member", "  - anna sends: self_subscribe\n    with: { nam: x }\n"),
        (
            "an undocumented member within a member",
            "  - anna sends: message_to_name\n    with: { target: { nmae: x } }\n",
        ),
        ("`without` of a name", "  - anna sends: self_subscribe\n    without: [name]\n"),
        ("a pointer with a value", "  - anna expects: hello\n    where: { /version: 0.1.0 }\n"),
        (
            "a pointer with a number, beside an expression",
            "  - anna expects: hello\n    where: { /seq: 3, name: \"${anna.name}\" }\n",
        ),
        ("a misspelt JSON Schema keyword", "  - anna expects: hello\n    where: { /version: { patern: '^0' } }\n"),
        (
            "a misspelt keyword far within",
            "  - anna expects: hello\n    has:\n      CON-025:\n        /version: { allOf: [ { minLenght: 1 } ] }\n",
        ),
        (
            "a misspelt keyword beside an expression",
            "  - anna expects: hello\n    where: { /version: { enum: [\"${hub.version}\"], minLenght: 1 } }\n",
        ),
        ("a matcher that is text", "  - anna expects: hello\n    where: version\n"),
        ("an undocumented member to match", "  - anna expects: hello\n    where: { verson: x }\n"),
        (
            "an undocumented member to check",
            "  - anna expects: hello\n    has: { CON-025: { /verson: true, /uid or absent: { format: uuid }, /secret: false } }\n",
        ),
        (
            "a member of a close that does not exist",
            "  - anna expects close: any\n    has: { CON-021: { cod: 4000 } }\n",
        ),
        ("a format that nothing checks", "  - anna expects: hello\n    where: { /version: { format: semver } }\n"),
        ("a schema with a wrong type", "  - anna expects: hello\n    where: { /version: { type: sting } }\n"),
        ("`or absent` of a name", "  - anna expects: hello\n    where: { version or absent: x }\n"),
        (
            "`fits` with a misspelt keyword",
            "  - check: \"${anna.hello.version}\"\n    fits: { patern: x }\n    rules: [CON-025]\n",
        ),
        (
            "`fits` with a misspelt keyword beside an expression",
            "  - check: \"${anna.hello.version}\"\n    fits: { patern: \"${hub.version}\" }\n    rules: [CON-025]\n",
        ),
        ("`fits` that is no schema", "  - check: \"${1}\"\n    fits: 3\n    rules: [CON-025]\n"),
        (
            "`fits` with a pattern that is none",
            "  - check: \"${anna.hello.version}\"\n    fits: { pattern: '(' }\n    rules: [CON-025]\n",
        ),
        ("`equals` and `fits`", "  - check: \"${1}\"\n    equals: 1\n    fits: { minimum: 1 }\n    rules: [CON-025]\n"),
        (
            "an expression that is never closed",
            "  - anna sends: self_subscribe\n    with: { name: \"group of ${anna.name\" }\n",
        ),
        ("an expression that is none", "  - anna sends: self_subscribe\n    with: { name: \"${anna.name +}\" }\n"),
        ("an expression in a key", "  - anna expects: hello\n    where: { \"${anna.name}\": x }\n"),
        ("an expression as a rule of `has`", "  - anna expects: hello\n    has: { \"${rule}\": {} }\n"),
    ];
    insta::assert_snapshot!(diagnostics_of(&mistakes, step_diagnostics));
}

#[test]
fn yaml_beyond_json_is_reported_at_its_place() {
    let mistakes = [
        ("a key that stands twice", "  - anna expects: hello\n    rules: [CON-024]\n    rules: [CON-025]\n"),
        ("an anchor", "  - anna sends: &fetch self_fetch\n  - ben sends: *fetch\n"),
        ("an alias", "  - anna sends: *fetch\n"),
        ("a tag", "  - anna sends: !!str self_fetch\n"),
        ("a merge key", "  - anna sends: identify\n    with: { <<: { name: x } }\n"),
        ("yes and no", "  - anna sends: identify\n    with: { name: no }\n"),
        ("a number with leading zeros", "  - anna sends: identify\n    with: { name: 007 }\n"),
        ("an expression without quotes", "  - anna sends: self_subscribe\n    with: { name: ${anna.name} }\n"),
        ("a colon within text", "  - anna closes: 1000\n    reason: gone: for good\n"),
        ("a tab", "  - anna sends: identify\n\twith: { name: x }\n"),
        ("text that begins with an at sign", "  - anna closes: 1000\n    reason: @home\n"),
        ("a backslash in double quotes", "  - anna expects: hello\n    where: { /version: { pattern: \"^\\d\" } }\n"),
        ("an option indented too far", "  - anna sends: identify\n      with: { name: x }\n"),
        ("an option indented too little", "  - anna sends: identify\n   with: { name: x }\n"),
        ("a line indented with a tab", "\t- anna sends: identify\n"),
        ("a quote that is never closed", "  - anna closes: 1000\n    reason: 'home\n"),
        ("two texts in one line", "  - anna closes: 1000\n    reason: 'gone' home\n"),
        ("a bracket that is never closed", "  - anna expects: hello\n    rules: [CON-024\n"),
        ("a second document", "  - anna sends: self_fetch\n---\ntitle: Another\n"),
    ];
    insta::assert_snapshot!(diagnostics_of(&mistakes, step_diagnostics));
}

#[test]
fn mistakes_of_a_whole_scenario_file_are_reported() {
    let mistakes = [
        ("an empty file", ""),
        ("no title", "steps:\n  - client joins:\n"),
        ("no steps", "title: A mistake\n"),
        ("an unknown key", "title: A mistake\nactor: { anna: client }\nsteps:\n  - client joins:\n"),
        ("a role that does not exist", "title: A mistake\nactors: { anna: clinet }\nsteps: []\n"),
        (
            "an actor with a key too many",
            "title: A mistake\nactors: { crowd: { role: client, number: 3 } }\nsteps: []\n",
        ),
        ("a group without actors", "title: A mistake\nactors: { all: [anna, ben] }\nsteps: []\n"),
        ("an actor called like a word", "title: A mistake\nactors: { check: client }\nsteps: []\n"),
        ("an actor called like a verb", "title: A mistake\nactors: { expects: client }\nsteps: []\n"),
        ("an actor with a blank", "title: A mistake\nactors: { old anna: client }\nsteps: []\n"),
        ("an actor of no role", "title: A mistake\nactors: { anna: 3 }\nsteps: []\n"),
        ("actors that are a list", "title: A mistake\nactors: [anna]\nsteps: []\n"),
        ("a group without members", "title: A mistake\nactors: { all: [] }\nsteps: []\n"),
        ("a crowd of none", "title: A mistake\nactors: { crowd: { role: client, count: 0 } }\nsteps: []\n"),
        ("a value called like an actor", "title: A mistake\nactors: { anna: client }\nlet: { anna: 3 }\nsteps: []\n"),
        ("a value made of a later one", "title: A mistake\nlet: { a: \"${b}\", b: 1 }\nsteps: []\n"),
        ("a need over a setting that does not exist", "title: A mistake\nneeds: [\"hub.timeout > 3\"]\nsteps: []\n"),
        ("a need that is no expression", "title: A mistake\nneeds: [\"hub.version >\"]\nsteps: []\n"),
        ("a need over a name", "title: A mistake\nlet: { a: 1 }\nneeds: [\"hub.version == a\"]\nsteps: []\n"),
        ("a need that is almost a setting", "title: A mistake\nneeds: [versoin]\nsteps: []\n"),
        ("a need that is a number", "title: A mistake\nneeds: [3]\nsteps: []\n"),
        ("exclusive to nothing", "title: A mistake\nexclusive: [hub]\nsteps: []\n"),
        ("destructive to some degree", "title: A mistake\ndestructive: 1\nsteps: []\n"),
        ("a title that is a number", "title: 3\nsteps: []\n"),
        ("values that are a list", "title: A mistake\nlet: [a]\nsteps: []\n"),
        ("a value with a hyphen", "title: A mistake\nlet: { my-group: x }\nsteps: []\n"),
        ("a check in `finally`", "title: A mistake\nsteps: []\nfinally:\n  - client expects nothing: hello\n"),
        ("needs that are no list", "title: A mistake\nneeds: tls\nsteps: []\n"),
        ("rules in `finally`", "title: A mistake\nsteps: []\nfinally:\n  - client joins:\n    rules: [CON-024]\n"),
        ("steps that are no list", "title: A mistake\nsteps:\n  client joins:\n"),
    ];
    insta::assert_snapshot!(diagnostics_of(&mistakes, scenario_diagnostics));
}

#[test]
fn mistakes_of_the_shared_file_are_reported_at_their_place() {
    let mistakes = [
        ("an unknown key", "role: {}\nroles: { client: }\nscenes: { scene: }\n"),
        ("a setting about nothing", "hub: { version: { default: 0.1.0 } }\nroles: { client: }\nscenes: { scene: }\n"),
        (
            "a setting with an unknown key",
            "hub: { version: { about: x, defualt: 0.1.0 } }\nroles: { client: }\nscenes: { scene: }\n",
        ),
        ("a message to ignore that does not exist", "ignore: [status_ko]\nroles: { client: }\nscenes: { scene: }\n"),
        (
            "rules in an opening",
            "roles:\n  client:\n    opening:\n      - connects:\n        rules: [CON-001]\nscenes: { scene: }\n",
        ),
        (
            "rules in a scene",
            "roles: { client: }\nscenes:\n  scene:\n    steps:\n      - expects: hello\n        rules: [CON-024]\n",
        ),
        ("a side that does not exist", "roles: { client: { side: upper } }\nscenes: { scene: }\n"),
        (
            "an opening that uses a value that is not given",
            "roles:\n  client:\n    opening:\n      - connects:\n      - sends: identify\n        with: { name: \"${self.name}\" }\nscenes: { scene: }\n",
        ),
        (
            "a scene that looks outside",
            "roles: { client: }\nscenes:\n  scene:\n    steps:\n      - sends: self_subscribe\n        with: { name: \"${group}\" }\n",
        ),
        (
            "a reaction that does not exist",
            "roles: { client: { reacts: [answer_png] } }\nreactions: { answer_ping: { whenever: hello } }\nscenes: { scene: }\n",
        ),
        (
            "a reaction that waits",
            "roles: { client: { reacts: [answer] } }\nreactions:\n  answer:\n    whenever: hello\n    do:\n      - expects: status_ok\nscenes: { scene: }\n",
        ),
        (
            "what no scenario uses",
            "roles:\n  client:\n  other: { opning: [] }\nreactions: { r: { whenver: hello } }\nscenes:\n  scene:\n  other:\n    steps:\n      - shouts: hello\n      - anna sends: self_subscribe\n        with: { name: \"${ben.name}\", nam: \"${uniqe('x')}\" }\n",
        ),
        (
            "what is right in the first person",
            "roles:\n  client:\n    opening:\n      - connects:\n      - expects close: 4004\n      - expect close: any\n      - sends: selffetch\nscenes: { scene: }\n",
        ),
        (
            "an opening that names an actor",
            "roles:\n  client:\n    opening:\n      - connects:\n      - client sends: self_fetch\nscenes: { scene: }\n",
        ),
        ("an opening that joins", "roles:\n  client:\n    opening:\n      - joins:\nscenes: { scene: }\n"),
        (
            "an opening that accepts, of a client",
            "roles:\n  client:\n    opening:\n      - accepts:\nscenes: { scene: }\n",
        ),
        (
            "a scene that judges",
            "roles: { client: }\nscenes:\n  scene:\n    steps:\n      - expects nothing: hello\n      - check: \"${1 == 1}\"\n",
        ),
        (
            "a scene that plays itself",
            "roles: { client: }\nscenes:\n  scene:\n    steps:\n      - plays: other\n  other:\n    steps:\n      - plays: scene\n",
        ),
        ("a mistake in what a scene is given", "roles: { client: }\nscenes:\n  scene:\n    given: { a: \"${b}\" }\n"),
        ("a scene without steps of its own", "roles: { client: }\nscenes: { scene: [ { sends: self_fetch } ] }\n"),
        ("settings that are a list", "hub: [version]\nroles: { client: }\nscenes: { scene: }\n"),
        (
            "a default that is no time",
            "hub: { t: { about: x, default: 5 h } }\nroles: { client: }\nscenes: { scene: }\n",
        ),
        ("a line that is no number", "hub: { t: { about: x, line: four } }\nroles: { client: }\nscenes: { scene: }\n"),
        ("a secret of some kind", "hub: { t: { about: x, secret: very } }\nroles: { client: }\nscenes: { scene: }\n"),
        ("messages to ignore that are no list", "ignore: status_ok\nroles: { client: }\nscenes: { scene: }\n"),
        ("`reacts` that is no list", "roles: { client: { reacts: answer } }\nscenes: { scene: }\n"),
        ("`given` that is a list", "roles: { client: { given: [a] } }\nscenes: { scene: }\n"),
        ("`fills` of what no example has", "fills: { versoin: 3 }\nroles: { client: }\nscenes: { scene: }\n"),
        (
            "a hook with a message of some kind",
            "hooks: { emit: { message: hello, args: x } }\nroles: { client: }\nscenes: { scene: }\n",
        ),
        ("a standing check without `has`", "roles: { client: }\nscenes: { scene: }\nalways: [ { every: hello } ]\n"),
        (
            "a standing check without rules",
            "roles: { client: }\nscenes: { scene: }\nalways: [ { check: '${1 == 1}' } ]\n",
        ),
        (
            "a standing check of two kinds",
            "roles: { client: }\nscenes: { scene: }\nalways:\n  - every: hello\n    has: { CON-025: { /version: true } }\n    rules: [CON-025]\n",
        ),
        (
            "a member of a frame that does not exist",
            "roles: { client: }\nscenes: { scene: }\nalways:\n  - every: frame\n    has: { CON-003: { /jsn: true } }\n",
        ),
        (
            "a standing check of no message",
            "roles: { client: }\nscenes: { scene: }\nalways:\n  - every: helo\n    has: { CON-025: { /version: true } }\n",
        ),
        (
            "a standing check of nothing",
            "roles: { client: }\nscenes: { scene: }\nalways:\n  - has: { CON-025: { /version: true } }\n",
        ),
    ];
    insta::assert_snapshot!(diagnostics_of(&mistakes, shared_diagnostics));
}

#[test]
fn mistakes_of_the_shared_file_are_reported_once() {
    let shared = "\
roles: { client: }
scenes:
  used: { given: { a: \"${b}\" }, steps: [ { sends: selffetch } ] }
  unused: { steps: [ { shouts: hello } ] }
";
    let user =
        "title: t\nsteps:\n  - each: i\n    in: 2\n    do:\n      - client plays: used\n  - client plays: used\n";
    let mut sources = Sources::default();
    let mut folder = PackFolder { name: "concierge".to_owned(), ..PackFolder::default() };
    for (name, text) in [("shared.yaml", shared), ("one.yaml", user), ("two.yaml", user)] {
        folder.scenarios.insert(name.to_owned(), sources.add(name, text));
    }
    let diagnostics = ScenarioSet::load(&folder, &sources, &CONCIERGE.pack).diagnostics;
    let messages: Vec<&str> = diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
    let expected = ["no name `b` is in scope", "concierge has no message `selffetch`", "`shouts` is not a step"];
    assert_eq!(messages, expected);
}

const ASYNCAPI: &str = "\
asyncapi: 3.1.0
info: { title: Greetings, version: 1.0.0 }
channels:
  hub:
    address: /
    messages:
      hello: { $ref: '#/components/messages/hello' }
operations:
  greet:
    action: send
    channel: { $ref: '#/channels/hub' }
    messages:
      - $ref: '#/channels/hub/messages/hello'
components:
  messages:
    hello:
      payload: { $ref: ./messages/hello.schema.json }
      x-hubproof:
        match: { type: HELLO }
";
const HELLO: &str = r#"{
  "title": "HELLO",
  "x-rules": ["GRE-001"],
  "type": "object",
  "required": ["type", "count"],
  "properties": {
    "type": { "const": "HELLO" },
    "count": { "type": "integer", "minimum": 0 }
  },
  "examples": [{ "type": "HELLO", "count": 1 }]
}
"#;
const RULES: &str = "\
document: A greeting
rules:
  GRE-001:
    level: must
    basis: stated
    line: 3
    text: A hub greets.
";

/// A small pack in which one text is replaced, written `FILE: OLD => NEW`.
fn pack_diagnostics(change: &str) -> String {
    let mut files = [
        ("asyncapi.yaml", ASYNCAPI.to_owned()),
        ("messages/hello.schema.json", HELLO.to_owned()),
        ("rules.yaml", RULES.to_owned()),
    ];
    let (name, change) = change.split_once(": ").unwrap();
    let (old, new) = change.split_once(" => ").unwrap();
    let (_, text) = files.iter_mut().find(|(file, _)| *file == name).unwrap();
    assert!(text.contains(old), "{name} has no {old}");
    *text = text.replacen(old, new, 1);
    load_diagnostics(&files)
}

fn load_diagnostics(files: &[(&str, String)]) -> String {
    let mut sources = Sources::default();
    let mut folder = PackFolder { name: "greetings".to_owned(), ..PackFolder::default() };
    for (name, text) in files {
        folder.pack.insert((*name).to_owned(), sources.add(format!("greetings/{name}"), text.as_str()));
    }
    render_all(&Pack::load(&folder, &sources).1, &sources, false)
}

#[test]
fn mistakes_of_a_pack_are_reported_at_their_place() {
    assert_eq!(
        load_diagnostics(&[
            ("asyncapi.yaml", ASYNCAPI.to_owned()),
            ("messages/hello.schema.json", HELLO.to_owned()),
            ("rules.yaml", RULES.to_owned())
        ]),
        ""
    );
    assert_eq!(
        load_diagnostics(&[
            ("asyncapi.yaml", ASYNCAPI.to_owned()),
            ("messages/hello.schema.json", HELLO.replace("  ", "\t")),
            ("rules.yaml", RULES.to_owned())
        ]),
        "",
        "JSON may be indented with tabs"
    );
    let mistakes = [
        ("an unknown keyword", "messages/hello.schema.json: minimum => minimun"),
        ("an unknown format", "messages/hello.schema.json: \"minimum\": 0 => \"format\": \"int64\""),
        ("a pattern that is none", "messages/hello.schema.json: \"minimum\": 0 => \"pattern\": \"(\""),
        ("a bound that is text", "messages/hello.schema.json: \"minimum\": 0 => \"minimum\": \"0\""),
        (
            "a rule that only suggests, of `x-should`",
            "messages/hello.schema.json: \"minimum\": 0 => \"x-should\": [{ \"rules\": [\"GRE-011\"], \"schema\": { \"minimum\": 0 } }]",
        ),
        ("a key that stands twice", "messages/hello.schema.json: \"title\": \"HELLO\", => \"type\": \"object\","),
        ("a keyword of a wrong type", "messages/hello.schema.json: \"integer\" => \"int\""),
        (
            "no example",
            "messages/hello.schema.json: \"examples\": [{ \"type\": \"HELLO\", \"count\": 1 }] => \"$comment\": \"\"",
        ),
        ("an example that breaks its schema", "messages/hello.schema.json: \"count\": 1 => \"count\": -1"),
        ("an example that is not recognised", "asyncapi.yaml: type: HELLO => type: HI"),
        ("a rule that does not exist", "messages/hello.schema.json: GRE-001 => GRE-010"),
        ("a schema that is not JSON", "messages/hello.schema.json: \"title\": \"HELLO\", => \"title\": \"HELLO\""),
        (
            "a schema with a comment",
            "messages/hello.schema.json: \"title\": \"HELLO\", => \"title\": \"HELLO\", // a greeting",
        ),
        ("a file that does not exist", "asyncapi.yaml: ./messages/hello.schema.json => ./messages/helo.schema.json"),
        ("a reference to no message", "asyncapi.yaml: '#/components/messages/hello' => '#/components/messages/helo'"),
        ("a reference to nothing", "asyncapi.yaml: '#/channels/hub/messages/hello' => '#/channels/hub/messages/helo'"),
        (
            "a message without an operation",
            "asyncapi.yaml:     messages:\n      - $ref: '#/channels/hub/messages/hello' =>     messages: []",
        ),
        ("an operation without an action", "asyncapi.yaml: action: send => actoin: send"),
        (
            "a message without a payload",
            "asyncapi.yaml: payload: { $ref: ./messages/hello.schema.json } => summary: hello",
        ),
        ("a key of x-hubproof that does not exist", "asyncapi.yaml: match: => matches:"),
        (
            "a matcher with a misspelt keyword",
            "asyncapi.yaml: match: { type: HELLO } => match: { /type: { cnst: HELLO } }",
        ),
        ("a matcher that is none", "asyncapi.yaml: match: { type: HELLO } => match: { /type: HELLO }"),
        ("another version of AsyncAPI", "asyncapi.yaml: asyncapi: 3.1.0 => asyncapi: 2.6.0"),
        ("another document", "asyncapi.yaml: asyncapi: 3.1.0 => openapi: 3.1.0"),
        ("a rule without a level", "rules.yaml:     level: must\n => "),
        ("a level that does not exist", "rules.yaml: level: must => level: shall"),
        (
            "a rule that is text",
            "rules.yaml: \n    level: must\n    basis: stated\n    line: 3\n    text: A hub greets. =>  A hub greets.",
        ),
        ("rules that are a list", "rules.yaml: \n  GRE-001: =>  \n  - "),
        ("a rule with an unknown key", "rules.yaml: text: => sentence:"),
        ("a rule without a line", "rules.yaml: line: 3 => line: three"),
        ("a rule with a line and a section", "rules.yaml: line: 3 => line: 3\n    section: \"4.1\""),
        ("a section that is a number", "rules.yaml: line: 3 => section: 4.1"),
        ("an implied rule that follows from nothing", "rules.yaml: basis: stated => basis: implied"),
        ("silence that demands", "rules.yaml: basis: stated => basis: silent-guess"),
    ];
    let missing = load_diagnostics(&[("rules.yaml", RULES.to_owned())]);
    let unused = load_diagnostics(&[
        ("asyncapi.yaml", ASYNCAPI.to_owned()),
        ("messages/hello.schema.json", HELLO.to_owned()),
        ("messages/old.schema.json", HELLO.to_owned()),
        ("rules.yaml", RULES.to_owned()),
    ]);
    insta::assert_snapshot!(format!(
        "{}\n\n\n## no asyncapi.yaml\n\n{missing}\n\n\n## a schema of no message\n\n{unused}",
        diagnostics_of(&mistakes, pack_diagnostics)
    ));
}
