//! Traps of loose JSON, what may not be stored, and what readers are not sent.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::names::ObjectName;

#[test]
fn json_that_could_be_read_in_two_ways_is_refused() {
    for bad in [
        r#"{"metadata":{"project":"mine","Project":"victim"}}"#,
        r#"{"metadata":{"project":"mine","project":"victim"}}"#,
        r#"{"metadata":{"PROJECT":"victim"}}"#,
        "{\"metadata\":{\"tag\u{17f}\":[]}}",
        "{\"metadata\":{\"\u{212a}ind\":\"x\"}}",
        r#"{"Metadata":{}}"#,
        r#"{"metadata":{"name":"a"}} {"metadata":{"name":"b"}}"#,
        r#"{"metadata":{"name":"a"}}x"#,
        "\u{feff}{}",
        "",
        "{",
        r#"{"a":1e999}"#,
        r#"{"spec":{"panels":{"a":1,"A":2}}}"#,
    ] {
        assert!(read_strict(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(read_strict("[".repeat(10_000).as_bytes()).is_err());
    assert!(read_strict(format!("{}1{}", "[".repeat(60), "]".repeat(60)).as_bytes()).is_ok());
    assert!(read_strict(br#"{"spec":{"panels":{"Links":{}, "Kind":{}}}}"#).is_ok(), "users choose panel keys");
}

#[test]
fn numbers_do_not_drift_when_they_are_saved_again_and_again() {
    for text in ["18446747440709551616", "1.844674407370955e19", "0.1", "5e-324", "1.7976931348623157e308", "-0.0"] {
        let body = format!(r#"{{"metadata":{{"name":"d"}},"spec":{{"x":{text}}}}}"#);
        let once = Object::read(body.as_bytes(), Kind::Dashboard).unwrap().into_bytes();
        let written: Value = serde_json::from_slice(&once).unwrap();
        assert_eq!(written["spec"]["x"].as_f64(), text.parse().ok(), "{text}");
        assert_eq!(Object::read(&once, Kind::Dashboard).unwrap().into_bytes(), once, "{text}");
    }
}

fn read(kind: Kind, value: &Value) -> Result<Object, DocumentError> {
    Object::read(value.to_string().as_bytes(), kind)
}

#[test]
fn the_path_has_the_say() {
    let name = ObjectName::parse("d").unwrap();
    let project = ObjectName::parse("team-a").unwrap();
    let settled = |metadata: Value| {
        let mut object = read(Kind::Dashboard, &json!({ "metadata": metadata, "spec": {} }))?;
        object.settle(Some(&project), &name)?;
        Ok::<Value, DocumentError>(serde_json::from_slice(&object.into_bytes()).unwrap())
    };
    let expected = json!({ "kind": "Dashboard", "metadata": { "name": "d", "project": "team-a" }, "spec": {} });
    assert_eq!(settled(json!({})), Ok(expected.clone()));
    assert_eq!(settled(json!({ "name": "D", "project": "Team-A" })), Ok(expected));
    assert!(matches!(settled(json!({ "name": "e" })), Err(DocumentError::Mismatch { field: "metadata.name", .. })));
    assert!(matches!(settled(json!({ "project": "team-b" })), Err(DocumentError::Mismatch { .. })));
    for bad in [json!({ "x": 1 }), json!({ "name": 1 }), json!({ "version": -1 }), json!({ "tags": [1] })] {
        assert!(settled(bad.clone()).is_err(), "{bad}");
    }
    for bad in [
        json!([]),
        json!({}),
        json!({ "metadata": {}, "kind": "Secret" }),
        json!({ "metadata": {}, "x": 1 }),
        json!({ "metadata": {}, "spec": 1 }),
    ] {
        assert!(read(Kind::Dashboard, &bad).is_err(), "{bad}");
    }
}

fn datasource(plugin: Value) -> Value {
    json!({ "metadata": { "name": "d" }, "spec": { "default": true, "plugin": plugin } })
}

fn good_plugin() -> Value {
    json!({ "kind": "PrometheusDatasource", "spec": { "proxy": { "kind": "HTTPProxy", "spec": { "url": "http://prometheus:9090" } } } })
}

fn check(kind: Kind, value: &Value) -> Result<(), DocumentError> {
    read(kind, value)?.check_write(&|url| url == "http://prometheus:9090")
}

#[test]
fn only_datasources_that_can_be_confined_are_stored() {
    assert_eq!(check(Kind::Datasource, &datasource(good_plugin())), Ok(()));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut plugin = good_plugin();
        change(&mut plugin);
        check(Kind::Datasource, &datasource(plugin)).unwrap_err()
    };
    assert!(matches!(with(&|p| p["kind"] = json!("LokiDatasource")), DocumentError::DatasourceKind { .. }));
    assert!(matches!(
        with(&|p| p["spec"]["proxy"]["spec"]["url"] = json!("http://127.0.0.1:8081")),
        DocumentError::BackendUrl
    ));
    assert!(matches!(with(&|p| p["spec"]["directUrl"] = json!("http://x")), DocumentError::Unsupported { .. }));
    for kind in ["httpPROXY", "SQLProxy", "httpproxy"] {
        with(&|p| p["spec"]["proxy"]["kind"] = json!(kind));
        with(&|p| p["spec"]["other"] = json!({ "kind": kind, "spec": { "url": "http://prometheus:9090" } }));
    }
    with(&|p| p["spec"] = json!({}));
    for header in ["Authorization", "authorization", "Cookie", "X-Scope-OrgID", "X_Scope_OrgID", "Impersonate-User"] {
        with(&|p| p["spec"]["proxy"]["spec"]["headers"] = json!({ header: "x" }));
    }
    let mut fine = good_plugin();
    fine["spec"]["proxy"]["spec"]["headers"] = json!({ "X-Team": "a" });
    assert_eq!(check(Kind::Datasource, &datasource(fine)), Ok(()));
}

#[test]
fn dashboards_and_secrets_hold_nothing_that_acts() {
    let dashboard = |spec: Value| check(Kind::Dashboard, &json!({ "metadata": {}, "spec": spec }));
    assert_eq!(dashboard(json!({ "panels": { "p": { "spec": { "links": [{ "url": "https://x/?q=1" }] } } } })), Ok(()));
    let error =
        dashboard(json!({ "panels": { "p": { "spec": { "plugin": { "spec": { "actions": [{}] } } } } } })).unwrap_err();
    assert!(error.to_string().starts_with("spec.panels.p.spec.plugin.spec.actions: "), "{error}");
    for url in ["javascript:alert(1)", " JaVa\tScript:alert(1)", "data:text/html,x", "vbscript:x"] {
        assert!(dashboard(json!({ "links": [{ "url": url }] })).is_err(), "{url}");
    }
    assert!(dashboard(json!({ "panels": { "m": { "text": "[x](java\nscript:alert(1))" } } })).is_err());
    assert!(
        dashboard(json!({ "datasources": { "d": { "plugin": { "kind": "TempoDatasource", "spec": {} } } } })).is_err()
    );
    let secret = |spec: Value| check(Kind::Secret, &json!({ "metadata": {}, "spec": spec }));
    assert_eq!(secret(json!({ "basicAuth": { "username": "a", "password": "b" } })), Ok(()));
    for bad in [
        json!({ "basicAuth": { "passwordFile": "/x" } }),
        json!({ "authorization": { "credentialsFile": "/x" } }),
        json!({ "tlsConfig": { "CAFILE": "/x" } }),
        json!({ "oauth": { "tokenURL": "http://x" } }),
        json!({ "oauth": { "TokenUrl": "http://x" } }),
    ] {
        assert!(secret(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn readers_are_not_sent_what_acts_and_saving_keeps_it() {
    let stored = json!({ "kind": "Dashboard", "metadata": { "name": "d" }, "spec": {
        "links": [{ "name": "a", "url": "javascript:x" }, { "name": "b", "url": "https://x" }],
        "panels": { "p": { "plugin": { "spec": { "actions": [{ "name": "boom" }], "decimals": 1 } } } },
        "datasources": { "d": { "plugin": { "spec": { "directUrl": "http://x" } } } },
    }});
    let mut seen = stored.clone();
    assert!(may_need_strip(stored.to_string().as_bytes()));
    assert!(strip(&mut seen));
    let text = seen.to_string();
    assert!(!text.contains("boom") && !text.contains("javascript") && !text.contains("directUrl"), "{text}");
    assert!(!strip(&mut seen.clone()), "once is enough");
    // Saved as seen, with a change beside it.
    seen["spec"]["panels"]["p"]["plugin"]["spec"]["decimals"] = json!(2);
    let mut object = read(Kind::Dashboard, &seen).unwrap();
    object.keep_hidden(&stored);
    let saved: Value = serde_json::from_slice(&object.into_bytes()).unwrap();
    let mut expected = stored.clone();
    expected["spec"]["panels"]["p"]["plugin"]["spec"]["decimals"] = json!(2);
    assert_eq!(saved, expected);
    // A list of another length is somebody's new list.
    let mut shorter = seen.clone();
    shorter["spec"]["links"] = json!([{ "name": "b", "url": "https://x" }]);
    let mut object = read(Kind::Dashboard, &shorter).unwrap();
    object.keep_hidden(&stored);
    assert!(!String::from_utf8(object.into_bytes()).unwrap().contains("javascript"));
}

#[test]
fn plain_documents_need_no_second_look() {
    assert!(!may_need_strip(br#"{"spec":{"text":"a \u003c b","url":"https://x"}}"#));
    assert!(may_need_strip(br#"{"spec":{"\u0061ctions":[1]}}"#));
    assert!(may_need_strip(br#"{"url":"JAVASCRIPT:x"}"#));
    for spelt in ["directUrl", "DirectURL", "actions", "Actions", "Data:text/html,x", "script", "sCript"] {
        assert!(may_need_strip(spelt.as_bytes()), "{spelt}");
        assert!(!may_need_strip(&spelt.as_bytes()[1..]), "all but the first letter of {spelt}");
    }
    assert!(may_need_strip(br#"{"url":"java\tscript:x"}"#));
}

#[test]
fn a_global_datasource_shows_no_address() {
    let mut document = json!({ "spec": { "plugin": { "kind": "PrometheusDatasource", "spec": { "queryParams": { "a": "b" },
        "proxy": { "kind": "HTTPProxy", "spec": { "url": "http://secret", "headers": { "x": "y" }, "secret": "s" } } } } } });
    blank_global_datasource(&mut document);
    assert_eq!(document["spec"]["plugin"]["spec"], json!({ "proxy": { "kind": "HTTPProxy", "spec": { "url": "" } } }));
}

#[test]
fn the_configuration_is_what_the_ui_reads() {
    let upstream = json!({ "security": { "encryption_key": "k", "enable_auth": false }, "database": { "file": { "folder": "/secret" } },
        "provisioning": { "folders": ["/x"] }, "frontend": { "explorer": { "enable": true }, "important_dashboards": [{ "project": "p", "dashboard": "d", "x": 1 }, 7] } });
    let minimal: Value =
        serde_json::from_slice(&minimal_config(upstream.to_string().as_bytes(), &Told::default()).unwrap()).unwrap();
    assert_eq!(minimal["security"]["enable_auth"], json!(true));
    assert_eq!(minimal["security"]["authentication"]["providers"]["kubernetes"]["enable"], json!(true));
    assert_eq!(minimal["frontend"]["important_dashboards"], json!([{ "project": "p", "dashboard": "d" }]));
    let text = minimal.to_string();
    assert!(!text.contains("secret") && !text.contains("encryption") && !text.contains("provisioning"), "{text}");
    assert!(minimal_config(b"[]", &Told::default()).is_err());
}

#[test]
fn lists_are_read_entry_by_entry() {
    let body =
        br#"[{"metadata":{"name":"a","project":"p"},"spec":{"x": 1.50}},{"spec":{}},7,{"metadata":{"name":"b"}}]"#;
    let entries = list(body).unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!((entries[0].project.as_deref(), &*entries[0].name), (Some("p"), "a"));
    assert!(entries[0].raw.get().contains("1.50"), "bytes are kept");
    assert_eq!(entries[1].project, None);
    assert!(list(b"null").unwrap().is_empty());
    assert!(list(b"{}").is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,6}".prop_map(Value::from),
        Just(json!("javascript:x"))
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]|url|actions|directUrl|text|links", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_hidden_is_found_hidden_once_and_kept(spec in prop::collection::btree_map("[a-e]", any_json(), 0..4)) {
        let spec = Value::Object(spec.into_iter().collect());
        let stored = json!({ "metadata": {}, "spec": spec });
        prop_assert_eq!(read_strict(stored.to_string().as_bytes()).unwrap(), stored.clone());
        let mut seen = stored.clone();
        let changed = strip(&mut seen);
        prop_assert!(changed || seen == stored);
        prop_assert!(!changed || may_need_strip(stored.to_string().as_bytes()));
        prop_assert!(!strip(&mut seen.clone()));
        let mut object = read(Kind::Dashboard, &seen).unwrap();
        object.keep_hidden(&stored);
        let saved: Value = serde_json::from_slice(&object.into_bytes()).unwrap();
        prop_assert_eq!(&saved["spec"], &stored["spec"]);
    }
}
