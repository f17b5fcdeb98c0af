//! One scene a test: who asks what and when, and what the backend notices of it.

use std::sync::Arc;
use std::time::Duration;

use super::backend::{BEGIN, Mood, Stage};
use crate::cache::{CacheReason, CacheResult, Purge, Told};
use crate::config;
use crate::extents::tests::world::World;
use crate::extents::{Grid, Span};
use crate::refusal::{Reason, Refusal};
use crate::telemetry::metrics::Verification;

const Q: &str = r#"up{namespace="a"}"#;
const SECOND: Duration = Duration::from_secs(1);

fn stage() -> Arc<Stage> {
    stage_with(|_| {})
}

fn stage_with(change: impl FnOnce(&mut Stage)) -> Arc<Stage> {
    let mut stage = Stage::new(64 << 20);
    change(&mut stage);
    // Late samples would make the same question have two answers.
    stage.backend.set(Q, World::prompt(14));
    Arc::new(stage)
}

fn grid() -> Grid {
    Grid::new(BEGIN, 15_000).unwrap()
}

/// The newest `points` at the moment.
fn newest(stage: &Stage, points: i64) -> Span {
    let to = grid().behind(stage.backend.now());
    Span { from: to - points, to }
}

/// Asks, and holds the answer against the backend's own of the moment.
async fn ask(stage: &Stage, span: Span) -> CacheResult {
    let told = stage.range(Q, grid(), span).await.unwrap();
    let direct = stage.backend.direct(Q, grid(), span, stage.backend.now());
    assert_eq!(std::str::from_utf8(&told.body).unwrap(), direct);
    told.how.result
}

fn together(stage: &Arc<Stage>, spans: &[Span]) -> Vec<tokio::task::JoinHandle<Result<Told, Refusal>>> {
    let one = |span: &Span| {
        let (stage, span) = (Arc::clone(stage), *span);
        tokio::spawn(async move { stage.range(Q, grid(), span).await })
    };
    spans.iter().map(one).collect()
}

/// Starts what was spawned.
async fn begin() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_asks_for_what_is_new_and_not_settled() {
    let stage = stage();
    assert_eq!(ask(&stage, newest(&stage, 2000)).await, CacheResult::Miss);
    assert_eq!(ask(&stage, newest(&stage, 2000)).await, CacheResult::Hit);
    assert_eq!(ask(&stage, newest(&stage, 100)).await, CacheResult::Hit, "a part of it");
    let before = stage.backend.calls().len();
    for _ in 0..200 {
        tokio::time::sleep(15 * SECOND).await;
        assert_eq!(ask(&stage, newest(&stage, 2000)).await, CacheResult::Partial);
    }
    let points = stage.backend.points_since(before);
    assert_eq!(points.len(), 200, "one question a refresh");
    // A minute until they settle are four points, and the new one; the first second of the backend's clock is one more.
    assert!(points.iter().all(|points| *points <= 6), "{points:?}");
}

#[tokio::test(start_paused = true)]
async fn with_steps_as_long_as_samples_take_to_settle_a_refresh_costs_three_points() {
    let stage = stage();
    let minute = Grid::new(BEGIN, 60_000).unwrap();
    let week = 7 * 24 * 60;
    let ask = async || {
        let to = minute.behind(stage.backend.now());
        stage.range(Q, minute, Span { from: to - week, to }).await.unwrap();
    };
    ask().await;
    let before = stage.backend.calls().len();
    for _ in 0..60 {
        tokio::time::sleep(15 * SECOND).await;
        ask().await;
    }
    let points: i64 = stage.backend.points_since(before).iter().sum();
    assert!(points <= 60 * 3, "{points} points a series in 60 refreshes");
}

#[tokio::test(start_paused = true)]
async fn what_may_still_change_is_shared_while_it_is_fresh_and_until_the_next_point() {
    let stage = stage();
    tokio::time::sleep(2 * SECOND).await;
    let span = newest(&stage, 50);
    ask(&stage, span).await;
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(ask(&stage, span).await, CacheResult::Hit, "5 s later");
    tokio::time::sleep(8 * SECOND).await;
    // 15 s after the beginning, the next point of the grid has come.
    assert_eq!(ask(&stage, span).await, CacheResult::Partial, "13 s later, in another step");
    let settled = Span { from: span.from - 100, to: span.from - 50 };
    assert_eq!(ask(&stage, settled).await, CacheResult::Miss, "not known yet");
    tokio::time::sleep(3600 * SECOND).await;
    assert_eq!(ask(&stage, settled).await, CacheResult::Hit, "an hour later");
    tokio::time::sleep(12 * 3600 * SECOND).await;
    assert_eq!(ask(&stage, settled).await, CacheResult::Miss, "older than range.ttl");
}

#[tokio::test(start_paused = true)]
async fn another_phase_and_another_step_are_other_points() {
    let stage = stage();
    let now = stage.backend.now();
    for (start, step) in [(BEGIN, 15_000), (BEGIN + 5_000, 15_000), (BEGIN, 10_000), (BEGIN + 123, 123_428)] {
        let grid = Grid::new(start - step * 100, step).unwrap();
        let span = grid.span(start - step * 100, now);
        let told = stage.range(Q, grid, span).await.unwrap();
        assert_eq!(told.how.result, CacheResult::Miss, "{grid:?}");
        assert_eq!(told.body, stage.backend.direct(Q, grid, span, now));
        let later = Span { from: span.from + 7, to: span.to - 3 };
        assert_eq!(stage.range(Q, grid, later).await.unwrap().how.result, CacheResult::Hit, "another start on it");
    }
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_the_same_are_one_question() {
    let stage = stage();
    stage.backend.strict();
    stage.backend.mood(Mood { takes: SECOND, ..Mood::default() });
    let spans = vec![newest(&stage, 500); 500];
    let mut results = [0; 6];
    let mut bodies = Vec::new();
    for task in together(&stage, &spans) {
        let told = task.await.unwrap().unwrap();
        results[told.how.result as usize] += 1;
        bodies.push(told.body);
    }
    assert_eq!(stage.backend.calls().len(), 1);
    assert_eq!((results[CacheResult::Miss as usize], results[CacheResult::Collapsed as usize]), (1, 499));
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_first_each_point_is_asked_for_once() {
    let all = |to| [Span { from: to - 300, to }, Span { from: to - 100, to }, Span { from: to - 1000, to: to - 200 }];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let stage = stage();
        stage.backend.strict();
        stage.backend.mood(Mood { takes: SECOND, ..Mood::default() });
        let to = grid().behind(stage.backend.now());
        let spans = order.map(|index| all(to)[index]);
        for (task, span) in together(&stage, &spans).into_iter().zip(spans) {
            let body = task.await.unwrap().unwrap().body;
            assert_eq!(body, stage.backend.direct(Q, grid(), span, stage.backend.now()));
        }
        assert!(!stage.backend.twice(), "{order:?}");
        let settled = grid().behind(BEGIN - 62_000);
        let mut asked: Vec<Span> = stage.backend.calls().iter().filter_map(|call| call.span).collect();
        asked.sort_by_key(|span| span.from);
        let twice = asked.windows(2).any(|pair| pair[0].to.min(settled) > pair[1].from);
        assert!(!twice, "{order:?}: {asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_at_whatever_moment_the_question_is_asked_once() {
    for polls in 0..12 {
        for aborted in [0, 1] {
            let stage = stage();
            stage.backend.strict();
            stage.backend.mood(Mood { takes: SECOND, ..Mood::default() });
            let span = newest(&stage, 50);
            let mut tasks = together(&stage, &[span, span, span]);
            for _ in 0..polls {
                tokio::task::yield_now().await;
            }
            if polls % 3 == 0 {
                tokio::time::sleep(SECOND / 3).await;
            }
            tasks.remove(aborted).abort();
            for task in tasks {
                assert!(task.await.unwrap().is_ok(), "{polls}");
            }
            assert_eq!(stage.backend.calls().len(), 1, "{polls}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_given_up_after_a_while() {
    let stage = stage();
    stage.backend.mood(Mood { takes: 30 * SECOND, ..Mood::default() });
    let span = newest(&stage, 50);
    let task = together(&stage, &[span]).remove(0);
    begin().await;
    task.abort();
    tokio::time::sleep(SECOND).await;
    assert_eq!(stage.cache.stats().flights, 1, "the next tab may want it");
    let joined = together(&stage, &[span]).remove(0);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(stage.cache.stats().flights, 1, "somebody waits again");
    joined.abort();
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(stage.cache.stats().flights, 0);
    assert!(stage.backend.calls()[0].looked.is_none(), "the backend was let go");
    assert_eq!(stage.cache.stats().backends["b"].asked, 0);
}

#[tokio::test(start_paused = true)]
async fn one_who_has_less_time_goes_alone() {
    let stage = stage();
    stage.backend.mood(Mood { takes: 10 * SECOND, ..Mood::default() });
    let span = newest(&stage, 50);
    let patient = together(&stage, &[span]).remove(0);
    begin().await;
    let refusal = stage.range_within(Q, grid(), span, SECOND).await.unwrap_err();
    assert_eq!(refusal.status().as_u16(), 504);
    assert!(patient.await.unwrap().is_ok());
    assert_eq!(stage.backend.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_for_all_who_wait_and_is_not_asked_for_again_at_once() {
    let stage = stage();
    stage.backend.mood(Mood { takes: SECOND, fails: Some(Reason::UpstreamDown), ..Mood::default() });
    let span = newest(&stage, 50);
    for task in together(&stage, &[span, span, span]) {
        assert_eq!(task.await.unwrap().unwrap_err().reason(), Reason::UpstreamDown);
    }
    tokio::time::sleep(SECOND / 4).await;
    assert!(stage.range(Q, grid(), span).await.is_err());
    assert_eq!(stage.backend.calls().len(), 1, "within half a second");
    stage.backend.mood(Mood::default());
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(ask(&stage, span).await, CacheResult::Miss);
    // A refused query is refused for longer.
    stage.backend.mood(Mood { fails: Some(Reason::UpstreamRefused), ..Mood::default() });
    let other = Span { from: span.from - 500, to: span.from - 400 };
    assert!(stage.range(Q, grid(), other).await.is_err());
    tokio::time::sleep(8 * SECOND).await;
    let calls = stage.backend.calls().len();
    assert!(stage.range(Q, grid(), other).await.is_err());
    assert_eq!(stage.backend.calls().len(), calls);
}

#[tokio::test(start_paused = true)]
async fn of_several_gaps_what_came_before_a_failure_is_kept() {
    let stage = stage();
    let to = newest(&stage, 1).to - 1000;
    let part = |from, length| Span { from: to - from, to: to - from + length };
    ask(&stage, part(600, 100)).await;
    ask(&stage, part(300, 100)).await;
    let calls = stage.backend.calls().len();
    let fail = Mood { fails: Some(Reason::UpstreamDown), ..Mood::default() };
    stage.backend.moods(vec![fail, Mood::default()]);
    assert!(stage.range(Q, grid(), part(600, 600)).await.is_err());
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(ask(&stage, part(600, 600)).await, CacheResult::Partial);
    assert_eq!(stage.backend.points_since(calls), [200, 200, 200], "the first gap once, the second twice");
}

fn with(body: &str, from: &str, to: &str) -> String {
    assert!(body.contains(from), "{body}");
    body.replacen(from, to, 1)
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_apart_is_passed_on_as_it_is() {
    type Spoil = fn(String) -> String;
    let cases: [(Spoil, CacheReason); 4] = [
        (|body| with(&body, r#"{"status""#, r#"{ "status""#), CacheReason::Shape),
        (|body| with(&body, r#"[["#, r#"[[1,"1"],["#), CacheReason::OffGrid),
        (|body| with(&body, "]}}", r#"]},"warnings":["PromQL warning: x"]}"#), CacheReason::Warnings),
        (
            |body| {
                let first = body.find(r#"{"metric""#).unwrap();
                let end = body.find(r#",{"metric""#).unwrap();
                let twice = format!("{},{}", &body[first..end], &body[first..]);
                format!("{}{twice}", &body[..first])
            },
            CacheReason::Duplicate,
        ),
    ];
    for (spoil, reason) in cases {
        let stage = stage();
        stage.backend.mood(Mood { spoilt: Some(spoil), ..Mood::default() });
        let span = newest(&stage, 50);
        let direct = spoil(stage.backend.direct(Q, grid(), span, BEGIN));
        let first = stage.range(Q, grid(), span).await.unwrap();
        assert_eq!((first.how.result, first.how.reason), (CacheResult::Miss, Some(reason)));
        assert_eq!(first.body, direct);
        let second = stage.range(Q, grid(), span).await.unwrap();
        assert_eq!((second.how.result, second.how.reason), (CacheResult::Hit, Some(reason)), "as a whole, for a while");
        assert_eq!(second.body, direct);
        assert_eq!(stage.backend.calls().len(), 1);
        // The next refresh asks for the whole again.
        tokio::time::sleep(14 * SECOND).await;
        let next = newest(&stage, 50);
        let third = stage.range(Q, grid(), next).await.unwrap();
        assert_eq!(third.body, spoil(stage.backend.direct(Q, grid(), next, stage.backend.now())));
        // When the backend is itself again, so is the cache.
        stage.backend.mood(Mood::default());
        tokio::time::sleep(61 * SECOND).await;
        ask(&stage, newest(&stage, 50)).await;
        assert_eq!(ask(&stage, newest(&stage, 50)).await, CacheResult::Hit);
        assert!(stage.range(Q, grid(), newest(&stage, 50)).await.unwrap().how.reason.is_none(), "{reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_known_before_a_warning_is_known_after_it() {
    let stage = stage();
    ask(&stage, newest(&stage, 500)).await;
    tokio::time::sleep(15 * SECOND).await;
    stage.backend.mood(Mood {
        spoilt: Some(|body| with(&body, "]}}", r#"]},"warnings":["partial response"]}"#)),
        ..Mood::default()
    });
    let span = newest(&stage, 500);
    let told = stage.range(Q, grid(), span).await.unwrap();
    assert_eq!(told.how.reason, Some(CacheReason::Warnings));
    assert!(told.body.ends_with(br#"]},"warnings":["partial response"]}"#), "of the whole range");
    stage.backend.mood(Mood::default());
    tokio::time::sleep(16 * SECOND).await;
    let before = stage.backend.calls().len();
    assert_eq!(ask(&stage, newest(&stage, 500)).await, CacheResult::Partial);
    assert!(stage.backend.points_since(before)[0] < 20);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_large_is_answered_and_not_kept() {
    let stage = stage_with(|stage| stage.settings.largest = 2000);
    let span = newest(&stage, 500);
    let told = stage.range(Q, grid(), span).await.unwrap();
    assert_eq!(told.how.reason, Some(CacheReason::TooLarge));
    assert_eq!(told.body, stage.backend.direct(Q, grid(), span, BEGIN));
    assert!(stage.cache.stats().bytes < 2000, "{:?}", stage.cache.stats());
    assert_eq!(stage.range(Q, grid(), span).await.unwrap().how.result, CacheResult::Miss);
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_while_it_is_asked_for_does_not_come_back() {
    let purges = [
        Purge::default(),
        Purge { backend: Some("b".to_owned()), ..Purge::default() },
        Purge { namespace: Some("a".to_owned()), ..Purge::default() },
        Purge { metric: Some("up".to_owned()), ..Purge::default() },
        Purge { from_ms: Some(BEGIN - 3_600_000), to_ms: Some(BEGIN), ..Purge::default() },
    ];
    // Somebody asks anew before the old answer comes, or only behind it.
    for (purge, anew) in purges.iter().flat_map(|purge| [(purge, true), (purge, false)]) {
        let stage = stage();
        let span = newest(&stage, 50);
        ask(&stage, Span { from: span.from, to: span.from + 10 }).await;
        stage.backend.mood(Mood { takes: 10 * SECOND, ..Mood::default() });
        let old = together(&stage, &[span]).remove(0);
        tokio::time::sleep(6 * SECOND).await;
        // The backend has looked, and its data become others before it answers.
        stage.backend.set(Q, World::prompt(999));
        stage.cache.purge(purge);
        let new = anew.then(|| together(&stage, &[span]).remove(0));
        assert!(old.await.unwrap().is_ok());
        if let Some(new) = new {
            let new = new.await.unwrap().unwrap();
            assert_eq!(new.body, stage.backend.direct(Q, grid(), span, BEGIN), "{purge:?}");
        }
        stage.backend.mood(Mood::default());
        ask(&stage, Span { from: span.from, to: span.from + 20 }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_way_to_an_answer_ends_with_its_generation() {
    let stage = stage();
    ask(&stage, newest(&stage, 100)).await;
    let way = stage.lately.lock().unwrap().1.values().next().cloned().unwrap();
    assert!(stage.cache.kept(&way).is_some());
    // What somebody puts there late is still of before.
    stage.place.next();
    assert!(stage.cache.kept(&way).is_none());
}

#[tokio::test(start_paused = true)]
async fn only_what_is_meant_is_forgotten() {
    let stage = stage();
    let span = newest(&stage, 500);
    let keeps = |purge: Purge| {
        let stage = Arc::clone(&stage);
        async move {
            ask(&stage, span).await;
            stage.cache.purge(&purge);
            let result = ask(&stage, Span { from: span.from, to: span.from + 300 }).await;
            result == CacheResult::Hit
        }
    };
    let text = |text: &str| Some(text.to_owned());
    assert!(keeps(Purge { namespace: text("other"), ..Purge::default() }).await);
    assert!(keeps(Purge { metric: text("down"), ..Purge::default() }).await);
    assert!(keeps(Purge { backend: text("c"), ..Purge::default() }).await);
    assert!(keeps(Purge { backend: text("b"), namespace: text("other"), ..Purge::default() }).await);
    assert!(keeps(Purge { from_ms: Some(BEGIN - 60_000), ..Purge::default() }).await, "newer data");
    assert!(
        !keeps(Purge { from_ms: Some(BEGIN - 7_000_000), to_ms: Some(BEGIN - 6_000_000), ..Purge::default() }).await
    );
    assert!(!keeps(Purge { namespace: text("a"), metric: text("up"), ..Purge::default() }).await);
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_is_shared_and_kept_longer_when_it_no_longer_changes() {
    let stage = stage();
    stage.backend.mood(Mood { takes: SECOND, ..Mood::default() });
    let (one, other) = tokio::join!(stage.whole("x", None), stage.whole("x", None));
    assert_eq!(one.unwrap().body, other.unwrap().body);
    assert_eq!(stage.backend.calls().len(), 1);
    tokio::time::sleep(11 * SECOND).await;
    assert_eq!(stage.whole("x", None).await.unwrap().how.result, CacheResult::Miss);
    for (settles, later) in [(BEGIN - 1_000_000, CacheResult::Hit), (BEGIN + 1_000_000, CacheResult::Miss)] {
        let query = format!("y{settles}");
        stage.whole(&query, Some(settles)).await.unwrap();
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(stage.whole(&query, Some(settles)).await.unwrap().how.result, later);
    }
}

#[tokio::test(start_paused = true)]
async fn memory_stays_within_its_limit() {
    let stage = Arc::new(Stage::new(1 << 20));
    for number in 0..400 {
        let query = format!(r#"up{{namespace="n{number}"}}"#);
        stage.backend.set(&query, World::new(number * 7 + 6));
        let span = newest(&stage, 500);
        stage.range(&query, grid(), span).await.unwrap();
        let bytes = stage.cache.stats().bytes;
        assert!(bytes <= (1 << 20) / 10 * 11, "{bytes}");
    }
    assert!(stage.cache.stats().bytes > 500_000, "it is used: {:?}", stage.cache.stats());
}

/// Refresh and step of 15 s, viewers at any time: how old is the newest sample that each sees?
#[tokio::test(start_paused = true)]
async fn every_sample_is_in_every_viewers_answer_within_two_refreshes() {
    let stage = stage();
    let mut dice = crate::extents::tests::world::Dice(5);
    let phases: Vec<u64> = (0..500).map(|_| dice.next() % 15_000).collect();
    let began = tokio::time::Instant::now();
    let mut viewers = tokio::task::JoinSet::new();
    for phase in phases {
        let stage = Arc::clone(&stage);
        viewers.spawn(async move {
            let mut seen: Vec<(i64, i64)> = Vec::new();
            for refresh in 0..8 {
                tokio::time::sleep_until(began + Duration::from_millis(refresh * 15_000 + phase)).await;
                let span = newest(&stage, 240);
                let calls = stage.backend.calls().len();
                let told = stage.range(Q, grid(), span).await.unwrap();
                let direct = stage.backend.direct(Q, grid(), span, stage.backend.now());
                assert_eq!(told.body, direct, "nothing is late here, so nothing is missing");
                seen.push((stage.backend.now(), grid().time(span.to - 1)));
                assert!(stage.backend.calls().len() <= calls + 1);
            }
            // A sample that was taken at any time is in the point behind it, which everybody asks for in their next refresh.
            seen.windows(2).all(|pair| pair[1].0 - pair[0].1 <= 30_000)
        });
    }
    assert!(viewers.join_all().await.into_iter().all(|good| good));
    assert!(
        stage.backend.calls().len() <= 9,
        "{} questions for 8 refreshes of 500 viewers",
        stage.backend.calls().len()
    );
}

async fn waited(stage: &Stage, outcome: Verification) -> u64 {
    tokio::time::sleep(SECOND).await;
    stage.cache.metrics.cache().verifications(outcome)
}

/// All data are others from now on, and nobody says so.
fn rewrite(stage: &Stage) {
    stage.backend.set(Q, World::prompt(16));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_rewrites_history_is_found_and_what_is_kept_of_it_forgotten() {
    let stage = stage_with(|stage| stage.settings.verify = 1);
    let span = newest(&stage, 100);
    assert_eq!(ask(&stage, span).await, CacheResult::Miss);
    assert_eq!(ask(&stage, span).await, CacheResult::Hit);
    assert_eq!(waited(&stage, Verification::Same).await, 1);
    // Asked again is what has settled: the points of the last minute are not.
    assert_eq!(stage.backend.points_since(1), [96]);
    rewrite(&stage);
    let old = stage.range(Q, grid(), span).await.unwrap();
    assert_eq!(old.how.result, CacheResult::Hit, "nobody waits for it");
    assert_eq!(waited(&stage, Verification::Different).await, 1);
    assert_eq!(ask(&stage, span).await, CacheResult::Miss, "and the next answer is right");
    assert_eq!(ask(&stage, span).await, CacheResult::Hit);
    assert_eq!(waited(&stage, Verification::Same).await, 2);
    // A backend that fails says nothing.
    stage.backend.mood(Mood { fails: Some(Reason::UpstreamDown), ..Mood::default() });
    stage.range(Q, grid(), span).await.unwrap();
    assert_eq!(waited(&stage, Verification::Failed).await, 1);
    assert_eq!(stage.cache.stats().verifications, [("same", 2), ("different", 1), ("failed", 1)].into());
}

#[tokio::test(start_paused = true)]
async fn what_was_forgotten_meanwhile_is_not_judged() {
    let stage = stage_with(|stage| stage.settings.verify = 1);
    let span = newest(&stage, 100);
    assert_eq!(ask(&stage, span).await, CacheResult::Miss);
    stage.backend.mood(Mood { takes: SECOND / 2, ..Mood::default() });
    stage.range(Q, grid(), span).await.unwrap();
    tokio::task::yield_now().await;
    rewrite(&stage);
    stage.cache.purge(&Purge::default());
    assert_eq!(waited(&stage, Verification::Skipped).await, 1);
    assert_eq!(waited(&stage, Verification::Different).await, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_again_while_the_backend_has_much_to_do() {
    let stage = stage_with(|stage| {
        stage.settings.verify = 1;
        stage.settings.upstream.at_once = 4;
    });
    let span = newest(&stage, 100);
    assert_eq!(ask(&stage, span).await, CacheResult::Miss);
    stage.backend.set("other", World::prompt(14));
    stage.backend.mood(Mood { takes: 20 * SECOND, ..Mood::default() });
    // Two of four places are taken: one as of anybody, one by a hit that is asked again.
    let slow = tokio::spawn({
        let stage = Arc::clone(&stage);
        async move { stage.range("other", grid(), span).await.map(drop) }
    });
    tokio::task::yield_now().await;
    for _ in 0..5 {
        stage.range(Q, grid(), span).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(waited(&stage, Verification::Skipped).await, 4);
    assert_eq!(stage.backend.calls().len(), 3);
    slow.await.unwrap().unwrap();
    assert_eq!(waited(&stage, Verification::Same).await, 1);
}

#[tokio::test(start_paused = true)]
async fn in_shadow_the_backend_answers_and_what_is_kept_is_only_compared() {
    let mut stage = Stage::new(64 << 20);
    stage.settings.mode = config::CacheMode::Shadow;
    stage.backend.set(Q, World::prompt(14));
    let span = newest(&stage, 100);
    let all = Span { from: span.from - 50, ..span };
    for (asked, same, different) in [(span, 0, 0), (span, 1, 0), (all, 2, 0)] {
        assert_eq!(ask(&stage, asked).await, CacheResult::Bypass);
        assert_eq!(waited(&stage, Verification::Same).await, same);
        assert_eq!(waited(&stage, Verification::Different).await, different);
    }
    rewrite(&stage);
    // Nobody sees what is kept, and it is found to be wrong once.
    for _ in 0..3 {
        assert_eq!(ask(&stage, span).await, CacheResult::Bypass);
        assert_eq!(waited(&stage, Verification::Different).await, 1);
    }
    assert_eq!(waited(&stage, Verification::Same).await, 3);
    // It was filled, and is used when it is meant to be.
    stage.settings.mode = config::CacheMode::Enforce;
    let span = Span { to: span.to - 10, ..span };
    assert_eq!(ask(&stage, span).await, CacheResult::Hit);
}
