//! Real servers: built when they are missing, started on free ports of the loopback, ended with whoever started them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::http::Http;

/// Versions that the suites are written for, newest first.
pub const PERSES: [&str; 2] = ["0.54.0", "0.53.1"];
/// As above.
pub const PROMETHEUS: &str = "0.316.0";
/// As above.
pub const KUBERNETES: &str = "1.37.2";
/// As above; the newest that the Go of [`PROMETHEUS`] builds.
pub const THANOS: &str = "0.42.4";
/// As above.
pub const KUSTOMIZE: &str = "5.8.1";

/// Where the stack keeps its files: `target/stack` of this checkout.
#[must_use]
pub fn home() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from);
    target.join("stack")
}

/// Where built servers are kept between runs and shared by checkouts: `perses-sidecar/servers` in the user's cache folder, or
/// `PERSES_SIDECAR_SERVERS`.
#[must_use]
pub fn store() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("PERSES_SIDECAR_SERVERS").unwrap_or_else(|| {
        let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        cache.map_or_else(home, |cache| cache.join("perses-sidecar/servers"))
    })
}

/// The root of this checkout.
#[must_use]
pub fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Something that Go builds.
struct Recipe {
    tools: &'static str,
    version: &'static str,
    /// Binary and package.
    binaries: &'static [(&'static str, &'static str)],
    tags: &'static str,
    /// Perses leaves a generated file out of its module.
    vendor: bool,
}

const PERSES_BINARIES: &[(&str, &str)] =
    &[("perses", "github.com/perses/perses/cmd/perses"), ("percli", "github.com/perses/perses/cmd/percli")];

const RECIPES: [Recipe; 6] = [
    Recipe { tools: "perses-0.54", version: PERSES[0], binaries: PERSES_BINARIES, tags: "", vendor: true },
    Recipe { tools: "perses-0.53", version: PERSES[1], binaries: PERSES_BINARIES, tags: "", vendor: true },
    Recipe {
        tools: "kubernetes",
        version: KUBERNETES,
        binaries: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ],
        tags: "",
        vendor: false,
    },
    Recipe {
        tools: "prometheus",
        version: PROMETHEUS,
        binaries: &[
            ("prometheus", "github.com/prometheus/prometheus/cmd/prometheus"),
            ("promtool", "github.com/prometheus/prometheus/cmd/promtool"),
        ],
        tags: "remove_all_sd,slicelabels",
        vendor: false,
    },
    // Without the tag its query frontend cannot merge two answers.
    Recipe {
        tools: "thanos",
        version: THANOS,
        binaries: &[("thanos", "github.com/thanos-io/thanos/cmd/thanos")],
        tags: "slicelabels",
        vendor: false,
    },
    Recipe {
        tools: "kustomize",
        version: KUSTOMIZE,
        binaries: &[("kustomize", "sigs.k8s.io/kustomize/kustomize/v5")],
        tags: "",
        vendor: false,
    },
];

/// The path of a built binary, building it first if it is missing. `say` gets a line for each step.
///
/// # Errors
/// When Go is missing or a build fails; the text says what to do.
pub fn binary(name: &str, version: &str, say: &dyn Fn(&str)) -> io::Result<PathBuf> {
    let makes = |recipe: &&Recipe| recipe.version == version && recipe.binaries.iter().any(|(made, _)| *made == name);
    let Some(recipe) = RECIPES.iter().find(makes) else {
        return Err(io::Error::other(format!("nobody knows how to build {name} {version}")));
    };
    let path = store().join(format!("{name}-{version}"));
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(store())?;
    // Two processes must not build at once: whoever comes second finds the binary done.
    let lock = File::create(store().join("build.lock"))?;
    lock.lock()?;
    if !path.exists() {
        build(recipe, say)?;
    }
    Ok(path)
}

fn build(recipe: &Recipe, say: &dyn Fn(&str)) -> io::Result<()> {
    let began = Instant::now();
    let folder = store().join("build").join(recipe.tools);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let tools = checkout().join("tests/stack/tools").join(recipe.tools);
    for file in ["go.mod", "go.sum", "tools.go"] {
        fs::copy(tools.join(file), folder.join(file))?;
    }
    say(&format!("building {} {} from its Go module (once, a few minutes)", recipe.tools, recipe.version));
    if recipe.vendor {
        go(&folder, &["mod", "vendor"])?;
        let embed = folder.join("vendor/github.com/perses/perses/ui/embed.go");
        fs::write(embed, "package ui\n\nimport \"embed\"\n\nvar embedFS embed.FS\n")?;
    }
    for (binary, package) in recipe.binaries {
        // Of a recipe that has grown, what is missing.
        if store().join(format!("{binary}-{}", recipe.version)).exists() {
            continue;
        }
        let out = folder.join(binary);
        let out = out.to_string_lossy();
        let tags = format!("-tags={}", recipe.tags);
        let module = if recipe.vendor { "-mod=vendor" } else { "-mod=mod" };
        go(&folder, &["build", module, &tags, "-o", &out, package])?;
        fs::rename(folder.join(binary), store().join(format!("{binary}-{}", recipe.version)))?;
        say(&format!("built {binary} after {} s", began.elapsed().as_secs()));
    }
    fs::remove_dir_all(&folder)
}

fn go(folder: &Path, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("go").args(arguments).current_dir(folder).output().map_err(|error| {
        io::Error::other(format!(
            "go cannot be run ({error}); install Go 1.26 or name built servers by --perses and --prometheus"
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<&str> = text.lines().rev().take(15).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(io::Error::other(format!("go {} failed:\n{}", arguments.join(" "), tail.join("\n"))))
}

/// The sidecar's own binary: what `SIDECAR` names, or what `tests/run` builds.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn sidecar() -> PathBuf {
    let built = || checkout().join("target/release/perses-sidecar");
    let path = std::env::var_os("SIDECAR").map_or_else(built, PathBuf::from);
    assert!(path.exists(), "{} is missing: cargo build --release --bin perses-sidecar", path.display());
    path
}

/// A process that ends when this value does, and when this process does.
pub struct Server {
    shell: Child,
    pid: u32,
    log: PathBuf,
}

impl Server {
    /// Starts a program; its output goes to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, arguments: &[String], log: &Path, environment: &[(&str, &str)]) -> io::Result<Self> {
        let pid_file = log.with_extension("pid");
        let output = File::create(log)?;
        // Of a server that ran here before.
        let _ = fs::remove_file(&pid_file);
        // The shell waits for its standard input to end, which it does with us however we end, and ends the server then.
        let script = "\"$@\" </dev/null & child=$!; echo $child > \"$PID_FILE\"; cat >/dev/null; kill $child 2>/dev/null; \
                      (sleep 10; kill -9 $child 2>/dev/null) & wait $child";
        let mut shell = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(program)
            .args(arguments)
            .env("PID_FILE", &pid_file)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let began = Instant::now();
        loop {
            let pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok());
            if let Some(pid) = pid {
                return Ok(Self { shell, pid, log: log.to_owned() });
            }
            if began.elapsed() > Duration::from_secs(5) {
                let _ = shell.kill();
                return Err(io::Error::other(format!("{} did not start", program.display())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The server's own process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let _ = Command::new("kill").args([&format!("-{name}"), &self.pid.to_string()]).status();
    }

    /// Whether the process is there.
    #[must_use]
    pub fn is_running(&self) -> bool {
        // A process that has ended and not been waited for is there as a zombie.
        fs::read_to_string(format!("/proc/{}/stat", self.pid)).is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// Resident memory in KiB.
    #[must_use]
    pub fn resident(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Processor time that it has used.
    #[must_use]
    pub fn used(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // Behind the name, which may hold anything: user and system time, in hundredths of a second.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
        Some(Duration::from_millis(ticks * 10))
    }

    /// What it has written.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until a URL answers 200.
    ///
    /// # Errors
    /// After `patience`, or when the process has ended; with the end of what it wrote.
    pub async fn ready(&self, url: &str, patience: Duration) -> io::Result<()> {
        let http = Http::default();
        let began = Instant::now();
        loop {
            if http.send("GET", url, &[], "").await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if !self.is_running() || began.elapsed() > patience {
                let output = self.output();
                let tail: Vec<&str> = output.lines().rev().take(12).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                return Err(io::Error::other(format!("{url} did not become ready:\n{}", tail.join("\n"))));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
        let _ = io::stdout().flush();
    }
}

/// A port that was free a moment ago and is given to nobody else of this process. It lies below those that the kernel gives to
/// outgoing connections (from 32768 on), which would take it before its server does.
///
/// # Errors
/// When there is none.
pub fn free_port() -> io::Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    // Processes that run at once begin at places of their own.
    let from = std::process::id().wrapping_mul(7919);
    for _ in 0..COUNT {
        let place = from.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + place).map_err(io::Error::other)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// A new folder for one run.
///
/// # Errors
/// When it cannot be made.
pub fn run_folder(name: &str) -> io::Result<PathBuf> {
    let folder = home().join("run").join(format!(
        "{name}-{}-{}",
        std::process::id(),
        crate::openshift::random_text(6).to_lowercase()
    ));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Copies a folder.
///
/// # Errors
/// As the system says.
pub fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if fs::hard_link(entry.path(), &target).is_err() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
