//! Configuration and certificates change every second under load, and in the end the process is asked to stop: no request
//! that had begun fails, and none is answered by half of one configuration and half of another.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use perses_sidecar_stack::openshift::Certificates;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Mode, More, Process, gate};

/// Connections that ask, plain and over TLS by turns.
const WORKERS: usize = 20;

/// The two configurations differ in the label that confines and in a parameter that is sent.
const VARIANTS: [(&str, &str); 2] = [("namespace", "10s"), ("tenant", "20s")];

#[derive(Default)]
struct Tally {
    served: AtomicUsize,
    /// Reconnected where nothing had been asked: a drained or drawn connection.
    again: AtomicUsize,
}

fn setting(name: &str, fallback: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(fallback)
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// One connection after another, each asked until it is closed. Gives the numbers of the requests that had no whole answer.
struct Worker {
    address: String,
    https: String,
    authority: Arc<std::sync::Mutex<String>>,
    token: String,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    async fn connect(&self, tls: bool) -> Option<Box<dyn Wire>> {
        if !tls {
            return Some(Box::new(TcpStream::connect(&self.address).await.ok()?));
        }
        use rustls_pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        let pem = self.authority.lock().unwrap().clone();
        for certificate in rustls_pki_types::CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(&self.https).await.ok()?;
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()?;
        Some(Box::new(stream))
    }

    async fn run(self, first: usize, pause: Duration) -> Vec<usize> {
        let (mut failed, mut number, mut next) = (Vec::new(), first, Instant::now());
        let tls = first % 2 == 1;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(mut wire) = self.connect(tls).await else {
                // A certificate may change between the file and the listener; a port that is closed stays closed.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            // A kept connection is used for a while and left, so that new ones meet new certificates.
            for _ in 0..200 {
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
                number += WORKERS;
                match self.ask(&mut *wire, number).await {
                    Some(body) => {
                        assert!(VARIANTS.iter().any(|(label, time)| body == format!("{label} {time}")), "{body}");
                        self.tally.served.fetch_add(1, Ordering::Relaxed);
                    }
                    None => {
                        self.tally.again.fetch_add(1, Ordering::Relaxed);
                        failed.push(number);
                        break;
                    }
                }
                next += pause;
                tokio::time::sleep_until(next.max(Instant::now()).into()).await;
            }
        }
        failed
    }

    /// The body of a whole answer with 200. Anything else the gateway says is a failure of the test at once.
    async fn ask(&self, wire: &mut dyn Wire, number: usize) -> Option<String> {
        let form = format!("query=up%7Bn%3D%22{number}%22%7D");
        let request = format!(
            "POST /proxy/globaldatasources/p/api/v1/query HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
            self.token,
            form.len()
        );
        wire.write_all(request.as_bytes()).await.ok()?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                assert!(head.starts_with("HTTP/1.1 200"), "{text}");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if body.len() == length.parse::<usize>().unwrap() {
                    return Some(body.trim_matches('"').to_owned());
                }
            }
            match tokio::time::timeout(Duration::from_secs(10), wire.read(&mut buffer)).await {
                Ok(Ok(read)) if read > 0 => answer.extend_from_slice(&buffer[..read]),
                _ => return None,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_had_begun_fails_through_reloads_and_the_stop() {
    let (rate, seconds) = (setting("RELOAD_RATE", 200), setting("RELOAD_SECONDS", 5));
    let https = perses_sidecar_stack::servers::free_port().unwrap();
    let mut process = Process::start(
        "info",
        More {
            listen: &format!("  https: 127.0.0.1:{https}\n"),
            backend: "    label: namespace\n    parameters:\n      timeout: 10s\n",
            rest: "tls:\n  certificate_file: FOLDER/tls.crt\n  key_file: FOLDER/tls.key\n",
            ..More::default()
        },
        &[],
    )
    .await;
    // The first answers of the start go; from here on every question is told by what it says.
    process.stage.upstream.forget("POST /api/v1/query");
    process.stage.upstream.answers_by(|seen| {
        if !seen.line.starts_with("POST /api/v1/query") {
            return None;
        }
        let label = VARIANTS.iter().find(|(label, _)| seen.body.contains(&format!("%7B{label}%3D")));
        let time = VARIANTS.iter().find(|(_, time)| seen.body.contains(&format!("timeout={time}")));
        let word = |found: Option<&(&'static str, &'static str)>| found.copied().unwrap_or(("nothing", "nothing"));
        Some((200, format!("\"{} {}\"", word(label).0, word(time).1)))
    });
    process.stage.upstream.take();

    let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
    let folder = process.stage.config.parent().unwrap().to_owned();
    let first = std::fs::read_to_string(folder.join("tls-ca.crt")).unwrap();
    let authority = Arc::new(std::sync::Mutex::new(first));
    let pause = Duration::from_secs(WORKERS as u64) / u32::try_from(rate).unwrap();
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..WORKERS {
        let worker = Worker {
            address: process.address.clone(),
            https: format!("127.0.0.1:{https}"),
            authority: Arc::clone(&authority),
            token: process.ada.clone(),
            tally: Arc::clone(&tally),
            stop: Arc::clone(&stop),
        };
        workers.spawn(worker.run(number, pause));
    }

    let good = std::fs::read_to_string(&process.stage.config).unwrap();
    for second in 1..=seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let [from, to] = [VARIANTS[0], VARIANTS[usize::try_from(second % 2).unwrap()]];
        let text = good.replace(&format!("label: {}", from.0), &format!("label: {}", to.0));
        let text = text.replace(&format!("timeout: {}", from.1), &format!("timeout: {}", to.1));
        std::fs::write(&process.stage.config, text).unwrap();
        // New clients believe the old authority and the new one while the files change.
        let new = Certificates::make(&["localhost"]).unwrap();
        authority.lock().unwrap().push_str(&new.ca);
        // The chain and its key cannot be written at once: until both are there, the last good pair stays.
        std::fs::write(folder.join("tls.crt"), &new.certificate).unwrap();
        std::fs::write(folder.join("tls.key"), &new.key).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = tally.again.load(Ordering::Relaxed);
    assert_eq!(before, 0, "connections were dropped while nothing but settings changed");
    let served = tally.served.load(Ordering::Relaxed);
    process.terminate();
    let code = process.ended(Duration::from_secs(20)).await;
    stop.store(true, Ordering::Relaxed);
    let mut failed = Vec::new();
    while let Some(worker) = workers.join_next().await {
        failed.extend(worker.unwrap());
    }
    assert_eq!(code, Some(0), "{}", process.log());
    let begun: HashSet<usize> = process
        .stage
        .upstream
        .take()
        .iter()
        .filter_map(|seen| seen.body.split("n%3D%22").nth(1)?.split("%22").next()?.parse().ok())
        .collect();
    let lost: Vec<&usize> = failed.iter().filter(|number| begun.contains(number)).collect();
    assert!(lost.is_empty(), "begun, and not answered: {lost:?}");
    let reloads = process.log().matches("A changed configuration is in use").count();
    eprintln!(
        "{served} answers at {rate} a second, {reloads} reloads; {} connections were closed before a request began",
        failed.len()
    );
    assert!(served >= usize::try_from(rate * seconds * 7 / 10).unwrap(), "{served} answers: the load did not stand");
    assert!(reloads >= usize::try_from(seconds).unwrap() - 2, "{reloads} reloads in {seconds} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_of_what_perses_may_take_and_say_change_with_a_reload() {
    let gate = gate("limits:\n  perses_timeout: 60s\n").await;
    let (ada, path) = (gate.token("ada"), "/api/v1/projects/team-a/dashboards/d");
    assert_eq!(gate.get(&ada, path).await.status, 404);
    gate.taps.perses.set(Mode::Silent).await;
    let text = std::fs::read_to_string(&gate.config).unwrap();
    std::fs::write(&gate.config, text.replace("perses_timeout: 60s", "perses_timeout: 500ms")).unwrap();
    let began = Instant::now();
    loop {
        match tokio::time::timeout(Duration::from_secs(2), gate.get(&ada, path)).await {
            Ok(answer) => return assert_eq!(answer.status, 504, "{}", answer.text()),
            Err(_) => assert!(began.elapsed() < Duration::from_secs(20), "still as patient as before"),
        }
    }
}
