//! The memory that replicas share, in a real Redis or Valkey: what it keeps, and what becomes of us when it is killed, slow,
//! full, tampered with, or somebody else's.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use perses_sidecar::config::{CookieKey, Shared};
use perses_sidecar::names::Secret;
use perses_sidecar::remote::Remote;
use perses_sidecar::telemetry::metrics::Metrics;
use perses_sidecar_stack::openshift::{Certificates, random_text};
use perses_sidecar_stack::servers::{self, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) struct Redis {
    pub(crate) server: Server,
    pub(crate) port: u16,
    folder: PathBuf,
    more: Vec<String>,
}

impl Redis {
    pub(crate) async fn start(more: &[&str]) -> Self {
        let folder = servers::run_folder("redis").unwrap();
        Self::start_in(folder, servers::free_port().unwrap(), more.iter().map(ToString::to_string).collect()).await
    }

    async fn start_in(folder: PathBuf, port: u16, more: Vec<String>) -> Self {
        let program = ["/usr/bin/valkey-server", "/usr/bin/redis-server"].map(PathBuf::from);
        let program = program.into_iter().find(|path| path.exists()).expect("the package redis-server is needed");
        let tls = more.iter().any(|word| word == "--tls-port");
        let mut words: Vec<String> =
            ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"].map(str::to_owned).to_vec();
        words.push(folder.display().to_string());
        words.extend(more.iter().map(|word| word.replace("FOLDER", &folder.display().to_string())));
        words.extend([if tls { "--tls-port" } else { "--port" }.to_owned(), port.to_string()]);
        if tls {
            words.extend(["--port".to_owned(), "0".to_owned()]);
        }
        let server =
            Server::start(&program, &words, &folder.join(format!("redis-{}.log", random_text(4))), &[]).unwrap();
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(10) && server.is_running(), "{}", server.output());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { server, port, folder, more }
    }

    pub(crate) async fn restarted(self) -> Self {
        let Self { server, port, folder, more } = self;
        server.signal("KILL");
        drop(server);
        Self::start_in(folder, port, more).await
    }

    /// A command of somebody else's, and what came back within a moment.
    pub(crate) async fn raw(&self, words: &[&[u8]]) -> Vec<u8> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let mut out = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            out.extend(format!("${}\r\n", word.len()).bytes().chain(word.iter().copied()).chain(*b"\r\n"));
        }
        socket.write_all(&out).await.unwrap();
        let mut answer = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match tokio::time::timeout(Duration::from_millis(100), socket.read(&mut buffer)).await {
                Ok(Ok(read)) if read > 0 => answer.extend_from_slice(&buffer[..read]),
                _ => return answer,
            }
        }
    }

    /// The value under a name, as it lies there.
    pub(crate) async fn value(&self, name: &str) -> Vec<u8> {
        let answer = self.raw(&[b"GET", name.as_bytes()]).await;
        let start = answer.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2;
        answer[start..answer.len() - 2].to_vec()
    }

    /// All names that begin so, in order.
    pub(crate) async fn names(&self, start: &str) -> Vec<String> {
        let answer = self.raw(&[b"KEYS", format!("{start}*").as_bytes()]).await;
        let text = String::from_utf8(answer).unwrap();
        let mut names: Vec<String> = text.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect();
        names.sort();
        names
    }

    fn settings(&self) -> Shared {
        settings(self.port)
    }
}

fn settings(port: u16) -> Shared {
    Shared {
        tls: false,
        host: "127.0.0.1".to_owned(),
        port,
        database: 0,
        username: None,
        password: None,
        ca: None,
        keys: vec![key("one")],
        prefix: "test".to_owned(),
        timeout: Duration::from_millis(250),
        largest: 1 << 20,
        in_flight: 8,
        queue: 16 << 20,
        breaker_errors: 3,
        breaker_open: Duration::from_millis(500),
    }
}

fn key(seed: &str) -> CookieKey {
    let text: String = "a key of sufficient length for a test, called ".to_owned() + seed;
    CookieKey::new(text.as_bytes()).unwrap()
}

struct Tier {
    remote: Remote,
    metrics: Arc<Metrics>,
}

impl std::ops::Deref for Tier {
    type Target = Remote;

    fn deref(&self) -> &Remote {
        &self.remote
    }
}

impl Tier {
    fn new(settings: &Shared) -> Self {
        let metrics = Arc::new(Metrics::new());
        Self { remote: Remote::new(settings, Arc::clone(&metrics)).unwrap(), metrics }
    }

    fn count(&self, operation: &str, outcome: &str) -> u64 {
        let name =
            format!("perses_sidecar_cache_shared_operations_total{{operation=\"{operation}\",outcome=\"{outcome}\"}} ");
        self.metrics.encode().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
    }

    /// Writes, and waits until that has an outcome.
    async fn put(&self, name: u8, value: &[u8]) -> String {
        let outcomes = ["stored", "exists", "full", "slow", "error", "open", "busy", "too_large"];
        let counts = || outcomes.map(|outcome| self.count("put", outcome));
        let before = counts();
        self.remote.put(&[name; 40], Bytes::copy_from_slice(value), MINUTE);
        for _ in 0..1000 {
            let now = counts();
            if let Some(at) = (0..outcomes.len()).find(|at| now[*at] > before[*at]) {
                return outcomes[at].to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("a write without an outcome");
    }

    async fn get(&self, name: u8) -> Option<Bytes> {
        self.remote.get(&[name; 40], tokio::time::Instant::now() + MINUTE).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_memory_keeps_what_was_written_first_for_every_replica() {
    let redis = Redis::start(&[]).await;
    let (one, two) = (Tier::new(&redis.settings()), Tier::new(&redis.settings()));
    assert_eq!(one.get(1).await, None);
    assert_eq!(one.put(1, b"first").await, "stored");
    assert_eq!(two.put(1, b"second").await, "exists");
    assert_eq!((one.get(1).await.as_deref(), two.get(1).await.as_deref()), (Some(&b"first"[..]), Some(&b"first"[..])));
    let large: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[0]).collect();
    assert_eq!(one.put(2, &large).await, "stored");
    assert_eq!(two.get(2).await.as_deref(), Some(&large[..]));
    assert_eq!(one.put(3, &[0; (1 << 20) + 1]).await, "too_large");
    let names = redis.names("test:b:").await;
    let bounded = |name: &String| name.len() == "test:b:".len() + 64 && !name.contains("0101");
    assert!(names.len() == 2 && names.iter().all(bounded), "names tell what they name: {names:?}");
    for name in &names {
        assert!(!redis.value(name).await.windows(5).any(|part| part == b"first"), "stored in the clear");
    }
    // What was forgotten is told in one place, anew each time.
    assert_eq!(two.journal().await, Ok(None));
    for words in [&b"one"[..], b"two"] {
        assert!(one.tell_journal(words, MINUTE).await);
        assert_eq!(two.journal().await.unwrap().as_deref(), Some(words));
    }
    // One replica fetches, until its time is over.
    assert!(one.lock(&[1; 32], Duration::from_millis(400)).await && !two.lock(&[1; 32], MINUTE).await);
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert!(two.lock(&[1; 32], MINUTE).await && !one.lock(&[1; 32], MINUTE).await);
    // A session that is ended here is ended there, until it would have ended by itself.
    let until = SystemTime::now() + Duration::from_millis(700);
    assert_eq!(two.is_denied(&[7; 16]).await, Some(false));
    assert!(one.deny(&[7; 16], until).await);
    assert_eq!((two.is_denied(&[7; 16]).await, two.is_denied(&[8; 16]).await), (Some(true), Some(false)));
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(two.is_denied(&[7; 16]).await, Some(false));
    // Another database and another prefix are another memory.
    for settings in
        [Shared { database: 3, ..redis.settings() }, Shared { prefix: "other".to_owned(), ..redis.settings() }]
    {
        let other = Tier::new(&settings);
        assert_eq!((other.get(1).await, other.count("get", "miss")), (None, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_memory_that_was_tampered_with_is_not_known() {
    let redis = Redis::start(&[]).await;
    let tier = Tier::new(&redis.settings());
    assert_eq!(tier.put(1, b"one").await, "stored");
    let one = redis.names("test:b:").await.remove(0);
    assert_eq!(tier.put(2, b"two").await, "stored");
    let two = redis.names("test:b:").await.into_iter().find(|name| *name != one).unwrap();
    let good = redis.value(&one).await;
    let set = async |name: &str, value: &[u8]| redis.raw(&[b"SET", name.as_bytes(), value]).await;
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let cases = [flipped, redis.value(&two).await, good[..20].to_vec(), Vec::new(), b"one".to_vec()];
    for (index, bytes) in (1..).zip(&cases) {
        set(&one, bytes).await;
        assert_eq!((tier.get(1).await, tier.count("get", "tampered")), (None, index), "{bytes:?}");
    }
    // Of another type, and larger than we take.
    redis.raw(&[b"DEL", one.as_bytes()]).await;
    redis.raw(&[b"LPUSH", one.as_bytes(), b"x"]).await;
    assert_eq!((tier.get(1).await, tier.count("get", "error")), (None, 1));
    redis.raw(&[b"DEL", one.as_bytes()]).await;
    set(&one, &vec![b'x'; 2 << 20]).await;
    assert_eq!((tier.get(1).await, tier.count("get", "too_large")), (None, 1));
    set(&one, &good).await;
    assert_eq!(tier.get(1).await.as_deref(), Some(&b"one"[..]), "and what is whole again is known again");
    // Somebody with another key reads nothing, whoever has both reads all.
    let other = Tier::new(&Shared { keys: vec![key("two")], ..redis.settings() });
    assert_eq!((other.get(1).await, other.count("get", "miss")), (None, 1), "not even its name");
    let both = Tier::new(&Shared { keys: vec![key("one"), key("two")], ..redis.settings() });
    assert_eq!(both.get(1).await.as_deref(), Some(&b"one"[..]));
    // A denial that somebody made up denies: to end a session is the smaller harm.
    assert_eq!(tier.is_denied(&[1; 16]).await, Some(false));
    let digest = "test:d:*";
    assert!(tier.deny(&[1; 16], SystemTime::now() + MINUTE).await);
    let keys = String::from_utf8(redis.raw(&[b"KEYS", digest.as_bytes()]).await).unwrap();
    set(keys.lines().find(|line| line.starts_with("test:d:")).unwrap(), b"made up").await;
    assert_eq!((tier.is_denied(&[1; 16]).await, tier.count("denied", "tampered")), (Some(true), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_memory_that_is_killed_or_slow_costs_its_deadline_and_then_nothing() {
    let redis = Redis::start(&[]).await;
    let tier = Tier::new(&redis.settings());
    assert_eq!(tier.put(1, b"one").await, "stored");
    assert!(tier.get(1).await.is_some());
    // Slow: it says nothing at all.
    redis.server.signal("STOP");
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(tier.get(1).await, None);
        assert!((240..600).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    }
    assert_eq!(tier.count("get", "slow"), 3);
    // And then it is left alone, by all operations.
    let began = Instant::now();
    assert_eq!((tier.get(1).await, tier.is_denied(&[1; 16]).await), (None, None));
    assert!(tier.lock(&[2; 32], MINUTE).await, "each fetches for itself");
    assert_eq!(tier.put(2, b"two").await, "open");
    assert!(!tier.deny(&[1; 16], SystemTime::now() + MINUTE).await);
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    assert!(tier.metrics.encode().contains("perses_sidecar_cache_shared_open 1\n"));
    redis.server.signal("CONT");
    known_again(&tier).await;
    assert!(tier.metrics.encode().contains("perses_sidecar_cache_shared_open 0\n"));
    // Killed, and there again on the same port, without what it knew.
    redis.server.signal("KILL");
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(tier.get(1).await, None);
        assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
    }
    let redis = redis.restarted().await;
    for _ in 0..100 {
        if tier.put(1, b"one").await == "stored" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    known_again(&tier).await;
    // Whoever leaves in the middle takes no reply from anybody else.
    for at in 3..20 {
        tier.put(at, &[at; 1000]).await;
    }
    let tier = Arc::new(tier);
    let mut tasks = tokio::task::JoinSet::new();
    for round in 0..4000_u32 {
        let tier = Arc::clone(&tier);
        let at = u8::try_from(3 + round % 17).unwrap();
        tasks.spawn(async move {
            let patience = Duration::from_micros(u64::from(round * 7919 % 2000));
            if let Ok(Some(bytes)) = tokio::time::timeout(patience, tier.get(at)).await {
                assert_eq!(bytes, vec![at; 1000], "somebody else's reply");
                return 1;
            }
            0
        });
    }
    let hits: u32 = tasks.join_all().await.into_iter().sum();
    assert!(hits > 0, "none came to its end");
    drop(redis);
}

async fn known_again(tier: &Tier) {
    for _ in 0..100 {
        if tier.get(1).await.as_deref() == Some(b"one") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it does not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_memory_that_is_full_is_read_still() {
    let redis = Redis::start(&["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]).await;
    let tier = Tier::new(&redis.settings());
    assert_eq!(tier.put(1, b"one").await, "stored");
    let mut outcome = String::new();
    for at in 2..40 {
        outcome = tier.put(at, &vec![at; 512 << 10]).await;
        if outcome != "stored" {
            break;
        }
    }
    assert_eq!(outcome, "full");
    assert_eq!(tier.put(50, b"x").await, "open", "and it is not written to for a moment");
    assert_eq!(tier.get(1).await.as_deref(), Some(&b"one"[..]));
    assert!(tier.metrics.encode().contains("perses_sidecar_cache_shared_open 0\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_memory_asks_for_its_password_and_speaks_tls() {
    let password = random_text(20);
    let redis = Redis::start(&["--requirepass", &password]).await;
    let with = |password: &str, username: Option<&str>| Shared {
        password: Some(Secret::new(password)),
        username: username.map(str::to_owned),
        ..redis.settings()
    };
    for settings in [with(&password, None), with(&password, Some("default"))] {
        assert!(["stored", "exists"].contains(&Tier::new(&settings).put(1, b"one").await.as_str()));
    }
    for settings in [redis.settings(), with("wrong", None), with(&password, Some("nobody"))] {
        let tier = Tier::new(&settings);
        assert_eq!(tier.put(1, b"one").await, "error");
        assert_eq!((tier.get(1).await, tier.is_denied(&[1; 16]).await), (None, None));
        assert_eq!(tier.get(1).await, None);
        assert_eq!((tier.get(1).await, tier.count("get", "open")), (None, 2), "left alone after three");
    }

    let certificates = Certificates::make(&["localhost", "127.0.0.1"]).unwrap();
    let folder = servers::run_folder("redis").unwrap();
    for (file, text) in [("crt", &certificates.certificate), ("key", &certificates.key), ("ca", &certificates.ca)] {
        std::fs::write(folder.join(file), text).unwrap();
    }
    let words = [
        "--tls-port",
        "0",
        "--tls-cert-file",
        "FOLDER/crt",
        "--tls-key-file",
        "FOLDER/key",
        "--tls-auth-clients",
        "no",
    ];
    let words = words.iter().map(ToString::to_string).collect();
    let redis = Redis::start_in(folder, servers::free_port().unwrap(), words).await;
    let ca = certificates.ca.as_bytes().to_vec();
    let tls = |host: &str, ca: Vec<u8>| Shared { tls: true, host: host.to_owned(), ca: Some(ca), ..redis.settings() };
    let tier = Tier::new(&tls("127.0.0.1", ca.clone()));
    assert_eq!(tier.put(1, b"one").await, "stored");
    assert_eq!(tier.get(1).await.as_deref(), Some(&b"one"[..]));
    let strangers = Certificates::make(&["localhost", "127.0.0.1"]).unwrap();
    for settings in [tls("127.0.0.1", strangers.ca.as_bytes().to_vec()), Shared { tls: false, ..tls("127.0.0.1", ca) }]
    {
        let tier = Tier::new(&settings);
        assert_eq!(tier.put(1, b"two").await, "error", "tls {}", settings.tls);
        assert_eq!(tier.get(1).await, None);
    }
}

/// What stands on the port is no Redis.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_not_taken_for_shared_memory() {
    for says in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"$1073741824\r\n",
        b"$5\r\nhelloXX",
        b"*3\r\n",
        b"+OK\r\n+OK\r\n",
        b":1\r\n",
        b"",
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut socket, _)) = listener.accept().await else { return io::Result::Ok(()) };
                let mut buffer = [0; 1024];
                let _ = socket.read(&mut buffer).await?;
                socket.write_all(says).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let tier = Tier::new(&settings(port));
        for _ in 0..4 {
            let began = Instant::now();
            assert_eq!(tier.get(1).await, None, "{says:?}");
            assert_ne!(tier.is_denied(&[1; 16]).await, Some(true), "{says:?}");
            assert!(began.elapsed() < Duration::from_secs(1));
        }
        task.abort();
    }
}
