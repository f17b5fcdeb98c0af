//! The container that is added, its volumes, and the configuration that travels with it.

use serde_json::{Map, Value, json};

use super::asked::{Mode, PREFIX, Wishes};
use super::ports::Ports;
use super::profile::Profile;
use super::quantity::Quantity;
use super::{ADDRESSES_VARIABLE, PROFILE_VARIABLE, Refused, SIDECAR, refused};

const TOKENS: &str = "/var/run/secrets/perses-sidecar";
const FILES: &str = "/etc/perses-sidecar";
const RUN: &str = "/run/perses-sidecar";
/// Other containers of the pod share the loopback, but no file system.
const CONTROL: &str = "unix:/run/perses-sidecar/control.sock";
/// 0440: the group of the pod, which on OpenShift is 0, reads them.
const MODE: u32 = 0o440;

/// What the sidecar must know of the Perses that it stands before.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) probes: Map<String, Value>,
    pub(super) api_prefix: Option<String>,
    /// The pair that Perses served with, and the mounts in which it lies.
    pub(super) pair: Option<(String, String, Vec<Value>)>,
    /// `tls.custom`, taken over from flags of Perses.
    pub(super) tls: Option<Value>,
    /// Entries of `ports` that move here.
    pub(super) ports: Vec<Value>,
}

/// Where a volume with the pair that Perses served with is mounted.
pub(super) fn pair_place(index: usize) -> String {
    format!("{FILES}/pair/{index}")
}

/// The name of a volume of ours.
fn volume_name(word: &str) -> String {
    format!("{}{word}", super::VOLUMES)
}

fn mount(word: &str, path: String) -> Value {
    json!({ "name": volume_name(word), "mountPath": path, "readOnly": true })
}

/// The section of a name, made when it is missing.
fn section<'c>(config: &'c mut Map<String, Value>, name: &str) -> &'c mut Map<String, Value> {
    let entry = config.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    match entry {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// The sidecar's own file, as JSON, which is YAML. Every value is a text, as the reader of the file takes it.
pub(super) fn configuration(
    profile: &Profile,
    wishes: &Wishes,
    namespace: &str,
    ports: &Ports,
    plan: &Plan,
) -> Map<String, Value> {
    let mut config = profile.sidecar.clone();
    let everywhere = |port: u16| json!(format!("[::]:{port}"));
    let listen = section(&mut config, "listen");
    listen.insert("gateway".to_owned(), everywhere(ports.public));
    listen.entry("control").or_insert_with(|| json!(CONTROL));
    listen.insert("gateway_tls".to_owned(), json!(plan.pair.is_some().to_string()));
    listen.insert("admin".to_owned(), everywhere(ports.health));
    match ports.https {
        Some(port) => drop(listen.insert("https".to_owned(), everywhere(port))),
        None => drop(listen.remove("https")),
    }
    let perses = section(&mut config, "perses");
    perses.insert("url".to_owned(), json!(format!("http://127.0.0.1:{}", ports.upstream)));
    if let Some(prefix) = &plan.api_prefix {
        perses.entry("api_prefix").or_insert_with(|| json!(prefix));
    }
    if !plan.probes.is_empty() {
        perses.insert("probes".to_owned(), Value::Object(plan.probes.clone()));
    }
    let pair = match &plan.pair {
        Some((certificate, key, _)) => Some((certificate.clone(), key.clone())),
        None => ports.https.map(|_| (format!("{FILES}/tls/tls.crt"), format!("{FILES}/tls/tls.key"))),
    };
    if let Some((certificate, key)) = pair {
        let tls = section(&mut config, "tls");
        tls.insert("certificate_file".to_owned(), json!(certificate));
        tls.insert("key_file".to_owned(), json!(key));
        if let Some(custom) = &plan.tls
            && !tls.contains_key("profile")
        {
            tls.insert("profile".to_owned(), json!("Custom"));
            tls.insert("custom".to_owned(), custom.clone());
        }
    } else {
        config.remove("tls");
    }
    let cluster = section(&mut config, "cluster");
    cluster.insert("ca_file".to_owned(), json!(format!("{TOKENS}/ca.crt")));
    cluster.insert("token_file".to_owned(), json!(format!("{TOKENS}/token")));
    if let Some(level) = &wishes.log_level {
        section(&mut config, "telemetry").insert("log_level".to_owned(), json!(level));
    }
    // Endpoints learn of the end later than we do.
    section(&mut config, "limits").entry("linger").or_insert_with(|| json!("5s"));
    if let Some(Value::String(url)) = section(&mut config, "login").get_mut("external_url") {
        *url = url.replace("{namespace}", namespace);
    }
    config.retain(|name, value| name != "login" || value.as_object().is_some_and(|map| !map.is_empty()));
    config
}

fn resources(profile: &Profile, wishes: &Wishes) -> Result<Value, Refused> {
    let r = &profile.resources;
    let of =
        |at: usize, default: &Quantity| -> Quantity { wishes.resources[at].clone().unwrap_or_else(|| default.clone()) };
    let mut pairs = [
        ("cpu", of(0, &r.cpu_request), of(1, &r.cpu_limit), 0),
        ("memory", of(2, &r.memory_request), of(3, &r.memory_limit), 2),
    ];
    for (word, request, limit, at) in &mut pairs {
        if *request > *limit {
            // What was asked for counts; what was not follows it.
            match (&wishes.resources[*at], &wishes.resources[*at + 1]) {
                (Some(_), None) => *limit = request.clone(),
                (None, Some(_)) => *request = limit.clone(),
                _ => {
                    return refused(format!(
                        "the annotation {PREFIX}{word}-request ({}) is above {PREFIX}{word}-limit ({})",
                        request.as_str(),
                        limit.as_str()
                    ));
                }
            }
        }
    }
    let [(_, cpu_request, cpu_limit, _), (_, memory_request, memory_limit, _)] = &pairs;
    Ok(json!({
        "requests": { "cpu": cpu_request.as_str(), "memory": memory_request.as_str() },
        "limits": { "cpu": cpu_limit.as_str(), "memory": memory_limit.as_str() },
    }))
}

fn probe(path: &str, port: u16, failures: u32, period: u32) -> Value {
    json!({
        "httpGet": { "path": path, "port": port, "scheme": "HTTP" },
        "periodSeconds": period, "timeoutSeconds": 5, "successThreshold": 1, "failureThreshold": failures,
    })
}

/// The container. What the API server would fill in is written out, so that it looks the same afterwards.
pub(super) fn container(
    profile: &Profile,
    wishes: &Wishes,
    ports: &Ports,
    plan: &Plan,
    config: &Map<String, Value>,
) -> Result<Value, Refused> {
    // Kubernetes would fill in variables: $$ is a $.
    let text = Value::Object(config.clone()).to_string().replace('$', "$$");
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": path } } });
    let mut entries = plan.ports.clone();
    let has = |entries: &[Value], port: u16| {
        entries.iter().any(|entry| entry.get("containerPort").and_then(Value::as_u64) == Some(u64::from(port)))
    };
    let ours = [
        ("sidecar-public", Some(ports.public)),
        ("sidecar-https", ports.https),
        ("sidecar-health", Some(ports.health)),
    ];
    for (name, port) in ours {
        if let Some(port) = port.filter(|port| !has(&entries, *port)) {
            entries.push(json!({ "name": name, "containerPort": port, "protocol": "TCP" }));
        }
    }
    let mut mounts = vec![
        json!({ "name": volume_name("run"), "mountPath": RUN }),
        mount("config", format!("{FILES}/config")),
        mount("keys", format!("{FILES}/keys")),
        mount("token", TOKENS.to_owned()),
    ];
    if needs_pair(ports, plan) {
        mounts.push(mount("tls", format!("{FILES}/tls")));
    }
    for index in 0..profile.ca_bundles.len() {
        mounts.push(mount(&format!("ca-{index}"), format!("{FILES}/ca/{index}")));
    }
    mounts.extend(plan.pair.iter().flat_map(|(_, _, mounts)| mounts.clone()));
    let mut container = json!({
        "name": SIDECAR,
        "image": profile.image,
        "imagePullPolicy": profile.pull_policy,
        "args": ["run"],
        "ports": entries,
        "env": [
            { "name": PROFILE_VARIABLE, "value": text },
            field(ADDRESSES_VARIABLE, "status.podIPs"),
            { "name": "PERSES_SIDECAR_CONTROL", "value": config["listen"]["control"] },
        ],
        "resources": resources(profile, wishes)?,
        "volumeMounts": mounts,
        "livenessProbe": probe("/healthz", ports.health, 3, 10),
        "readinessProbe": probe("/readyz", ports.health, 3, 5),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    });
    if wishes.mode == Mode::Native {
        container["restartPolicy"] = json!("Always");
        // Perses waits for this one, so it asks for nothing of Perses.
        container["startupProbe"] = probe("/healthz", ports.health, 30, 1);
    }
    Ok(container)
}

/// Whether the HTTPS port needs a pair of its own.
pub(super) fn needs_pair(ports: &Ports, plan: &Plan) -> bool {
    ports.https.is_some() && plan.pair.is_none()
}

/// The volumes of the container.
pub(super) fn volumes(profile: &Profile, wishes: &Wishes, ports: &Ports, plan: &Plan) -> Vec<Value> {
    let config = wishes.config.as_ref().unwrap_or(&profile.config_map);
    let mut volumes = vec![
        json!({ "name": volume_name("run"), "emptyDir": {} }),
        json!({ "name": volume_name("config"), "configMap": { "name": config, "optional": true, "defaultMode": MODE } }),
        json!({ "name": volume_name("keys"), "secret": { "secretName": profile.keys_secret, "optional": true, "defaultMode": MODE } }),
        json!({ "name": volume_name("token"), "projected": { "defaultMode": MODE, "sources": [
            { "serviceAccountToken": { "path": "token", "expirationSeconds": 3600 } },
            { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        ] } }),
    ];
    if needs_pair(ports, plan) {
        let secret = wishes.tls_secret.as_ref().unwrap_or(&profile.tls_secret);
        volumes.push(json!({ "name": volume_name("tls"), "secret": { "secretName": secret, "optional": false, "defaultMode": MODE } }));
    }
    for (index, bundle) in profile.ca_bundles.iter().enumerate() {
        volumes.push(json!({ "name": volume_name(&format!("ca-{index}")),
            "configMap": { "name": bundle, "optional": true, "defaultMode": MODE } }));
    }
    volumes
}

/// What other hands may add to our container, and what they may not: the rest of what stands there stays.
const NEVER: [&str; 12] = [
    "command",
    "envFrom",
    "lifecycle",
    "restartPolicy",
    "restartPolicyRules",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "tty",
    "volumeDevices",
    "workingDir",
    "env",
];

/// The container as it must be, with what admission gave to the one that is there: user ids, the usual token, and fields
/// that we do not know.
pub(super) fn over(existing: Value, wanted: Value) -> Value {
    let (Value::Object(mut merged), Value::Object(wanted)) = (existing, wanted) else { return Value::Null };
    merged.retain(|key, _| !NEVER.contains(&key.as_str()));
    for (key, mut value) in wanted {
        match (key.as_str(), merged.get(&key), &mut value) {
            ("securityContext", Some(Value::Object(before)), Value::Object(context)) => {
                for id in ["runAsUser", "runAsGroup", "seLinuxOptions"] {
                    if let Some(given) = before.get(id) {
                        context.insert(id.to_owned(), given.clone());
                    }
                }
            }
            ("volumeMounts", Some(Value::Array(before)), Value::Array(mounts)) => {
                let path = "/var/run/secrets/kubernetes.io/serviceaccount";
                mounts.extend(before.iter().filter(|mount| mount["mountPath"] == path).cloned());
            }
            _ => {}
        }
        merged.insert(key, value);
    }
    Value::Object(merged)
}
