//! `cargo try`: everything on loopback, to be tried.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use perses_sidecar_stack::servers::Server;
use perses_sidecar_stack::world::{Options, World};
use perses_sidecar_stack::{servers, tour};

/// Starts an OpenShift stand-in, real Perses, real Prometheus with a week of data, and the sidecar in front, on loopback.
#[derive(Debug, Parser)]
#[command(name = "cargo try")]
struct Flags {
    /// Walk through a scripted tour and end: 0 when every step passed.
    #[arg(long)]
    check: bool,
    /// Write what an outside client needs, as JSON, once everything is ready.
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// Use this Perses.
    #[arg(long, value_name = "PATH")]
    perses: Option<PathBuf>,
    /// Use this Prometheus, with promtool beside it.
    #[arg(long, value_name = "PATH")]
    prometheus: Option<PathBuf>,
    /// Lay the keys of this YAML file over the demo's configuration; a list replaces a list.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use another folder of Perses plugins.
    #[arg(long, value_name = "DIR")]
    perses_plugins: Option<PathBuf>,
    /// A folder that Perses serves as its web UI.
    #[arg(long, value_name = "DIR")]
    ui: Option<PathBuf>,
    /// Print the sidecar's command line instead of starting it.
    #[arg(long)]
    no_sidecar: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(&flags).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cargo try: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: &Flags) -> io::Result<ExitCode> {
    let say = |line: &str| println!("{line}");
    let binary = build_sidecar()?;
    let options = Options {
        perses: flags.perses.clone(),
        prometheus: flags.prometheus.clone(),
        plugins: flags.perses_plugins.clone(),
        ui: flags.ui.clone(),
        config: flags.config.clone(),
        quick: flags.check,
        workloads: true,
        ..Options::default()
    };
    let world = World::start(&options, &say).await?;
    let sidecar = if flags.no_sidecar { None } else { Some(world.start_sidecar(&binary).await?) };
    if let Some(path) = &flags.env {
        write_whole(path, &format!("{:#}\n", world.environment(sidecar.as_ref())))?;
    }
    if flags.check {
        say("\nThe tour:");
        let (passed, failed) = tour::walk(&world, &say).await;
        println!("\n{passed} passed, {failed} failed");
        return Ok(if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    introduce(&world, &binary, sidecar.as_ref());
    tokio::signal::ctrl_c().await?;
    println!("\nstopping");
    Ok(ExitCode::SUCCESS)
}

fn introduce(world: &World, binary: &Path, sidecar: Option<&Server>) {
    if sidecar.is_none() {
        println!("\nStart the sidecar yourself:\n  {} {}", binary.display(), world.sidecar_arguments().join(" "));
    }
    let gateway = world.gateway();
    println!(
        "\nThe gateway:  {gateway}   (TLS: https://localhost:{}, authority {})",
        world.ports[1],
        world.ca_file.display()
    );
    println!("Perses built from its Go module has no web UI in it; --perses PATH takes another binary.");
    println!("Probes and metrics:  {}/readyz  {}/metrics", world.admin(), world.admin());
    println!(
        "\nPeople: ada edits team-a and views team-b, grace edits team-b, root administers, eve may see nothing.\n"
    );
    println!("  export GATEWAY='{gateway}'\n  export ADMIN='{}'", world.admin());
    for (name, person) in &world.people {
        println!("  export {}='{}'", name.to_uppercase(), person.token);
    }
    println!("\nTo try (each as anybody):");
    for (what, command) in [
        ("who am I, and where may I look", format!("curl -s -H \"Authorization: Bearer $ADA\" {gateway}/-/whoami")),
        ("my projects", format!("curl -s -H \"Authorization: Bearer $ADA\" {gateway}/api/v1/projects")),
        (
            "dashboards of all my projects",
            format!("curl -s -H \"Authorization: Bearer $GRACE\" '{gateway}/api/v1/dashboards?metadata_only=true'"),
        ),
        (
            "what runs in my projects, and its dashboards",
            format!("curl -s -H \"Authorization: Bearer $ADA\" {gateway}/-/api/v1/workloads"),
        ),
        (
            "a query, confined to my namespaces",
            format!(
                "curl -s -H \"Authorization: Bearer $ADA\" --data-urlencode 'query=sum by (namespace) (vllm:num_requests_running)' {gateway}/proxy/globaldatasources/prometheus/api/v1/query"
            ),
        ),
        ("nothing for eve", format!("curl -s -i -H \"Authorization: Bearer $EVE\" {gateway}/api/v1/projects/team-a")),
        ("what may I do", format!("curl -s -H \"Authorization: Bearer $ADA\" {gateway}/api/v1/users/ada/permissions")),
    ] {
        println!("\n# {what}\n{command}");
    }
    println!("\nready; Ctrl-C stops it all");
}

/// Builds the sidecar, with cargo's own progress, and gives its path.
fn build_sidecar() -> io::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--package",
            "perses-sidecar",
            "--bin",
            "perses-sidecar",
            "--message-format=json-render-diagnostics",
        ])
        .current_dir(servers::checkout())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other("the sidecar could not be built"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "perses-sidecar")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| io::Error::other("cargo did not say where the sidecar is"))
}

/// All of a file at once, by rename.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text)?;
    std::fs::rename(draft, path)
}
