//! All that gateways in this process log, at their most talkative, is looked at for secrets as it is written.

use std::io::{self, Write};
use std::sync::Once;

use perses_sidecar_stack::secrets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// Begins once; a line with a secret ends the process, as nobody could be told who is in another task.
pub fn begin() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let lines = fmt::layer().with_writer(|| Watch).json().flatten_event(true);
        let filter = EnvFilter::new("warn,perses_sidecar=trace");
        tracing_subscriber::registry().with(filter).with(lines).init();
    });
}

struct Watch;

impl Write for Watch {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(line) = secrets::found_in(&String::from_utf8_lossy(line)) {
            eprintln!("a secret is logged: {line}");
            std::process::abort();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a gateway has written to a file; nothing while a test fails for another reason.
pub fn look_at(path: &std::path::Path) {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    if let Some(line) = secrets::found_in(&text)
        && !std::thread::panicking()
    {
        panic!("a secret stands in {}: {line}", path.display());
    }
}
