//! Compressed variants: always of this very answer, always counted, never what brings something back.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use super::backend::{BEGIN, Stage};
use crate::cache::store::{Kept, Stored};
use crate::cache::{Purge, Told};
use crate::extents::tests::world::World;
use crate::extents::{Grid, Span};

const Q: &str = r#"up{namespace="a"}"#;

fn grid() -> Grid {
    Grid::new(BEGIN, 15_000).unwrap()
}

fn stage(memory: usize) -> Stage {
    let stage = Stage::new(memory);
    stage.backend.set(Q, World::prompt(14));
    stage
}

fn newest(stage: &Stage, points: i64) -> Span {
    let to = grid().behind(stage.backend.now());
    Span { from: to - points, to }
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

/// Reads until it is there, as those who come later do.
async fn packed(told: &Told) -> Option<bytes::Bytes> {
    for _ in 0..1000 {
        if let Some(packed) = Arc::clone(&told.packed).gzip() {
            return Some(packed);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    None
}

/// All answers that are kept.
fn answers(stage: &Stage) -> Vec<Arc<Kept>> {
    let mut found = Vec::new();
    stage.cache.store.each(|_, stored| {
        if let Stored::Answer(kept) = stored {
            found.push(Arc::clone(kept));
        }
    });
    found
}

fn bytes(stage: &Stage) -> u64 {
    stage.cache.store.settle();
    stage.cache.store.bytes()
}

#[tokio::test(start_paused = true)]
async fn the_variant_is_the_answer_and_is_counted() {
    let stage = stage(64 << 20);
    let span = newest(&stage, 2000);
    let told = stage.range(Q, grid(), span).await.unwrap();
    let before = bytes(&stage);
    // Whoever reads it first does not make it.
    assert_eq!(Arc::clone(&told.packed).gzip(), None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bytes(&stage), before);
    let again = stage.range(Q, grid(), span).await.unwrap();
    let made = packed(&again).await.expect("it is worth it");
    assert_eq!(unpacked(&made), told.body);
    assert!(made.len() * 3 < told.body.len(), "{} of {}", made.len(), told.body.len());
    assert_eq!(bytes(&stage), before + made.len() as u64);
    // Made once: everybody holds the same bytes.
    let third = Arc::clone(&told.packed).gzip().unwrap();
    assert_eq!(third.as_ptr(), made.as_ptr());
    // With other points it is another answer, which has no variant yet.
    tokio::time::advance(Duration::from_secs(30)).await;
    let newer = stage.range(Q, grid(), newest(&stage, 2000)).await.unwrap();
    assert!(newer.body != told.body);
    assert_eq!(unpacked(&packed(&newer).await.unwrap()), newer.body);
    assert_eq!(unpacked(&packed(&told).await.unwrap()), told.body, "who still holds the old one");
}

#[tokio::test(start_paused = true)]
async fn what_is_small_is_not_compressed() {
    let stage = stage(64 << 20);
    let told = stage.whole("few", None).await.unwrap();
    assert!(told.body.len() < 1024);
    assert_eq!(packed(&told).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_variant_that_is_late_puts_nothing_back() {
    let stage = stage(64 << 20);
    let span = newest(&stage, 2000);
    stage.range(Q, grid(), span).await.unwrap();
    let [old] = answers(&stage).try_into().unwrap();
    // The newest points are looked at anew: another answer under the same key.
    tokio::time::advance(Duration::from_secs(16)).await;
    stage.range(Q, grid(), span).await.unwrap();
    let [new] = answers(&stage).try_into().unwrap();
    assert!(!Arc::ptr_eq(&old, &new));
    stage.cache.pack(&old);
    assert!(Arc::ptr_eq(&answers(&stage)[0], &new), "the older one has come back");
    // What was forgotten stays so, even if it is about to be taken away only.
    let epoch = stage.cache.flights.epoch();
    stage.cache.flights.forget();
    stage.cache.pack(&new);
    assert!(stage.cache.flights.epoch() > epoch && new.packing().weight() == 0);
    stage.cache.purge(&Purge::default());
    stage.cache.pack(&new);
    assert!(answers(&stage).is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_with_variants_under_churn() {
    const LIMIT: usize = 4 << 20;
    let stage = stage(LIMIT);
    for round in 0..150_i64 {
        let span = newest(&stage, 1500 + round);
        let told = stage.range(Q, grid(), span).await.unwrap();
        assert_eq!(unpacked(&packed(&told).await.unwrap()), told.body);
        tokio::time::advance(Duration::from_secs(5)).await;
        let held: usize = answers(&stage).iter().map(|kept| kept.bytes().len() + kept.packing().weight()).sum();
        assert!(held <= LIMIT + LIMIT / 10, "{held} bytes are held");
        assert!(bytes(&stage) <= LIMIT as u64, "{}", stage.cache.store.bytes());
        assert!(held as u64 <= bytes(&stage), "{held} bytes are held, fewer are counted");
    }
    assert!(bytes(&stage) > LIMIT as u64 / 2, "there was no churn");
}
