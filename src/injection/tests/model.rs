//! Who reaches what in a pod, read from the finished pod alone: flags as Go reads them, ports and probes as kubelet and
//! Services resolve them. Written without the code that it judges.

use std::collections::BTreeMap;

use serde_json::Value;

fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn named<'v>(containers: &'v [Value], name: &str) -> Vec<&'v Value> {
    containers.iter().filter(|container| container["name"] == name).collect()
}

/// Go's `flag` package over the flags of Perses: the last value of each, up to the first word that is none.
fn flags(words: &[String]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut at = 0;
    while at < words.len() {
        let word = &words[at];
        at += 1;
        if word.len() < 2 || !word.starts_with('-') || word == "--" {
            break;
        }
        let bare = word.trim_start_matches('-');
        if word.len() - bare.len() > 2 || bare.is_empty() || bare.starts_with('=') {
            break;
        }
        match bare.split_once('=') {
            Some((name, value)) => drop(found.insert(name.to_owned(), value.to_owned())),
            None if ["web.hide-port", "log.method-trace", "pprof", "version"].contains(&bare) => {
                found.insert(bare.to_owned(), "true".to_owned());
            }
            None if at < words.len() => {
                found.insert(bare.to_owned(), words[at].clone());
                at += 1;
            }
            None => break,
        }
    }
    found
}

fn words(container: &Value, key: &str) -> Vec<String> {
    list(container, &format!("/{key}")).iter().map(|word| word.as_str().unwrap_or_default().to_owned()).collect()
}

fn port(value: &Value, container: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).or_else(|| {
        list(container, "/ports")
            .iter()
            .find(|entry| entry["name"] == *value)
            .and_then(|entry| entry["containerPort"].as_u64())
    })
}

/// The port on which the unprotected Perses was reached.
fn before(pod: &Value, name: &str) -> u64 {
    let containers = list(pod, "/spec/containers");
    let Some(container) = named(containers, name).first().copied() else { return 0 };
    let all: Vec<String> = words(container, "command").into_iter().skip(1).chain(words(container, "args")).collect();
    let flags = flags(&all);
    let address = flags.get("web.listen-address").map_or(":8080", String::as_str);
    address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0)
}

/// Whether Perses is reached through the sidecar alone, on the port on which it was reached before. Of a pod that came with a
/// sidecar of whoever made it, nothing tells where that was.
pub(super) fn perses_is_behind_the_sidecar(pod: Option<&Value>, out: &Value, name: &str) -> Result<(), String> {
    let containers = list(out, "/spec/containers");
    let init = list(out, "/spec/initContainers");
    let all: Vec<Value> = containers.iter().chain(init).cloned().collect();
    let [perses] = named(containers, name)[..] else { return Err("not one Perses".to_owned()) };
    let [sidecar] = named(&all, "perses-sidecar")[..] else { return Err("not one sidecar".to_owned()) };
    // Perses listens on the loopback, in plain text, on a port of its own.
    let line: Vec<String> = words(perses, "command").into_iter().skip(1).chain(words(perses, "args")).collect();
    let flags = flags(&line);
    let address = flags.get("web.listen-address").ok_or("Perses listens on its default")?;
    let upstream: u64 = address
        .strip_prefix("127.0.0.1:")
        .and_then(|port| port.parse().ok())
        .ok_or(format!("Perses listens on {address}"))?;
    if let Some(flag) = flags.keys().find(|flag| flag.starts_with("web.tls-")) {
        return Err(format!("Perses has --{flag}"));
    }
    let listens = |word: &&String| {
        let bare = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or_default();
        bare == "web.listen-address" || bare.starts_with("web.listen-address=")
    };
    if line.iter().filter(listens).count() != 1 {
        return Err("--web.listen-address stands more than once".to_owned());
    }
    let valued = ["-config", "--config", "-log.level", "--log.level", "--web.telemetry-path"];
    let hidden =
        |(at, word): (usize, &String)| word.starts_with("$(") && (at == 0 || !valued.contains(&line[at - 1].as_str()));
    if line.iter().enumerate().any(hidden) {
        return Err("a variable may become a flag".to_owned());
    }
    if out.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) {
        return Err("the loopback is the node's".to_owned());
    }
    if !list(perses, "/ports").is_empty() {
        return Err("Perses declares ports".to_owned());
    }
    // The sidecar has the public port, and every name that led to it.
    let env =
        |name: &str| list(sidecar, "/env").iter().find(|entry| entry["name"] == name).cloned().unwrap_or_default();
    let text = env("PERSES_SIDECAR_PROFILE")["value"].as_str().unwrap_or_default().replace("$$", "$");
    let config: Value = serde_json::from_str(&text).map_err(|error| format!("profile: {error}"))?;
    let of = |pointer: &str| -> Option<u64> { config.pointer(pointer)?.as_str()?.rsplit(':').next()?.parse().ok() };
    let (gateway, admin) = (of("/listen/gateway"), of("/listen/admin"));
    if let Some(public) = pod.map(|pod| before(pod, name)).filter(|public| gateway != Some(*public)) {
        return Err(format!("the sidecar listens on {gateway:?}, Perses on {public} before"));
    }
    if of("/perses/url") != Some(upstream) {
        return Err("the sidecar asks another port than Perses'".to_owned());
    }
    let mut ports = vec![gateway, admin, Some(upstream)];
    ports.extend(of("/listen/https").map(Some));
    for (at, port) in ports.iter().enumerate() {
        if ports[at + 1..].contains(port) {
            return Err(format!("two listen on {port:?}"));
        }
        let taken = containers.iter().filter(|other| other["name"] != "perses-sidecar" && other["name"] != name);
        if *port != gateway
            && taken.flat_map(|other| list(other, "/ports")).any(|entry| entry["containerPort"].as_u64() == *port)
        {
            return Err(format!("{port:?} is another container's"));
        }
    }
    let declared: Vec<Option<u64>> =
        list(sidecar, "/ports").iter().map(|entry| entry["containerPort"].as_u64()).collect();
    if !declared.contains(&gateway) || !declared.contains(&admin) {
        return Err(format!("the sidecar declares {declared:?}"));
    }
    if sidecar.get("command").is_some()
        || sidecar["args"] != serde_json::json!(["run"])
        || sidecar.get("envFrom").is_some()
    {
        return Err("the sidecar runs something else".to_owned());
    }
    // No volume of whoever made the pod lies over the sidecar's own files.
    for mount in list(sidecar, "/volumeMounts") {
        let path = mount["mountPath"].as_str().unwrap_or_default();
        let own =
            ["/etc/perses-sidecar/", "/run/perses-sidecar", "/var/run/secrets/"].iter().any(|at| path.starts_with(at));
        let ours = mount["name"].as_str().is_some_and(|name| name.starts_with("perses-sidecar-"));
        let account = path == "/var/run/secrets/kubernetes.io/serviceaccount";
        if !own || path.contains("..") || !(ours || account || path.starts_with("/etc/perses-sidecar/pair/")) {
            return Err(format!("{mount} is mounted into the sidecar"));
        }
        if !account && mount.get("mountPropagation").is_some() {
            return Err(format!("{mount} is shared with the node"));
        }
    }
    // No probe asks Perses where it no longer is.
    for place in ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"] {
        let Some(handler) = perses.pointer(place) else { continue };
        for kind in ["httpGet", "tcpSocket"] {
            let Some(action) = handler.get(kind) else { continue };
            let asked = port(&action["port"], perses).or_else(|| port(&action["port"], sidecar));
            if asked == gateway || asked == Some(upstream) {
                return Err(format!("{place} asks port {asked:?}"));
            }
            let path = action["path"].as_str().unwrap_or_default();
            if asked == admin && !path.starts_with("/-/upstream/") {
                return Err(format!("{place} asks {path} of the sidecar"));
            }
        }
    }
    // All of Pod Security's `restricted`.
    let context = &sidecar["securityContext"];
    let restricted = context["allowPrivilegeEscalation"] == false
        && context["privileged"] == false
        && context["readOnlyRootFilesystem"] == true
        && context["runAsNonRoot"] == true
        && context["capabilities"]["drop"] == serde_json::json!(["ALL"])
        && context["seccompProfile"]["type"] == "RuntimeDefault";
    if !restricted {
        return Err(format!("the sidecar runs as {context}"));
    }
    Ok(())
}
