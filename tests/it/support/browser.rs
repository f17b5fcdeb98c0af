//! A browser as far as logging in needs one: it keeps cookies, says how it asks, and follows nobody by itself.

use std::collections::BTreeMap;

use perses_sidecar_stack::http::{Answer, Http};
use perses_sidecar_stack::secrets;

use super::{Gate, More, gate_with};

/// Where people reach the gateway of these tests.
pub const HERE: &str = "https://perses.example";

/// The configuration of logging in at the stand-in's OAuth server; more keys of `login` may follow.
pub const OPENSHIFT: &str = "login:\n  external_url: https://perses.example\n  openshift:\n    client_id: system:serviceaccount:perses:perses-sidecar\n    ca_file: FOLDER/oauth-ca.crt\n";

/// A gateway at which people log in.
pub async fn gate_with_login(rest: &str) -> Gate {
    let gate = gate_with(More { rest: &format!("{OPENSHIFT}{rest}"), ..More::default() }).await;
    register(&gate, HERE);
    gate
}

/// Lets the OAuth server send people back to the gateway.
pub fn register(gate: &Gate, here: &str) {
    gate.openshift.cluster().annotate_account(
        "perses",
        "perses-sidecar",
        "serviceaccounts.openshift.io/oauth-redirecturi.first",
        &format!("{here}/-/callback"),
    );
}

/// How a browser asks when somebody goes somewhere.
pub const GOES: [(&str, &str); 4] = [
    ("accept", "text/html,*/*"),
    ("sec-fetch-site", "none"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
];
/// How a page of ours asks.
pub const ASKS: [(&str, &str); 4] = [
    ("accept", "application/json"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-dest", "empty"),
];

#[derive(Clone, Default)]
pub struct Browser {
    url: String,
    http: Http,
    /// Below which paths live.
    pub prefix: String,
    pub jar: BTreeMap<String, String>,
    /// Everything that was ever set.
    pub seen: Vec<String>,
}

impl Browser {
    pub fn of(gate: &Gate) -> Self {
        Self::at(&gate.url)
    }

    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }

    /// The same browser with its cookies, over another connection.
    pub fn anew(&self) -> Self {
        Self { http: Http::default(), ..self.clone() }
    }

    /// The value of the one cookie header.
    pub fn cookies(&self) -> String {
        self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let cookies = self.cookies();
        let mut all = headers.to_vec();
        if !cookies.is_empty() {
            all.push(("cookie", &cookies));
        }
        let answer = self.http.send(method, &format!("{}{path}", self.url), &all, body).await.unwrap();
        for line in answer.headers.get_all("set-cookie") {
            let line = line.to_str().unwrap();
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            secrets::note(value);
            self.seen.push(line.to_owned());
            if line.ends_with("; Max-Age=0") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// Somebody goes to an address.
    pub async fn goes(&mut self, path: &str) -> Answer {
        self.send("GET", path, &GOES, "").await
    }

    /// A script of our own page asks.
    pub async fn asks(&mut self, path: &str) -> Answer {
        self.send("GET", path, &ASKS, "").await
    }

    /// A form or script of our own page changes something.
    pub async fn changes(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let headers = [ASKS.as_slice(), &[("origin", HERE), ("content-type", "application/json")]].concat();
        self.send(method, path, &headers, body).await
    }

    /// Begins a login; gives where the OAuth server is asked, with its query.
    pub async fn begins(&mut self, to: &str) -> String {
        let answer = self
            .goes(&format!(
                "{}/-/login?to={}",
                self.prefix,
                to.replace('/', "%2F").replace('?', "%3F").replace('&', "%26")
            ))
            .await;
        assert_eq!(answer.status, 302, "{}", answer.text());
        location(&answer)
    }

    /// Comes back from the OAuth server.
    pub async fn comes_back(&mut self, to: &str) -> Answer {
        let path = to.strip_prefix(HERE).unwrap().to_owned();
        let headers = [
            ("accept", "text/html"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        self.send("GET", &path, &headers, "").await
    }

    /// Logs somebody in, and gives the last answer of the gateway.
    pub async fn logs_in(&mut self, gate: &Gate, user: &str, to: &str) -> Answer {
        let place = self.begins(to).await;
        let query = place.split_once('?').unwrap().1;
        let back = gate.openshift.cluster().log_in(user, query).unwrap();
        self.comes_back(&back).await
    }

    pub async fn who(&mut self) -> String {
        let answer = self.asks(&format!("{}/-/whoami", self.prefix)).await;
        answer.json()["user"].as_str().unwrap_or_default().to_owned()
    }
}

pub fn location(answer: &Answer) -> String {
    answer.headers.get("location").map(|to| to.to_str().unwrap().to_owned()).unwrap_or_default()
}
