//! Five hundred people before the same dashboard: what does it cost the backend?

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::backend::{BEGIN, Mood, Stage};
use crate::extents::tests::world::{Dice, World};
use crate::extents::{Grid, Span};

const VIEWERS: usize = 500;
const PANELS: usize = 8;
const REFRESH: i64 = 15_000;
const REFRESHES: i64 = 60;
/// An hour, in the smallest step that the UI asks for.
const STEP: i64 = 15_000;
const POINTS: i64 = 240;

/// What the backend was asked.
struct Cost {
    /// Requests, of each panel and refresh.
    requests: f64,
    /// Points that were evaluated, of those that would have been without the cache.
    points: f64,
}

/// Viewers come at any time of the first refresh, ask for all panels at once, again and again, and leave one question in
/// fifty before it is answered.
async fn watched(sets: usize) -> Cost {
    let stage = Stage::new(256 << 20);
    stage.backend.mood(Mood { takes: Duration::from_millis(300), ..Mood::default() });
    for set in 0..sets {
        for panel in 0..PANELS {
            stage.backend.set(&query(set, panel), World::prompt((set * PANELS + panel) as u64));
        }
    }
    let (stage, mut dice, mut viewers) = (Arc::new(stage), Dice(7), JoinSet::new());
    for viewer in 0..VIEWERS {
        viewers.spawn(view(Arc::clone(&stage), viewer % sets, Dice(dice.next())));
    }
    viewers.join_all().await;
    assert!(!stage.backend.twice());
    let calls = stage.backend.calls();
    let each = PANELS as f64 * REFRESHES as f64;
    let evaluated: i64 = calls.iter().filter_map(|call| call.span).map(Span::len).sum();
    Cost { requests: calls.len() as f64 / each, points: evaluated as f64 / (VIEWERS as f64 * each * POINTS as f64) }
}

fn query(set: usize, panel: usize) -> String {
    format!(r#"panel_{panel}{{namespace="team-{set}"}}"#)
}

async fn view(stage: Arc<Stage>, set: usize, mut dice: Dice) {
    let grid = Grid::new(BEGIN, STEP).unwrap();
    let phase = i64::try_from(dice.below(REFRESH as usize)).unwrap();
    for refresh in 0..REFRESHES {
        let due = BEGIN + phase + refresh * REFRESH - stage.backend.now();
        sleep(Duration::from_millis(u64::try_from(due).unwrap_or(0))).await;
        let to = grid.behind(stage.backend.now());
        let span = Span { from: to - POINTS, to };
        let mut panels = JoinSet::new();
        for panel in 0..PANELS {
            let (stage, leaves) = (Arc::clone(&stage), dice.below(50) == 0);
            let patience = Duration::from_millis(dice.below(300) as u64);
            panels.spawn(async move {
                let (text, room) = (query(set, panel), set as u64);
                let asked = stage.range_of(room, &text, grid, span, Duration::from_secs(60));
                if leaves {
                    drop(timeout(patience, asked).await);
                } else {
                    asked.await.unwrap();
                }
            });
        }
        panels.join_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_five_hundred_viewers_cost_does_not_depend_on_how_many_they_are() {
    for (sets, most) in [(1, 1.02), (10, 10.2), (100, 102.0)] {
        let Cost { requests, points } = watched(sets).await;
        #[allow(clippy::print_stderr, reason = "for whoever looks")]
        {
            eprintln!(
                "{sets} sets of namespaces: {requests:.3} requests a panel and refresh, {:.4} % of the points",
                points * 100.0
            );
        }
        assert!(requests <= most, "{sets} sets: {requests} requests a panel and refresh");
        assert!(points <= 0.01, "{sets} sets: {points} of the points");
        // Each set has its own answers.
        assert!(requests >= sets as f64 * 0.9, "{sets} sets: {requests}");
    }
}
