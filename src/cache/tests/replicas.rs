//! Scenes of several replicas that share what is final.

use std::sync::Arc;
use std::time::Duration;

use super::backend::{BEGIN, Stage};
use super::shelf::{InProcess, PATIENCE, replica, share};
use crate::cache::{CacheResult, How, Purge};
use crate::extents::tests::world::World;
use crate::extents::{Grid, Span};

const Q: &str = r#"up{namespace="a"}"#;
const SECOND: Duration = Duration::from_secs(1);

fn grid() -> Grid {
    Grid::new(BEGIN, 15_000).unwrap()
}

fn newest(stage: &Stage, points: i64) -> Span {
    let to = grid().behind(stage.backend.now());
    Span { from: to - points, to }
}

/// Asks, and holds the answer against the backend's own of the moment.
async fn ask(stage: &Stage, span: Span) -> How {
    let told = stage.range(Q, grid(), span).await.unwrap();
    let direct = stage.backend.direct(Q, grid(), span, stage.backend.now());
    assert_eq!(std::str::from_utf8(&told.body).unwrap(), direct);
    told.how
}

async fn two() -> (Stage, Stage, Arc<InProcess>) {
    let one = Stage::new(64 << 20);
    one.backend.set(Q, World::prompt(14));
    let other = replica(&one, 64 << 20);
    let shelf = Arc::new(InProcess::default());
    share(&shelf, &[&one, &other]);
    tokio::time::sleep(2 * SECOND).await;
    (one, other, shelf)
}

#[tokio::test(start_paused = true)]
async fn what_one_replica_knows_another_need_not_ask_for() {
    let (one, other, shelf) = two().await;
    let all = newest(&one, 2000);
    assert_eq!(ask(&one, all).await.result, CacheResult::Miss);
    let calls = one.backend.calls().len();
    // Old points, cut at blocks: nothing is asked.
    let settled = Span { from: (all.from / 128 + 1) * 128, to: all.to / 128 * 128 - 128 };
    let how = ask(&other, settled).await;
    assert_eq!((how.result, how.shared), (CacheResult::Hit, true));
    assert_eq!(one.backend.calls().len(), calls);
    // All of it: what may change, and ends that are shorter than what is shared.
    let how = ask(&other, all).await;
    assert_eq!((how.result, how.shared), (CacheResult::Partial, true));
    let points: i64 = one.backend.points_since(calls).iter().sum();
    assert!(points <= 15 + 15 + 6, "{points}");
    // From now on it is known here.
    let gets = shelf.gets();
    assert_eq!(ask(&other, settled).await.result, CacheResult::Hit);
    assert_eq!(shelf.gets(), gets);
    // As time goes on each writes once what the other has not, and neither asks the shelf at a refresh.
    for _ in 0..200 {
        tokio::time::sleep(15 * SECOND).await;
        for stage in [&one, &other] {
            ask(stage, newest(stage, 500)).await;
        }
    }
    assert!(shelf.gets() <= gets + 5, "{} {gets}", shelf.gets());
    let third = replica(&one, 64 << 20);
    share(&shelf, &[&third]);
    tokio::time::sleep(SECOND).await;
    let calls = one.backend.calls().len();
    assert_eq!(ask(&third, newest(&third, 500)).await.result, CacheResult::Partial);
    let points: i64 = one.backend.points_since(calls).iter().sum();
    assert!(points <= 64 + 36, "{points}");
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_at_one_replica_is_forgotten_at_all() {
    let text = |text: &str| Some(text.to_owned());
    for purge in [
        Purge::default(),
        Purge { backend: text("b"), ..Purge::default() },
        Purge { metric: text("up"), ..Purge::default() },
        Purge { from_ms: Some(0), ..Purge::default() },
    ] {
        let (one, other, shelf) = two().await;
        let span = newest(&one, 1000);
        ask(&one, span).await;
        ask(&other, span).await;
        one.backend.set(Q, World::prompt(999));
        one.cache.purge(&purge);
        // Here at once, also of what is shared; there within moments.
        assert_eq!(ask(&one, span).await.result, CacheResult::Miss, "{purge:?}");
        tokio::time::sleep(2 * SECOND).await;
        let how = ask(&other, Span { to: span.to - 10, ..span }).await;
        assert!(how.shared, "what was asked for since is shared: {how:?}");
        // Whoever comes later does not find what was before.
        let third = replica(&one, 64 << 20);
        share(&shelf, &[&third]);
        tokio::time::sleep(SECOND).await;
        ask(&third, span).await;
    }
    // What is about something else leaves the rest.
    let (one, other, _shelf) = two().await;
    let span = newest(&one, 1000);
    for stage in [&one, &other] {
        ask(stage, span).await;
    }
    one.cache.purge(&Purge { namespace: text("elsewhere"), ..Purge::default() });
    tokio::time::sleep(2 * SECOND).await;
    let old = Span { from: span.from, to: span.from + 500 };
    assert_eq!(ask(&other, old).await.result, CacheResult::Hit);
}

#[tokio::test(start_paused = true)]
async fn a_shelf_that_is_slow_costs_its_deadline_and_one_that_is_silent_nothing() {
    let (one, other, shelf) = two().await;
    let span = newest(&one, 2000);
    ask(&one, span).await;
    shelf.mood(60 * SECOND, false);
    let began = tokio::time::Instant::now();
    let how = ask(&other, span).await;
    assert_eq!((how.result, how.shared, began.elapsed()), (CacheResult::Miss, false, PATIENCE));
    // Whoever cannot hear what was forgotten does not ask any more.
    shelf.mood(Duration::ZERO, true);
    tokio::time::sleep(7 * SECOND).await;
    let gets = shelf.gets();
    one.backend.set(Q, World::prompt(999));
    one.cache.purge(&Purge::default());
    ask(&one, span).await;
    assert_eq!(shelf.gets(), gets);
    // When it is back, the other hears of it.
    shelf.mood(Duration::ZERO, false);
    tokio::time::sleep(3 * SECOND).await;
    ask(&other, span).await;
    // And when it has lost everything, nobody takes what lies there for what is meant.
    shelf.forget_journal();
    let third = replica(&one, 64 << 20);
    share(&shelf, &[&third]);
    tokio::time::sleep(3 * SECOND).await;
    ask(&third, span).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_other_points_for_final_shares_nothing_with_the_rest() {
    let (one, mut other, shelf) = two().await;
    other.settings.range.settle = Duration::from_secs(90);
    let span = newest(&one, 1000);
    ask(&one, span).await;
    assert_eq!(ask(&other, span).await.result, CacheResult::Miss);
    // What is older than it may be used is not used, whoever asked for it.
    let third = replica(&one, 64 << 20);
    share(&shelf, &[&third]);
    tokio::time::sleep(third.settings.range.ttl).await;
    let (gets, values) = (shelf.gets(), shelf.values());
    assert_eq!(ask(&third, span).await.result, CacheResult::Miss);
    assert!(shelf.gets() > gets && values > 0);
    // Also where that is shorter than it was for whoever laid it down.
    let mut fourth = replica(&one, 64 << 20);
    fourth.settings.range.ttl = 5 * SECOND;
    share(&shelf, &[&fourth]);
    let span = newest(&one, 1000);
    ask(&one, span).await;
    tokio::time::sleep(10 * SECOND).await;
    let gets = shelf.gets();
    let how = ask(&fourth, span).await;
    assert_eq!((how.result, how.shared, shelf.gets() > gets), (CacheResult::Miss, false, true));
}
