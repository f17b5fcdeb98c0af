//! People with different namespaces before one cache: nobody is ever answered from what was asked for others.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backend::BEGIN;
use crate::cache::{
    Asked, Asking, Cache, CacheKind, CacheResult, Clock, Given, Metrics, Origin, Place, Question, Terms, Times,
};
use crate::config;
use crate::extents::tests::world::Dice;
use crate::extents::{Grid, Looks};
use crate::promql::{self, Features, Labels, Limits, Reach};
use crate::route::Form;

const NAMESPACES: [&str; 6] = ["a", "b", "ab", "team-a", "team-b", "a-b"];
const ALL: u64 = (1 << NAMESPACES.len()) - 1;

/// A backend that says of whom the data are that a question may touch, a bit for each namespace.
struct Truth;

impl Origin for Truth {
    fn ask(self: Arc<Self>, question: Question, _: Instant) -> Asking {
        Box::pin(async move { Ok(Given { body: answer(question.form()).into(), date: None }) })
    }
}

fn answer(form: &str) -> String {
    let mut form = Form::parse(form).unwrap();
    let mut take = |name: &str| form.take(name).unwrap().map(std::borrow::Cow::into_owned);
    let touched = touches(&take("query").unwrap());
    let number = |text: String| text.parse::<f64>().unwrap();
    let (Some(start), Some(end), Some(step)) = (take("start"), take("end"), take("step")) else {
        return format!(r#"{{"status":"success","data":{{"resultType":"scalar","result":[1,"{touched}"]}}}}"#);
    };
    let (mut at, end, step) = (number(start), number(end), number(step));
    let mut points = Vec::new();
    while at <= end {
        points.push(format!(r#"[{at},"{touched}"]"#));
        at += step;
    }
    let points = points.join(",");
    format!(
        r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{}},"values":[{points}]}}]}}}}"#
    )
}

/// The namespaces that any selector of a text reaches, read without the product's own parser.
fn touches(text: &str) -> u64 {
    let mut touched = 0;
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        // No value here has a brace.
        let close = rest[open..].find('}').unwrap() + open;
        let mut here = ALL;
        for matcher in matchers(&rest[open + 1..close]) {
            for (bit, name) in NAMESPACES.iter().enumerate() {
                if !matcher(name) {
                    here &= !(1 << bit);
                }
            }
        }
        touched |= here;
        rest = &rest[close + 1..];
    }
    touched
}

/// Whether a namespace is one of those that are meant.
type Matcher = Box<dyn Fn(&str) -> bool>;

/// Those about the namespace.
fn matchers(text: &str) -> Vec<Matcher> {
    let mut found: Vec<Matcher> = Vec::new();
    for part in text.split("\",").filter(|part| part.starts_with("namespace")) {
        let (operator, value) = part["namespace".len()..].split_once('"').unwrap();
        let value = value.trim_end_matches('"').replace("\\\\", "\\");
        let is_regex = operator.ends_with('~');
        let wanted = !operator.starts_with('!');
        found.push(Box::new(move |name| (if is_regex { fits(&value, name) } else { value == name }) == wanted));
    }
    found
}

/// Alternatives of plain words and of words that end in anything, which is all that is asked here.
fn fits(pattern: &str, name: &str) -> bool {
    let pattern = pattern.strip_prefix("(?:").and_then(|rest| rest.strip_suffix(')')).unwrap_or(pattern);
    // A bar behind a backslash is a bar.
    pattern.replace("\\|", "\u{0}").split('|').any(|one| {
        let one = one.replace('\u{0}', "|").replace('\\', "");
        match one.strip_suffix(".*") {
            Some(start) => name.starts_with(start),
            None => {
                one.strip_suffix(".+").map_or(one == name, |start| name.len() > start.len() && name.starts_with(start))
            }
        }
    })
}

fn question(dice: &mut Dice) -> String {
    let mut selector = || {
        let matcher = [
            "",
            r#"namespace="a""#,
            r#"namespace="b""#,
            r#"namespace=~"a|b""#,
            r#"namespace=~"team-.*""#,
            r#"namespace!="a""#,
            r#"namespace!~"a|ab""#,
            r#"namespace=~".+""#,
            r#"namespace="a|b""#,
            r#"namespace=~"a|ab",namespace!="a""#,
        ][dice.below(10)];
        format!("up{{{matcher}}}")
    };
    let (one, other) = (selector(), selector());
    match dice.below(5) {
        0 => format!("sum({one})"),
        1 => format!("{one} or {other}"),
        2 => format!("sum by (pod) (rate({one}[5m])) / on () group_left () count({other})"),
        _ => one,
    }
}

/// A caller: `None` reads everything.
fn caller(dice: &mut Dice) -> Option<u64> {
    (dice.below(12) > 0).then(|| 1 + dice.next() % ALL)
}

fn reach(set: Option<u64>) -> Reach {
    let Some(set) = set else { return Reach::Everything };
    let names = NAMESPACES.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, name)| Arc::from(*name));
    let mut names: Vec<Arc<str>> = names.collect();
    names.sort();
    Reach::Namespaces(names.into())
}

struct Stage {
    cache: Arc<Cache>,
    place: Arc<Place>,
    settings: config::Cache,
    labels: Labels,
}

impl Stage {
    /// What somebody is told, and what the backend would have told them.
    async fn ask(&self, text: &str, set: Option<u64>, kind: usize) -> (String, String, CacheResult) {
        let confined =
            promql::confine(text, &reach(set), &self.labels, &Limits::default(), Features::default()).unwrap();
        let terms = Terms::new(&self.settings, Duration::from_secs(15), Duration::from_secs(3600));
        let grid = Grid::new(BEGIN - 6_000_000, 15_000).unwrap();
        let span = grid.span(BEGIN - 6_000_000, BEGIN - 6_000_000 + [15_000, 60_000][kind % 2]);
        let mut question = Question::of_test("/api/v1/query", confined.text());
        let mut direct = question.clone();
        let (kind, times) = if kind < 2 {
            assert!(question.push_step(grid.step()) && direct.push_step(grid.step()));
            assert!(direct.push_window(grid.time(span.from), grid.time(span.to - 1)));
            let looks = Looks::default();
            (CacheKind::Range, Times::Points(grid, span, crate::cache::rules(self.settings.range, looks), looks))
        } else {
            (CacheKind::Instant, Times::Whole(None, None))
        };
        let asked = Asked {
            kind,
            question,
            times,
            place: &self.place,
            terms,
            wide: set.is_none(),
            room: &|| set.unwrap_or(0),
            deadline: Instant::now() + Duration::from_secs(60),
            timeout: Duration::from_secs(60),
        };
        let told = self.cache.answer(&asked, &|| Arc::new(Truth) as _).await.unwrap();
        (String::from_utf8(told.body.to_vec()).unwrap(), answer(direct.form()), told.how.result)
    }
}

/// `SETS_PAIRS` says how many pairs of people ask the same, `SETS_SEED` which.
#[tokio::test(start_paused = true)]
async fn no_answer_crosses_sets_of_namespaces() {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    let (pairs, seed) = (number("SETS_PAIRS").unwrap_or(2_000), number("SETS_SEED").unwrap_or(1));
    let mut dice = Dice(seed);
    let cache = Cache::new(4 << 20, Clock::new(|| BEGIN), Arc::new(Metrics::new()));
    let place = cache.place("b", b"b");
    let labels = Labels::new("namespace", Vec::new()).unwrap();
    let stage = Stage { cache, place, settings: config::Cache::default(), labels };
    let (mut hits, mut differ) = (0, 0);
    for pair in 0..pairs {
        let (text, kind) = (question(&mut dice), dice.below(3));
        let sets = [caller(&mut dice), caller(&mut dice)];
        let mut bodies = Vec::new();
        for set in sets {
            let (told, direct, result) = stage.ask(&text, set, kind).await;
            assert_eq!(told, direct, "SETS_SEED={seed}, pair {pair}: {text} for {set:?}");
            let seen = told.rsplit('"').nth(1).unwrap().parse::<u64>().unwrap();
            assert_eq!(
                seen & !set.unwrap_or(ALL),
                0,
                "SETS_SEED={seed}, pair {pair}: {text} for {set:?} tells of {seen:b}"
            );
            hits += u64::from(result == CacheResult::Hit);
            bodies.push(seen);
        }
        differ += u64::from(bodies[0] != bodies[1]);
        if dice.below(500) == 0 {
            stage.cache.purge(&crate::cache::Purge::default());
        }
    }
    // Much was answered from what is kept, and what two people see differed often.
    assert!(hits > pairs / 2 && differ > pairs / 4, "{hits} {differ}");
}
