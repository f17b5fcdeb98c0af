#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use super::*;
use crate::promql::{LabelRule, MetricPattern};

const MINUTE: u64 = 60_000;

fn look(text: &str) -> Analysis {
    let labels = Labels::new("namespace", Vec::new()).unwrap();
    let window = crate::promql::Window { range_ms: 60 * MINUTE, step_ms: MINUTE };
    analyse(text, &labels, 5 * MINUTE, &Limits { window, ..Limits::default() }, Features { experimental: true })
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_point_looks_so_far_back_and_forward() {
    for (text, back, forward, fixed) in [
        ("1", 0, 0, None),
        ("time()", 0, 0, None),
        ("up", 5, 0, None),
        ("up offset 1h", 65, 0, None),
        ("up offset -1h", 0, 60, None),
        ("up + up offset -1h", 5, 60, None),
        ("rate(up[10m])", 10, 0, None),
        ("rate(up[10m] offset 1h)", 70, 0, None),
        ("rate(up[10m] offset -1h)", 0, 60, None),
        ("rate(up[10m] anchored)", 15, 0, None),
        ("rate(up[10m] smoothed)", 15, 5, None),
        ("up smoothed", 5, 5, None),
        ("max_over_time(up[1h:1m])", 65, 0, None),
        ("max_over_time(rate(up[10m])[1h:1m])", 70, 0, None),
        ("max_over_time(max_over_time(up[1h:1m])[2h:1m])", 185, 0, None),
        ("max_over_time((up offset -30m)[1h:] offset 10m)", 45, 20, None),
        ("max_over_time(up[1h:1m] offset -2h)", 0, 120, None),
        ("up @ 1000", 0, 0, Some((1_000_000 - 300_000, 1_000_000))),
        ("up @ -1", 0, 0, Some((-301_000, -1000))),
        ("up @ 1000 offset 100s", 0, 0, Some((600_000, 900_000))),
        ("up offset 100s @ 1000", 0, 0, Some((600_000, 900_000))),
        ("rate(up[1m] @ 1000) + up", 5, 0, Some((940_000, 1_000_000))),
        ("max_over_time((up offset 100s)[1m:] @ 1000)", 0, 0, Some((540_000, 900_000))),
        ("up @ 1 + up @ 1000", 0, 0, Some((-299_000, 1_000_000))),
    ] {
        let expected = Horizon { back_ms: back * MINUTE, forward_ms: forward * MINUTE, fixed_ms: fixed };
        assert_eq!(look(text).horizon, Some(expected), "{text}");
        assert!(!look(text).depends_on_window, "{text}");
    }
    assert_eq!(look("up offset 1500ms").horizon.unwrap().back_ms, 301_500);
    assert_eq!(look("quantile(scalar(sum(up offset 1h)), up)").horizon.unwrap().back_ms, 65 * MINUTE);
}

#[test]
fn what_depends_on_the_window_is_found() {
    for (text, known) in [
        ("up @ start()", true),
        ("up @ end() offset 5m", true),
        ("max_over_time(up[1h:1m] @ end())", true),
        ("start()", true),
        ("up > bool end()", true),
        ("sum(up) / range()", true),
        ("vector(step())", true),
        ("rate(up[step()])", false),
        ("rate(up[max_of(step(), 1m)])", false),
        ("up offset range()", false),
        ("max_over_time(up[1h:step()])", false),
    ] {
        let found = look(text);
        assert!(found.depends_on_window, "{text}");
        assert_eq!(found.horizon.is_some(), known, "{text}");
    }
}

#[test]
fn an_answer_is_split_only_where_each_series_has_one_owner() {
    for text in [
        "up",
        "up[5m]",
        "-up",
        "(up)",
        "rate(up[5m])",
        "rate(up[5m]) * 100 > 5",
        "up > bool 1",
        "time() - up",
        "sum by (namespace) (up)",
        "sum by (pod, namespace) (rate(up[5m]))",
        "sum without (pod) (up)",
        "topk by (namespace) (5, up)",
        "quantile without (pod) (0.9, up)",
        "count_values by (namespace) (\"version\", up)",
        "histogram_quantile(0.9, sum by (le, namespace) (rate(x_bucket[5m])))",
        "a / b",
        "a / on (namespace, pod) group_left (node) b",
        "a / ignoring (pod) group_left b",
        "a and on (namespace) b",
        "a or b",
        "a unless b",
        "label_replace(up, \"x\", \"$1\", \"namespace\", \"(.*)\")",
        "max_over_time(sum by (namespace) (up)[1h:1m])",
        "clamp_min(up, 1)",
        "round(up)",
    ] {
        assert!(look(text).splits_by_label, "{text}");
    }
    for text in [
        "1",
        "time()",
        "\"x\"",
        "sum(up)",
        "sum by () (up)",
        "sum by (pod) (up)",
        "sum without (namespace) (up)",
        "topk(5, up)",
        "topk by (namespace) (scalar(up), up)",
        "limitk by (namespace) (5, up)",
        "count_values by (namespace) (\"namespace\", up)",
        "count_values by (namespace) ((\"namespace\"), up)",
        "scalar(up)",
        "vector(1)",
        "up or vector(1)",
        "up * scalar(sum(up))",
        "clamp_min(up, scalar(up))",
        "absent(up)",
        "absent_over_time(up[5m])",
        "hour()",
        "sort(up)",
        "a / on (pod) b",
        "a / on () group_left b",
        "a / ignoring (namespace) b",
        "a / on (pod) group_left (namespace) b",
        "a / ignoring (pod) group_left (namespace) b",
        "a + fill (0) b",
        "a or sum(b)",
        "a and on (pod) b",
        "label_replace(up, \"namespace\", \"$1\", \"pod\", \"(.*)\")",
        "label_replace(up, (\"namespace\"), \"$1\", \"pod\", \"(.*)\")",
        "label_join(up, \"namespace\", \"-\", \"pod\")",
        "max_over_time(sum(up)[1h:1m])",
        "-sum(up)",
    ] {
        assert!(!look(text).splits_by_label, "{text}");
    }
}

#[test]
fn metrics_whose_owner_stands_elsewhere_are_not_split() {
    let rule = LabelRule {
        metrics: vec![MetricPattern::parse("DCGM_*").unwrap()],
        label: "exported_namespace".to_owned(),
        matchers: Vec::new(),
    };
    let labels = Labels::new("namespace", vec![rule]).unwrap();
    let split =
        |text: &str| analyse(text, &labels, 1, &Limits::default(), Features::default()).unwrap().splits_by_label;
    assert!(split("up"));
    assert!(!split("DCGM_X"));
    assert!(!split("up + DCGM_X"));
    assert!(!split("{__name__=\"DCGM_X\"}"));
}

#[test]
fn one_spelling_is_shared() {
    let canonical = look("sum by (pod) (rate(up{a=\"b\"}[5m]))").canonical;
    for other in ["SUM BY(pod,)(rate(up{a='b',}[5m])) # x", "sum(rate(up\n{ `a` = `b` } [5m])) by (pod)"] {
        assert_eq!(look(other).canonical, canonical, "{other}");
    }
    assert_ne!(look("sum by (pod) (rate(up{a=\"c\"}[5m]))").canonical, canonical);
}
