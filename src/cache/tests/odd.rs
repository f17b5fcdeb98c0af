//! Scenes that are rare: a clock that is wrong, a backend whose answer breaks us, grids that nobody would choose.

use std::sync::Arc;
use std::time::Duration;

use super::backend::{BEGIN, Mood, Stage};
use crate::cache::{Cache, CacheResult, Clock, Metrics};
use crate::extents::tests::world::World;
use crate::extents::{Grid, Span};
use crate::refusal::Reason;

const Q: &str = r#"up{namespace="a"}"#;

fn stage() -> Stage {
    let stage = Stage::new(64 << 20);
    stage.backend.set(Q, World::prompt(14));
    stage
}

fn newest(stage: &Stage, grid: Grid, points: i64) -> Span {
    let to = grid.behind(stage.backend.now());
    Span { from: to - points, to }
}

/// Asks, and holds the answer against the backend's own of the moment.
async fn ask(stage: &Stage, grid: Grid, span: Span) -> CacheResult {
    let told = stage.range(Q, grid, span).await.unwrap();
    let direct = stage.backend.direct(Q, grid, span, stage.backend.now());
    assert_eq!(std::str::from_utf8(&told.body).unwrap(), direct);
    told.how.result
}

/// From when on points may still change, as the cache has it, in milliseconds before the backend's now.
fn final_for(stage: &Stage) -> i64 {
    let entries = stage.cache.entries(&stage.place, Q);
    let points = entries.iter().find(|entry| entry.what == "points").unwrap();
    stage.backend.now() - points.known_ms.last().unwrap().1
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_goes_before_the_backends_makes_nothing_final_too_early() {
    let grid = Grid::new(BEGIN, 15_000).unwrap();
    let settle = 60_000;
    for ahead in [0, 90_000, 3_600_000] {
        let mut stage = stage();
        let backend = Arc::clone(&stage.backend);
        let clock = Clock::new(move || backend.now() + ahead);
        stage.cache = Cache::new(64 << 20, clock, Arc::new(Metrics::new()));
        stage.place = stage.cache.place("b", b"b");
        ask(&stage, grid, newest(&stage, grid, 200)).await;
        let age = final_for(&stage);
        assert!((settle..settle + 20_000).contains(&age), "{ahead} ms ahead, and final after {age} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_us_is_an_error_for_all_who_wait_and_nothing_after() {
    let stage = Arc::new(stage());
    let grid = Grid::new(BEGIN, 15_000).unwrap();
    let span = newest(&stage, grid, 50);
    stage.backend.moods(vec![Mood {
        takes: Duration::from_secs(1),
        spoilt: Some(|_| std::panic::panic_any("on purpose")),
        ..Mood::default()
    }]);
    let all: Vec<_> = (0..5)
        .map(|_| {
            let stage = Arc::clone(&stage);
            tokio::spawn(async move { stage.range(Q, grid, span).await })
        })
        .collect();
    for task in all {
        assert_eq!(task.await.unwrap().unwrap_err().reason(), Reason::Internal);
    }
    assert_eq!(stage.backend.calls().len(), 1);
    // Nobody waits for what will never land.
    assert_eq!((ask(&stage, grid, span).await, stage.cache.flights.count()), (CacheResult::Miss, 0));
    assert_eq!(ask(&stage, grid, span).await, CacheResult::Hit);
}

#[tokio::test(start_paused = true)]
async fn grids_of_any_step_and_phase_and_of_one_point_are_kept_as_they_are() {
    let stage = stage();
    // As wide as a window happens to be, an hour as India has it, and a day.
    for (start, step) in [(BEGIN + 7, 123_428), (BEGIN + 1_800_000, 3_600_000), (BEGIN + 1, 86_400_000), (BEGIN, 1)] {
        let grid = Grid::new(start, step).unwrap();
        let old = newest(&stage, grid, 400 + 700_000 / step);
        let span = Span { from: old.from, to: old.from + 40 };
        assert_eq!(ask(&stage, grid, span).await, CacheResult::Miss, "{step}");
        assert_eq!(ask(&stage, grid, span).await, CacheResult::Hit, "{step}");
        let one = Span { from: span.from + 7, to: span.from + 8 };
        assert_eq!(ask(&stage, grid, one).await, CacheResult::Hit, "{step}: one point of it");
        let next = Span { from: span.to, to: span.to + 1 };
        assert_eq!(ask(&stage, grid, next).await, CacheResult::Miss, "{step}: one point that is not known");
        assert_eq!(ask(&stage, grid, Span { from: span.from, to: next.to }).await, CacheResult::Hit, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_again_and_again_does_not_grow() {
    let stage = stage();
    let grid = Grid::new(BEGIN, 15_000).unwrap();
    let to = grid.behind(stage.backend.now()) - 100;
    // Small ones within what is known, and over its ends.
    for round in 0..200 {
        let from = to - 300 + round % 50;
        ask(&stage, grid, Span { from, to: from + 3 }).await;
    }
    let points = || {
        let entries = stage.cache.entries(&stage.place, Q);
        entries.iter().filter(|entry| entry.what == "points").map(|entry| entry.bytes).sum::<usize>()
    };
    let (before, calls) = (points(), stage.backend.calls().len());
    for round in 0..200 {
        let from = to - 300 + round % 50;
        assert_eq!(ask(&stage, grid, Span { from, to: from + 3 }).await, CacheResult::Hit);
    }
    assert_eq!((points(), stage.backend.calls().len()), (before, calls));
}

#[tokio::test(start_paused = true)]
async fn no_series_at_all_is_an_answer_like_any_other() {
    let stage = stage();
    let grid = Grid::new(BEGIN, 15_000).unwrap();
    let none = Mood {
        spoilt: Some(|_| r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.to_owned()),
        ..Mood::default()
    };
    stage.backend.mood(none);
    let to = grid.behind(stage.backend.now()) - 100;
    let span = Span { from: to - 50, to };
    for result in [CacheResult::Miss, CacheResult::Hit] {
        let told = stage.range(Q, grid, span).await.unwrap();
        assert_eq!(told.how.result, result);
        assert_eq!(&told.body[..], br#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#);
    }
    // Series that come later stand beside it.
    stage.backend.mood(Mood::default());
    let told = stage.range(Q, grid, Span { from: span.from, to: to + 20 }).await.unwrap();
    let later = stage.backend.direct(Q, grid, Span { from: to, to: to + 20 }, stage.backend.now());
    assert_eq!((told.how.result, std::str::from_utf8(&told.body).unwrap()), (CacheResult::Partial, later.as_str()));
}
