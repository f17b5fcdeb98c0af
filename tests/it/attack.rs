//! Attacks: each row is one, by name. It is refused before an upstream sees anything, and afterwards all is well.

mod bodies;
mod floods;
mod frames;
mod framing;
mod h2;
mod headers;
mod paths;
mod slow;

use std::time::{Duration, Instant};

use crate::support::{Gate, speak, wire};

/// A normal request takes milliseconds; this much it may take on a machine that others load.
const QUICK: Duration = Duration::from_secs(3);

/// One attack: its name, what is sent (`ada`'s token stands for TOKEN), and which codes refuse it; 0 is a closed
/// connection.
struct Row {
    name: &'static str,
    request: String,
    refused: &'static [u16],
}

fn row(name: &'static str, request: impl Into<String>, refused: &'static [u16]) -> Row {
    Row { name, request: request.into(), refused }
}

/// What every request of ada's carries.
const ADA: &str = "host: x\nauthorization: Bearer TOKEN\n";

/// A request with a body and its length.
fn with_body(line: &str, headers: &str, body: &str) -> String {
    let length = wire(body).len();
    format!("{line} HTTP/1.1\n{ADA}{headers}content-length: {length}\n\n{body}")
}

/// Sends every row on a connection of its own. All rows that fail are told, not only the first.
async fn all_refused(gate: &Gate, rows: &[Row]) {
    let ada = gate.token("ada");
    // The datasource is looked up once, so that from here on nothing may arrive upstream.
    assert_eq!(gate.query(&ada, "up").await.status, 200);
    gate.upstream.take();
    let mut wrong = Vec::new();
    for row in rows {
        let heard = speak(&gate.address, &wire(&row.request.replace("TOKEN", &ada))).await;
        let codes = heard.codes();
        let code = codes.first().copied().unwrap_or_default();
        if codes.len() > 1 || !row.refused.contains(&code) || code == 0 && !heard.closed {
            wrong.push(format!("{}: {codes:?} instead of {:?}, closed: {}", row.name, row.refused, heard.closed));
        }
        let seen = gate.upstream.lines();
        if !seen.is_empty() {
            wrong.push(format!("{}: reached an upstream: {seen:?}", row.name));
        }
        let leaks = ["127.0.0.1", "team-c", "sha256~", "panicked", ".rs:"];
        if let Some(leak) = leaks.iter().find(|leak| heard.text.contains(**leak)) {
            wrong.push(format!("{}: the answer tells {leak:?}: {}", row.name, heard.text));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    all_well(gate, &ada).await;
}

/// An ordinary question is answered, and quickly.
async fn all_well(gate: &Gate, token: &str) {
    let began = Instant::now();
    assert_eq!(gate.query(token, "up").await.status, 200);
    assert!(began.elapsed() < QUICK, "{:?}", began.elapsed());
    gate.upstream.take();
}
