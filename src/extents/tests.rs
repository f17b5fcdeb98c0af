//! A backend that is a function of time, and what must be the same whether it is asked once or in parts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

pub(crate) mod world;

use super::grid::{gaps, merge, step_ms, time_ms, write_ms};
use super::matrix::{Unreadable, read};
use super::*;
use world::{Dice, World};

fn span(from: i64, to: i64) -> Span {
    Span { from, to }
}

#[test]
fn points_are_counted_from_the_beginning_of_time() {
    let grid = Grid::new(1_700_000_002_000, 10_000).unwrap();
    assert_eq!((grid.phase(), grid.step()), (2_000, 10_000));
    let asked = grid.span(1_700_000_002_000, 1_700_000_102_000);
    assert_eq!(asked.len(), 11);
    assert_eq!(grid.time(asked.from), 1_700_000_002_000);
    assert_eq!(grid.point(grid.time(asked.to)), Some(asked.to));
    assert_eq!(grid.point(1_700_000_000_000), None, "of another phase");
    assert_eq!(grid.span(1_700_000_002_000, 1_700_000_002_000).len(), 1, "a start that is the end");
    assert_eq!(grid.span(1_700_000_002_000, 1_700_000_011_999).len(), 1, "an end between two points");
    assert_eq!(grid.behind(1_700_000_001_999), asked.from);
    assert_eq!((Grid::new(-1, 5), Grid::new(5, 0)), (None, None));
}

#[test]
fn what_is_missing_is_what_no_piece_has() {
    type Ends = (i64, i64);
    let cases: [(&[Ends], Ends, &[Ends]); 9] = [
        (&[(0, 101)], (0, 101), &[]),
        (&[(110, 211)], (0, 101), &[(0, 101)]),
        (&[(50, 101)], (0, 101), &[(0, 50)]),
        (&[(50, 121), (160, 251)], (100, 201), &[(121, 160)]),
        (&[(50, 91)], (100, 101), &[(100, 101)]),
        (&[(100, 101)], (100, 101), &[]),
        (&[(1, 41), (60, 101)], (1, 101), &[(41, 60)]),
        (&[(50, 101)], (1, 102), &[(1, 50), (101, 102)]),
        (&[], (1, 101), &[(1, 101)]),
    ];
    for (have, (from, to), missing) in cases {
        let have = have.iter().map(|(from, to)| span(*from, *to));
        let missing: Vec<Span> = missing.iter().map(|(from, to)| span(*from, *to)).collect();
        assert_eq!(gaps(span(from, to), have), missing);
    }
    assert_eq!(merge(vec![span(0, 5), span(60, 70), span(200, 210)], 64), [span(0, 70), span(200, 210)]);
}

#[test]
fn times_are_read_as_prometheus_reads_them() {
    assert_eq!(time_ms(1_700_000_000.123_4), Some(1_700_000_000_123));
    assert_eq!(time_ms(1_700_000_000.999_6), Some(1_700_000_001_000));
    assert_eq!((time_ms(-1.0), time_ms(f64::NAN)), (None, None));
    assert_eq!(step_ms(15.0), Some(15_000));
    assert_eq!(step_ms(0.000_1), None, "less than a millisecond");
    assert_eq!(write_ms(15_000, step_ms).as_deref(), Some("15"));
    assert_eq!(write_ms(1_700_000_000_050, time_ms).as_deref(), Some("1700000000.050"));
    let mut lost = 0;
    for ms in 1..200_000 {
        if let Some(text) = write_ms(ms, step_ms) {
            assert_eq!(step_ms(text.parse().unwrap()), Some(ms));
        } else {
            lost += 1;
        }
    }
    assert!(lost < 20_000, "{lost} steps cannot be written");
}

#[test]
fn only_the_very_shape_of_an_answer_is_taken_apart() {
    let good = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"\"]}"},"values":[[10,"1"],[10.500,"NaN"],[11,"-1e-07"]]},{"metric":{"b":"x"},"histograms":[[10,{"count":"1","buckets":[[0,"1","2","]"]]}]]}]},"infos":["PromQL info: x"]}"#;
    let grid = Grid::new(10_000, 500).unwrap();
    let asked = span(20, 23);
    let matrix = read(good.as_bytes(), grid, asked, 30).unwrap();
    assert_eq!((matrix.metrics.len(), matrix.runs.len(), matrix.infos.len()), (2, 2, 1));
    let refuse = |text: &str| read(text.as_bytes(), grid, asked, 30).unwrap_err();
    for (from, to, why) in [
        ("success", "error", Unreadable::Shape),
        ("matrix", "vector", Unreadable::Shape),
        ("[10.500,", "[10.400,", Unreadable::OffGrid),
        ("[10.500,", "[9.500,", Unreadable::OffGrid),
        ("[10.500,", "[10,", Unreadable::OffGrid),
        ("[11,", "[11.500,", Unreadable::OffGrid),
        ("[11,", "[-11,", Unreadable::Shape),
        ("[11,", "[1e1,", Unreadable::Shape),
        ("[11,", "[11.,", Unreadable::Shape),
        ("[11,", "[11.0000,", Unreadable::Shape),
        ("\"NaN\"", "\"N\\u0061N\"", Unreadable::Shape),
        ("\"NaN\"", "\"\"", Unreadable::Shape),
        ("\"NaN\"", "1", Unreadable::Shape),
        ("\"NaN\"", "{}", Unreadable::Shape),
        ("\"values\":[", "\"values\": [", Unreadable::Shape),
        (r#","values":[[10,"1"],[10.500,"NaN"],[11,"-1e-07"]]"#, "", Unreadable::Shape),
        (r#","infos""#, r#","stats":{},"infos""#, Unreadable::Shape),
        (r#""infos""#, r#""warnings""#, Unreadable::Warned),
        ("PromQL info: x", "2 more info annotations omitted", Unreadable::Warned),
        (r#"]},"infos""#, r#"],"infos""#, Unreadable::Shape),
    ] {
        assert!(good.contains(from), "{from}");
        assert_eq!(refuse(&good.replacen(from, to, 1)), why, "{to}");
    }
    for end in 0..good.len() {
        refuse(&good[..end]);
    }
    refuse(&format!("{good} "));
    assert!(read(format!("{good}\n").as_bytes(), grid, asked, 30).is_ok());
    let empty = br#"{"status":"success","data":{"resultType":"matrix","result":[],"analysis":{}}}"#;
    assert!(read(empty, grid, asked, 30).unwrap().metrics.is_empty());
}

const RULES: Rules = Rules { settle: 60_000, not_before: 0, fresh: 15_000, ttl: 1 << 40, idle: 1 << 40, near: 64 };

#[test]
fn series_stand_once_however_their_labels_are_written() {
    let grid = Grid::new(0, 1000).unwrap();
    let answer = |series: &[(&str, i64)]| {
        let series: Vec<String> =
            series.iter().map(|(labels, at)| format!(r#"{{"metric":{labels},"values":[[{at},"1"]]}}"#)).collect();
        format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{}]}}}}"#, series.join(","))
    };
    let late = Moment { steady: 1 << 30, wall: 1 << 40 };
    let add = |extents: &Extents, from, to, body: &str| -> Result<Extents, Unreadable> {
        let part = extents.read(&Fetched { span: span(from, to), at: late, body: body.as_bytes() }, &RULES)?;
        Ok(extents.with(&part, &RULES))
    };
    let first =
        add(&Extents::new(grid, Looks::default()), 0, 2, &answer(&[(r#"{"a":"1","b":"2"}"#, 0), (r#"{"a":"3"}"#, 1)]))
            .unwrap();
    // Other order of labels, another escape, and a series between the two.
    let more = answer(&[(r#"{"a":"2"}"#, 2), (r#"{"b":"\u0032","a":"1"}"#, 3)]);
    let second = add(&first, 2, 4, &more).unwrap();
    let text = String::from_utf8(second.write(span(0, 4), late).unwrap().body).unwrap();
    let expected = r#"{"metric":{"a":"1","b":"2"},"values":[[0,"1"],[3,"1"]]},{"metric":{"a":"2"},"values":[[2,"1"]]},{"metric":{"a":"3"},"values":[[1,"1"]]}"#;
    assert!(text.contains(expected), "{text}");
    assert_eq!(second.pieces().count(), 1, "one block, one piece");
    let twice = answer(&[(r#"{"a":"1","b":"2"}"#, 2), (r#"{"b":"2","a":"1"}"#, 2)]);
    assert_eq!(add(&first, 2, 4, &twice).unwrap_err(), Unreadable::Duplicate);
    let within = answer(&[(r#"{"a":"1","a":"2"}"#, 2)]);
    assert_eq!(add(&first, 2, 4, &within).unwrap_err(), Unreadable::Shape);
    let thanos = answer(&[]).replace("]}}", "],\"analysis\":{}}}");
    let other = add(&first, 2, 4, &thanos).unwrap();
    assert_eq!(other.need(span(0, 4), late, &RULES), [span(0, 2)], "another kind of server answers from now on");
}

#[test]
fn what_is_forgotten_must_be_asked_for_again() {
    let world = World::new(7);
    let grid = Grid::new(world.epoch(), 10_000).unwrap();
    let now = Moment { steady: 0, wall: world.epoch() + 10_000_000 };
    let from = grid.point(world.epoch()).unwrap();
    let asked = span(from, from + 600);
    let body = world.answer(grid, asked, now.wall);
    let nothing = Extents::new(grid, Looks::default());
    let part = nothing.read(&Fetched { span: asked, at: now, body: body.as_bytes() }, &RULES).unwrap();
    let all = nothing.with(&part, &RULES);
    assert!(all.need(asked, now, &RULES).is_empty());
    let hole = span(from + 100, from + 200);
    assert_eq!(all.without(hole).need(asked, now, &RULES), [hole]);
    let later = Moment { steady: RULES.ttl, ..now };
    assert_eq!(all.need(asked, later, &RULES), [asked], "too old");
}

/// Any history of requests: what is put together is what one question at the same time would have been answered with.
#[test]
fn parts_make_the_whole() {
    let most = std::env::var("EXTENTS_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    for seed in 0..most {
        history(seed);
    }
}

fn history(seed: u64) {
    let mut dice = Dice(seed);
    let mut world = World::new(seed);
    world.forward = [0, 0, 30_000, 3_600_000][dice.below(4)];
    let step = [1_000, 10_000, 15_000, 60_000, 123_428, 3_600_000][dice.below(6)];
    let grid = Grid::new(world.epoch() + i64::try_from(dice.below(1000)).unwrap(), step).unwrap();
    let rules = Rules { settle: RULES.settle + world.forward, near: [1, 64][dice.below(2)], ..RULES };
    let mut extents = Extents::new(grid, Looks::default());
    let mut now = Moment { steady: 0, wall: world.epoch() + 40_000 * step };
    for round in 0..40 {
        let passed = [0, 1, 700, 5_000, 15_000, 61_000, 600_000][dice.below(7)];
        now = Moment { steady: now.steady + passed, wall: now.wall + passed };
        let newest = grid.behind(now.wall) + [0, 0, 0, 2][dice.below(4)];
        let to = newest - [0, 0, 0, 1, 50, 1000][dice.below(6)];
        let length = [3, 200, 1500][dice.below(3)];
        let asked = span(to - 1 - i64::try_from(dice.below(length)).unwrap(), to);
        let need = extents.need(asked, now, &rules);
        for gap in &need {
            assert!(asked.covers(*gap) && !gap.is_empty());
            let body = world.answer(grid, *gap, now.wall);
            let part = extents.read(&Fetched { span: *gap, at: now, body: body.as_bytes() }, &rules).unwrap();
            extents = extents.with(&part, &rules);
        }
        let written = extents.write(asked, now).unwrap_or_else(|| panic!("seed {seed}, round {round}: {need:?}"));
        if let Some(tail) = written.tail {
            assert!(is_fresh(tail, now, rules.fresh) || !need.is_empty());
        }
        let asked_at = now.wall - (now.steady - written.tail.map_or(now.steady, |tail| tail.0));
        let direct = world.answer(grid, asked, asked_at);
        let body = String::from_utf8(written.body).unwrap();
        assert!(body == direct, "seed {seed}, round {round}, {asked:?} of {need:?}:\n{body}\n{direct}");
        let border = |piece: &std::sync::Arc<Piece>| {
            piece.span().from.div_euclid(BLOCK) == (piece.span().to - 1).div_euclid(BLOCK)
        };
        assert!(extents.pieces().all(border));
        assert!(extents.pieces().zip(extents.pieces().skip(1)).all(|(a, b)| a.span().to <= b.span().from));
        if dice.below(8) == 0 {
            let from = to - i64::try_from(dice.below(300)).unwrap();
            extents = extents.without(span(from, from + i64::try_from(dice.below(200)).unwrap()));
        }
    }
}
