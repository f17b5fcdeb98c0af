//! Whether two answers say the same about some points. Numbers are not read: what the backend writes twice, it writes alike.

use std::collections::BTreeMap;

use super::grid::{Grid, Span};
use super::matrix::{self, Unreadable};

/// The points of one series: those of histograms or not, as they were written.
type Points<'b> = Vec<(bool, &'b [u8])>;

/// Whether two answers, each with the points that it was asked for, say the same about the points `on`. What they say of
/// other points, and in which order series come, is not looked at, nor are infos: these speak of all points that were asked
/// for at once.
///
/// # Errors
/// When one of them cannot be taken apart.
pub fn same(grid: Grid, on: Span, answers: [(&[u8], Span); 2]) -> Result<bool, Unreadable> {
    let [(ours, of_ours), (theirs, of_theirs)] = answers;
    Ok(points(ours, grid, of_ours, on)? == points(theirs, grid, of_theirs, on)?)
}

fn points(body: &[u8], grid: Grid, asked: Span, on: Span) -> Result<BTreeMap<&[u8], Points<'_>>, Unreadable> {
    let read = matrix::read(body, grid, asked, on.to)?;
    let mut all: BTreeMap<&[u8], Points<'_>> = BTreeMap::new();
    for run in read.runs.iter().filter(|run| run.block != matrix::TAIL) {
        let points = matrix::cut(&body[run.from as usize..run.to as usize], grid, on);
        if !points.is_empty() {
            all.entry(&body[read.metrics[run.series as usize].clone()]).or_default().push((run.histograms, points));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::tests::world::World;
    use super::*;

    #[test]
    fn only_the_points_in_question_are_compared() {
        let (world, grid) = (World::prompt(14), Grid::new(1_700_000_000_000, 15_000).unwrap());
        let now = 1_700_100_000_000;
        let first = grid.behind(1_700_000_000_000) - 1;
        let all = Span { from: first, to: first + 300 };
        let part = Span { from: first + 100, to: first + 300 };
        let (long, short) = (world.answer(grid, all, now), world.answer(grid, part, now));
        let on = Span { from: first + 110, to: first + 290 };
        assert_eq!(same(grid, on, [(long.as_bytes(), all), (short.as_bytes(), part)]), Ok(true));
        let time = |point: i64| format!("[{},", grid.time(point) / 1000);
        let spoilt = |point: i64| short.replace(&format!("{}\"", time(point)), &format!("{}\"7", time(point)));
        for (point, alike) in [(100, true), (109, true), (110, false), (200, false), (289, false), (290, true)] {
            let other = spoilt(first + point);
            assert_ne!(other, short, "{point}");
            let told = same(grid, on, [(long.as_bytes(), all), (other.as_bytes(), part)]);
            assert_eq!(told, Ok(alike), "{point}");
        }
        // A series that is not there is a difference, one that is of other points alone is none.
        let empty = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        assert_eq!(same(grid, on, [(long.as_bytes(), all), (empty.as_bytes(), part)]), Ok(false));
        assert_eq!(same(grid, on, [(empty.as_bytes(), all), (empty.as_bytes(), part)]), Ok(true));
        assert_eq!(same(grid, on, [(b"{}", all), (empty.as_bytes(), part)]), Err(Unreadable::Shape));
    }
}
