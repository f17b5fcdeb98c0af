//! Random histories: whatever was asked, forgotten, given up or refused before, every answer is the backend's own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::backend::{Mood, Stage};
use super::shelf::{InProcess, replica, share};
use crate::cache::{Purge, Told};
use crate::config;
use crate::extents::tests::world::{Dice, World};
use crate::extents::{Grid, Span};
use crate::refusal::{Reason, Refusal};
use crate::telemetry::metrics::Verification;

const QUERIES: [&str; 4] =
    [r#"up{namespace="a"}"#, r#"up{namespace="b"}"#, r#"up{namespace=~"a|b"}"#, r#"up{namespace="a"} offset -30s"#];

/// `MODEL_SEED` plays one history again; `MODEL_REQUESTS` or `MODEL_SECONDS` say how much is played.
#[test]
fn every_answer_is_what_the_backend_would_have_said() {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    if let Some(seed) = number("MODEL_SEED") {
        play(seed);
        return;
    }
    let (most, seconds) = (number("MODEL_REQUESTS"), number("MODEL_SECONDS"));
    let enough = if most.is_none() && seconds.is_none() { 6_000 } else { most.unwrap_or(u64::MAX) };
    let (began, mut requests, mut results) = (Instant::now(), 0, [0; 6]);
    let mut seed = 0;
    while requests < enough && began.elapsed() < Duration::from_secs(seconds.unwrap_or(u64::MAX)) {
        let (asked, by) = play(seed);
        requests += asked;
        results.iter_mut().zip(by).for_each(|(sum, one)| *sum += one);
        seed += 1;
    }
    let took = began.elapsed().as_secs_f64();
    #[allow(clippy::print_stderr, reason = "for whoever looks")]
    {
        eprintln!(
            "{requests} requests in {seed} histories, {took:.1} s: hit, partial, miss, collapsed, bypass, error: {results:?}"
        );
    }
    let verified = VERIFIED.load(Ordering::Relaxed);
    assert!(verified > requests / 1_000, "{verified} of {requests} were compared and the same");
    assert!(results[..4].iter().all(|count| *count > requests / 100) && results[5] > 0, "{results:?}");
}

/// How often what is kept was compared with what the backend says, and was the same.
static VERIFIED: AtomicU64 = AtomicU64::new(0);

struct Asked {
    query: &'static str,
    grid: Grid,
    span: Span,
    at: i64,
    fresh: i64,
    version: usize,
    task: tokio::task::JoinHandle<(Result<Told, Refusal>, i64)>,
}

fn play(seed: u64) -> (u64, [u64; 6]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    // Beside some histories the same is played in shadow, where nothing but what is compared counts.
    if seed.is_multiple_of(8) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(history(seed, true));
    }
    runtime.block_on(history(seed, false))
}

async fn history(seed: u64, shadow: bool) -> (u64, [u64; 6]) {
    let mut dice = Dice(seed);
    let mut stage = Stage::new([60_000, 4 << 20, 64 << 20][dice.below(3)]);
    stage.settings.range = config::RangeTerms {
        fresh: Duration::from_secs([0, 5, 15, 15, 120][dice.below(5)]),
        settle: Duration::from_secs(60),
        ttl: Duration::from_secs([60, 43_200][dice.below(2)]),
    };
    stage.settings.upstream.at_once = [1, 2, 32][dice.below(3)];
    stage.settings.largest = [3_000, 1 << 20, 1 << 20][dice.below(3)];
    stage.settings.verify = 1 + seed % 3;
    if shadow {
        stage.settings.mode = config::CacheMode::Shadow;
    }
    let mut versions = vec![[0_u64; 4]];
    let worlds = |dice: &mut Dice, stage: &Stage| {
        let seeds = [0; 4].map(|_| dice.next());
        for (query, seed) in QUERIES.iter().zip(seeds) {
            stage.backend.set(query, world(query, seed));
        }
        seeds
    };
    versions[0] = worlds(&mut dice, &stage);
    // Half of all histories have a second replica, and both share what is final.
    let shelf = (dice.below(2) == 0).then(Arc::<InProcess>::default);
    let mut other = Arc::new(replica(&stage, 4 << 20));
    if let Some(shelf) = &shelf {
        share(shelf, &[&stage, &other]);
    }
    let mut stage = Arc::new(stage);
    let grids = [(0, 15_000), (7_000, 15_000), (0, 1_000), (33, 123_428)]
        .map(|(phase, step)| Grid::new(super::backend::BEGIN / step * step + phase, step).unwrap());
    let mut open: Vec<Asked> = Vec::new();
    let mut results = [0; 6];
    let mut requests = 0;
    for _ in 0..120 {
        if shelf.is_some() && dice.below(12) == 0 {
            std::mem::swap(&mut stage, &mut other);
        }
        match dice.below(20) {
            0..12 => {
                let (query, grid) = (QUERIES[[0, 0, 1, 2, 3][dice.below(5)]], grids[[0, 0, 0, 1, 2, 3][dice.below(6)]]);
                let now = stage.backend.now();
                let to = grid.behind(now) + [1, 0, 0, 0, -1, -2, -400][dice.below(7)];
                let length = [1, 4, 4, 60, 300][dice.below(5)];
                let span = Span { from: to - 1 - i64::try_from(dice.below(length)).unwrap(), to };
                let patience = Duration::from_millis([100, 5_000, 60_000, 60_000][dice.below(4)]);
                let task = tokio::spawn({
                    let stage = Arc::clone(&stage);
                    async move {
                        let told = stage.range_within(query, grid, span, patience).await;
                        (told, stage.backend.now())
                    }
                });
                requests += 1;
                let fresh = crate::cache::millis(stage.settings.range.fresh);
                open.push(Asked { query, grid, span, at: now, fresh, version: versions.len() - 1, task });
                if dice.below(2) == 0 {
                    tokio::task::yield_now().await;
                }
            }
            12 | 13 => {
                let mood = Mood {
                    takes: Duration::from_millis([0, 10, 900, 900, 30_000][dice.below(5)]),
                    fails: [Some(Reason::UpstreamDown), Some(Reason::UpstreamRefused), None][dice.below(12).min(2)],
                    spoilt: [Some(warned as fn(String) -> String), None][dice.below(8).min(1)],
                };
                stage.backend.mood(mood);
            }
            14 => {
                if !open.is_empty() {
                    let asked = open.swap_remove(dice.below(open.len()));
                    asked.task.abort();
                }
            }
            15 if dice.below(3) == 0 => {
                // All data are others from now on, and the cache is told.
                if let Some(shelf) = &shelf {
                    // Whoever cannot be told forgets later.
                    shelf.mood(Duration::ZERO, false);
                    tokio::time::sleep(Duration::from_secs(3)).await;
                }
                let seeds = worlds(&mut dice, &stage);
                versions.push(seeds);
                match dice.below(3) {
                    0 => drop(stage.cache.purge(&Purge::default())),
                    1 => drop(stage.cache.purge(&Purge { from_ms: Some(0), ..Purge::default() })),
                    _ => {
                        stage.cache.purge(&Purge { namespace: Some("a".to_owned()), ..Purge::default() });
                        stage.cache.purge(&Purge { metric: Some("up".to_owned()), ..Purge::default() });
                    }
                }
                if shelf.is_some() {
                    tokio::time::sleep(Duration::from_secs(3)).await;
                }
            }
            17 if shelf.is_some() => {
                let takes = Duration::from_millis([0, 1, 20, 200][dice.below(4)]);
                shelf.iter().for_each(|shelf| shelf.mood(takes, dice.below(4) == 0));
            }
            16 if dice.below(3) == 0 => {
                // Another configuration, over the same cache.
                let mut settings = stage.settings.clone();
                settings.range.fresh = Duration::from_secs([0, 5, 15][dice.below(3)]);
                settings.range.settle = Duration::from_secs([60, 90, 3600][dice.below(3)]);
                for stage in [&mut stage, &mut other] {
                    let (cache, backend, place) =
                        (Arc::clone(&stage.cache), Arc::clone(&stage.backend), Arc::clone(&stage.place));
                    *stage =
                        Arc::new(Stage { cache, backend, place, settings: settings.clone(), lately: Mutex::default() });
                }
            }
            _ => {
                tokio::time::sleep(Duration::from_millis([1, 300, 300, 4_000, 4_000, 16_000, 61_000][dice.below(7)]))
                    .await
            }
        }
        check(seed, &stage, &versions, &mut open, &mut results).await;
    }
    while !open.is_empty() {
        tokio::time::sleep(Duration::from_secs(30)).await;
        check(seed, &stage, &versions, &mut open, &mut results).await;
    }
    // A replica that hears later of what was written anew may find it by itself before.
    if shelf.is_none() {
        let counted = |outcome| stage.cache.metrics.cache().verifications(outcome);
        assert_eq!(counted(Verification::Different), 0, "MODEL_SEED={seed}: a false alarm");
        VERIFIED.fetch_add(counted(Verification::Same), Ordering::Relaxed);
    }
    (requests, results)
}

fn world(query: &str, seed: u64) -> World {
    let mut world = World::new(seed);
    if query.contains("offset -30s") {
        world.forward = 30_000;
    }
    world
}

const WARNING: &str = r#","warnings":["partial response"]"#;

fn warned(body: String) -> String {
    let at = body.find(r#","infos""#).unwrap_or(body.len() - 1);
    format!("{}{WARNING}{}", &body[..at], &body[at..])
}

/// Looks at everything that has been answered.
async fn check(seed: u64, stage: &Arc<Stage>, versions: &[[u64; 4]], open: &mut Vec<Asked>, results: &mut [u64; 6]) {
    let mut still = Vec::new();
    for asked in open.drain(..) {
        if !asked.task.is_finished() {
            still.push(asked);
            continue;
        }
        let (told, answered) = asked.task.await.unwrap();
        let Ok(told) = told else {
            results[5] += 1;
            continue;
        };
        results[told.how.result as usize] += 1;
        // Data that become others while it is answered may be seen half and half.
        if asked.version != versions.len() - 1 {
            continue;
        }
        let body = std::str::from_utf8(&told.body).unwrap().replace(WARNING, "");
        // What may still change is of one time at which the backend was asked: since the question came, not longer before it
        // than it is fresh, or by somebody who still waited then.
        let calls = stage.backend.calls();
        let times = calls.iter().filter(|call| {
            let recent = call.looked.is_some_and(|at| at >= asked.at - asked.fresh)
                || call.ended.is_some_and(|at| at >= asked.at);
            call.query == asked.query && call.span.is_some_and(|span| !span.and(asked.span).is_empty()) && recent
        });
        let times = times.filter_map(|call| call.looked).chain([answered]);
        let place = QUERIES.iter().position(|query| *query == asked.query).unwrap();
        let world = world(asked.query, versions[asked.version][place]);
        let mut candidates = times.map(|at| world.answer(asked.grid, asked.span, at));
        assert!(
            candidates.any(|direct| direct == body),
            "MODEL_SEED={seed}: {} {:?} {:?}, asked at {}, answered at {answered} ({:?}):\n{body}\n{}",
            asked.query,
            asked.grid,
            asked.span,
            asked.at,
            told.how,
            stage.backend.direct(asked.query, asked.grid, asked.span, answered)
        );
    }
    *open = still;
}
