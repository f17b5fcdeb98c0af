//! Whatever ada sends, the servers behind us are never asked for anything outside of what was granted to her.
//!
//! What arrives there is read by models of those servers' own loose rules, and everything that any of those rules would
//! make reachable must be hers. `DIFFERENTIAL_CASES` says how many requests are sent.

mod go;
mod hostile;
mod perses;
mod prometheus;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Seen, gate};
use perses::Reach;

/// What foreign documents are marked with; it must never come back.
const MARKS: [&str; 2] = ["belongs-to-team-c", "belongs-to-shared"];

fn mark(project: &str) -> String {
    format!(r#"{{"display":{{"name":"belongs-to-{project}"}}}}"#)
}

fn document(kind: &str, project: &str, name: &str) -> String {
    format!(r#"{{"kind":"{kind}","metadata":{{"name":"{name}","project":"{project}"}},"spec":{}}}"#, mark(project))
}

fn asked(seen: &Seen) -> (&str, &str, &str) {
    let (method, target) = seen.line.split_once(' ').unwrap();
    let kind = seen.headers.get("content-type").map_or("", |value| value.to_str().unwrap_or(""));
    (method, target, kind)
}

/// Why what an upstream was sent is not ada's, if it is not; and what it reaches.
fn judge(seen: &Seen, perses_port: u16) -> Result<Vec<String>, String> {
    let (method, target, content_type) = asked(seen);
    let body = seen.body.as_bytes();
    if seen.headers.get("host").is_none_or(|host| host != &format!("127.0.0.1:{perses_port}")) {
        let asked = prometheus::Asked { method, target, content_type, body };
        return prometheus::violation(&asked).map_or_else(|| Ok(vec!["series".to_owned()]), Err);
    }
    let reached = perses::reach(&perses::Asked { method, target, content_type, body });
    match reached.iter().find(|reach| !perses::ada_may(reach)) {
        Some(foreign) => Err(format!("{foreign:?}")),
        None => Ok(reached
            .iter()
            .map(|reach| match reach {
                Reach::Scoped(verb, ..) => format!("scoped {verb}"),
                Reach::Global(verb, ..) => format!("global {verb}"),
                Reach::Project(verb, _) => format!("project {verb}"),
                other => format!("{other:?}").split('(').next().unwrap().to_owned(),
            })
            .collect()),
    }
}

/// What Perses would answer, foreign documents and all.
fn answer(seen: &Seen, perses_port: u16) -> Option<(u16, String)> {
    let (method, target, content_type) = asked(seen);
    if seen.headers["host"] != format!("127.0.0.1:{perses_port}") {
        return Some((200, r#"{"status":"success","data":[]}"#.to_owned()));
    }
    let asked = perses::Asked { method, target, content_type, body: seen.body.as_bytes() };
    let first = perses::reach(&asked).into_iter().next()?;
    Some(match first {
        Reach::Scoped("list", _, project, _) => {
            let all = ["team-a", "team-b", "team-c", "shared"];
            let listed = all.iter().filter(|other| project.is_empty() || project == **other);
            let entries: Vec<String> = listed.map(|project| document("Dashboard", project, "d")).collect();
            (200, format!("[{}]", entries.join(",")))
        }
        Reach::Project("list", _) => {
            let all = ["team-a", "team-b", "team-c", "shared"]
                .map(|name| format!(r#"{{"kind":"Project","metadata":{{"name":"{name}"}},"spec":{}}}"#, mark(name)));
            (200, format!("[{}]", all.join(",")))
        }
        Reach::Scoped(_, _, project, name) => (200, document("Dashboard", &project, &name)),
        Reach::Global("get", _, name) if name.is_empty() => (200, "[]".to_owned()),
        Reach::Project(..) | Reach::Open | Reach::Text | Reach::View(_) => (200, "{}".to_owned()),
        Reach::Global(..) | Reach::File(_) | Reach::Closed(_) => return None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_foreign_is_ever_reachable() {
    let cases: u64 = std::env::var("DIFFERENTIAL_CASES").map_or(15_000, |text| text.parse().unwrap());
    let gate = gate("").await;
    let ada = gate.token("ada");
    let port = gate.perses;
    gate.upstream.answers_by(move |seen| answer(seen, port));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/differential/seeds.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let kept = text.lines().filter_map(|line| line.split('#').next()?.trim().parse().ok());
    let mut reached: BTreeMap<String, u64> = BTreeMap::new();
    for seed in kept.chain(1_000_000..1_000_000 + cases) {
        let request = hostile::request(seed, &ada);
        let heard = exchange(&gate.address, &request).await;
        let told =
            |what: &str| format!("seed {seed}: {what}\n{}", String::from_utf8_lossy(&request).replace(&ada, "TOKEN"));
        for seen in gate.upstream.take() {
            match judge(&seen, port) {
                Ok(words) => words.into_iter().for_each(|word| *reached.entry(word).or_default() += 1),
                Err(why) => panic!("{}\nupstream: {} {}", told(&why), seen.line, seen.body),
            }
            for name in seen.headers.keys() {
                let ours = ["accept", "accept-encoding", "content-length", "content-type", "host", "user-agent"];
                assert!(ours.contains(&name.as_str()), "{}", told(name.as_str()));
            }
        }
        let mark = MARKS.iter().find(|mark| heard.contains(**mark));
        assert!(mark.is_none(), "{}\nanswer: {heard}", told("a foreign document came back"));
        assert!(!heard.starts_with("HTTP/1.1 500"), "{}\nanswer: {heard}", told("an internal error"));
    }
    eprintln!("{cases} requests reached {reached:?}");
    // Requests that never get through would prove nothing.
    for word in
        ["series", "scoped get", "scoped list", "scoped create", "scoped update", "scoped delete", "project get"]
    {
        assert!(reached.get(word).is_some_and(|count| *count * 1_000 >= cases), "{word}: {reached:?}");
    }
}

/// The answer, or as much as comes before the peer falls silent.
async fn exchange(address: &str, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let _ = socket.write_all(request).await;
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let no_body = request.starts_with(b"HEAD ");
    // Whoever waits for the rest of a body says nothing.
    while let Ok(Ok(read)) = tokio::time::timeout(Duration::from_millis(100), socket.read(&mut buffer)).await {
        answer.extend_from_slice(&buffer[..read]);
        if read == 0 || is_whole(&answer, no_body) {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn is_whole(answer: &[u8], no_body: bool) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.starts_with("HTTP/1.1 100") {
        return false;
    }
    if no_body {
        return true;
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    length.map_or(body.ends_with("0\r\n\r\n") || head.starts_with("HTTP/1.1 204"), |length| body.len() >= length)
}

/// The models must be able to say no.
#[test]
fn what_must_never_be_sent_is_seen() {
    let port = 1;
    let seen = |line: &str, kind: &str, body: &str, host: &str| {
        let mut headers = http::HeaderMap::new();
        headers.insert("host", host.parse().unwrap());
        if !kind.is_empty() {
            headers.insert("content-type", kind.parse().unwrap());
        }
        Seen { line: line.to_owned(), headers, body: body.to_owned() }
    };
    let perses = |line: &str, kind: &str, body: &str| judge(&seen(line, kind, body, "127.0.0.1:1"), port);
    let json = "application/json";
    for (line, kind, body) in [
        ("DELETE /api/v1/projects/team-a/dashboards/../team-c/d", "", ""),
        ("DELETE /api/v1/projects/..", "", ""),
        ("DELETE /api/v1/projects/team-b", "", ""),
        ("GET /api/v1/projects/team-a/dashboards?project=team-c", "", ""),
        ("GET /api/v1/projects/team-a/dashboards?PROJECT=team-c&project=team-a", "", ""),
        ("GET /api/v1/projects/team-a/dashboards?%70roject=team-c", "", ""),
        ("GET /api/v1/dashboards?project=team-c", "", ""),
        ("GET /api/v1/projects/team-a/dashboards", json, r#"{"Project":"team-c"}"#),
        ("GET /api/v1/projects/team-a/dashboards", "application/xml", "<a/>"),
        ("POST /api/v1/dashboards", json, r#"{"metadata":{"name":"d","project":"team-a","Project":"team-c"}}"#),
        (
            "POST /api/v1/dashboards",
            json,
            r#"{"metadata":{"name":"d","project":"team-a"},"Metadata":{"project":"team-c"}}"#,
        ),
        ("POST /api/v1/dashboards", json, r#"{"metadata":{"name":"../x","project":"team-a"}}"#),
        ("POST /api/v1/projects/team-a/dashboards", "application/xml; a=application/json", "<a/>"),
        ("POST /api/v1/projects", json, r#"{"metadata":{"name":"team-c"}}"#),
        ("PUT /api/v1/projects/team-b/dashboards/d", json, "{}"),
        ("GET /api/v1/projects/team-b/secrets/s", "", ""),
        ("GET /api/v1/globalsecrets/s", "", ""),
        ("PUT /api/v1/globaldatasources/p", json, "{}"),
        ("POST /api/v1/view", json, r#"{"project":"team-c"}"#),
        ("POST /api/v1/users", json, "{}"),
        ("POST /proxy/unsaved/globaldatasources/x", json, "{}"),
        ("GET /proxy/globaldatasources/p/api/v1/query?query=up", "", ""),
        ("GET /plugins/X/../../etc/passwd", "", ""),
        ("GET /metrics", "", ""),
    ] {
        assert!(perses(line, kind, body).is_err(), "{line} {body}");
    }
    for line in ["GET /api/v1/projects//dashboards", "GET /api/v1/projects/team-a/dashboards?project="] {
        // All projects at once: whether that is right is seen by what comes back.
        assert!(perses(line, "", "").is_ok(), "{line}");
        let (_, listed) = answer(&seen(line, "", "", "127.0.0.1:1"), port).unwrap();
        assert!(MARKS.iter().all(|mark| listed.contains(mark)), "{line}: {listed}");
    }
    assert_eq!(perses("GET /api/v1/projects/team-b/dashboards/d", "", ""), Ok(vec!["scoped get".to_owned()]));
    let form = "application/x-www-form-urlencoded";
    let asked = |line: &str, kind: &str, body: &str| judge(&seen(line, kind, body, "127.0.0.1:2"), port);
    let own = "query=up%7Bnamespace%3D~%22team-a%7Cteam-b%22%7D";
    for (line, kind, body) in [
        ("POST /api/v1/query", form, "query=up"),
        ("POST /api/v1/query", form, "query=up%7Bnamespace%3D%22team-c%22%7D"),
        ("POST /api/v1/query", form, "query=up%7Bnamespace%3D~%22team-a%7C%22%7D"),
        ("POST /api/v1/query", form, "query=up%7Bnamespace%3D~%22team-.%2A%22%7D"),
        ("POST /api/v1/query", form, "query=up%7Bnamespace%21%3D%22team-a%22%7D"),
        ("POST /api/v1/query", form, "query=quantile(scalar(sum(s)),up%7Bnamespace%3D%22team-a%22%7D)"),
        ("POST /api/v1/query", form, &format!("query=up&{own}")),
        ("POST /api/v1/query?query=up", "text/plain", own),
        ("GET /api/v1/query?query=up", form, own),
        ("GET /api/v1/labels", "", ""),
        ("GET /api/v1/labels?match[]=%7Bnamespace%3D%22team-a%22%7D&match[]=up", "", ""),
        ("GET /api/v1/labels?match[]=%7Bnamespace%3D%22team-a%22%7D;x", "", ""),
        ("GET /api/v1/labels?match[]=%7Bnamespace%3D%22team-a%22%7D", "multipart/form-data; boundary=x", "--x"),
        ("POST /api/v1/query", form, &format!("{own}&replicaLabels[]=namespace")),
        ("GET /api/v1/rules", "", ""),
        ("GET /api/v1/label/../query?match[]=%7Bnamespace%3D%22team-a%22%7D", "", ""),
    ] {
        assert!(asked(line, kind, body).is_err(), "{line} {body}");
    }
    for (line, body) in [
        ("POST /api/v1/query", own),
        // The body stands before the address.
        ("POST /api/v1/query?query=up", own),
        (
            "POST /api/v1/query",
            "query=sum by (pod) (rate(x%7Bnamespace%3D%22team-a%22%7D[5m] offset 1h)) %2B on (pod) vector(1)",
        ),
        ("POST /api/v1/query", "query=x%7Bnamespace%3D%22%22%2Cnamespace%21%3D%22%22%7D"),
    ] {
        assert!(asked(line, form, body).is_ok(), "{line} {body}: {:?}", asked(line, form, body));
    }
}
