//! The binary as a process of its own, to be loaded, looked at from outside, and signalled.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use perses_sidecar_stack::http::Http;
use perses_sidecar_stack::servers::free_port;
use tokio::net::TcpStream;

use super::watch::look_at;
use super::{More, Stage, stage};

pub struct Process {
    pub child: Child,
    pub stage: Stage,
    pub address: String,
    pub http: Http,
    pub ada: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        look_at(&self.stage.config.with_file_name("log"));
        look_at(&self.stage.audit);
    }
}

impl Process {
    /// Starts and waits until somebody has been served. `SIDECAR` names another binary, such as an optimised one; `wrap` is
    /// put before its name on the command line.
    pub async fn start(level: &str, more: More<'_>, wrap: &[&str]) -> Self {
        let ports = [free_port().unwrap(), free_port().unwrap()];
        let stage = stage(more, ports).await;
        let built = || PathBuf::from(env!("CARGO_BIN_EXE_perses-sidecar"));
        let binary = std::env::var_os("SIDECAR").map_or_else(built, PathBuf::from);
        let mut words: Vec<std::ffi::OsString> = wrap.iter().map(Into::into).collect();
        words.push(binary.into());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["run", "--log-level", level, "--config"])
            .arg(&stage.config)
            // As in the container.
            .env("MALLOC_TRIM_THRESHOLD_", "1048576")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(stage.config.with_file_name("log")).unwrap())
            .spawn()
            .unwrap();
        let ada = stage.token("ada");
        let address = format!("127.0.0.1:{}", ports[0]);
        let process = Self { child, stage, address, http: Http::default(), ada };
        for _ in 0..200 {
            if TcpStream::connect(&process.address).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for _ in 0..50 {
            assert_eq!(process.ask(&process.ada).await, 200);
        }
        process
    }

    /// The status of a small query; 0 without an answer.
    pub async fn ask(&self, token: &str) -> u16 {
        let url = format!("http://{}/proxy/globaldatasources/p/api/v1/query", self.address);
        self.http.form(&url, token, &[("query", "up")]).await.map_or(0, |answer| answer.status)
    }

    /// Resident memory in MiB.
    pub fn memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        let done = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Waits for its end; gives the exit code.
    pub async fn ended(&mut self, patience: Duration) -> Option<i32> {
        let began = Instant::now();
        while began.elapsed() < patience {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.stage.config.with_file_name("log")).unwrap()
    }
}
