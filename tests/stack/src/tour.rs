//! A scripted tour: each step says what it shows, and fails loudly.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::http::{Answer, Http};
use crate::openshift::Subject;
use crate::overlay::lay_over;
use crate::world::{World, dashboard};

/// Walks through; gives how many steps passed and failed. `say` gets a line for each.
pub async fn walk(world: &World, say: &dyn Fn(&str)) -> (usize, usize) {
    let mut tour = Tour { world, http: Http::default(), say, passed: 0, failed: 0 };
    if let Err(error) = tour.all().await {
        tour.step("the tour goes on", Err(error.to_string()));
    }
    (tour.passed, tour.failed)
}

struct Tour<'w> {
    world: &'w World,
    http: Http,
    say: &'w dyn Fn(&str),
    passed: usize,
    failed: usize,
}

/// The values of a label in the answer to an instant query.
#[must_use]
pub fn label_values(answer: &Answer, label: &str) -> BTreeSet<String> {
    let json = answer.json();
    let result = json["data"]["result"].as_array().cloned().unwrap_or_default();
    result.iter().filter_map(|series| series["metric"][label].as_str().map(str::to_owned)).collect()
}

/// The names of the objects in a list, with their projects.
#[must_use]
pub fn names(answer: &Answer) -> BTreeSet<String> {
    let list = answer.json().as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|object| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            object["metadata"]["project"]
                .as_str()
                .map_or_else(|| name.to_owned(), |project| format!("{project}/{name}"))
        })
        .collect()
}

/// The same without those of workloads.
fn stored(answer: &Answer) -> BTreeSet<String> {
    names(answer).into_iter().filter(|name| !name.contains("/dashboard-")).collect()
}

fn expect<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("expected {expected:?}, got {got:?}")) }
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Tour<'_> {
    fn step(&mut self, what: &str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                (self.say)(&format!("  ok      {what}"));
            }
            Err(problem) => {
                self.failed += 1;
                (self.say)(&format!("  FAILED  {what}: {problem}"));
            }
        }
    }

    async fn get(&self, who: &str, path: &str) -> io::Result<Answer> {
        self.http.get(&format!("{}{path}", self.world.gateway()), self.world.token(who)).await
    }

    /// The status of the answer.
    async fn delete(&self, who: &str, path: &str) -> io::Result<u16> {
        let authorization = format!("Bearer {}", self.world.token(who));
        let url = format!("{}{path}", self.world.gateway());
        Ok(self.http.send("DELETE", &url, &[("authorization", &authorization)], "").await?.status)
    }

    async fn query(&self, who: &str, query: &str) -> io::Result<Answer> {
        let url = format!("{}/proxy/globaldatasources/prometheus/api/v1/query", self.world.gateway());
        self.http.form(&url, self.world.token(who), &[("query", query)]).await
    }

    async fn all(&mut self) -> io::Result<()> {
        self.lists().await?;
        self.queries().await?;
        // In an injected pod operators come in through a socket in its own file system.
        if tokio::net::TcpStream::connect(("127.0.0.1", self.world.ports[3])).await.is_ok() {
            self.answers().await?;
        }
        self.workloads().await?;
        self.writes().await?;
        self.revocation().await?;
        self.reload().await
    }

    async fn lists(&mut self) -> io::Result<()> {
        let answer = self.http.send("GET", &format!("{}/api/v1/projects", self.world.gateway()), &[], "").await?;
        self.step("without a token: 401 and how to log in", expect(answer.status, 401));
        let answer = self.get("ada", "/api/v1/projects").await?;
        self.step("ada sees the projects team-a and team-b", expect(names(&answer), set(&["team-a", "team-b"])));
        let answer = self.get("grace", "/api/v1/projects").await?;
        self.step("grace sees team-b only, on the same URL", expect(names(&answer), set(&["team-b"])));
        let answer = self.get("eve", "/api/v1/projects").await?;
        self.step("eve sees nothing", expect((answer.status, answer.text()), (200, "[]".to_owned())));
        let answer = self.get("root", "/api/v1/projects").await?;
        let all = set(&["perses", "shared", "team-a", "team-b", "team-c"]);
        self.step("root sees every namespace, and the stored project that is none", expect(names(&answer), all));
        let answer = self.get("ada", "/api/v1/dashboards").await?;
        self.step(
            "ada's dashboards are of team-a and team-b",
            expect(stored(&answer), set(&["team-a/overview", "team-b/overview"])),
        );
        let answer = self.get("grace", "/api/v1/dashboards?metadata_only=true").await?;
        self.step("grace's are of team-b", expect(stored(&answer), set(&["team-b/overview"])));
        let answer = self.get("eve", "/api/v1/projects/team-a/dashboards/overview").await?;
        let nothing = self.get("eve", "/api/v1/projects/team-a/dashboards/no-such").await?;
        let same = answer.status == 404 && nothing.status == 404 && answer.body == nothing.body;
        self.step("eve cannot tell what exists from what does not", expect(same, true));
        Ok(())
    }

    async fn queries(&mut self) -> io::Result<()> {
        let answer = self.query("ada", "vllm:num_requests_running").await?;
        self.step(
            "ada's query answers for team-a and team-b",
            expect(label_values(&answer, "namespace"), set(&["team-a", "team-b"])),
        );
        let answer = self.query("grace", "vllm:num_requests_running").await?;
        self.step(
            "the same query of grace answers for team-b",
            expect(label_values(&answer, "namespace"), set(&["team-b"])),
        );
        let answer = self.query("eve", "vllm:num_requests_running").await?;
        self.step("and of eve not at all", expect(answer.status, 403));
        let answer = self.query("root", "vllm:num_requests_running").await?;
        self.step(
            "root's answers for every team",
            expect(label_values(&answer, "namespace"), set(&["team-a", "team-b", "team-c"])),
        );
        for query in [
            "vllm:num_requests_running{namespace=\"team-a\"}",
            "{namespace=~\".*team-a.*\"}",
            "vllm:num_requests_running{namespace!=\"team-b\"} or vllm:num_requests_waiting{namespace=\"team-c\"}",
        ] {
            let answer = self.query("grace", query).await?;
            let result = answer.json()["data"]["result"].clone();
            self.step(
                &format!("grace asks for a foreign namespace ({query}): no series"),
                expect((answer.status, result), (200, json!([]))),
            );
        }
        let answer = self.query("grace", "sum by (exported_namespace) (DCGM_FI_DEV_GPU_UTIL)").await?;
        self.step(
            "GPU metrics are told apart by exported_namespace",
            expect(label_values(&answer, "exported_namespace"), set(&["team-b"])),
        );
        let url = format!("{}/proxy/globaldatasources/prometheus/api/v1/query_range", self.world.gateway());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let (start, end) = ((now - 6 * 24 * 3600).to_string(), now.to_string());
        let pairs = [
            ("query", "sum(rate(vllm:generation_tokens_total[10m]))"),
            ("start", &start),
            ("end", &end),
            ("step", "3600"),
        ];
        let answer = self.http.form(&url, self.world.token("ada"), &pairs).await?;
        let points = answer.json()["data"]["result"][0]["values"].as_array().map_or(0, Vec::len);
        self.step(
            "six days of history are there",
            if points > 100 {
                Ok(())
            } else {
                Err(format!("{points} points: {}", answer.text().chars().take(300).collect::<String>()))
            },
        );
        let answer = self.query("ada", "sum by (").await?;
        let message = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        self.step(
            "nonsense is refused with its place",
            if answer.status == 400 && message.contains("at character") { Ok(()) } else { Err(answer.text()) },
        );
        Ok(())
    }

    /// The demo's workloads have dashboards that nobody made.
    /// A range query of ada's that ends two hours ago; what the answer says of how it came about.
    async fn range(&self, query: &str, hours: u64, step: &str) -> io::Result<String> {
        let url = format!("{}/proxy/globaldatasources/prometheus/api/v1/query_range", self.world.gateway());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
        let end = now / 3600 * 3600 - 2 * 3600;
        let (start, end) = ((end - hours * 3600).to_string(), end.to_string());
        let form = [("query", query), ("start", &start), ("end", &end), ("step", step)];
        let answer = self.http.form(&url, self.world.token("ada"), &form).await?;
        let how = answer.headers.get("cache-status").and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(if answer.status == 200 { how.to_owned() } else { answer.text() })
    }

    async fn answers(&mut self) -> io::Result<()> {
        let contains = |how: &str, words: &str| how.contains(words).then_some(()).ok_or_else(|| how.to_owned());
        let query = "sum by (namespace) (vllm:num_requests_running)";
        let first = self.range(query, 6, "60").await?;
        self.step("a range is asked of Prometheus once", contains(&first, "fwd=miss"));
        let second = self.range(query, 6, "60").await?;
        self.step("and answered from the cache then", contains(&second, "; hit;"));
        let part = self.range(query, 3, "60").await?;
        self.step("a part of it, too", contains(&part, "; hit;"));
        // One that takes its time.
        let slow = "max by (namespace) (max_over_time(vllm:num_requests_running[6h:30s]))";
        let one = || self.range(slow, 96, "300");
        let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
        let all = [a?, b?, c?, d?];
        let asked = all.iter().filter(|how| how.contains("fwd=miss") && !how.contains("collapsed")).count();
        let waited = all.iter().filter(|how| how.contains("collapsed")).count();
        let once = if asked == 1 && waited > 0 { Ok(()) } else { Err(format!("{all:?}")) };
        self.step("four who ask the same at once are one question", once);
        let url = format!("http://127.0.0.1:{}/cache/purge", self.world.ports[3]);
        let headers = [("content-type", "application/json")];
        let purged = self.http.send("POST", &url, &headers, r#"{"backend":"prometheus"}"#).await?;
        self.step("an operator makes it forget", expect(purged.status, 200));
        let after = self.range(query, 6, "60").await?;
        self.step("and Prometheus is asked again", contains(&after, "fwd=miss"));
        Ok(())
    }

    async fn workloads(&mut self) -> io::Result<()> {
        let list = "/api/v1/dashboards?metadata_only=true";
        let began = Instant::now();
        let mut all = names(&self.get("root", list).await?);
        // Discovery begins with the sidecar, and looks once a second.
        while all.iter().filter(|name| name.contains("/dashboard-")).count() < 20
            && began.elapsed() < Duration::from_secs(10)
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
            all = names(&self.get("root", list).await?);
        }
        let of = |all: &BTreeSet<String>, part: &str| {
            let found = all.iter().filter(|name| name.contains("/dashboard-") && name.contains(part));
            found.filter_map(|name| name.split('/').next().map(str::to_owned)).collect::<BTreeSet<_>>()
        };
        self.step(
            "every team's model granite has a dashboard that nobody made",
            expect(of(&all, "vllm-granite"), set(&["team-a", "team-b", "team-c"])),
        );
        let ada = names(&self.get("ada", list).await?);
        self.step("ada finds those of team-a and team-b", expect(of(&ada, "vllm-granite"), set(&["team-a", "team-b"])));
        let grace = names(&self.get("grace", list).await?);
        self.step("grace finds that of team-b", expect(of(&grace, "vllm-granite"), set(&["team-b"])));
        self.step("and no other of team-a", expect(grace.iter().any(|name| name.starts_with("team-a/")), false));
        let eve = self.get("eve", list).await?;
        self.step("eve finds none", expect((eve.status, eve.text()), (200, "[]".to_owned())));
        let Some(found) = ada.iter().find(|name| name.starts_with("team-a/") && name.contains("vllm-granite")) else {
            self.step("ada opens one", Err("there is none".to_owned()));
            return Ok(());
        };
        let one = format!("/api/v1/projects/{}", found.replace('/', "/dashboards/"));
        let answer = self.get("ada", &one).await?;
        let mut panels = 0;
        for panel in answer.json()["spec"]["panels"].as_object().into_iter().flatten().map(|(_, panel)| panel) {
            let query = &panel["spec"]["queries"][0]["spec"]["plugin"]["spec"]["query"];
            let Some(query) = query.as_str() else { continue };
            // What the UI makes of it.
            let query = query.replace("$__rate_interval", "5m").replace("$__range", "1h").replace("$pod", ".*");
            let answer = self.query("ada", &query).await?;
            let namespaces = label_values(&answer, "namespace");
            panels += usize::from(answer.status == 200 && namespaces.iter().all(|namespace| namespace == "team-a"));
        }
        self.step(
            "ada opens one, and its panels ask for team-a",
            if panels > 3 { Ok(()) } else { Err(format!("{panels} panels")) },
        );
        let (there, nowhere) = (self.get("grace", &one).await?, self.get("grace", &format!("{one}x")).await?);
        let same = there.status == 404 && there.body == nowhere.body;
        self.step("grace, who may not see team-a, cannot tell whether it is there", expect(same, true));
        let url = format!("{}{one}", self.world.gateway());
        // Who refuses before the body has come closes the connection: hers is her own.
        let saved = Http::default().json("PUT", &url, self.world.token("grace"), &answer.json()).await?.status;
        self.step("nor save it", expect(saved, 404));
        let saved = self.http.json("PUT", &url, self.world.token("ada"), &answer.json()).await?.status;
        let stored = self.http.get(&format!("{}{one}", self.world.perses_url), "none").await?.status;
        self.step("ada saves it: now it is stored in real Perses", expect((saved, stored), (200, 200)));
        let deleted = self.delete("ada", &one).await?;
        let back = self.get("ada", &one).await?;
        self.step("deletes that: the workload's own is back", expect((deleted, back.body), (204, answer.body.clone())));
        let hidden = self.delete("ada", &one).await?;
        let listed = names(&self.get("ada", list).await?).contains(found);
        self.step("deletes it again: it is hidden", expect((hidden, listed), (204, false)));
        let again = self.delete("ada", &one).await?;
        let listed = names(&self.get("ada", list).await?).contains(found);
        self.step("and once more: that changes nothing", expect((again, listed), (204, false)));
        let back = format!("{}/-/gallery/restore/{found}", self.world.gateway());
        let refused = self.http.form(&back, self.world.token("grace"), &[]).await?.status;
        let restored = self.http.form(&back, self.world.token("ada"), &[]).await?.status;
        let listed = names(&self.get("ada", list).await?).contains(found);
        self.step("the gallery shows it again, for ada alone", expect((refused, restored, listed), (404, 303, true)));
        Ok(())
    }

    async fn writes(&mut self) -> io::Result<()> {
        let gateway = self.world.gateway();
        let url = format!("{gateway}/api/v1/projects/team-a/dashboards");
        let body = dashboard("mine", "up");
        let answer = self.http.json("POST", &url, self.world.token("ada"), &body).await?;
        let stored =
            self.http.get(&format!("{}/api/v1/projects/team-a/dashboards/mine", self.world.perses_url), "none").await?;
        self.step("ada's dashboard lands in real Perses", expect((answer.status, stored.status), (200, 200)));
        let theirs = dashboard("theirs", "up");
        let answer = Http::default().json("POST", &url, self.world.token("grace"), &theirs).await?;
        let stored = self
            .http
            .get(&format!("{}/api/v1/projects/team-a/dashboards/theirs", self.world.perses_url), "none")
            .await?;
        self.step(
            "grace's into team-a is refused, and Perses has not seen it",
            expect((answer.status, stored.status), (404, 404)),
        );
        let url = format!("{gateway}/api/v1/projects/team-b/dashboards/overview");
        let answer = Http::default().json("DELETE", &url, self.world.token("ada"), &Value::Null).await?;
        self.step("ada may look at team-b and not delete there", expect(answer.status, 403));
        let stored = self
            .http
            .get(&format!("{}/api/v1/projects/team-b/dashboards/overview", self.world.perses_url), "none")
            .await?;
        self.step("and nothing was deleted", expect(stored.status, 200));
        Ok(())
    }

    async fn revocation(&mut self) -> io::Result<()> {
        let ground = &self.world.ground;
        ground.unbind(Some("team-b"), Subject::User("ada".to_owned()), "view").await?;
        let began = Instant::now();
        let bound = Duration::from_secs(5);
        let mut left = set(&["team-b"]);
        while left.contains("team-b") && began.elapsed() < bound {
            tokio::time::sleep(Duration::from_millis(200)).await;
            left = label_values(&self.query("ada", "vllm:num_requests_running").await?, "namespace");
        }
        let took = began.elapsed().as_secs_f64();
        self.step(
            &format!("a right that is taken away ends within its bound of 2 s and a bit ({took:.1} s)"),
            expect(left, set(&["team-a"])),
        );
        let token = ground.account_token("team-a", "bot", &[]).await?;
        let url = format!("{}/api/v1/projects", self.world.gateway());
        let before = self.http.get(&url, &token).await?.status;
        ground.remove_account("team-a", "bot").await?;
        let began = Instant::now();
        let mut after = before;
        // A real API server remembers a good token for 10 s itself.
        while after == 200 && began.elapsed() < bound + Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            after = self.http.get(&url, &token).await?.status;
        }
        self.step("the token of a deleted account ends too", expect((before, after), (200, 401)));
        Ok(())
    }

    async fn reload(&mut self) -> io::Result<()> {
        let good = fs::read_to_string(&self.world.config_file)?;
        fs::write(&self.world.config_file, lay_over(&good, "limits:\n  query_selectors: 1\n")?)?;
        let mut status = 200;
        let began = Instant::now();
        while status == 200 && began.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            status = self.query("ada", "up + up").await?.status;
        }
        self.step("a changed limit takes effect without a restart", expect(status, 422));
        fs::write(&self.world.config_file, lay_over(&good, "limit:\n  query_selectors: 1\n")?)?;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let status = self.query("ada", "up + up").await?.status;
        let ready = self.http.send("GET", &format!("{}/readyz", self.world.admin()), &[], "").await?.text();
        let told = ready.contains("did you mean \"limits\"");
        self.step("a wrong file is told and the last good one stays", expect((status, told), (422, true)));
        fs::write(&self.world.config_file, &good)?;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let status = self.query("ada", "up + up").await?.status;
        self.step("and the old file again is the old behaviour", expect(status, 200));
        Ok(())
    }
}
