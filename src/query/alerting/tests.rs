//! Golden answers of Prometheus 3.16 and Thanos Query 0.43, and what is left of them.

use super::*;

/// A group with own and foreign rules, one with foreign ones only, and labels that only look right.
const RULES: &str = r#"{"status":"success","data":{"groups":[{"name":"mixed","file":"/etc/prometheus/rules/team-c.yaml","rules":[{"state":"firing","name":"Own","query":"up{namespace=\"team-a\"} == 0","duration":300,"keepFiringFor":0,"labels":{"namespace":"team-a","severity":"critical"},"annotations":{"summary":"<b>\u00e9 & 1.50"},"alerts":[{"labels":{"alertname":"Own","namespace":"team-a"},"annotations":{},"state":"firing","activeAt":"2026-01-01T00:00:00Z","value":"1e+00","partialResponseStrategy":"WARN"},{"labels":{"alertname":"Own","namespace":"team-c"},"annotations":{},"state":"firing","activeAt":"2026-01-01T00:00:00Z","value":"2e+00"},{"labels":{"alertname":"Own"},"annotations":{},"state":"firing","value":"3e+00"}],"health":"ok","evaluationTime":0.00010,"lastEvaluation":"2026-01-01T00:00:00Z","type":"alerting","somethingNew":{"deep":[1.50,null]}},{"name":"foreign:sum","query":"sum(secret)","labels":{"namespace":"team-c"},"health":"ok","evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z","type":"recording"},{"name":"own:sum","query":"sum(x)","labels":{"namespace":"team-b"},"health":"ok","evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z","type":"recording"},{"name":"unlabelled","query":"sum(secret)","health":"ok","type":"recording"},{"name":"null","query":"secret","labels":null,"type":"recording"},{"name":"empty","query":"secret","labels":{"namespace":""},"type":"recording"},{"name":"case","query":"secret","labels":{"Namespace":"team-a"},"type":"recording"},{"name":"value case","query":"secret","labels":{"namespace":"Team-A"},"type":"recording"},{"name":"template","query":"secret","labels":{"namespace":"{{ $labels.namespace }}"},"type":"recording"},{"name":"list","query":"secret","labels":{"namespace":"team-a|team-c"},"type":"recording"}],"interval":60,"limit":0,"evaluationTime":0.0002,"lastEvaluation":"2026-01-01T00:00:00Z","partialResponseStrategy":"ABORT","newOfGroup":7},{"name":"foreign","file":"f","rules":[{"name":"x","query":"secret","labels":{"namespace":"team-c"},"type":"recording"}],"interval":60},{"name":"none","file":"f","rules":[],"interval":60}],"groupNextToken":"abc123","elsewhere":["secret"],"count":3},"warnings":["store 10.0.0.1","PromQL info: x"],"trace":"secret"}"#;

const KEPT: &str = r#"{"status":"success","data":{"groups":[{"name":"mixed","file":"","rules":[{"state":"firing","name":"Own","query":"up{namespace=\"team-a\"} == 0","duration":300,"keepFiringFor":0,"labels":{"namespace":"team-a","severity":"critical"},"annotations":{"summary":"<b>\u00e9 & 1.50"},"alerts":[{"labels":{"alertname":"Own","namespace":"team-a"},"annotations":{},"state":"firing","activeAt":"2026-01-01T00:00:00Z","value":"1e+00","partialResponseStrategy":"WARN"}],"health":"ok","evaluationTime":0.00010,"lastEvaluation":"2026-01-01T00:00:00Z","type":"alerting","somethingNew":{"deep":[1.50,null]}},{"name":"own:sum","query":"sum(x)","labels":{"namespace":"team-b"},"health":"ok","evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z","type":"recording"}],"interval":60,"limit":0,"evaluationTime":0.0002,"lastEvaluation":"2026-01-01T00:00:00Z","partialResponseStrategy":"ABORT","newOfGroup":7}],"groupNextToken":"abc123","count":3},"warnings":["partial response","PromQL info: x"]}"#;

fn team(namespace: &str) -> bool {
    matches!(namespace, "team-a" | "team-b")
}

fn sight(reaches: &dyn Fn(&str) -> bool) -> Sight<'_> {
    Sight { label: "namespace", reaches, everything: false }
}

fn text(filtered: Result<Vec<u8>, Refusal>) -> String {
    String::from_utf8(filtered.unwrap_or_else(|refusal| panic!("{refusal:?}"))).expect("text")
}

#[test]
fn rules_are_kept_by_their_own_label_and_byte_for_byte() {
    assert_eq!(text(rules(RULES.as_bytes(), &sight(&team))), KEPT);
    assert_eq!(text(rules(KEPT.as_bytes(), &sight(&team))), KEPT, "filtering twice is filtering once");
    let nobody = text(rules(RULES.as_bytes(), &sight(&|_| false)));
    assert!(!nobody.contains("secret") && nobody.contains(r#""groups":[]"#), "{nobody}");
    let other = Sight { label: "tenant", reaches: &team, everything: false };
    assert!(text(rules(RULES.as_bytes(), &other)).contains(r#""groups":[]"#), "another label counts for nothing");
}

#[test]
fn any_namespace_is_any_that_is_named() {
    let any = text(rules(RULES.as_bytes(), &sight(&|namespace| !namespace.is_empty())));
    for (name, kept) in
        [("foreign:sum", true), ("template", true), ("unlabelled", false), ("empty", false), ("case", false)]
    {
        assert_eq!(any.contains(&format!("\"name\":\"{name}\"")), kept, "{name}");
    }
    assert!(!any.contains("/etc/prometheus"), "{any}");
}

#[test]
fn who_may_read_everything_sees_everything_but_stores() {
    let all = text(rules(RULES.as_bytes(), &Sight { label: "namespace", reaches: &|_| true, everything: true }));
    let expected = RULES.replace("store 10.0.0.1", "partial response").replace(r#","trace":"secret""#, "");
    assert_eq!(all, expected);
}

#[test]
fn alerts_are_kept_by_their_own_label() {
    let body = r#"{"status":"success","data":{"alerts":[{"labels":{"alertname":"A","namespace":"team-a"},"annotations":{"x":"1.50"},"state":"firing","activeAt":"2026-01-01T00:00:00Z","value":"1e+00","new":1},{"labels":{"alertname":"C","namespace":"team-c"},"annotations":{"x":"secret"}},{"labels":{"alertname":"N"},"annotations":{"x":"secret"}},{"annotations":{"x":"secret"}}]}}"#;
    let kept = r#"{"status":"success","data":{"alerts":[{"labels":{"alertname":"A","namespace":"team-a"},"annotations":{"x":"1.50"},"state":"firing","activeAt":"2026-01-01T00:00:00Z","value":"1e+00","new":1}]}}"#;
    assert_eq!(text(alerts(body.as_bytes(), &sight(&team))), kept);
    let none = r#"{"status":"success","data":{"alerts":null}}"#;
    assert_eq!(text(alerts(none.as_bytes(), &sight(&team))), r#"{"status":"success","data":{"alerts":[]}}"#);
}

#[test]
fn on_any_doubt_nothing_passes() {
    let rule = |rule: &str| format!(r#"{{"status":"success","data":{{"groups":[{{"rules":[{rule}]}}]}}}}"#);
    for bad in [
        String::new(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"status":"error","data":{"groups":[]}}"#.to_owned(),
        r#"{"status":"success"}"#.to_owned(),
        r#"{"status":"success","data":[]}"#.to_owned(),
        r#"{"status":"success","data":{"groups":{}}}"#.to_owned(),
        r#"{"status":"success","data":{"groups":[1]}}"#.to_owned(),
        r#"{"status":"success","data":{"groups":[]},"data":{"groups":[1]}}"#.to_owned(),
        r#"{"status":"success","data":{"groups":[],"groups":[]}}"#.to_owned(),
        r#"{"status":"success","data":{"groups":[]}} x"#.to_owned(),
        r#"{"status":"success","data":{"groups":[]},"warnings":[1]}"#.to_owned(),
        rule("7"),
        rule(r#"{"labels":["team-a"]}"#),
        rule(r#"{"labels":{"namespace":["team-a"]}}"#),
        rule(r#"{"labels":{"namespace":"team-a","namespace":"team-c"}}"#),
        rule(r#"{"labels":{"namespace":"team-a"},"labels":{"namespace":"team-c"}}"#),
        rule(r#"{"labels":{"namespace":"team-a"},"alerts":[1]}"#),
        rule(r#"{"labels":{"namespace":"team-a"},"alerts":{}}"#),
        rule(r#"{"labels":{"namespace":"team-a"}"#),
    ] {
        assert!(rules(bad.as_bytes(), &sight(&team)).is_err(), "{bad}");
    }
    // A name that is spelt with escapes is the same name.
    let spelt = rule(r#"{"name":"x","labels":{"n\u0061mespace":"team-\u0063"}}"#);
    assert!(text(rules(spelt.as_bytes(), &sight(&team))).contains(r#""groups":[]"#));
}
