//! What dashboards become, for good workloads and for those of people who mean no good.

use std::collections::BTreeMap;

use super::*;
use crate::names::ObjectName;
use crate::promql;

/// A realistic workload for a template.
fn realistic(template: &Template) -> Workload {
    let target = template.targets().last().unwrap();
    let namespace = Namespace::parse("team-a").unwrap();
    if target.kind == Kind::Project {
        return Workload::project(&namespace, 6);
    }
    let name = WorkloadName::parse("granite-3.1").unwrap();
    Workload {
        title: (target.kind == Kind::InferenceService).then(|| "Granite 3.1 – 8B".into()),
        engine: target.engine.unwrap_or(Engine::Other),
        runtime: target.engine.map(|_| Runtime { name: WorkloadName::parse("vllm-cuda").unwrap(), cluster: false }),
        state: if target.kind.serves() { State::Ready } else { State::Running },
        since: Some(1_795_514_400),
        created: Some(1_795_510_800),
        owner: Some("ada".into()),
        gpus: 2,
        progress: (target.kind == Kind::TrainJob).then_some(Progress { percent: 42, left: Some(600) }),
        ..Workload::bare(target.kind, namespace, name)
    }
}

/// JSON with a line for each panel.
fn pretty(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(map) if depth < 3 && !map.is_empty() => {
            out.push_str("{\n");
            for (index, (key, value)) in map.iter().enumerate() {
                out.push_str(&" ".repeat(depth + 1));
                out.push_str(&format!("{}: ", json!(key)));
                pretty(value, depth + 1, out);
                out.push_str(if index + 1 < map.len() { ",\n" } else { "\n" });
            }
            out.push_str(&" ".repeat(depth));
            out.push('}');
        }
        value => out.push_str(&value.to_string()),
    }
}

#[test]
fn golden_dashboards() {
    let library = library();
    for template in library.templates() {
        let value: Value = serde_json::from_str(&template.render(&realistic(template))).unwrap();
        let mut got = String::new();
        pretty(&value, 0, &mut got);
        got.push('\n');
        let path = golden("rendered").join(format!("{}.json", template.name()));
        if writes() {
            fs::write(&path, &got).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        let differs = kept.lines().zip(got.lines()).position(|(kept, got)| kept != got);
        assert!(
            kept == got,
            "{}: line {:?} differs; look at it, then GOLDEN=write",
            template.name(),
            differs.map(|at| at + 1)
        );
    }
    let kept = fs::read_dir(golden("rendered")).unwrap().count();
    assert_eq!(kept, library.templates().len(), "a golden file of a template that is no more");
}

#[test]
fn every_panel_says_what_it_is() {
    let charts = ["TimeSeriesChart", "StatChart", "GaugeChart", "BarChart", "Table", "Markdown"];
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    for template in library().templates() {
        let value: Value = serde_json::from_str(&template.render(&realistic(template))).unwrap();
        assert!(!template.title().is_empty() && !template.description().is_empty());
        for (key, panel) in value["spec"]["panels"].as_object().unwrap() {
            let (place, spec) = (format!("{}: {key}", template.name()), &panel["spec"]);
            let kind = spec["plugin"]["kind"].as_str().unwrap();
            *used.entry(kind.to_owned()).or_default() += 1;
            assert!(charts.contains(&kind), "{place}: {kind}");
            assert!(spec["display"]["description"].as_str().is_some_and(|text| text.len() > 10), "{place}");
            let plugin = &spec["plugin"]["spec"];
            let unit = match kind {
                "TimeSeriesChart" => &plugin["yAxis"]["format"]["unit"],
                "Table" => &plugin["columnSettings"].as_array().unwrap().last().unwrap()["format"]["unit"],
                "Markdown" => continue,
                _ => &plugin["format"]["unit"],
            };
            assert!(unit.is_string(), "{place} has no unit");
            if ["StatChart", "GaugeChart"].contains(&kind) {
                assert!(plugin["thresholds"].is_object(), "{place} has no thresholds");
            }
            let queries = spec["queries"].as_array().unwrap();
            assert!(!queries.is_empty(), "{place}");
            for query in queries {
                let query = &query["spec"]["plugin"]["spec"];
                assert!(query["minStep"] == "30s" && query["query"].is_string(), "{place}: {query}");
            }
        }
    }
    for chart in charts {
        assert!(used.get(chart).is_some_and(|count| *count >= 10), "{chart}: {used:?}");
    }
}

#[test]
fn every_kind_has_a_dashboard() {
    let library = library();
    let named = |kind, engine| {
        let workload = Workload {
            engine,
            ..Workload::bare(kind, Namespace::parse("a").unwrap(), WorkloadName::parse("b").unwrap())
        };
        library.of(&workload).map(|template| template.name().to_owned()).collect::<Vec<_>>()
    };
    for kind in Kind::ALL {
        assert_eq!(named(*kind, Engine::Other).len(), 1, "{kind}");
    }
    assert_eq!(named(Kind::InferenceService, Engine::Vllm), ["vllm"]);
    assert_eq!(named(Kind::InferenceService, Engine::Other), ["kserve"]);
    assert_eq!(named(Kind::InferenceService, Engine::KServe), ["kserve"]);
    let project = |gpus| {
        let workload = Workload::project(&Namespace::parse("a").unwrap(), gpus);
        library.of(&workload).map(|template| template.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(project(0), ["project", "past-runs"]);
    assert_eq!(project(1), ["project", "gpus", "past-runs"]);
}

#[test]
fn a_workload_without_gpus_has_no_panels_of_them() {
    let library = library();
    let template = library.template("vllm").unwrap();
    let with = realistic(template);
    let without = Workload { gpus: 0, ..with.clone() };
    let gone = Workload::gone(with.kind, with.namespace.clone(), with.name.clone(), Engine::Vllm);
    for (workload, expected) in [(&with, true), (&without, false), (&gone, true)] {
        let value: Value = serde_json::from_str(&template.render(workload)).unwrap();
        let panels = value["spec"]["panels"].as_object().unwrap();
        assert_eq!(panels.contains_key("gpu_activity"), expected);
        assert_eq!(panels.contains_key("gone"), workload.state == State::Gone);
        let layouts = value["spec"]["layouts"].as_array().unwrap();
        assert!(layouts.iter().all(|layout| !layout["spec"]["items"].as_array().unwrap().is_empty()), "no empty row");
        let shown = layouts.iter().flat_map(|layout| layout["spec"]["items"].as_array().unwrap());
        let shown: Vec<&str> = shown
            .map(|item| item["content"]["$ref"].as_str().unwrap().strip_prefix("#/spec/panels/").unwrap())
            .collect();
        assert_eq!(shown.len(), panels.len());
        assert!(shown.iter().all(|key| panels.contains_key(*key)));
    }
}

/// All that a template can leave open, in every place where it can stand.
const EVERYWHERE: &str = r##"
template: {version: 1, name: everywhere, title: Everywhere, for: [{kind: Notebook}, {kind: RayJob}]}
spec:
  display: {name: "<<title>> <<owner>>", description: "<<reason>>"}
  variables:
    - kind: ListVariable
      spec: {name: v, plugin: {kind: PrometheusLabelValuesVariable, spec: {labelName: a, matchers: ['up{a="<<model>>"}']}}}
    - kind: ListVariable
      spec: {name: w, plugin: {kind: PrometheusPromQLVariable, spec: {labelName: a, expr: 'count by (a) (up{a!~"<<queue>>"})'}}}
  panels:
    a:
      kind: Panel
      spec:
        display: {name: "<<model>>", description: "<<queue>>"}
        plugin: {kind: TimeSeriesChart, spec: {}}
        links: [{name: "<<owner>>", url: "/x/<<model>>?q=<<title>>"}]
        queries:
          - kind: TimeSeriesQuery
            spec:
              plugin:
                kind: PrometheusTimeSeriesQuery
                spec:
                  query: >-
                    sum(rate(a{l="<<model>>",m!='<<owner>>',n=~"x<<title>>.*|<<queue>>",o!~'<<reason>>',p=~"<<pods>>",
                    q=~'<<ray_cluster>>',r="$v",s=~"<<name>>"}[$__rate_interval])) > 0 or b{w="<<namespace>>"}
    m:
      kind: Panel
      spec:
        display: {name: M}
        plugin: {kind: Markdown, spec: {text: "**<<model>>** <<owner>> [x](/y) `<<reason>>` <<queue>>"}}
  layouts:
    - kind: Grid
      spec:
        items:
          - {x: 0, y: 0, width: 24, height: 8, content: {$ref: "#/spec/panels/a"}}
          - {x: 0, y: 8, width: 24, height: 8, content: {$ref: "#/spec/panels/m"}}
"##;

/// Compiled once.
fn library() -> &'static Library {
    static LIBRARY: std::sync::OnceLock<Arc<Library>> = std::sync::OnceLock::new();
    LIBRARY.get_or_init(Library::built_in)
}

fn everywhere() -> Arc<Template> {
    let files = [("everywhere.yaml".to_owned(), EVERYWHERE.to_owned())];
    let (library, problems) = Library::compile(&files, &Settings::default());
    assert!(problems.is_empty(), "{problems:?}");
    Arc::clone(library.template("everywhere").unwrap())
}

/// A query with the contents of its strings taken out, and those as a backend reads them.
fn strings_of(query: &str) -> (String, Vec<String>) {
    let (mut bones, mut strings) = (String::new(), Vec::new());
    let mut rest = query.chars().peekable();
    while let Some(c) = rest.next() {
        bones.push(c);
        if c != '"' && c != '\'' {
            continue;
        }
        let mut bytes = Vec::new();
        loop {
            match rest.next().expect("every string has an end") {
                end if end == c => break,
                '\\' => match rest.next().unwrap() {
                    'x' => {
                        let hex: String = [rest.next().unwrap(), rest.next().unwrap()].iter().collect();
                        bytes.push(u8::from_str_radix(&hex, 16).unwrap());
                    }
                    '\\' => bytes.push(b'\\'),
                    other => panic!("an escape that nobody writes: {other}"),
                },
                other => bytes.extend(other.to_string().bytes()),
            }
        }
        bones.push(c);
        strings.push(String::from_utf8(bytes).unwrap());
    }
    (bones, strings)
}

/// What a regular expression without operators matches.
fn matches(pattern: &str) -> String {
    let (mut out, mut rest) = (String::new(), pattern.chars());
    while let Some(c) = rest.next() {
        match c {
            '\\' => out.push(rest.next().expect("a backslash quotes something")),
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => {
                panic!("an operator: {pattern}")
            }
            c => out.push(c),
        }
    }
    out
}

fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        3 => prop::sample::select(vec![
            "\"", "'", "`", "\\", "{", "}", "$v", "${v}", "$__all", "<<name>>", ">>", "{{pod}}", "}) or up{", "\"} or up{x=~\"", "|.*", "\n", "\r",
            "\u{0}", "\u{7f}", "\u{2028}", "#", "[a](http://x)", "<script>", "javascript:alert(1)", "&#58;", "..", "/", "%", "\\x22", "\\\"", "*", "_", "é", "\u{10ffff}",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,20}",
        1 => any::<String>(),
    ];
    prop::collection::vec(pieces, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_value_changes_what_a_dashboard_means(
        texts in prop::collection::vec(hostile(), 5),
        name in "[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?(\\.[a-z0-9]{1,20}){0,3}",
        gone in any::<bool>(),
    ) {
        static TEMPLATE: std::sync::OnceLock<Arc<Template>> = std::sync::OnceLock::new();
        let template = TEMPLATE.get_or_init(everywhere);
        let namespace = Namespace::parse("team-a").unwrap();
        let name = WorkloadName::parse(&name).unwrap();
        let bare = Workload::bare(Kind::RayJob, namespace, name.clone());
        let kept: Vec<Option<Box<str>>> = texts.iter().map(|text| Workload::text(text)).collect();
        let hostile = Workload {
            model: kept[0].clone(), owner: kept[1].clone(), title: kept[2].clone(), queue: kept[3].clone(), reason: kept[4].clone(),
            ray_cluster: kept[0].clone(), state: if gone { State::Gone } else { State::Failed }, ..bare.clone()
        };
        let rendered = template.render(&hostile);
        // Strictly one JSON value, and one that may be stored.
        let object = crate::document::Object::read(rendered.as_bytes(), crate::document::Kind::Dashboard);
        prop_assert!(object.and_then(|object| object.check_write(&|_| false)).is_ok(), "{rendered}");
        let value: Value = serde_json::from_str(&rendered).unwrap();
        let calm: Value = serde_json::from_str(&template.render(&bare)).unwrap();
        let spec = &value["spec"]["panels"]["a"]["spec"];
        let query = |value: &Value| value["spec"]["panels"]["a"]["spec"]["queries"][0]["spec"]["plugin"]["spec"]["query"].as_str().unwrap().to_owned();
        let ((bones, strings), (calm_bones, _)) = (strings_of(&query(&value)), strings_of(&query(&calm)));
        prop_assert_eq!(bones, calm_bones);
        prop_assert_eq!(query(&value).matches('$').count(), query(&calm).matches('$').count());
        let or = |text: &Option<Box<str>>, other: &str| text.as_deref().unwrap_or(other).to_owned();
        prop_assert_eq!(&strings[0], &or(&kept[0], name.as_str()));
        prop_assert_eq!(&strings[1], &or(&kept[1], "–"));
        let (title, queue) = (or(&kept[2], name.as_str()), or(&kept[3], "–"));
        let third = strings[2].strip_prefix('x').unwrap();
        prop_assert!(third.starts_with(&super::super::workload::quoted(&title)) && third.ends_with(&super::super::workload::quoted(&queue)));
        prop_assert_eq!(matches(&strings[3]), or(&kept[4], "–"));
        prop_assert_eq!(matches(strings[5].split("-[0-9a-z]{5}").next().unwrap()), or(&kept[0], name.as_str()));
        prop_assert_eq!(matches(&strings[7]), name.as_str());
        // And it is still a query of two selectors.
        let reach = promql::Reach::Namespaces([std::sync::Arc::from("team-a")].into());
        let labels = promql::Labels::new("namespace", Vec::new()).unwrap();
        let text = query(&value).replace("$__rate_interval", "5m");
        let confined = promql::confine(&text, &reach, &labels, &promql::Limits::default(), promql::Features::default());
        prop_assert_eq!(confined.map(|confined| confined.selectors()), Ok(2));
        let matcher = value["spec"]["variables"][0]["spec"]["plugin"]["spec"]["matchers"][0].as_str().unwrap().to_owned();
        prop_assert_eq!(strings_of(&matcher).0, "up{a=\"\"}");
        // Names are text, whatever stands in them.
        prop_assert_eq!(spec["display"]["name"].as_str().unwrap(), or(&kept[0], name.as_str()));
        prop_assert_eq!(template.display_name(&hostile), value["spec"]["display"]["name"].as_str().unwrap());
        // A link keeps its path, and Markdown its words.
        let url = spec["links"][0]["url"].as_str().unwrap();
        prop_assert!(url.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%/?=".contains(&b)), "{url}");
        prop_assert_eq!((url.matches('/').count(), url.matches('?').count()), (2, 1));
        let text = value["spec"]["panels"]["m"]["spec"]["plugin"]["spec"]["text"].as_str().unwrap();
        let mut plain = text.replace("\\\\", "").replace("&lt;", "").replace("&gt;", "").replace("&amp;", "").replace("&#36;", "").replace("&quot;", "");
        for c in "!#%'()*+,-/;=?[]^_`{|}~".chars() {
            plain = plain.replace(&format!("\\{c}"), "");
        }
        prop_assert!(!plain.contains(['<', '>', '$', '"', '\n', '\\']), "{text}");
        prop_assert_eq!(plain.matches(['[', '(', '`', '*']).count(), 8, "{}", text);
    }

    #[test]
    fn names_of_dashboards_tell_workloads_apart(
        one in "[a-z0-9]([a-z0-9.-]{0,80}[a-z0-9])?", other in "[a-z0-9]([a-z0-9.-]{0,80}[a-z0-9])?",
    ) {
        let library = library();
        let namespace = Namespace::parse("team-a").unwrap();
        let mut seen: BTreeMap<String, (String, Kind)> = BTreeMap::new();
        for template in library.templates() {
            for target in template.targets().iter().filter(|target| target.kind != Kind::Project) {
                for name in [&one, &other] {
                    let Some(name) = WorkloadName::parse(name) else { continue };
                    let engine = target.engine.unwrap_or(Engine::Other);
                    let workload = Workload { engine, ..Workload::bare(target.kind, namespace.clone(), name.clone()) };
                    let dashboard = template.dashboard_name(&workload);
                    prop_assert!(dashboard.len() <= 75 && dashboard.starts_with("dashboard-"));
                    let parsed = ObjectName::parse(&dashboard).unwrap();
                    prop_assert_eq!(parsed.as_str(), &dashboard);
                    let before = seen.insert(dashboard.clone(), (name.as_str().to_owned(), target.kind));
                    prop_assert!(before.is_none_or(|before| before == (name.as_str().to_owned(), target.kind)), "{dashboard}");
                    let found = library.resolve(&namespace, &parsed);
                    if dashboard.contains(&format!("-{name}-")) {
                        let (by, gone) = found.unwrap();
                        prop_assert_eq!((by.name(), gone.kind, gone.name.as_str(), gone.state), (template.name(), target.kind, name.as_str(), State::Gone));
                        prop_assert_eq!(by.dashboard_name(&gone), dashboard);
                    } else {
                        prop_assert!(found.is_none());
                    }
                }
            }
        }
    }

    #[test]
    fn names_that_are_not_ours_resolve_to_nothing(text in "dashboard-[0-9]{1,3}-(vllm|project|past-runs|ray)(-[a-z0-9]{1,9}){0,4}") {
        // Eight letters of thirty-two: one text in a trillion is right by chance.
        let name = ObjectName::parse(&text).unwrap();
        prop_assert!(library().resolve(&Namespace::parse("a").unwrap(), &name).is_none());
    }
}

#[test]
fn projects_have_dashboards_that_resolve() {
    let library = library();
    let namespace = Namespace::parse("team-a").unwrap();
    for template in library.of(&Workload::project(&namespace, 1)) {
        let name = template.dashboard_name(&Workload::project(&namespace, 1));
        let (found, workload) = library.resolve(&namespace, &ObjectName::parse(&name).unwrap()).unwrap();
        assert_eq!((found.name(), workload.kind), (template.name(), Kind::Project));
    }
}

#[test]
fn entries_of_lists_are_small_and_named() {
    let library = library();
    let template = library.template("vllm").unwrap();
    let workload = realistic(template);
    let entry: Value = serde_json::from_str(&template.render_entry(&workload)).unwrap();
    let whole: Value = serde_json::from_str(&template.render(&workload)).unwrap();
    assert_eq!(entry["metadata"], whole["metadata"]);
    assert_eq!(entry["spec"], json!({ "display": { "name": "Granite 3.1 – 8B – vLLM" } }));
}
