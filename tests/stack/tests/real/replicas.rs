//! Two gateways before one Prometheus, which share what is final in a real Redis or Valkey: what one has asked for the other
//! need not, and whatever becomes of the server, every answer is Prometheus' own.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use perses_sidecar_stack::http::{Answer, Http};
use perses_sidecar_stack::overlay::lay_over;
use perses_sidecar_stack::servers::{self, Server};
use perses_sidecar_stack::world::{Options, World};

use crate::shared::Redis;

/// Two blocks of points, a minute apart, that are two days old.
const POINTS: u64 = 256;
const STEP: u64 = 60;
const BLOCK: u64 = 128;

struct Pair {
    world: World,
    redis: Redis,
    gateways: [Gateway; 2],
    http: Http,
}

struct Gateway {
    server: Server,
    url: String,
    admin: String,
    control: String,
}

async fn gateway(world: &World, name: &str, ports: [u16; 4], redis: &Redis) -> Gateway {
    let key = world.folder.join("shared-key");
    fs::write(&key, "what two replicas need to believe each other, and nobody else").unwrap();
    let over = format!(
        "cache:\n  shared:\n    url: redis://127.0.0.1:{}/0\n    key_files: [{}]\n    prefix: two\n    timeout: 300ms\n    \
         breaker: {{errors: 3, open: 500ms}}\n  errors: {{client: 0s, server: 0s}}\n",
        redis.port,
        key.display()
    );
    let mut text = lay_over(&fs::read_to_string(&world.config_file).unwrap(), &over).unwrap();
    for (old, new) in world.ports.iter().zip(ports) {
        text = text.replace(&format!("127.0.0.1:{old}"), &format!("127.0.0.1:{new}"));
    }
    let file = world.folder.join(format!("{name}.yaml"));
    fs::write(&file, text).unwrap();
    let words = ["run", "--config", &file.to_string_lossy(), "--log-level", "debug"].map(str::to_owned);
    let server = Server::start(&servers::sidecar(), &words, &world.folder.join(format!("{name}.log")), &[]).unwrap();
    let [url, _, admin, control] = ports.map(|port| format!("http://127.0.0.1:{port}"));
    server.ready(&format!("{admin}/readyz"), Duration::from_secs(20)).await.unwrap();
    Gateway { server, url, admin, control }
}

async fn pair(redis: &[&str]) -> Pair {
    let world =
        World::start(&Options { quick: true, ..Options::default() }, &|line| eprintln!("{line}")).await.unwrap();
    let redis = Redis::start(redis).await;
    let port = || servers::free_port().unwrap();
    let one = gateway(&world, "one", world.ports, &redis).await;
    let two = gateway(&world, "two", [port(), port(), port(), port()], &redis).await;
    let pair = Pair { world, redis, gateways: [one, two], http: Http::default() };
    // Both have seen what was forgotten: nothing.
    pair.until(async || pair.count(0, "journal", "hit").await > 0 && pair.count(1, "journal", "hit").await > 0).await;
    pair
}

fn window() -> (u64, u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let start = (now - 2 * 24 * 3600) / STEP / BLOCK * BLOCK * STEP;
    (start, start + (POINTS - 1) * STEP)
}

impl Pair {
    async fn range(&self, url: &str, token: &str, query: &str) -> Answer {
        let (start, end) = window();
        let (start, end) = (start.to_string(), end.to_string());
        let pairs = [("query", query), ("start", &start), ("end", &end), ("step", "60")];
        self.http.form(&format!("{url}/query_range"), token, &pairs).await.unwrap()
    }

    /// Asks a gateway as ada, and holds the answer against Prometheus' own. Gives how it came about.
    async fn ask(&self, gateway: usize, query: &str) -> String {
        let url = format!("{}/proxy/globaldatasources/prometheus/api/v1", self.gateways[gateway].url);
        let answer = self.range(&url, self.world.token("ada"), query).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let own = query.replace("{}", r#"{namespace=~"team-a|team-b"}"#);
        let direct = self.range(&format!("{}/api/v1", self.world.prometheus_url), "", &own).await;
        assert_eq!(answer.text(), direct.text(), "{query}");
        answer.headers["cache-status"].to_str().unwrap().to_owned()
    }

    /// How many range queries Prometheus was asked.
    async fn asked(&self) -> u64 {
        let metrics = self.http.get(&format!("{}/metrics", self.world.prometheus_url), "").await.unwrap();
        let of = |line: &str| {
            let ours = line.starts_with("prometheus_http_requests_total{") && line.contains("\"/api/v1/query_range\"");
            ours.then(|| line.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let sum = metrics.text().lines().filter_map(of).sum::<f64>() as u64;
        sum
    }

    async fn count(&self, gateway: usize, operation: &str, outcome: &str) -> u64 {
        let name =
            format!("perses_sidecar_cache_shared_operations_total{{operation=\"{operation}\",outcome=\"{outcome}\"}} ");
        let metrics = self.http.get(&format!("{}/metrics", self.gateways[gateway].admin), "").await.unwrap();
        metrics.text().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
    }

    async fn until(&self, is_so: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !is_so().await {
            assert!(began.elapsed() < Duration::from_secs(20), "it does not come");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Until the first gateway has laid down both blocks of one more question.
    async fn stored(&self, blocks: u64) {
        self.until(async || self.count(0, "put", "stored").await >= blocks).await;
    }
}

/// A question of its own for each number.
fn query(number: usize) -> String {
    format!("vllm:num_requests_running{{}} + {number}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_gateway_has_asked_for_another_need_not() {
    let pair = pair(&[]).await;
    assert!(pair.ask(0, &query(1)).await.contains("fwd=miss"));
    pair.stored(2).await;
    let direct = 1;
    let before = pair.asked().await;
    let how = pair.ask(1, &query(1)).await;
    assert!(how.contains("; hit;") && how.ends_with("detail=shared"), "{how}");
    assert_eq!(pair.asked().await - before, direct, "Prometheus was asked by this test alone");
    let how = pair.ask(1, &query(1)).await;
    assert!(how.contains("; hit;") && !how.contains("shared"), "known here from now on: {how}");
    // Who else has the password to the server learns nothing of what was asked.
    let mut names = pair.redis.names("two:").await;
    assert_eq!(names.iter().filter(|name| name.starts_with("two:b:")).count(), 2, "{names:?}");
    for name in &names {
        let value = pair.redis.value(name).await;
        for word in [&b"vllm"[..], b"namespace", b"team-", b"metric"] {
            assert!(!value.windows(word.len()).any(|part| part == word), "{name} says {word:?}");
        }
        let left = String::from_utf8(pair.redis.raw(&[b"PTTL", name.as_bytes()]).await).unwrap();
        let left: u64 = left.trim_start_matches(':').trim().parse().unwrap();
        assert!(left > 0 && left <= 30 * 24 * 3_600_000, "{name} {left}");
    }
    // Somebody else's rights make another question: nothing of ada's is used for grace.
    let url = format!("{}/proxy/globaldatasources/prometheus/api/v1", pair.gateways[1].url);
    let answer = pair.range(&url, pair.world.token("grace"), &query(1)).await;
    assert!(!answer.text().contains("team-a") && answer.text().contains("team-b"), "{}", answer.text());
    assert_eq!(answer.headers["cache-status"], "perses-sidecar; fwd=miss");
    // What is forgotten at one is not found by the other, here and there.
    let (purge, json) = (format!("{}/cache/purge", pair.gateways[0].control), [("content-type", "application/json")]);
    let purged = pair.http.send("POST", &purge, &json, "{}").await.unwrap();
    assert_eq!(purged.status, 200, "{}", purged.text());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for (gateway, how) in [(1, "fwd=miss"), (0, "detail=shared")] {
        if gateway == 0 {
            pair.until(async || pair.count(1, "put", "stored").await >= 4).await;
        }
        let status = pair.ask(gateway, &query(1)).await;
        assert!(status.contains(how), "{gateway}: {status}");
    }
    names.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_the_shared_memory_every_answer_is_the_backends() {
    let mut pair = pair(&[]).await;
    let mut blocks = 0;
    // Swapped: each value lies under another's name. Then cut, changed, made up, of another type.
    type Spoil = fn(usize, &[Vec<u8>]) -> Vec<u8>;
    let spoils: [(&str, Spoil); 4] = [
        ("swapped", |at, values| values[(at + 1) % values.len()].clone()),
        ("cut", |at, values| values[at][..values[at].len() / 2].to_vec()),
        ("changed", |at, values| {
            let mut value = values[at].clone();
            let middle = value.len() / 2;
            value[middle] ^= 1;
            value
        }),
        ("made up", |_, _| br#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.to_vec()),
    ];
    for (number, (what, spoil)) in spoils.iter().enumerate() {
        pair.ask(0, &query(number)).await;
        blocks += 2;
        pair.stored(blocks).await;
        let names = pair.redis.names("two:b:").await;
        let mut values = Vec::new();
        for name in &names {
            values.push(pair.redis.value(name).await);
        }
        for (at, name) in names.iter().enumerate() {
            pair.redis.raw(&[b"SET", name.as_bytes(), &spoil(at, &values)]).await;
        }
        let before = pair.count(1, "get", "tampered").await;
        let how = pair.ask(1, &query(number)).await;
        assert!(how.contains("fwd=miss"), "{what}: {how}");
        assert_eq!(pair.count(1, "get", "tampered").await - before, 2, "{what}");
        for name in &names {
            pair.redis.raw(&[b"DEL", name.as_bytes()]).await;
        }
    }
    // Slow: it says nothing. Each question waits its deadline at most, and after three nobody waits.
    pair.redis.server.signal("STOP");
    let mut waits = Vec::new();
    for number in 10..20 {
        let began = Instant::now();
        assert!(pair.ask(1, &query(number)).await.contains("fwd=miss"));
        waits.push(began.elapsed());
    }
    assert!(waits.iter().all(|wait| *wait < Duration::from_millis(2000)), "{waits:?}");
    assert!(pair.count(1, "get", "slow").await > 0);
    pair.redis.server.signal("CONT");
    // Killed, while questions are under way.
    pair.redis.server.signal("KILL");
    for number in 20..30 {
        assert!(pair.ask(number % 2, &query(number)).await.contains("fwd=miss"));
    }
    // There again, with nothing: what is asked now is shared again.
    let Pair { world, redis, gateways, http } = pair;
    pair = Pair { world, redis: redis.restarted().await, gateways, http };
    let mut number = 30;
    pair.until(async || !pair.redis.names("two:j:").await.is_empty()).await;
    for _ in 0..20 {
        number += 1;
        pair.ask(0, &query(number)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if pair.ask(1, &query(number)).await.ends_with("detail=shared") {
            return assert!(pair.gateways.iter().all(|gateway| gateway.server.is_running()));
        }
    }
    panic!("nothing is shared after a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_memory_that_is_full_costs_nobody_an_answer() {
    let pair = pair(&["--maxmemory", "3mb", "--maxmemory-policy", "noeviction"]).await;
    for number in 0..5 {
        pair.ask(0, &query(number)).await;
    }
    pair.stored(10).await;
    // Ever smaller things of somebody else's, until nothing fits.
    for size in [64 << 10, 4 << 10, 256] {
        for number in 0..100 {
            let name = format!("others:{size}:{number}");
            if pair.redis.raw(&[b"SET", name.as_bytes(), &vec![b'x'; size]]).await.starts_with(b"-OOM") {
                break;
            }
        }
    }
    for number in 5..9 {
        pair.ask(0, &query(number)).await;
    }
    pair.until(async || pair.count(0, "put", "full").await > 0).await;
    // What was laid down before is read still; a machine that is busy may miss a deadline.
    let mut shared = 0;
    for number in 0..5 {
        shared += usize::from(pair.ask(1, &query(number)).await.ends_with("detail=shared"));
    }
    assert!(shared > 0, "{}", pair.gateways[1].server.output());
    // And what found no room is not: the backend is asked for it.
    let mut asked = 0;
    for number in 5..9 {
        asked += usize::from(!pair.ask(1, &query(number)).await.ends_with("detail=shared"));
    }
    assert!(asked > 0, "all of it was laid down");
    assert!(Path::new(&pair.world.folder).exists());
}
