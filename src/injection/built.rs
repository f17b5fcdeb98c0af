//! The pod with the sidecar in it.

use serde_json::{Map, Value, json};

use super::asked::{self, Mode, PREFIX, Wishes};
use super::ports::Ports;
use super::profile::{Profile, Profiles, repository};
use super::restored::{self, Existing, LISTS, container_mut};
use super::sidecar::{self, Plan};
use super::{Facts, Refused, SIDECAR, VOLUMES, arguments, handlers, patch, refused};

/// A pod that is protected.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// The whole pod.
    pub pod: Value,
    /// What turns the pod that was sent into it (RFC 6902).
    pub patch: Vec<Value>,
    /// What its owner should know.
    pub warnings: Vec<String>,
    /// The name of the Perses container.
    pub container: String,
}

/// What upstream's image runs by itself.
const KNOWN_IMAGE: (&str, [&str; 2]) =
    ("docker.io/persesdev/perses", ["--config=/etc/perses/config.yaml", "--log.level=error"]);

pub(super) fn build(
    original: &Value,
    facts: &Facts<'_>,
    profile: &Profile,
    profiles: &Profiles,
) -> Result<Injected, Refused> {
    let mut pod = original.clone();
    if !pod.get("spec").is_some_and(Value::is_object) {
        return refused("the pod has no spec");
    }
    let wishes = Wishes::read(&pod)?;
    can_be_protected(&pod, &wishes, facts)?;
    let existing = restored::take_out(&mut pod, &wishes, profiles)?;
    let name = find(&pod, &wishes)?;
    let mut warnings = warn(&pod, &name);
    let missing = || Refused("the Perses container went missing".to_owned());
    let container = container_mut(&mut pod, "containers", &name).ok_or_else(missing)?;

    let image_arguments = match arguments::leaves_it_to_the_image(container)? {
        false => None,
        true => Some(of_image(container, profile)?),
    };
    let taken = arguments::read(container, image_arguments.as_deref())?;
    let (public, open) = arguments::listen_port(taken.listen.as_deref())?;
    if !open {
        warnings.push(format!("Perses listened on the loopback alone; port {public} is open through the sidecar now"));
    }
    let ports = Ports::choose(&pod, public, &wishes, profile)?;
    let container = container_mut(&mut pod, "containers", &name).ok_or_else(missing)?;

    let mut plan = Plan { pair: pair(container, &taken, &mut warnings)?, ..Plan::default() };
    if plan.pair.is_some() && wishes.tls_secret.is_some() {
        return refused(format!(
            "the annotation {PREFIX}tls-secret cannot be used: Perses' own certificate serves both ports"
        ));
    }
    plan.tls = tls_of(&taken, &mut warnings);
    plan.api_prefix = api_prefix(container, &taken);
    let handlers = handlers::move_all(container, public, ports.health, &mut warnings)?;
    plan.probes = handlers.probes;
    arguments::move_to_loopback(container, ports.upstream, image_arguments.as_deref().unwrap_or_default())?;
    let mut before = Map::new();
    before.insert("flags".to_owned(), json!(taken.flags()));
    if let Some(image) = &image_arguments {
        before.insert("image_args".to_owned(), json!(image));
        before.insert("flags".to_owned(), json!([]));
    }
    if let Value::Object(map) = &mut *container {
        match map.remove("ports") {
            Some(Value::Array(entries)) => {
                before.insert("ports".to_owned(), json!(entries));
                plan.ports = entries;
            }
            Some(Value::Null) | None => {}
            Some(_) => return refused("ports of the Perses container must be a list"),
        }
    }
    if !handlers.before.is_empty() {
        before.insert("handlers".to_owned(), Value::Object(handlers.before));
    }
    if wishes.mode == Mode::Native {
        if container.pointer("/lifecycle/preStop").is_none_or(Value::is_null) {
            if !container.get("lifecycle").is_some_and(Value::is_object) {
                container["lifecycle"] = json!({});
            }
            container["lifecycle"]["preStop"] = restored::pause();
            before.insert("pause".to_owned(), json!(true));
        } else {
            warnings.push(
                "Perses has a preStop hook of its own; let it take some seconds, or requests are lost at the end"
                    .to_owned(),
            );
        }
    }

    let config = sidecar::configuration(profile, &wishes, facts.namespace, &ports, &plan);
    let wanted = sidecar::container(profile, &wishes, &ports, &plan, &config)?;
    let volumes = sidecar::volumes(profile, &wishes, &ports, &plan);
    place(&mut pod, wanted, &existing, wishes.mode, handlers.at_start.then_some(name.as_str()))?;
    place_volumes(&mut pod, volumes, &existing)?;
    pull_secrets(&mut pod, profile)?;
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "profile": profile.name,
        "hash": format!("{:016x}", fold(&Value::Object(config).to_string())),
        "container": name,
        "ports": { "public": ports.public, "upstream": ports.upstream, "health": ports.health, "https": ports.https },
        "before": before,
    });
    annotate(&mut pod, &status, &name)?;
    let patch = patch::between(original, &pod);
    Ok(Injected { pod, patch, warnings, container: name })
}

/// FNV-1a: tells two configurations apart, nothing more.
fn fold(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn can_be_protected(pod: &Value, wishes: &Wishes, facts: &Facts<'_>) -> Result<(), Refused> {
    let spec = &pod["spec"];
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        return refused("hostNetwork is true, so the loopback is the node's, where others reach Perses; take it away");
    }
    let node = spec.pointer("/nodeSelector/kubernetes.io~1os").and_then(Value::as_str);
    if spec.pointer("/os/name").and_then(Value::as_str) == Some("windows") || node == Some("windows") {
        return refused("the pod is for Windows, for which there is no sidecar");
    }
    match facts.minor {
        Some(minor) if wishes.mode == Mode::Native && minor < 29 => refused(format!(
            "the annotation {PREFIX}mode is native, which Kubernetes 1.{minor} does not know; use container"
        )),
        _ => Ok(()),
    }
}

fn names(pod: &Value) -> Vec<&str> {
    let list = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|container| container.get("name")?.as_str()).collect()
}

/// The container of Perses: as the annotation says, or the one that is recognised, or the only one.
fn find(pod: &Value, wishes: &Wishes) -> Result<String, Refused> {
    let names = names(pod);
    if let Some(one) = asked::early(pod).next() {
        return refused(format!(
            "the init container {} looks like Perses and goes on running, where it cannot be moved behind the sidecar; make it \
             one of spec.containers",
            one["name"]
        ));
    }
    if let Some(wanted) = &wishes.container {
        return match names.iter().filter(|name| **name == wanted).count() {
            1 => Ok(wanted.clone()),
            _ => refused(format!(
                "the annotation {PREFIX}container names {wanted:?}, but the containers are {}",
                names.join(", ")
            )),
        };
    }
    let list = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let recognised: Vec<&str> = list
        .filter(|container| asked::is_perses(container))
        .filter_map(|container| container.get("name")?.as_str())
        .collect();
    match (recognised.as_slice(), names.as_slice()) {
        ([one], _) | ([], [one]) => Ok((*one).to_owned()),
        ([], _) => refused(format!(
            "no container is recognised as Perses among {}; name it by the annotation {PREFIX}container",
            names.join(", ")
        )),
        (several, _) => refused(format!(
            "several containers look like Perses: {}; name the one by the annotation {PREFIX}container",
            several.join(", ")
        )),
    }
}

/// What an image runs by itself, which our arguments would replace.
fn of_image(container: &Value, profile: &Profile) -> Result<Vec<String>, Refused> {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let name = repository(image);
    if let Some(known) = profile.image_arguments.iter().find(|known| repository(&known.image) == name) {
        return Ok(known.arguments.clone());
    }
    if name == KNOWN_IMAGE.0 {
        return Ok(KNOWN_IMAGE.1.map(str::to_owned).to_vec());
    }
    refused(format!(
        "the Perses container gives neither command nor args, and what the image {image:?} runs by itself is not known; \
         write args, or add the image to injection.image_args of the profile {:?}",
        profile.name
    ))
}

fn warn(pod: &Value, name: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut say = |text: &str| warnings.push(text.to_owned());
    let spec = &pod["spec"];
    let account = spec.get("serviceAccountName").and_then(Value::as_str).unwrap_or_default();
    if matches!(account, "" | "default") {
        say(
            "the pod runs as the service account default; make it perses-sidecar, the account of manifests/components/tenant, \
             or bind the ClusterRole perses-sidecar to default",
        );
    }
    if spec.get("shareProcessNamespace") == Some(&Value::Bool(true)) {
        say("shareProcessNamespace is true: other containers of the pod can read the sidecar's memory and tokens");
    }
    let context = &spec["securityContext"];
    let set = |key: &str| context.get(key).and_then(Value::as_u64);
    if set("runAsGroup").is_some_and(|group| group != 0) && set("fsGroup").is_none() {
        say("runAsGroup is set without fsGroup: the sidecar cannot read its files; set fsGroup as well");
    }
    let list = spec["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    for other in list.iter().filter(|other| asked::is_perses(other) && other["name"] != name) {
        say(&format!("the container {} looks like Perses too, and stays as reachable as it was", other["name"]));
    }
    for container in list.iter().filter(|container| container["name"] == name) {
        let own = &container["securityContext"];
        if own["privileged"] == true {
            say("the Perses container is privileged");
        }
        if own["runAsNonRoot"] == false || context["runAsNonRoot"] == false {
            say("the pod allows Perses to run as root");
        }
    }
    if pod.pointer("/metadata/labels/app.kubernetes.io~1managed-by").and_then(Value::as_str) == Some("perses-operator")
    {
        say(
            "the Perses operator must send a token: set spec.client.kubernetesAuth.enable: true on the Perses resource",
        );
    }
    warnings
}

/// The certificate that Perses served with, and the mounts that hold it: at a place of ours, whatever the place was called
/// before, so that no volume of the pod lies over the sidecar's own files.
fn pair(
    container: &Value,
    taken: &arguments::Taken,
    warnings: &mut Vec<String>,
) -> Result<Option<(String, String, Vec<Value>)>, Refused> {
    let files = match (taken.tls("cert-file"), taken.tls("key-file")) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => [certificate, key],
        _ => return refused("Perses has one of --web.tls-cert-file and --web.tls-key-file; give both or none"),
    };
    let all = container.get("volumeMounts").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut mounts: Vec<(&str, Value)> = Vec::new();
    let mut inside = |file: &str| {
        let holds = |mount: &&Value| {
            let path = mount.get("mountPath").and_then(Value::as_str).unwrap_or_default().trim_end_matches('/');
            !path.is_empty() && file.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let deepest = |mount: &&Value| mount["mountPath"].as_str().map_or(0, str::len);
        let Some(mount) = all.iter().filter(holds).max_by_key(deepest) else {
            return refused(format!(
                "{file}, with which Perses serves TLS, lies in no volume that the sidecar could mount"
            ));
        };
        let path = mount["mountPath"].as_str().unwrap_or_default().trim_end_matches('/');
        let rest = &file[path.len()..];
        if rest.split('/').any(|segment| segment == "..") {
            return refused(format!("{file}, with which Perses serves TLS, leads out of its volume; name it directly"));
        }
        if mount.get("subPathExpr").is_some_and(|value| !value.is_null()) {
            return refused(format!(
                "{path}, where Perses' certificate lies, is mounted by subPathExpr, whose variables the sidecar does not have; \
                 use subPath"
            ));
        }
        let at = match mounts.iter().position(|(known, _)| *known == path) {
            Some(at) => at,
            None => {
                let mut own =
                    json!({ "name": mount["name"], "mountPath": sidecar::pair_place(mounts.len()), "readOnly": true });
                if let Some(below) = mount.get("subPath").filter(|below| !below.is_null()) {
                    warnings
                        .push(format!("the certificate in {path} is mounted by subPath, so a renewed one is not seen"));
                    own["subPath"] = below.clone();
                }
                mounts.push((path, own));
                mounts.len() - 1
            }
        };
        Ok(format!("{}{rest}", sidecar::pair_place(at)))
    };
    let (certificate, key) = (inside(files[0])?, inside(files[1])?);
    Ok(Some((certificate, key, mounts.into_iter().map(|(_, mount)| mount).collect())))
}

/// A cipher suite by Go's name, as our configuration calls it.
fn cipher(go: &str) -> Option<&'static str> {
    Some(match go {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => {
            "ECDHE-RSA-CHACHA20-POLY1305"
        }
        _ => return None,
    })
}

/// `tls.custom` from Perses' own flags: what is weaker than we speak is left out, with a warning.
fn tls_of(taken: &arguments::Taken, warnings: &mut Vec<String>) -> Option<Value> {
    let (version, suites) = (taken.tls("min-version"), taken.tls("cipher-suites"));
    for (word, _) in &taken.tls {
        if !["cert-file", "key-file", "min-version", "cipher-suites"].contains(&word.as_str()) {
            warnings.push(format!("--web.tls-{word} of Perses means nothing to the sidecar and is left out"));
        }
    }
    if version.is_none() && suites.is_none() {
        return None;
    }
    let least = match version {
        Some("1.3" | "TLS13" | "VersionTLS13") => "VersionTLS13",
        None | Some("1.2" | "TLS12" | "VersionTLS12") => "VersionTLS12",
        Some(other) => {
            warnings.push(format!("--web.tls-min-version={other} is not spoken; TLS 1.2 is the least"));
            "VersionTLS12"
        }
    };
    let mut custom = json!({ "min_tls_version": least });
    let given: Vec<&str> =
        suites.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let mut ciphers: Vec<&str> = given.iter().filter_map(|name| cipher(name)).collect();
    if !given.is_empty() && ciphers.is_empty() {
        warnings
            .push("none of --web.tls-cipher-suites is offered for TLS 1.2; all that are strong are offered".to_owned());
    } else if !ciphers.is_empty() {
        // Go does not let anybody choose those of TLS 1.3.
        ciphers.extend(["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]);
        custom["ciphers"] = json!(ciphers);
    }
    Some(custom)
}

/// Perses' api_prefix, as far as the pod shows it: a variable, or the paths under which it is asked.
fn api_prefix(container: &Value, taken: &arguments::Taken) -> Option<String> {
    let good = |prefix: &str| {
        prefix.strip_prefix('/').is_some_and(|rest| {
            let segment = |segment: &str| {
                !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            };
            rest.split('/').all(segment)
        })
    };
    let env = container.get("env").and_then(Value::as_array).into_iter().flatten();
    let variable = env
        .filter(|entry| entry["name"] == "PERSES_API_PREFIX")
        .filter_map(|entry| entry.get("value")?.as_str())
        .next_back();
    let paths = ["/readinessProbe", "/livenessProbe", "/startupProbe"]
        .into_iter()
        .filter_map(|place| container.pointer(place)?.pointer("/httpGet/path")?.as_str());
    let asked = taken.telemetry.as_deref().into_iter().chain(paths);
    let mut cut =
        asked.filter_map(|path| path.strip_suffix("/metrics").or_else(|| path.strip_suffix("/api/v1/health")));
    let found =
        variable.map(|prefix| prefix.trim_end_matches('/')).or_else(|| cut.find(|prefix| !prefix.is_empty()))?;
    good(found).then(|| found.to_owned())
}

/// A list of the pod's spec, made when it is missing.
fn list<'p>(pod: &'p mut Value, name: &str) -> Result<&'p mut Vec<Value>, Refused> {
    let entry = &mut pod["spec"][name];
    if entry.is_null() {
        *entry = json!([]);
    }
    entry.as_array_mut().ok_or_else(|| Refused(format!("spec.{name} must be a list")))
}

/// Puts the container where ours stood, or last; before Perses when kubelet asks it before it starts the next one.
fn place(pod: &mut Value, wanted: Value, existing: &Existing, mode: Mode, before: Option<&str>) -> Result<(), Refused> {
    let wanted_list = if mode == Mode::Native { LISTS[1] } else { LISTS[0] };
    let containers = list(pod, wanted_list)?;
    match &existing.container {
        Some((list, at, container)) if *list == wanted_list && *at <= containers.len() => {
            containers.insert(*at, sidecar::over(container.clone(), wanted));
        }
        _ => {
            let named = |container: &Value| container.get("name").and_then(Value::as_str) == before;
            let at = containers.iter().position(named).filter(|_| before.is_some()).unwrap_or(containers.len());
            containers.insert(at, wanted);
        }
    }
    Ok(())
}

fn place_volumes(pod: &mut Value, wanted: Vec<Value>, existing: &Existing) -> Result<(), Refused> {
    let volumes = list(pod, "volumes")?;
    let mut wanted: Vec<Option<Value>> = wanted.into_iter().map(Some).collect();
    for (at, old) in &existing.volumes {
        let same = |new: &&mut Option<Value>| new.as_ref().is_some_and(|new| new["name"] == old["name"]);
        if let Some(new) = wanted.iter_mut().find(same).and_then(Option::take) {
            volumes.insert((*at).min(volumes.len()), new);
        }
    }
    volumes.extend(wanted.into_iter().flatten());
    Ok(())
}

fn pull_secrets(pod: &mut Value, profile: &Profile) -> Result<(), Refused> {
    if profile.pull_secrets.is_empty() {
        return Ok(());
    }
    let secrets = list(pod, "imagePullSecrets")?;
    for name in &profile.pull_secrets {
        if !secrets.iter().any(|secret| secret["name"] == name.as_str()) {
            secrets.push(json!({ "name": name }));
        }
    }
    Ok(())
}

fn annotate(pod: &mut Value, status: &Value, container: &str) -> Result<(), Refused> {
    for path in ["metadata", "annotations"] {
        let parent = if path == "metadata" { &mut *pod } else { &mut pod["metadata"] };
        if parent[path].is_null() {
            parent[path] = json!({});
        }
        if !parent[path].is_object() {
            return refused(format!("{path} of the pod is no object"));
        }
    }
    let annotations = &mut pod["metadata"]["annotations"];
    annotations[format!("{PREFIX}status")] = json!(status.to_string());
    let usual = "kubectl.kubernetes.io/default-container";
    if annotations.get(usual).is_none() {
        annotations[usual] = json!(container);
    }
    Ok(())
}

/// What of a pod decides who reaches Perses, and is not as it must be. The rest may have been changed by others.
pub(super) fn differs(pod: &Value, wanted: &Value, container: &str) -> Option<String> {
    let find = |pod: &Value, list: &str, name: &str| -> Option<Value> {
        pod["spec"].get(list)?.as_array()?.iter().find(|container| container["name"] == name).cloned()
    };
    let (is, must) = (find(pod, "containers", container)?, find(wanted, "containers", container)?);
    for key in ["command", "args", "ports"] {
        if is.get(key) != must.get(key) {
            return Some(format!("{key} of the container {container}"));
        }
    }
    let (list, must) = LISTS.iter().find_map(|list| Some((*list, find(wanted, list, SIDECAR)?)))?;
    let Some(is) = find(pod, list, SIDECAR) else { return Some(format!("the missing container {SIDECAR}")) };
    for key in ["image", "command", "args", "envFrom", "ports", "workingDir", "lifecycle", "restartPolicy"] {
        if is.get(key) != must.get(key) {
            return Some(format!("{key} of the container {SIDECAR}"));
        }
    }
    let entries =
        |container: &Value, key: &str| container.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let steers = |entry: &&Value| {
        let name = entry["name"].as_str().unwrap_or_default();
        ["PERSES_SIDECAR_", "LD_", "KUBERNETES_", "SSL_", "TOKIO_"].iter().any(|prefix| name.starts_with(prefix))
    };
    let is_env: Vec<Value> = entries(&is, "env").iter().filter(steers).cloned().collect();
    if is_env != entries(&must, "env") {
        return Some(format!("env of the container {SIDECAR}"));
    }
    let (is_mounts, must_mounts) = (entries(&is, "volumeMounts"), entries(&must, "volumeMounts"));
    let covers = |mount: &Value| {
        let path = mount["mountPath"].as_str().unwrap_or_default().trim_end_matches('/');
        ["/etc/perses-sidecar", "/var/run/secrets/perses-sidecar", "/run/perses-sidecar"]
            .iter()
            .any(|own| path.starts_with(own) || own.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    };
    if !must_mounts.iter().all(|mount| is_mounts.contains(mount))
        || is_mounts.iter().any(|mount| covers(mount) && !must_mounts.contains(mount))
    {
        return Some(format!("volumeMounts of the container {SIDECAR}"));
    }
    let own = |pod: &Value| -> Vec<Value> {
        let list = pod["spec"]["volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .filter(|volume| volume["name"].as_str().is_some_and(|name| name.starts_with(VOLUMES)))
            .cloned()
            .collect()
    };
    (own(pod) != own(wanted)).then(|| format!("a volume {VOLUMES}…"))
}
