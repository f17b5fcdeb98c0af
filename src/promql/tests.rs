//! The verdicts of upstream, golden confinements, and properties.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use super::*;
use recorded::upstream;

const ALL: Features = Features { experimental: true };

/// Upstream's corpora hold a few very large queries; the properties hold for them as well.
fn wide() -> Limits {
    Limits {
        text: 1 << 20,
        depth: 150,
        binary_operators: 5000,
        selectors: 5000,
        tokens: 100_000,
        subquery_steps: u64::MAX,
        lookback_ms: u64::MAX,
        confined: 4 << 20,
        ..Limits::default()
    }
}

fn labels() -> Labels {
    let rule = LabelRule {
        metrics: vec![MetricPattern::parse("DCGM_*").unwrap(), MetricPattern::parse("gpu_up").unwrap()],
        label: "exported_namespace".to_owned(),
        matchers: vec![("namespace".to_owned(), "nvidia-gpu-operator".to_owned())],
    };
    Labels::new("namespace", vec![rule]).unwrap()
}

fn reach(names: &[&str]) -> Reach {
    Reach::Namespaces(names.iter().map(|name| Arc::from(*name)).collect())
}

#[test]
fn upstream_and_we_agree_on_what_is_promql() {
    let mut wrong = Vec::new();
    let (mut counts, mut info, mut gated) = ((0, 0, 0), 0, 0);
    for case in upstream() {
        let q = case["q"].as_str().unwrap();
        let ok = case["ok"].as_bool().unwrap();
        let verdict = check(q, &wide(), ALL);
        if ok && calls_info(q) {
            // Upstream takes it, and we must not: see the table of functions.
            let error = check(q, &wide(), ALL).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Forbidden, "{q:?}: {error}");
            info += 1;
            continue;
        }
        counts = (counts.0 + 1, counts.1 + usize::from(ok), counts.2 + usize::from(!ok));
        match &verdict {
            Ok(selectors) if ok => {
                if case["selectors"].as_u64() != Some(*selectors as u64) {
                    wrong.push(format!("{q:?}: {selectors} selectors, upstream sees {}", case["selectors"]));
                }
            }
            Err(_) if !ok => {}
            Ok(_) => wrong.push(format!("accepted, upstream refuses: {q:?}")),
            Err(error) => wrong.push(format!("refused, upstream accepts: {q:?}: {error}")),
        }
        if case["ok_default_flags"].as_bool() == Some(true)
            && let Err(error) = check(q, &wide(), Features::default())
        {
            wrong.push(format!("refused without experiments, upstream accepts: {q:?}: {error}"));
        }
        if ok && case["ok_default_flags"] == false {
            gated += 1;
            match check(q, &wide(), Features::default()) {
                Err(error) if error.0.message.contains("metrics_backends[].experimental") => {}
                other => wrong.push(format!("an experiment, off: {q:?}: {other:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {counts:?} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((counts.1 + info, counts.2), (2398, 146));
    assert!(info > 30 && gated > 300, "{info} {gated}");
}

/// Their beginnings: no end is kept, for no message needs it, and what belongs to a selector is told by its tree.
#[test]
fn selectors_stand_where_upstream_sees_them() {
    let (mut places, mut wrong) = (0, Vec::new());
    for case in upstream() {
        let q = case["q"].as_str().unwrap();
        let Ok((tree, _)) = parse::parse(q, &wide(), ALL) else { continue };
        let starts = |node: &tree::Node<'_>| match node {
            tree::Node::Selector(selector) => Some(selector.position as u64),
            _ => None,
        };
        let mut ours: Vec<u64> = tree.nodes.iter().filter_map(starts).collect();
        let mut theirs: Vec<u64> =
            case["spans"].as_array().unwrap().iter().map(|span| span[0].as_u64().unwrap()).collect();
        ours.sort_unstable();
        theirs.sort_unstable();
        places += theirs.len();
        if ours != theirs {
            wrong.push(format!("{q:?}: {ours:?}, upstream {theirs:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(places > 2000, "{places}");
}

/// Where we point elsewhere than upstream, as `line:column` of ours and of theirs.
const ELSEWHERE: [(&str, &str, &str, &str); 12] = [
    ("", "1:1", "unknown position", "upstream has no place for it"),
    ("# just a comment\n\n", "3:1", "1:1", "we stand at the end, where an expression is missing"),
    ("(1))", "1:4", "1:5", "we point at the bracket, upstream behind it"),
    ("1 =~ 1", "1:4", "1:3", "we point at the character that is wrong, upstream at the one before"),
    ("some_metric{a=\"\u{fffd}\"}", "1:16", "1:15", "the rune, not the string around it"),
    ("label_replace(a, `b`, `c\u{fffd}`, `d`, `.*`)", "1:25", "1:23", "the rune, not the string around it"),
    ("foo[step()/0d]", "1:14", "1:11", "behind the divisor, which is then known, not at the operator"),
    ("foo[5s/0d]", "1:10", "1:7", "behind the divisor"),
    ("foo offset (4d/0)", "1:17", "1:15", "behind the divisor"),
    ("foo[5s%0d]", "1:10", "1:7", "behind the divisor"),
    (
        "info(rate(http_request_counter_total{}[5m]), target_info{foo=\"bar\"})",
        "1:1",
        "1:46",
        "the call is refused whatever its arguments are",
    ),
    (
        "info(http_request_counter_total{namespace=\"zzz\"}, {foo=\"bar\"} == 1)",
        "1:1",
        "1:51",
        "the call is refused whatever its arguments are",
    ),
];

#[test]
fn errors_stand_where_upstream_sees_them() {
    let (mut same, mut listed, mut wrong) = (0, 0, Vec::new());
    for case in upstream() {
        let (q, Some(theirs)) = (case["q"].as_str().unwrap(), case["at"].as_str()) else { continue };
        let error = check(q, &wide(), ALL).unwrap_err();
        let before = &q[..error.position()];
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
        let ours = format!("{line}:{column}");
        match ELSEWHERE.iter().find(|(query, ..)| *query == q) {
            Some((_, here, there, _)) if (*here, *there) == (&ours, theirs) => listed += 1,
            None if ours == theirs => same += 1,
            _ => wrong.push(format!("{ours} not {theirs}: {q:.80?}: {error:.120}")),
        }
    }
    assert!(wrong.is_empty(), "{} differ, {same} do not:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((same, listed), (134, ELSEWHERE.len()));
}

/// Whether a query of the corpus calls `info`.
fn calls_info(q: &str) -> bool {
    q.match_indices("info").any(|(at, _)| {
        !q[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') && q[at + 4..].trim_start().starts_with('(')
    })
}

#[test]
fn every_selector_of_every_query_is_confined() {
    let (labels, limits) = (labels(), wide());
    for case in upstream() {
        let q = case["q"].as_str().unwrap();
        for reach in
            [reach(&["team-a"]), reach(&["team-a", "team-b"]), Reach::AnyNamespace, Reach::Everything, reach(&[])]
        {
            let Ok(once) = confine(q, &reach, &labels, &limits, ALL) else {
                assert!(
                    check(q, &limits, ALL).is_err(),
                    "{q:?} parses but cannot be confined to {reach:?}: {:?}",
                    confine(q, &reach, &labels, &limits, ALL)
                );
                continue;
            };
            let (tree, _) = parse::parse(once.text(), &limits, ALL).unwrap();
            assert!(guard::holds(&tree, &reach, &labels), "{q:?} became {:?}", once.text());
            let twice = confine(once.text(), &reach, &labels, &limits, ALL).unwrap();
            assert_eq!(once.text(), twice.text(), "confining twice is confining once");
        }
    }
}

#[test]
fn confining_to_one_set_and_then_another_is_confining_to_both() {
    let (labels, limits) = (Labels::new("namespace", Vec::new()).unwrap(), wide());
    for case in upstream() {
        let q = case["q"].as_str().unwrap();
        let Ok(first) = confine(q, &reach(&["a", "b"]), &labels, &limits, ALL) else { continue };
        let second = confine(first.text(), &reach(&["b", "c"]), &labels, &limits, ALL).unwrap();
        assert_eq!(second.text(), confine(q, &reach(&["b"]), &labels, &limits, ALL).unwrap().text(), "{q:?}");
    }
}

/// `input`, a line of dashes, what it becomes; cases are parted by blank lines. A case may begin with `# reach: …`.
#[test]
fn golden_confinements() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/promql/confine.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let mut count = 0;
    for case in text.split("\n\n").map(str::trim).filter(|case| !case.is_empty()) {
        let mut lines = case.lines();
        let mut names = vec!["team-a", "team-b"];
        let mut everywhere = None;
        let mut input = Vec::new();
        for line in lines.by_ref() {
            match line.strip_prefix("# reach:") {
                Some("") => names.clear(),
                Some(" any") => everywhere = Some(Reach::AnyNamespace),
                Some(" everything") => everywhere = Some(Reach::Everything),
                Some(list) => names = list.split_whitespace().collect(),
                None if line == "----" => break,
                None if line.starts_with("# ") => {}
                None => input.push(line),
            }
        }
        if input.is_empty() {
            continue;
        }
        let reach = everywhere.unwrap_or_else(|| reach(&names));
        let expected = lines.collect::<Vec<_>>().join("\n");
        let got = confine(&input.join("\n"), &reach, &labels(), &Limits::default(), Features::default());
        let got = got.map_or_else(|error| format!("{}: {error}", error.code()), Confined::into_text);
        assert_eq!(got, expected, "{case}");
        count += 1;
    }
    assert!(count > 30, "{count} cases");
}

#[test]
fn nothing_behind_an_offset_in_parentheses_becomes_part_of_it() {
    let becomes = |text: &str| {
        let confined = confine(text, &reach(&["a"]), &labels(), &wide(), ALL);
        confined.map(Confined::into_text).map_err(|error| error.to_string())
    };
    for (text, confined) in [
        ("x offset (1m + 1m) @ 5 ^ 2", "x{namespace=\"a\"} offset (1m + 1m) @ 5 ^ 2"),
        ("x @ 5 offset (1m) ^ 2", "x{namespace=\"a\"} offset (1m) ^ 2 @ 5"),
        ("(x @ 5 offset (1m)) ^ 2", "(x{namespace=\"a\"} offset (1m) @ 5) ^ 2"),
        ("x offset (1m) smoothed * 2", "x{namespace=\"a\"} offset (1m) smoothed * 2"),
        ("rate(x[5m] offset (1m) * 2)", "rate(x{namespace=\"a\"}[5m] offset (1m) * 2)"),
        ("x offset (1m) - 30s == y", "x{namespace=\"a\"} offset (1m) - 30s == y{namespace=\"a\"}"),
        ("x offset -(1m) * y", "x{namespace=\"a\"} offset -(1m) * y{namespace=\"a\"}"),
    ] {
        assert_eq!(becomes(text).as_deref(), Ok(confined), "{text}");
    }
    for text in ["x offset (1m) * y", "x offset (1m) - on () y", "x offset (1m) @ 5 offset 1m"] {
        assert!(becomes(text).is_err(), "{text}");
    }
}

#[test]
fn limits_say_their_name_and_value() {
    let refused = |q: &str| {
        let error = confine(q, &reach(&["a"]), &labels(), &Limits::default(), Features::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit, "{q:.60}: {error}");
        error.to_string()
    };
    assert!(refused(&"(".repeat(50_000)).contains("limits.query_depth, which is 100"));
    assert!(refused(&format!("up{}", "+up".repeat(501))).contains("query_"));
    assert!(refused(&format!("1{}", "+1".repeat(501))).contains("limits.query_operators, which is 500"));
    assert!(refused(&"-".repeat(60_000)).contains("limits.query_depth"));
    assert!(refused("max_over_time(up[1y:1s])").contains("limits.subquery_steps, which is 1000000"));
    assert!(refused("max_over_time(max_over_time(up[1h:1ms])[1h:1s])").contains("limits.subquery_steps"));
    assert!(refused("up offset 2y").contains("retention"));
    assert!(refused(&" ".repeat(70_000)).contains("limits.query_text"));
    let many = (0..201).map(|_| "up").collect::<Vec<_>>().join(" or ");
    assert!(refused(&many).contains("limits.query_selectors, which is 200"));
    assert!(refused(&format!("sum by ({}) (up)", "a,".repeat(10_000))).contains("limits.query_tokens"));
}

/// `benches/promql.rs` holds the release build to milliseconds; here nothing may take what a quadratic walk would take.
#[test]
fn hostile_texts_cost_little() {
    let full = |piece: &str| piece.repeat((64 << 10) / piece.len());
    let shapes = [
        full("("),
        full("-"),
        full("rate("),
        full("a["),
        full("a{"),
        full("#\n"),
        full("\u{ff01}"),
        format!("up{}", "+up".repeat(199)),
        format!("1{}", "+1".repeat(500)),
        format!("up{{a=\"{}\"}}", "\\xff".repeat(16_000)),
        format!("up{{namespace=~\"{}a\"}}", "a|".repeat(32_000)),
        format!("up{{{}}}", "a!=\"\",".repeat(3000)),
        format!("a * on ({}) group_left ({}) b", "x,".repeat(4500), "y,".repeat(4500)),
        format!("a[{}{}]", "1".repeat(40_000), "+1s".repeat(400)),
        format!("{{a=~\"{}\"}}", "(".repeat(60_000)),
        format!("up{}", "[1m:1m]".repeat(9000)),
    ];
    for shape in shapes {
        let began = processor_milliseconds();
        let _ = confine(&shape, &reach(&["a"]), &labels(), &Limits::default(), ALL);
        let took = processor_milliseconds() - began;
        assert!(took < 500, "{shape:.40}: {took} ms of the processor");
    }
}

/// What this thread has used so far.
fn processor_milliseconds() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000_000
}

/// A long set costs its length once a selector, and no more than the limit before it is refused.
#[test]
fn long_sets_are_bounded_before_they_are_built() {
    let names: Vec<String> = (0..20_000).map(|number| format!("namespace-of-a-team-{number:05}")).collect();
    let reach = Reach::Namespaces(names.iter().map(|name| Arc::from(name.as_str())).collect());
    let few = Labels::new("namespace", Vec::new()).unwrap();
    let limits = Limits { confined: 8 << 20, ..Limits::default() };
    let confined = confine("up + up", &reach, &few, &limits, ALL).unwrap();
    assert_eq!(confined.text().len(), "up{namespace=~\"\"} + up{namespace=~\"\"}".len() + 2 * (20_000 * 26 - 1));
    let many = (0..200).map(|_| "up").collect::<Vec<_>>().join(" or ");
    let error = confine(&many, &reach, &few, &limits, ALL).unwrap_err();
    assert!(error.to_string().contains("limits.confined_query, which is 8388608"), "{error}");
    let own = format!("up{{namespace=~\"{}\"}}", names.join("|"));
    let wide = Limits { text: 1 << 20, ..limits };
    assert_eq!(confine(&own, &reach, &few, &wide, ALL).unwrap().text(), own);
}

#[test]
fn errors_say_where_and_what_was_expected() {
    for (q, expected) in [
        (
            "sum by (pod,  , x) (up)",
            "invalid PromQL at character 15: unexpected \",\" in by(...) clause, expected label name",
        ),
        ("a / on (pod, )) b", "invalid PromQL at character 15: unexpected right parenthesis ')'"),
        (
            "sum without up",
            "invalid PromQL at character 13: unexpected identifier \"up\" in without(...) clause, expected \"(\"",
        ),
        (
            "rate(up)",
            "invalid PromQL at character 6: expected type range vector in call to function \"rate\", got instant vector",
        ),
        ("up{a=b}", "invalid PromQL at character 6: unexpected identifier \"b\" in label matching, expected string"),
        ("up{a", "invalid PromQL at character 5: unexpected end of input inside braces"),
        ("sum(up", "invalid PromQL at character 7: unclosed left parenthesis"),
        ("up[5", "invalid PromQL at character 5: unexpected end of input in subquery or range selector"),
        ("up[5q]", "invalid PromQL at character 4: bad number or duration syntax: \"5q\""),
        ("{}", "invalid PromQL at character 1: vector selector must contain at least one non-empty matcher"),
        ("foo(up)", "invalid PromQL at character 1: unknown function with name \"foo\""),
        ("max_over_time(up[1s:0.0001])", "invalid PromQL at character 21: the step of a subquery is at least 1ms"),
        ("", "invalid PromQL at character 1: no expression found in input"),
        ("\"\u{fc}\" + +", "invalid PromQL at character 8: unexpected end of input"),
        (
            "max_over_time(up[1y:1s])",
            "PromQL refused at character 18: the query goes beyond limits.subquery_steps, which is 1000000",
        ),
        (
            "rate(up[2y])",
            "PromQL refused at character 9: the query goes beyond metrics_backends[].retention (seconds), which is 31622400",
        ),
    ] {
        let error = check(q, &Limits::default(), Features::default()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{q}");
    }
}

/// Behind two signs upstream reads on where we would not, and what it reads then may lie in the future.
#[test]
fn durations_with_two_signs_stand_in_parentheses() {
    let asked = |text: &str| confine(text, &reach(&["a"]), &labels(), &Limits::default(), ALL);
    for bad in ["up offset --5m * -100", "up offset - # a comment\n -5m", "up offset +-5m / up"] {
        let error = asked(bad).unwrap_err().to_string();
        assert_eq!(error, "invalid PromQL at character 11: put a duration with two signs into parentheses", "{bad}");
    }
    for good in ["up offset -5m * -100", "up offset (--5m * -100)", "up offset -(-5m)", "rate(up[--5m])"] {
        assert!(asked(good).is_ok(), "{good}");
    }
}

#[test]
fn selectors_of_match_are_selectors_and_nothing_else() {
    let one = |text: &str| confine_selector(text, &reach(&["a"]), &labels(), &Limits::default(), Features::default());
    assert_eq!(one("up").unwrap().text(), r#"up{namespace="a"}"#);
    assert_eq!(one(r#"{__name__=~"u.+"}"#).unwrap().text(), r#"{namespace="a",__name__=~"u.+"}"#);
    for bad in ["up[5m]", "sum(up)", "up offset 5m", "up or down", "(up)", "up @ 5", "", "1"] {
        assert!(one(bad).is_err(), "{bad}");
    }
}

#[test]
fn everything_within_a_reach_is_found_under_every_label_of_owners() {
    let all = |reach: &Reach, labels: &Labels| -> Vec<String> {
        confined_selectors_for(reach, labels).into_iter().map(Confined::into_text).collect()
    };
    let plain = Labels::new("namespace", Vec::new()).unwrap();
    assert_eq!(all(&reach(&["a", "b"]), &plain), [r#"{namespace=~"a|b"}"#]);
    assert_eq!(all(&Reach::AnyNamespace, &plain), [r#"{namespace!=""}"#]);
    assert_eq!(all(&Reach::Everything, &plain), [""; 0]);
    let rule = |metrics: &[&str], label: &str| LabelRule {
        metrics: metrics.iter().map(|text| MetricPattern::parse(text).unwrap()).collect(),
        label: label.to_owned(),
        matchers: vec![("namespace".to_owned(), "gpus".to_owned())],
    };
    let rules = vec![rule(&["DCGM_OWN"], "owner"), rule(&["own_*"], "namespace"), rule(&["DCGM_*", "gpu"], "exported")];
    let labels = Labels::new("namespace", rules).unwrap();
    assert_eq!(
        all(&reach(&["a"]), &labels),
        [
            r#"{namespace="a"}"#,
            r#"{owner="a",namespace="gpus",__name__=~"DCGM_OWN"}"#,
            r#"{exported="a",namespace="gpus",__name__=~"DCGM_.*|gpu",__name__!~"DCGM_OWN|own_.*"}"#,
        ]
    );
    assert_eq!(all(&Reach::AnyNamespace, &labels)[1], r#"{owner!="",namespace="gpus",__name__=~"DCGM_OWN"}"#);
    // Who reads nothing finds nothing, and who reads everything is not asked.
    assert_eq!(all(&reach(&[]), &labels), [r#"{namespace="",namespace!=""}"#]);
    assert_eq!(all(&Reach::Everything, &labels), [""; 0]);
}

#[test]
fn names_that_could_break_out_are_refused_or_escaped() {
    let with = |names: &[&str]| confine("up", &reach(names), &labels(), &Limits::default(), Features::default());
    assert_eq!(with(&["a\"} or up{x=\"\\"]).unwrap().text(), r#"up{namespace="a\"} or up{x=\"\\"}"#);
    assert!(with(&["a", "b.*"]).is_err());
    assert!(with(&["a", "b|c"]).is_err());
    assert!(with(&[""]).is_err());
    assert!(Labels::new("name space", Vec::new()).is_err());
    assert!(Labels::new("__name__", Vec::new()).is_err());
}

#[test]
fn a_text_that_does_not_say_what_was_meant_is_not_sent() {
    let (text, labels, reach) = ("sum by (a) (rate(up{x=\"y\"}[5m])) / 2", labels(), reach(&["team-a", "team-b"]));
    let limits = Limits::default();
    let (mut tree, root) = parse::parse(text, &limits, ALL).unwrap();
    guard::apply(&mut tree, &reach, &labels);
    let good = print::print(&tree, root, (&reach, &labels), 0, usize::MAX).unwrap();
    let read = |printed: &str| read_back(&tree, root, printed, text, (&reach, &labels), &limits, ALL);
    assert_eq!(read(&good), Ok(()));
    for (from, to) in [
        ("namespace=~\"team-a|team-b\",", ""),
        ("namespace=~\"team-a|team-b\",", "namespace=\"team-c\","),
        ("namespace=~\"team-a|team-b\",", "namespace=~\"team-.*\","),
        ("namespace=~\"team-a|team-b\",", "namespace=~\"team-a|team-c\","),
        ("namespace=~\"team-a|team-b\",", "namespace!=\"\","),
        ("namespace=~", "namespace!~"),
        ("namespace=~", "name=~"),
        ("x=\"y\"", "x=\"z\""),
        ("up{", "down{"),
        ("[5m]", "[6m]"),
        ("rate(", "irate("),
        ("sum by", "sum without"),
        ("(a)", "(b)"),
        ("/ 2", "/ 3"),
        ("/ 2", "/ up"),
        ("/ 2", "/ 2 or up"),
        ("/ 2", ""),
        ("/ 2", "/"),
    ] {
        assert!(good.contains(from), "{good}");
        let error = read(&good.replace(from, to)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadBack, "{from} became {to}");
    }
}

mod generated;
mod golden;
#[path = "../../tests/golden/promql/recorded.rs"]
mod recorded;

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn corpus() -> &'static Vec<String> {
        static CORPUS: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
        CORPUS.get_or_init(|| {
            upstream().iter().map(|case| case["q"].as_str().unwrap().to_owned()).filter(|q| q.len() < 400).collect()
        })
    }

    fn confined_or_refused(text: &str) {
        let labels = labels();
        let reach = reach(&["team-a", "team-b"]);
        match confine(text, &reach, &labels, &Limits::default(), ALL) {
            Ok(confined) => {
                let (tree, _) = parse::parse(confined.text(), &wide(), ALL).unwrap();
                assert!(guard::holds(&tree, &reach, &labels));
                let again = confine(confined.text(), &Reach::Everything, &labels, &wide(), ALL).unwrap();
                assert_eq!(again.text(), confined.text(), "printing is stable");
            }
            Err(error) => assert_ne!(error.kind(), ErrorKind::ReadBack, "{text:?}: {error}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_confined_or_refused(text in "\\PC{0,60}") {
            confined_or_refused(&text);
        }

        #[test]
        fn promql_like_text_is_confined_or_refused(text in "([a-z_]{1,5}|[(){}\\[\\],@:+*/^=!~<>\"'`# -]|\\\\|[0-9]{1,3}[smh]?|offset|by|and|sum|\n){0,30}") {
            confined_or_refused(&text);
        }

        #[test]
        fn mutated_queries_are_confined_or_refused(
            pick in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(), cut in 0_usize..12, byte in any::<char>(), how in 0_u8..4,
        ) {
            let (text, other) = (pick.get(corpus()), other.get(corpus()));
            if !text.is_empty() {
                let mut at = at.index(text.len());
                while !text.is_char_boundary(at) { at -= 1; }
                let mut end = (at + cut).min(text.len());
                while !text.is_char_boundary(end) { end += 1; }
                let mutated = match how {
                    0 => format!("{}{}", &text[..at], &text[end..]),
                    1 => format!("{}{byte}{}", &text[..at], &text[at..]),
                    2 => format!("{}{other}{}", &text[..at], &text[end..]),
                    _ => format!("{}{}{}", &text[..at], &text[at..end], &text[at..]),
                };
                confined_or_refused(&mutated);
            }
        }
    }
}

#[test]
fn whose_data_a_confined_query_reads_follows_from_its_text() {
    let labels = Labels::new("namespace", Vec::new()).unwrap();
    let reach = |names: &[&str]| Reach::Namespaces(names.iter().map(|name| Arc::from(*name)).collect());
    let of = |text: &str, names: &[&str]| {
        confine(text, &reach(names), &labels, &Limits::default(), Features::default()).unwrap()
    };
    for (text, read) in [
        ("up", &["a", "b", "c"][..]),
        (r#"up{namespace="b"}"#, &["b"]),
        (r#"up{namespace=~"c|a|x"}"#, &["a", "c"]),
        (r#"up{namespace="b"} / up{namespace=~"a|b"}"#, &["a", "b"]),
        (r#"up{namespace="b"} / up"#, &["a", "b", "c"]),
        (r#"up{namespace=~"b.*"}"#, &["a", "b", "c"]),
        (r#"up{namespace="x"}"#, &[]),
        ("vector(1)", &[]),
    ] {
        let wide = of(text, &["a", "b", "c"]);
        assert_eq!(wide.reach(), reach(read), "{text}");
        // Whoever reads no more than that is sent the same, and reads the same.
        if !read.is_empty() {
            let narrow = of(wide.text(), read);
            assert_eq!((narrow.text(), narrow.reach()), (wide.text(), wide.reach()), "{text}");
        }
    }
    for wide in [Reach::Everything, Reach::AnyNamespace] {
        let confined = confine("up", &wide, &labels, &Limits::default(), Features::default()).unwrap();
        assert_eq!(confined.reach(), wide);
        assert!(confined_selectors_for(&wide, &labels).iter().all(|selector| selector.reach() == wide));
    }
    assert_eq!(confined_selectors_for(&reach(&["a"]), &labels)[0].reach(), reach(&["a"]));
}
