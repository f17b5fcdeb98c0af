//! What holds for everything that kustomize builds, without a cluster.

use std::collections::BTreeSet;

use perses_sidecar::access::Resource;
use perses_sidecar::dashboards::Watched;
use serde_json::{Value, json};

use crate::{OVERLAYS, build, kind, name, of_kind, said, word};

fn list<'v>(value: &'v Value, key: &str) -> Vec<&'v str> {
    value[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn overlays_are_whole() {
    for overlay in OVERLAYS {
        let objects = build(overlay);
        let mut seen = BTreeSet::new();
        for object in &objects {
            assert!(seen.insert(said(object)), "{overlay}: {} twice", said(object));
        }
        let there = |kind: &str, name: &str| {
            seen.iter().any(|said| said.starts_with(kind) && said.ends_with(&format!("/{name}")))
        };
        // Deleting an overlay deletes no namespace of others.
        let own: Vec<&str> = of_kind(&objects, "Namespace").map(name).collect();
        let stand_alone = overlay.starts_with("overlays/stand-alone");
        assert!(
            own.iter().all(|name| *name == "perses-sidecar-system" || stand_alone && *name == "perses"),
            "{overlay}: {own:?}"
        );
        for object in &objects {
            what_it_refers_to_is_there(overlay, object, &there);
            rights_are_small(overlay, object);
            if kind(object) == "Deployment" {
                pods_are_restricted(overlay, object, &objects);
            }
        }
    }
}

/// What somebody else makes: the cluster, cert-manager or service-ca, and people by docs/install.md.
const ELSEWHERE: [&str; 9] = [
    "perses-sidecar-webhook-tls",
    "perses-sidecar-tls",
    "perses-sidecar-keys",
    "perses-encryption-key",
    "perses-database",
    "perses-valkey",
    "kube-root-ca.crt",
    // Of base, which is applied first.
    "perses-sidecar",
    "perses-sidecar-workloads",
];

fn what_it_refers_to_is_there(overlay: &str, object: &Value, there: &dyn Fn(&str, &str) -> bool) {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    let pod = &object["spec"]["template"]["spec"];
    if let Some(account) = pod["serviceAccountName"].as_str() {
        wanted.push(("ServiceAccount", account));
    }
    let sources = |volume: &Value| -> Vec<Value> {
        volume.pointer("/projected/sources").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let volumes = pod["volumes"].as_array().cloned().unwrap_or_default();
    let all: Vec<Value> = volumes.iter().flat_map(sources).chain(volumes.iter().cloned()).collect();
    for volume in &all {
        for (kind, pointer) in [
            ("ConfigMap", "/configMap/name"),
            ("Secret", "/secret/secretName"),
            ("PersistentVolumeClaim", "/persistentVolumeClaim/claimName"),
        ] {
            wanted.extend(volume.pointer(pointer).and_then(Value::as_str).map(|name| (kind, name)));
        }
    }
    match kind(object) {
        "ClusterRoleBinding" => {
            wanted.push(("ClusterRole", word(object, "/roleRef/name")));
            wanted.push(("ServiceAccount", word(object, "/subjects/0/name")));
        }
        "Route" => wanted.push(("Service", word(object, "/spec/to/name"))),
        "Certificate" => wanted.push(("Issuer", word(object, "/spec/issuerRef/name"))),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            wanted.push(("Service", word(object, "/webhooks/0/clientConfig/service/name")));
        }
        "ServiceAccount" => {
            for (key, value) in object["metadata"]["annotations"].as_object().into_iter().flatten() {
                if key.starts_with("serviceaccounts.openshift.io/oauth-redirectreference.") {
                    let reference: Value = serde_json::from_str(value.as_str().unwrap()).unwrap();
                    assert_eq!(reference["kind"], "OAuthRedirectReference");
                    assert_eq!(reference["reference"], json!({ "kind": "Route", "name": "perses" }));
                    wanted.push(("Route", "perses"));
                    // The path of the address with the same name; without it codes may be sent anywhere on the host.
                    let address = key.replace("oauth-redirectreference", "oauth-redirecturi");
                    let path = &object["metadata"]["annotations"][address];
                    assert_eq!(path, "/-/callback", "{overlay}: {}", said(object));
                }
            }
        }
        _ => {}
    }
    for (kind, name) in wanted {
        assert!(there(kind, name) || ELSEWHERE.contains(&name), "{overlay}: {} refers to {kind} {name}", said(object));
    }
}

fn rights_are_small(overlay: &str, object: &Value) {
    if kind(object) == "ClusterRoleBinding" {
        let role = word(object, "/roleRef/name");
        assert!(role.starts_with("perses-sidecar"), "{overlay}: {role} is bound");
        for subject in object["subjects"].as_array().unwrap() {
            assert!(subject["kind"] == "ServiceAccount" && subject["name"] != "default", "{overlay}: {subject}");
        }
    }
    for rule in object["rules"].as_array().into_iter().flatten().filter(|_| kind(object).ends_with("Role")) {
        for key in ["apiGroups", "resources", "verbs"] {
            assert!(!list(rule, key).iter().any(|word| word.contains('*')), "{overlay}: {}: {rule}", said(object));
        }
        let secret = ["secrets", "pods", "serviceaccounts", "nodes", "configmaps"];
        assert!(
            !list(rule, "resources").iter().any(|word| secret.contains(word)),
            "{overlay}: {}: {rule}",
            said(object)
        );
    }
}

/// What a cluster's linters ask of a workload.
fn pods_are_restricted(overlay: &str, object: &Value, objects: &[Value]) {
    let said = format!("{overlay}: {}", said(object));
    let template = &object["spec"]["template"];
    let pod = &template["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{said}");
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{said}");
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod.get(key).is_none(), "{said}: {key}");
    }
    for container in pod["containers"].as_array().unwrap() {
        let said = format!("{said}: {}", container["name"]);
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{said}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{said}");
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{said}");
        for key in ["requests", "limits"] {
            for what in ["cpu", "memory"] {
                assert!(container["resources"][key][what].is_string(), "{said}: {key} {what}");
            }
        }
        assert!(container.get("readinessProbe").is_some(), "{said}");
        let image = word(container, "/image");
        assert!(image.contains(':') && !image.ends_with(":latest"), "{said}: {image}");
        let declared: Vec<&Value> = container["ports"].as_array().into_iter().flatten().collect();
        assert!(declared.iter().all(|port| port["containerPort"].as_u64().unwrap() >= 1024), "{said}");
        for probe in ["livenessProbe", "readinessProbe"] {
            if let Some(port) = container.pointer(&format!("/{probe}/httpGet/port")).filter(|port| port.is_string()) {
                assert!(declared.iter().any(|entry| entry["name"] == *port), "{said}: {probe} asks {port}");
            }
        }
    }
    let labels = template["metadata"]["labels"].as_object().unwrap();
    let selects = |selector: &Value| {
        let wanted = selector.as_object();
        wanted.is_some_and(|wanted| {
            !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
        })
    };
    assert!(
        of_kind(objects, "NetworkPolicy").any(|policy| selects(&policy["spec"]["podSelector"]["matchLabels"])),
        "{said}"
    );
    let ports: Vec<&Value> = pod["containers"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|c| c["ports"].as_array().into_iter().flatten())
        .collect();
    let mut services = 0;
    for service in of_kind(objects, "Service").filter(|service| selects(&service["spec"]["selector"])) {
        services += 1;
        for port in service["spec"]["ports"].as_array().unwrap() {
            let found = ports.iter().any(|entry| entry["name"] == port["targetPort"]);
            assert!(found, "{said}: {} leads to {}", name(service), port["targetPort"]);
        }
    }
    assert!(services > 0, "{said}: no Service");
    let disrupted =
        of_kind(objects, "PodDisruptionBudget").any(|budget| selects(&budget["spec"]["selector"]["matchLabels"]));
    assert_eq!(object["spec"]["replicas"].as_u64().unwrap() > 1, disrupted, "{said}");
}

/// The namespace of a tenant stands in one place and is taken over everywhere.
#[test]
fn a_tenant_s_namespace_is_written_once() {
    let objects = build("overlays/openshift-ai");
    let tenant = "redhat-ods-monitoring";
    for (kind, names) in [
        (
            "ClusterRoleBinding",
            &["perses-sidecar:redhat-ods-monitoring", "perses-sidecar-openshift:redhat-ods-monitoring"][..],
        ),
        ("ServiceAccount", &["perses-sidecar"]),
        ("Service", &["perses-sidecar"]),
        ("Route", &["perses"]),
        ("ServiceMonitor", &["perses-sidecar"]),
        ("PrometheusRule", &["perses-sidecar"]),
        ("NetworkPolicy", &["perses-sidecar"]),
        ("ConfigMap", &["perses-sidecar-trusted-ca"]),
    ] {
        for wanted in names {
            let found: Vec<&Value> = of_kind(&objects, kind).filter(|object| name(object) == *wanted).collect();
            assert_eq!(found.len(), 1, "{kind} {wanted}");
            let place = if kind == "ClusterRoleBinding" { "/subjects/0/namespace" } else { "/metadata/namespace" };
            assert_eq!(word(found[0], place), tenant, "{kind} {wanted}");
        }
    }
    let text = serde_json::to_string(&objects).unwrap();
    assert!(
        !text.contains(":perses\"") && !text.contains("\"namespace\":\"perses\""),
        "the component's own name is left somewhere"
    );
    // A port that policies of OpenShift AI guard is not opened further.
    let policy = of_kind(&objects, "NetworkPolicy").find(|policy| name(policy) == "perses-sidecar").unwrap();
    let ports: Vec<&Value> = policy["spec"]["ingress"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["ports"].as_array().unwrap())
        .map(|port| &port["port"])
        .collect();
    assert_eq!(ports, [&json!(8443), &json!(9081)]);
}

/// The sidecar's role names the kinds that the product knows, and the people's roles the resources that it reviews.
#[test]
fn roles_name_what_the_product_asks_for() {
    let objects = build("roles");
    let role = |wanted: &str| of_kind(&objects, "ClusterRole").find(|role| name(role) == wanted).unwrap();
    let mut listed = BTreeSet::new();
    for rule in role("perses-sidecar-workloads")["rules"].as_array().unwrap() {
        assert_eq!(list(rule, "verbs"), ["list", "watch"]);
        for group in list(rule, "apiGroups") {
            listed.extend(list(rule, "resources").iter().map(|resource| format!("{resource}.{group}")));
        }
    }
    let known = Watched::all().map(|watched| format!("{}.{}", watched.plural(), watched.group())).collect();
    assert_eq!(listed, known);
    for (name, verbs) in
        [("perses-sidecar-view", &["get"][..]), ("perses-sidecar-edit", &["get", "create", "patch", "delete"])]
    {
        let rules = role(name)["rules"].as_array().unwrap();
        assert_eq!(rules.len(), 1, "{name}");
        assert_eq!(list(&rules[0], "verbs"), verbs, "{name}");
        let reviewed = [Resource::Dashboards, Resource::Datasources].map(Resource::group_and_resource);
        assert_eq!(list(&rules[0], "apiGroups"), [reviewed[0].0], "{name}");
        assert_eq!(list(&rules[0], "resources"), reviewed.map(|(_, resource)| resource), "{name}");
    }
    for role in ["view", "edit", "admin"] {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}");
        let count = objects.iter().filter(|object| object["metadata"]["labels"][&label] == "true").count();
        assert_eq!(count, 1, "{role}");
    }
}
