//! Pods made at random, of the shapes that matter and of none: nothing crashes, nothing unknown is lost, Perses is never
//! left reachable.

use proptest::prelude::*;

use super::*;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z/~$()\u{e4}]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,5}", inner, 0..3).prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => prop::sample::select(vec![
            "--config=/etc/perses/config.yaml", "--web.listen-address=:8080", "-web.listen-address", ":9000", "--", "-",
            "--log.level=info", "--log.level=debug", "-web.listen-address=:8081", "--web.listen-address=:9443", "-x=y", "--y=z",
            "--web.listen-address=0.0.0.0:9090", "--web.listen-address=[::]:8081", "--web.listen-address=localhost:7070",
            "--web.listen-address=127.0.0.1:9080", "--web.hide-port", "--log.level", "debug", "serve", "-pprof",
            "--web.tls-min-version=1.3", "--web.tls-cert-file=/tls/tls.crt", "--web.tls-key-file=/tls/tls.key",
            "--web.listen-address=:80", "--web.listen-address=:$(PORT)", "$(FLAGS)", "--new", "--web.telemetry-path=/p/metrics",
            "---web.listen-address=:1", "--web.listen-address=", "--config", "-web.listen-address=:8443", "-=",
            "--web.tls-cert-file=/usr/bin/c", "--web.tls-key-file=/etc/perses-sidecar/keys/k", "--web.tls-key-file=/tls/../k",
        ]).prop_map(str::to_owned),
        1 => "[-a-z=.:$()]{0,8}",
    ]
}

fn ports() -> impl Strategy<Value = Value> {
    let entry =
        (prop::sample::select(vec![8080_u64, 9090, 9080, 9081, 8443, 7070, 15090]), prop::option::of("[a-z]{1,6}"))
            .prop_map(|(port, name)| match name {
                Some(name) => json!({ "containerPort": port, "name": name }),
                None => json!({ "containerPort": port, "x": 1 }),
            });
    prop::option::of(prop::collection::vec(entry, 0..3)).prop_map(|ports| ports.map_or(Value::Null, Value::from))
}

fn handler() -> impl Strategy<Value = Value> {
    let port = prop_oneof![
        Just(json!(8080)),
        Just(json!(9090)),
        Just(json!("8080")),
        Just(json!("http")),
        Just(json!(9000)),
        Just(json!(9081)),
    ];
    let path = prop::sample::select(vec!["metrics", "/a b", "/\u{e4}", "/x#y", "?x", "/%zz", "", "/metrics?x=$(y)"]);
    let name = prop::sample::select(vec!["A", "Host", "connection", "Upgrade", "a b", ""]);
    (port, 0..12_u8, path, name).prop_map(|(port, kind, path, name)| match kind {
        0 => json!({ "tcpSocket": { "port": port }, "periodSeconds": 3 }),
        1 | 6 => json!({ "exec": { "command": ["curl", "localhost:8080"] } }),
        2 => json!({ "grpc": { "port": 8080 } }),
        3 => json!({ "httpGet": { "port": port, "path": "/metrics", "httpHeaders": [{ "name": "A", "value": "b" }] }, "later": 1 }),
        4 => json!({ "httpGet": { "port": port, "scheme": "HTTPS" } }),
        5 => json!({ "httpGet": { "port": port, "host": "x" } }),
        7 => json!({ "httpGet": { "port": 8080, "path": path, "httpHeaders": [{ "name": name, "value": "\u{e4}" }] } }),
        _ => json!({ "httpGet": { "port": 8080, "path": "/api/v1/health" } }),
    })
}

prop_compose! {
    fn container()(
        name in prop::sample::select(vec!["perses", "perses-sidecar", "istio-proxy", "web", "x"]),
        image in prop::sample::select(vec![
            "persesdev/perses:1", "registry.example/perses/perses-sidecar:0.0.9", "evil/perses-sidecar", "registry.example/own/perses", "x",
        ]),
        command in prop::option::weighted(0.3, prop::collection::vec(prop_oneof![Just("/bin/perses".to_owned()), word()], 0..4)),
        args in prop::option::weighted(0.8, prop::collection::vec(word(), 0..4)),
        ports in ports(),
        handlers in prop::collection::btree_map(
            prop::sample::select(vec!["livenessProbe", "readinessProbe", "startupProbe"]), handler(), 0..3),
        hooks in prop::collection::btree_map(prop::sample::select(vec!["postStart", "preStop"]), handler(), 0..2),
        mounts in prop::sample::select(vec![json!(null), json!([{ "name": "tls", "mountPath": "/tls" }]),
            json!([{ "name": "tls", "mountPath": "/usr/bin" }, { "name": "own", "mountPath": "/etc/perses-sidecar/keys" },
                { "name": "tls", "mountPath": "/tls", "subPath": "x", "mountPropagation": "Bidirectional" }])]),
        unknown in prop::option::of(any_json()),
    ) -> Value {
        let mut value = json!({ "name": name, "image": image });
        if let Some(command) = command { value["command"] = json!(command); }
        if let Some(args) = args { value["args"] = json!(args); }
        if !ports.is_null() { value["ports"] = ports; }
        for (key, handler) in handlers { value[key] = handler; }
        for (key, handler) in hooks { value["lifecycle"][key] = handler; }
        if !mounts.is_null() { value["volumeMounts"] = mounts; }
        if let Some(unknown) = unknown { value["futureField"] = unknown; }
        value
    }
}

fn annotation() -> impl Strategy<Value = (String, String)> {
    let key = prop::sample::select(KEYS.to_vec()).prop_map(|key| format!("{PREFIX}{key}"));
    let value = prop::sample::select(vec![
        "true",
        "false",
        "small",
        "native",
        "container",
        "perses",
        "8443",
        "9080",
        "9081",
        "70000",
        "1",
        "50m",
        "1Gi",
        "warn",
        "{\"before\":{\"flags\":[\"--web.listen-address=:1\"]},\"container\":\"perses\"}",
        "{}",
        "",
    ]);
    (key, value.prop_map(str::to_owned))
}

prop_compose! {
    fn pod()(
        mut containers in prop::collection::vec(container(), 0..3),
        mut perses in container(),
        usual in prop::bool::weighted(0.7),
        at in 0..3_usize,
        mut init in prop::option::weighted(0.3, prop::collection::vec(container(), 0..2)),
        annotations in prop::option::of(prop::collection::btree_map("[a-z/~.]{1,8}", "[a-z]{0,4}", 0..2)),
        ours in prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(annotation(), 0..3)],
        asked in prop::sample::select(vec!["true", "true", "true", "small", "True"]),
        volumes in prop::sample::select(vec![json!(null), json!(null), json!([]), json!([]), json!([{ "name": "tls", "secret": { "secretName": "x" } }]),
            json!([{ "name": "perses-sidecar-tls" }])]),
        more in prop::collection::btree_map(prop::sample::select(vec!["hostNetwork", "restartPolicy", "futureSpec", "imagePullSecrets"]), any_json(), 0..2),
    ) -> Value {
        if usual {
            perses["name"] = json!("perses");
            perses["image"] = json!("persesdev/perses:1");
            containers.retain(|other| other["name"] != "perses" && other["name"] != "perses-sidecar");
            for other in &mut containers { other["image"] = json!("x"); }
            init = init.map(|list| list.into_iter().filter(|other| other["name"] != "perses-sidecar").collect());
        }
        containers.insert(at.min(containers.len()), perses);
        let mut pod = json!({ "metadata": { "generateName": "p-" }, "spec": { "containers": containers } });
        if let Some(init) = init { pod["spec"]["initContainers"] = json!(init); }
        if let Some(annotations) = annotations { pod["metadata"]["annotations"] = json!(annotations); }
        for (key, value) in ours { pod["metadata"]["annotations"][key] = json!(value); }
        pod["metadata"]["annotations"][format!("{PREFIX}inject")] = json!(asked);
        if !volumes.is_null() { pod["spec"]["volumes"] = volumes; }
        for (key, value) in more { pod["spec"][key] = value; }
        pod
    }
}

/// Every unknown field of the first is in the second.
fn kept(before: &Value, after: &Value, name: &str) -> Result<(), String> {
    let spec = |value: &Value, key: &str| value["spec"].get(key).cloned();
    for key in ["futureSpec", "hostNetwork", "restartPolicy"] {
        if spec(before, key) != spec(after, key) {
            return Err(format!("spec.{key} changed"));
        }
    }
    for list in ["containers", "initContainers"] {
        let of = |value: &Value| value["spec"][list].as_array().cloned().unwrap_or_default();
        let others = |all: Vec<Value>| -> Vec<Value> {
            all.into_iter()
                .filter(|container| container["name"] != "perses-sidecar" && container["name"] != name)
                .collect()
        };
        if others(of(before)) != others(of(after)) {
            return Err(format!("another container in {list} changed"));
        }
        for container in of(before).iter().filter(|container| container["name"] == name) {
            let same = of(after).iter().any(|other| {
                other["name"] == name
                    && other.get("futureField") == container.get("futureField")
                    && other["image"] == container["image"]
            });
            if list == "containers" && !same {
                return Err("a field of Perses was lost".to_owned());
            }
        }
    }
    let annotations = before["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    for (key, value) in annotations.iter().filter(|(key, _)| *key != "perses-sidecar.io/status") {
        if after["metadata"]["annotations"].get(key) != Some(value) {
            return Err(format!("the annotation {key} changed"));
        }
    }
    Ok(())
}

#[test]
fn properties() {
    let profiles = profiles();
    let mut injected = 0;
    let cases = ProptestConfig::default().cases.max(2000);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let counted = std::cell::Cell::new(0_u32);
    let outcome = runner.run(&pod(), |pod| {
        let facts = Facts { namespace: "team-a", inject_default: false, minor: None };
        // Names are unique, as the API server sees to it.
        let mut names: Vec<&str> = ["containers", "initContainers"]
            .iter()
            .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
            .filter_map(|container| container["name"].as_str())
            .collect();
        names.sort_unstable();
        let unique = names.windows(2).all(|pair| pair[0] != pair[1]);
        if let Ok(Outcome::Injected(first)) = inject(&pod, &facts, &profiles) {
            prop_assume!(unique);
            counted.set(counted.get() + 1);
            let had = names.contains(&SIDECAR);
            let mut patched = pod.clone();
            prop_assert_eq!(apply(&mut patched, &first.patch), Ok(()));
            prop_assert_eq!(&patched, &first.pod);
            let before = (!had).then_some(&pod);
            prop_assert_eq!(model::perses_is_behind_the_sidecar(before, &first.pod, &first.container), Ok(()));
            if !had {
                prop_assert_eq!(kept(&pod, &first.pod, &first.container), Ok(()));
            }
            match inject(&first.pod, &facts, &profiles) {
                Ok(Outcome::Injected(again)) => prop_assert_eq!(again.patch, Vec::<Value>::new()),
                other => prop_assert!(false, "{:?}", other),
            }
            prop_assert_eq!(verify(&first.pod, &facts, &profiles), Ok(true));
            prop_assert_eq!(is_read(&first.pod), Ok(()));
        }
        Ok(())
    });
    injected += counted.get();
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(injected > cases / 20, "only {injected} of {cases} pods were injected");
}

#[test]
fn anything_at_all_crashes_nothing() {
    let profiles = profiles();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let shape = (any_json(), any_json(), any_json(), 0..8_u8);
    let outcome = runner.run(&shape, |(a, b, c, kind)| {
        let asked = json!({ "perses-sidecar.io/inject": "true", "perses-sidecar.io/status": a });
        let pod = match kind {
            0 => a.clone(),
            1 => json!({ "metadata": a, "spec": b }),
            2 => json!({ "metadata": { "annotations": asked }, "spec": b }),
            3 => json!({ "metadata": { "annotations": asked }, "spec": { "containers": b, "volumes": c } }),
            4 => json!({ "metadata": { "annotations": { "perses-sidecar.io/inject": "true" } }, "spec": { "containers": [b, c] } }),
            5 => json!({ "metadata": { "annotations": { "perses-sidecar.io/inject": "true" } },
                "spec": { "containers": [{ "name": "perses", "image": "persesdev/perses", "ports": b, "args": c, "lifecycle": a }] } }),
            6 => json!({ "metadata": { "annotations": { "perses-sidecar.io/inject": "true" } }, "spec": { "volumes": a, "initContainers": c,
                "containers": [{ "name": "perses", "image": "persesdev/perses", "livenessProbe": { "httpGet": b } }] } }),
            _ => json!({ "metadata": { "annotations": asked }, "spec": { "securityContext": a, "containers": [
                { "name": "perses", "image": "persesdev/perses", "volumeMounts": c },
                { "name": "perses-sidecar", "image": "registry.example/perses/perses-sidecar", "securityContext": b, "volumeMounts": c }] } }),
        };
        let facts = Facts { inject_default: true, ..Facts::default() };
        let _ = inject(&pod, &facts, &profiles);
        let _ = verify(&pod, &facts, &profiles);
        let _ = hook(&pod, &profiles);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
