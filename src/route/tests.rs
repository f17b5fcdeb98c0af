//! The table against golden lines: method, target, and what it is or how it is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use super::*;

/// `METHOD target => word METHOD path-to-perses` or `=> status`.
#[test]
fn golden_routes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/routes/table.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let mut count = 0;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (asked, expected) = line.split_once(" => ").unwrap();
        let (method, target) = asked.split_once(' ').unwrap();
        assert_eq!(told(method, target, ""), expected, "{asked}");
        count += 1;
    }
    assert!(count > 150, "{count} lines");
}

fn told(method: &str, target: &str, prefix: &str) -> String {
    match read(&method.parse().unwrap(), target, prefix) {
        Err(refusal) => match refusal.allow() {
            Some(allow) => format!("405 {allow}"),
            None => refusal.status().as_u16().to_string(),
        },
        Ok(route) => {
            let request = match &route {
                Route::Open(open) => PersesRequest::open(open),
                Route::Guarded(guarded) => PersesRequest::guarded(guarded),
                Route::Door(_) => None,
            };
            let sent = request.map_or_else(|| "-".to_owned(), |request| format!("{} {}", request.method, request.path));
            format!("{} {sent}", route.word())
        }
    }
}

#[test]
fn a_prefix_is_asked_for_and_taken_off() {
    assert_eq!(told("GET", "/p/api/v1/projects", "/p"), "project GET /api/v1/projects");
    assert_eq!(told("GET", "/p", "/p"), "ui GET /");
    assert_eq!(told("GET", "/metrics", "/p"), "own_metrics GET /metrics");
    for foreign in ["/api/v1/projects", "/", "/px/api/v1/projects", "/P/api/v1/projects"] {
        assert_eq!(told("GET", foreign, "/p"), "404", "{foreign}");
    }
}

#[test]
fn every_word_is_in_the_list_of_words() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/routes/table.txt");
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let Some((_, expected)) = line.split_once(" => ") else { continue };
        let word = expected.split(' ').next().unwrap();
        assert!(word.parse::<u16>().is_ok() || WORDS.contains(&word), "{word}");
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever a path looks like, what is sent has the caller's own project and nothing that climbs.
        #[test]
        fn what_is_sent_is_plain(
            method in "GET|POST|PUT|DELETE|HEAD|PATCH",
            target in "/(api/v1|proxy|plugins|api|-)?(/(projects|dashboards|mine|victim|\\.\\.|\\.|%2e%2e|%2F|a|datasources|secrets||;x|[A-Za-z0-9_.~-]{1,4})){0,7}/?(\\?[a-z]{0,8}=?[a-z%;&=.]{0,8})?",
        ) {
            let Ok(route) = read(&method.parse().unwrap(), &target, "") else { return Ok(()) };
            let request = match &route {
                Route::Open(open) => PersesRequest::open(open),
                Route::Guarded(guarded) => PersesRequest::guarded(guarded),
                Route::Door(_) => None,
            };
            if let Some(request) = request {
                let path = request.path.split('?').next().unwrap();
                prop_assert!(!path.contains("//") && !path.contains('%') && !path.contains(';'), "{}", request.path);
                prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{}", request.path);
                prop_assert!(!request.path.contains("project="), "{}", request.path);
                // The same again gives the same: what was written is canonical.
                let again = read(&request.method, &request.path, "").unwrap();
                prop_assert_eq!(again.word(), route.word());
            }
        }

        #[test]
        fn forms_are_read_and_written_alike(pairs in prop::collection::vec(("\\PC{1,8}", "\\PC{0,12}"), 0..6)) {
            let mut text = String::new();
            for (name, value) in &pairs {
                push_pair(&mut text, name, value);
            }
            let mut form = Form::parse(&text).unwrap();
            for (name, _) in &pairs {
                let expected: Vec<&String> = pairs.iter().filter(|(other, _)| other == name).map(|(_, value)| value).collect();
                let got = form.take_all(name);
                prop_assert!(got.is_empty() || got.iter().map(|value| value.as_ref()).eq(expected.iter().map(|value| value.as_str())));
            }
            prop_assert!(form.is_empty());
        }
    }
}

#[test]
fn forms_that_servers_read_in_two_ways_are_refused() {
    for (text, error) in [
        ("a=1;b=2", FormError::Semicolon),
        ("a=1&b;c=2", FormError::Semicolon),
        ("a=%", FormError::BrokenEscape),
        ("a=%4", FormError::BrokenEscape),
        ("a=%zz", FormError::BrokenEscape),
        ("a=%00", FormError::NotText),
        ("a=%ff", FormError::NotText),
        ("=1", FormError::NoName),
        ("a=1&&b=2", FormError::NoName),
    ] {
        assert_eq!(Form::parse(text), Err(error), "{text}");
    }
    // Escaped, it is a character like any other.
    assert_eq!(Form::parse("a=1%3Bb").and_then(|mut form| form.take("a")), Ok(Some("1;b".into())));
    let mut form = Form::parse("a=1&b=2&a=1").unwrap();
    assert_eq!(form.take("a"), Err(FormError::Repeated("a".to_owned())), "the same value twice is twice");
    assert_eq!(Form::parse(&"a=1&".repeat(300)), Err(FormError::TooMany));
}
