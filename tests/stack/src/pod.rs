//! Plays kubelet for the containers of one pod: its volumes, a root file system that cannot be written, a user id that no
//! image knows. Containers share this machine's network, as those of a pod share theirs; `bwrap` (bubblewrap) makes the rest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Out of the range of ids that OpenShift gives to a namespace.
pub const USER: u32 = 1_000_650_000;

/// Where every container finds its account's token, unless the pod says otherwise.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Whether containers can be run here: bubblewrap is installed, and the kernel lets it.
#[must_use]
pub fn can_run() -> bool {
    let words = ["--unshare-user", "--uid", "7", "--ro-bind", "/", "/", "true"];
    std::process::Command::new("bwrap").args(words).status().is_ok_and(|status| status.success())
}

/// The process that a container is: `bwrap`, whose id is given, has started it by way of another.
#[must_use]
pub fn process(bwrap: u32) -> u32 {
    let child = |id: u32| -> Option<u32> {
        fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?.split_whitespace().next()?.parse().ok()
    };
    std::iter::successors(Some(bwrap), |id| child(*id)).last().unwrap_or(bwrap)
}

/// A pod whose volumes are laid out in a folder.
pub struct Pod {
    spec: Value,
    folder: PathBuf,
}

/// What is in a container besides its volumes.
pub enum Root<'r> {
    /// One program of this machine, and the libraries of this machine.
    Program(&'r Path),
    /// The unpacked file system of an image.
    Image(&'r Path),
}

fn missing(what: &str) -> io::Error {
    io::Error::other(format!("kubelet would wait for {what}"))
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

impl Pod {
    /// Writes the volumes of a pod (`spec` of it) below `folder`. ConfigMaps and Secrets are looked for among `objects`,
    /// `token` is the service account's.
    ///
    /// # Errors
    /// When an object or a key is missing for which kubelet would wait.
    pub fn lay_out(spec: &Value, objects: &[Value], token: &str, folder: &Path) -> io::Result<Self> {
        let pod = Self { spec: spec.clone(), folder: folder.to_owned() };
        fs::create_dir_all(folder)?;
        for volume in spec["volumes"].as_array().into_iter().flatten() {
            let home = pod.volume(text(volume, "name"));
            fs::create_dir_all(&home)?;
            for (kind, key) in [("ConfigMap", "configMap"), ("Secret", "secret")] {
                if let Some(source) = volume.get(key) {
                    write_object(&home, kind, source, objects)?;
                }
            }
            for source in volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten() {
                if let Some(source) = source.get("serviceAccountToken") {
                    fs::write(home.join(text(source, "path")), token)?;
                } else if let Some(source) = source.get("configMap") {
                    write_object(&home, "ConfigMap", source, objects)?;
                }
            }
        }
        if spec["automountServiceAccountToken"] != false {
            let home = pod.volume(".account");
            fs::create_dir_all(&home)?;
            write_object(&home, "ConfigMap", &serde_json::json!({ "name": "kube-root-ca.crt" }), objects)?;
            fs::write(home.join("token"), token)?;
        }
        Ok(pod)
    }

    /// Where a volume is.
    #[must_use]
    pub fn volume(&self, name: &str) -> PathBuf {
        self.folder.join("volumes").join(name)
    }

    /// A container, regular or init, by its name.
    #[must_use]
    pub fn container(&self, name: &str) -> &Value {
        let lists = ["containers", "initContainers"].into_iter().filter_map(|list| self.spec[list].as_array());
        lists.flatten().find(|container| container["name"] == name).unwrap_or(&Value::Null)
    }

    /// The `args` of a container.
    #[must_use]
    pub fn arguments(&self, name: &str) -> Vec<String> {
        let words = |key: &str| -> Vec<String> {
            let list = self.container(name)[key].as_array().into_iter().flatten();
            list.filter_map(|word| word.as_str().map(str::to_owned)).collect()
        };
        words("args")
    }

    /// The words that run `program`, a path within the container, with `arguments` instead of the container's own `args`.
    /// `more` are further environment variables; fields of the pod that its `env` refers to are taken from `fields`.
    ///
    /// # Errors
    /// When the root cannot be laid out, or a mount names a volume that is not there.
    pub fn words(
        &self,
        name: &str,
        root: &Root<'_>,
        program: &str,
        arguments: &[String],
        fields: &[(&str, &str)],
        more: &[(&str, &str)],
    ) -> io::Result<Vec<String>> {
        let home = self.folder.join("roots").join(name);
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home)?;
        if let Root::Image(image) = root {
            crate::servers::copy_folder(image, &home)?;
        }
        let inside = |path: &str| home.join(path.trim_start_matches('/'));
        let user = USER.to_string();
        let mut words: Vec<String> = [
            "bwrap",
            "--unshare-user",
            "--unshare-pid",
            "--unshare-ipc",
            "--die-with-parent",
            "--new-session",
            "--clearenv",
            "--cap-drop",
            "ALL",
        ]
        .map(str::to_owned)
        .to_vec();
        words.extend(["--uid".to_owned(), user, "--gid".to_owned(), "0".to_owned()]);
        let mut bind = |how: &str, from: &Path, to: &str| {
            words.extend([how.to_owned(), from.display().to_string(), to.to_owned()]);
        };
        for folder in ["proc", "dev"] {
            fs::create_dir_all(home.join(folder))?;
        }
        let mut system = Vec::new();
        if let Root::Program(path) = root {
            for folder in ["/usr", "/lib", "/lib64"] {
                if Path::new(folder).exists() {
                    fs::create_dir_all(inside(folder))?;
                    system.push((PathBuf::from(folder), folder.to_owned()));
                }
            }
            fs::write(inside(program), "")?;
            system.push(((*path).to_owned(), program.to_owned()));
        }
        let mut mounts = Vec::new();
        if self.spec["automountServiceAccountToken"] != false {
            fs::create_dir_all(inside(ACCOUNT))?;
            mounts.push(("--ro-bind", self.volume(".account"), ACCOUNT.to_owned()));
        }
        for mount in self.container(name)["volumeMounts"].as_array().into_iter().flatten() {
            let (volume, path) = (self.volume(text(mount, "name")), text(mount, "mountPath"));
            if !volume.exists() {
                return Err(missing(&format!("the volume {}", text(mount, "name"))));
            }
            fs::create_dir_all(inside(path))?;
            let how = if mount["readOnly"] == true { "--ro-bind" } else { "--bind" };
            mounts.push((how, volume, path.to_owned()));
        }
        bind("--ro-bind", &home, "/");
        for (from, to) in &system {
            bind("--ro-bind", from, to);
        }
        for (how, from, to) in &mounts {
            bind(how, from, to);
        }
        words.extend(["--proc", "/proc", "--dev", "/dev"].map(str::to_owned));
        for entry in self.container(name)["env"].as_array().into_iter().flatten() {
            let field = entry.pointer("/valueFrom/fieldRef/fieldPath").and_then(Value::as_str);
            let value = match field {
                Some(path) => fields.iter().find(|(known, _)| *known == path).map_or("", |(_, value)| value).to_owned(),
                // Kubernetes' own way to write a dollar sign.
                None => text(entry, "value").replace("$$", "$"),
            };
            words.extend(["--setenv".to_owned(), text(entry, "name").to_owned(), value]);
        }
        for (name, value) in more {
            words.extend(["--setenv", name, value].map(str::to_owned));
        }
        words.push(program.to_owned());
        words.extend_from_slice(arguments);
        Ok(words)
    }
}

fn write_object(home: &Path, kind: &str, source: &Value, objects: &[Value]) -> io::Result<()> {
    let name = if kind == "Secret" { text(source, "secretName") } else { text(source, "name") };
    let Some(object) = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
    else {
        return if source["optional"] == true { Ok(()) } else { Err(missing(&format!("the {kind} {name}"))) };
    };
    let entries = |key: &str| object[key].as_object().into_iter().flatten();
    for (key, value) in entries("data").chain(entries("stringData")) {
        let items = source["items"].as_array();
        let path = match items {
            None => Some(key.as_str()),
            Some(items) => items.iter().find(|item| item["key"] == *key).map(|item| text(item, "path")),
        };
        if let Some(path) = path {
            fs::write(home.join(path), value.as_str().unwrap_or_default())?;
        }
    }
    Ok(())
}
