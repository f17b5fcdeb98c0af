//! Who reaches which port of the injected pod: the policies that OpenShift AI has there, and ours beside them, read as a
//! network plugin reads them. Policies add up, and a pod that one selects is closed but for what they say.

use std::fs;

use perses_sidecar_stack::servers;
use serde_json::{Value, json};

use crate::{build, name, of_kind};

/// Who asks: labels of the namespace, and of the pod.
struct Peer {
    namespace: Value,
    pod: Value,
}

fn peer(namespace: &str, more: &Value, pod: &Value) -> Peer {
    let mut labels = more.clone();
    labels["kubernetes.io/metadata.name"] = json!(namespace);
    Peer { namespace: labels, pod: pod.clone() }
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// A label selector; without a word it selects everything.
fn selects(selector: &Value, labels: &Value) -> bool {
    let plain = selector["matchLabels"].as_object().into_iter().flatten();
    plain.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && list(selector, "matchExpressions").iter().all(|one| {
            let value = labels.get(one["key"].as_str().unwrap());
            match one["operator"].as_str().unwrap() {
                "In" => value.is_some_and(|value| list(one, "values").contains(value)),
                "NotIn" => value.is_none_or(|value| !list(one, "values").contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                other => panic!("{other}"),
            }
        })
}

/// Whether somebody reaches a port of a pod in the policies' own namespace, which is called `home`.
fn reaches(policies: &[&Value], home: &str, pod: &Value, from: &Peer, port: u64) -> bool {
    let declared = |name: &str| {
        let entries = list(&pod["spec"], "containers").iter().flat_map(|container| list(container, "ports"));
        entries.into_iter().find(|entry| entry["name"] == name).and_then(|entry| entry["containerPort"].as_u64())
    };
    let from_matches = |one: &Value| {
        assert!(one.get("ipBlock").is_none(), "nobody has an address here");
        let namespace = match one.get("namespaceSelector") {
            Some(selector) => selects(selector, &from.namespace),
            None => from.namespace["kubernetes.io/metadata.name"] == home,
        };
        namespace && one.get("podSelector").is_none_or(|selector| selects(selector, &from.pod))
    };
    let port_matches = |one: &Value| {
        let wanted = one["port"].as_u64().or_else(|| declared(one["port"].as_str()?));
        one.get("protocol").is_none_or(|protocol| protocol == "TCP") && wanted == Some(port)
    };
    let mut selected = policies.iter().filter(|policy| {
        selects(&policy["spec"]["podSelector"], &pod["metadata"]["labels"])
            && list(&policy["spec"], "policyTypes").contains(&json!("Ingress"))
    });
    let mut any = false;
    let allowed = selected.any(|policy| {
        any = true;
        list(&policy["spec"], "ingress").iter().any(|rule| {
            let (from, ports) = (list(rule, "from"), list(rule, "ports"));
            (from.is_empty() || from.iter().any(from_matches)) && (ports.is_empty() || ports.iter().any(port_matches))
        })
    });
    allowed || !any
}

/// As the platform has them: TCP 8080 for the operator, and for the dashboard.
fn of_the_platform() -> [Value; 2] {
    let policy = |from: Value| {
        json!({ "spec": { "podSelector": { "matchLabels": { "app.kubernetes.io/managed-by": "perses-operator" } }, "policyTypes": ["Ingress"],
            "ingress": [{ "from": [from], "ports": [{ "protocol": "TCP", "port": 8080 }] }] } })
    };
    [
        policy(json!({
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "openshift-cluster-observability-operator" } },
            "podSelector": { "matchLabels": { "app.kubernetes.io/name": "perses-operator" } } })),
        policy(json!({
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "redhat-ods-applications" } },
            "podSelector": { "matchLabels": { "app": "rhods-dashboard" } } })),
    ]
}

#[test]
fn ports_are_open_to_those_who_need_them() {
    let golden = servers::checkout().join("tests/golden/injection/01-the-operator-s-statefulset-pod-as-opensh.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(golden).unwrap()).unwrap();
    let (before, injected) = (&documents[1], &documents[3]);
    let home = "redhat-ods-monitoring";
    let none = json!({});
    let operator = peer(
        "openshift-cluster-observability-operator",
        &none,
        &json!({ "app.kubernetes.io/name": "perses-operator" }),
    );
    let dashboard = peer("redhat-ods-applications", &none, &json!({ "app": "rhods-dashboard" }));
    let router = peer("openshift-ingress", &json!({ "network.openshift.io/policy-group": "ingress" }), &none);
    let monitoring = peer("openshift-user-workload-monitoring", &none, &none);
    let [stranger, neighbour] = ["team-a", home].map(|namespace| peer(namespace, &none, &none));

    let theirs = of_the_platform();
    let theirs: Vec<&Value> = theirs.iter().collect();
    let objects = build("overlays/openshift-ai");
    let ours = of_kind(&objects, "NetworkPolicy").find(|policy| name(policy) == "perses-sidecar").unwrap();
    assert_eq!(ours["metadata"]["namespace"], home);
    let both: Vec<&Value> = theirs.iter().copied().chain([ours]).collect();

    for (who, said, port, without, with) in [
        (&operator, "operator", 8080, true, true),
        (&dashboard, "dashboard", 8080, true, true),
        (&router, "router", 8080, false, false),
        (&stranger, "stranger", 8080, false, false),
        (&neighbour, "neighbour", 8080, false, false),
        (&router, "router", 8443, false, true),
        (&operator, "operator", 8443, false, false),
        (&stranger, "stranger", 8443, false, false),
        (&monitoring, "monitoring", 9081, false, true),
        (&stranger, "stranger", 9081, false, false),
        // Perses itself, which listens on the loopback besides.
        (&operator, "operator", 9080, false, false),
        (&router, "router", 9080, false, false),
        (&monitoring, "monitoring", 9080, false, false),
    ] {
        // The labels by which policies find the pod are those that it had.
        for pod in [before, injected] {
            assert_eq!(reaches(&theirs, home, pod, who, port), without, "{said} to {port}, without ours");
            assert_eq!(reaches(&both, home, pod, who, port), with, "{said} to {port}, with ours");
        }
    }
    assert!(reaches(&[], home, injected, &stranger, 8080), "without any policy all is open");
}
