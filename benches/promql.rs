//! What does it cost to confine a query, its read-back included? `benches/count_promql` counts instructions over the 2,000
//! queries of `benches/queries.txt` and over four sizes, and bounds what the most hostile texts cost in time and memory.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a program for a terminal")]

use std::sync::Arc;

use perses_sidecar::promql::{self, Features, Labels, Limits, Reach};

const QUERIES: &str = include_str!("queries.txt");

/// A word, a rate, a ratio with a join, and an objective with nine selectors.
const SIZES: [&str; 4] = [
    "up",
    "sum by (a) (rate(requests_total[5m])) ",
    "sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{container!=\"\", pod=~\"x-.*\"}[5m])) / on (namespace, pod) group_left (node) sum by (namespace, pod, node) (kube_pod_container_resource_limits{resource=\"cpu\"})",
    "(sum(rate(http_requests_total{job=\"api\",code=~\"5..\"}[5m])) / sum(rate(http_requests_total{job=\"api\"}[5m])) > (14.4 * 0.001)) and (sum(rate(http_requests_total{job=\"api\",code=~\"5..\"}[1h])) / sum(rate(http_requests_total{job=\"api\"}[1h])) > (14.4 * 0.001)) or (sum(rate(http_requests_total{job=\"api\",code=~\"5..\"}[30m])) / sum(rate(http_requests_total{job=\"api\"}[30m])) > (6 * 0.001)) and (sum(rate(http_requests_total{job=\"api\",code=~\"5..\"}[6h])) / sum(rate(http_requests_total{job=\"api\"}[6h])) > (6 * 0.001)) or histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket{job=\"api\"}[5m]))) > 1.5",
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let times: usize = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1);
    let all: Vec<&str> = QUERIES.lines().collect();
    match what.as_str() {
        "all" => confine(&all, times),
        "size0" | "size1" | "size2" | "size3" => confine(&SIZES[usize::from(what.as_bytes()[4] - b'0')..][..1], times),
        "hostile" => hostile(),
        "time" => {
            // Nanoseconds of the processor: for all queries once, and for the longest one.
            let longest = all.iter().max_by_key(|query| query.len()).unwrap();
            confine(&all, 1);
            let began = processor_nanoseconds();
            confine(&all, times);
            let between = processor_nanoseconds();
            confine(&[longest], times * 100);
            let ended = processor_nanoseconds();
            println!("{} {}", (between - began) / times as u64, (ended - between) / (times as u64 * 100));
        }
        _ => {
            confine(&all, 1);
            hostile();
        }
    }
}

fn confine(queries: &[&str], times: usize) {
    let reach = Reach::Namespaces(["team-a", "team-b"].map(Arc::from).into());
    let labels = Labels::new("namespace", Vec::new()).unwrap();
    for _ in 0..times {
        for query in queries {
            let confined = promql::confine(query, &reach, &labels, &Limits::default(), Features::default());
            std::hint::black_box(confined.unwrap_or_else(|error| panic!("{query}: {error}")));
        }
    }
}

/// 64 KiB of each: at most 5 ms of the processor and 4 MiB of memory, refused or not.
fn hostile() {
    let full = |piece: &str| piece.repeat((64 << 10) / piece.len());
    let around = |before: &str, piece: &str, after: &str| {
        format!("{before}{}{after}", piece.repeat(((64 << 10) - before.len() - after.len()) / piece.len()))
    };
    let shapes = [
        ("parentheses", full("(")),
        ("signs", full("-")),
        ("sums", around("up", "+up", "")),
        ("numbers", around("1", "+1", "")),
        ("comments", full("#\n")),
        ("white space", around("", " ", "up")),
        ("one word", full("a")),
        ("one string", around("up{a=\"", "x", "\"}")),
        ("escapes", around("up{a=\"", "\\xff", "\"}")),
        ("alternatives", around("up{namespace=~\"", "a|", "a\"}")),
        ("matchers", around("up{", "a!=\"\",", "}")),
        ("labels twice", around("a * on (", "x,", ") group_left (y) b")),
        (
            "labels in two lists",
            format!("a * on ({}) group_left ({}) b", full("x,")[..9000].to_owned(), full("y,")[..9000].to_owned()),
        ),
        ("calls", full("rate(")),
        ("a regular expression", around("{a=~\"", "(", "\"}")),
        ("repetitions", around("{a=~\"", "{", "\"}")),
        ("long repetitions", around("{a=~\"", "{1", "\"}")),
        ("classes", around("{a=~\"", "[[:", "\"}")),
        ("named classes", around("{a=~\"[", "[:", "\"}")),
        ("durations", around("a[1s", "+1s", "]")),
        ("long durations", format!("a[{}{}]", full("1")[..40_000].to_owned(), "+1s".repeat(400))),
        ("three bytes", full("\u{ff01}")),
        ("subqueries", around("up", "[1m:1m]", "")),
        ("brackets", full("a[")),
        ("braces", full("a{")),
        ("selectors", format!("up{}", " or up".repeat(199))),
    ];
    let reach = Reach::Namespaces(["team-a"].map(Arc::from).into());
    let labels = Labels::new("namespace", Vec::new()).unwrap();
    let features = Features { experimental: true };
    let mut failed = false;
    for (name, text) in &shapes {
        // From here on the peak counts anew.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = peak_kibibytes();
        let outcome = promql::confine(text, &reach, &labels, &Limits::default(), features).map(|_| "confined");
        let kibibytes = peak_kibibytes() - before;
        // Of the processor, and so many that its clock, which goes by the scheduler's ticks, is fine enough.
        let mut times = 0;
        let began = processor_nanoseconds();
        let mut ended = began;
        while ended - began < 100_000_000 {
            for _ in 0..10 {
                let _ = std::hint::black_box(promql::confine(text, &reach, &labels, &Limits::default(), features));
            }
            times += 10;
            ended = processor_nanoseconds();
        }
        let microseconds = (ended - began) / times / 1000;
        let bad = microseconds > 5000 || kibibytes > 4096;
        failed |= bad;
        let code = outcome.map_or_else(|error| error.code().to_owned(), str::to_owned);
        println!("{name:<22} {microseconds:>6} us {kibibytes:>6} KiB  {code}{}", if bad { "  TOO MUCH" } else { "" });
    }
    assert!(!failed, "a text costs more than 5 ms or 4 MiB");
}

fn peak_kibibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn processor_nanoseconds() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
