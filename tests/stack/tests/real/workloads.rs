//! Dashboards of workloads beside those that real Perses stores, and workloads of a real API server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use perses_sidecar_stack::ground::Ground;
use perses_sidecar_stack::openshift::Subject;
use perses_sidecar_stack::tour::names;
use serde_json::{Value, json};

use crate::stage::Stage;

const LISTS: &str = "perses_sidecar_workload_lists_total{kind=\"Notebook\"}";
const KNOWN: &str = "perses_sidecar_workloads{kind=\"Notebook\"}";

fn notebook(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "kubeflow.org/v1", "kind": "Notebook", "metadata": { "name": name, "namespace": namespace },
            "spec": { "template": { "spec": { "containers": [{ "name": name, "image": "x" }] } } },
            "status": { "readyReplicas": 1 } })
}

async fn until<T>(what: &str, bound: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(began.elapsed() < bound, "{what}: not within {bound:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The names of somebody's dashboards that have this in them.
async fn listed(stage: &Stage, who: &str, part: &str) -> Vec<String> {
    let all = names(&stage.send(who, "GET", "/api/v1/dashboards?metadata_only=true", None).await);
    all.into_iter().filter(|name| name.contains(part)).collect()
}

async fn metric(stage: &Stage, line: &str) -> u64 {
    let text = stage.http.send("GET", &format!("{}/metrics", stage.world.admin()), &[], "").await.unwrap().text();
    text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

/// What real Perses makes of a saved copy, and of the tag that hides one. In team-c, which Perses does not know yet.
pub(crate) async fn beside_the_stored_ones(stage: &Stage, version: &str) {
    let ground = &stage.world.ground;
    ground.bind(Some("team-c"), Subject::User("grace".to_owned()), "edit").await.unwrap();
    ground.put_object(&notebook("team-c", "desk")).await.unwrap();
    let soon = Duration::from_secs(75);
    let found = until("a dashboard", soon, async || listed(stage, "grace", "notebook-desk").await.pop()).await;
    for who in ["grace", "ada", "root", "eve"] {
        let whole = names(&stage.send(who, "GET", "/api/v1/dashboards", None).await);
        assert_eq!(whole.into_iter().collect::<Vec<_>>(), listed(stage, who, "").await, "{who}: both kinds of lists");
    }
    let one = format!("/api/v1/projects/{}", found.replace('/', "/dashboards/"));
    let before = stage.send("grace", "GET", &one, None).await;
    assert_eq!(before.status, 200, "{}", before.text());
    for (who, status) in [("eve", 404), ("ada", 404), ("root", 200)] {
        assert_eq!(stage.send(who, "GET", &one, None).await.status, status, "{who}");
        assert_eq!(listed(stage, who, "notebook-desk").await.len(), usize::from(status == 200), "{who}");
    }
    let view = json!({ "project": "team-c", "dashboard": found.split_once('/').unwrap().1, "render_time": 0.1 });
    assert_eq!(stage.send("grace", "POST", "/api/v1/view", Some(&view)).await.status, 200);

    // As the UI saves: the whole document as it was read, with a change.
    let mut copy = before.json();
    copy["spec"]["display"]["name"] = json!("Our desk");
    assert_eq!(stage.send("ada", "PUT", &one, Some(&copy)).await.status, 404);
    let saved = stage.send("grace", "PUT", &one, Some(&copy)).await;
    assert_eq!(saved.status, 200, "Perses {version}: {}", saved.text());
    let again = stage.send("grace", "GET", &one, None).await.json();
    assert_eq!(again["spec"]["display"]["name"], "Our desk");
    assert_eq!(listed(stage, "grace", "notebook-desk").await.len(), 1);
    let stored = format!("{}{one}", stage.world.perses_url);
    assert_eq!(stage.http.get(&stored, "none").await.unwrap().status, 200);
    assert_eq!(stage.send("grace", "DELETE", &one, None).await.status, 204);
    assert_eq!(stage.send("grace", "GET", &one, None).await.text(), before.text(), "the workload's own is back");

    assert_eq!(stage.send("ada", "DELETE", &one, None).await.status, 404);
    assert_eq!(stage.send("grace", "DELETE", &one, None).await.status, 204);
    let marker = stage.http.get(&stored, "none").await.unwrap().json();
    assert_eq!(marker["metadata"]["tags"], json!(["perses-sidecar-hidden"]), "Perses {version}: {marker}");
    for who in ["grace", "root"] {
        assert_eq!(listed(stage, who, "notebook-desk").await, Vec::<String>::new(), "{who}: Perses {version}");
    }
    // Asking again changes nothing; the gallery tells of it and has the way back.
    assert_eq!(stage.send("grace", "DELETE", &one, None).await.status, 204);
    assert_eq!(listed(stage, "grace", "notebook-desk").await, Vec::<String>::new(), "Perses {version}");
    let back = format!("/-/gallery/restore/{found}");
    assert!(stage.send("grace", "GET", "/-/gallery", None).await.text().contains(&back), "Perses {version}");
    for (who, status) in [("ada", 404), ("eve", 404), ("grace", 303), ("grace", 303)] {
        assert_eq!(stage.form(who, &back, &[]).await.status, status, "{who}: Perses {version}");
    }
    assert_eq!(listed(stage, "grace", "notebook-desk").await.len(), 1);
    assert_eq!(stage.http.get(&stored, "none").await.unwrap().status, 404);
}

/// 500 stored dashboards and 1,000 of workloads, for somebody with 20 namespaces of 1,000, beside what Perses itself uses to
/// list the 500.
pub(crate) async fn what_a_long_list_costs(stage: &Stage) {
    let ground = &stage.world.ground;
    let http = &stage.http;
    for number in 0..980 {
        ground.add_namespace(&format!("other-{number}")).await.unwrap();
    }
    for team in 0..20 {
        let name = format!("long-{team}");
        ground.add_namespace(&name).await.unwrap();
        ground.bind(Some(&name), Subject::User("lin".to_owned()), "view").await.unwrap();
        let project = json!({ "kind": "Project", "metadata": { "name": name }, "spec": {} });
        let perses = &stage.world.perses_url;
        assert_eq!(
            http.json("POST", &format!("{perses}/api/v1/projects"), "none", &project).await.unwrap().status,
            200
        );
        for number in 0..25 {
            let body = perses_sidecar_stack::world::dashboard(&format!("stored-{number}"), "up");
            let url = format!("{perses}/api/v1/projects/{name}/dashboards");
            assert_eq!(http.json("POST", &url, "none", &body).await.unwrap().status, 200);
        }
        for number in 0..50 {
            ground.put_object(&notebook(&name, &format!("n{number}"))).await.unwrap();
        }
    }
    let lin = ground.token("lin").to_owned();
    let path = "/api/v1/dashboards?metadata_only=true";
    let ask = async || stage.present(&lin, "GET", path, None).await;
    // Each namespace with workloads has dashboards of its own besides.
    let whole = async || (names(&ask().await).len() >= 500 + 1000).then_some(());
    until("all of them", Duration::from_secs(75), whole).await;
    let all = names(&ask().await);
    assert_eq!(all.iter().filter(|name| name.contains("/stored-")).count(), 500);
    assert_eq!(all.iter().filter(|name| name.contains("-notebook-n")).count(), 1000);
    assert!(all.iter().all(|name| name.starts_with("long-")), "of lin's namespaces alone");

    let (rounds, direct) = (400_u32, 40_u32);
    let mut times = Vec::new();
    let before = stage.sidecar.used().unwrap();
    for _ in 0..rounds {
        let began = Instant::now();
        assert_eq!(ask().await.status, 200);
        times.push(began.elapsed());
    }
    let ours = (stage.sidecar.used().unwrap() - before) / rounds;
    times.sort_unstable();
    let before = stage.world.perses.used().unwrap();
    let url = format!("{}{path}", stage.world.perses_url);
    for _ in 0..direct {
        assert_eq!(http.get(&url, "none").await.unwrap().status, 200);
    }
    let theirs = (stage.world.perses.used().unwrap() - before) / direct;
    let p95 = times[times.len() * 95 / 100];
    eprintln!(
        "a list of {}: {:.2} ms of processor time, p95 {:.1} ms; Perses alone for 500: {:.2} ms",
        all.len(),
        ours.as_secs_f64() * 1e3,
        p95.as_secs_f64() * 1e3,
        theirs.as_secs_f64() * 1e3
    );
    assert!(ours * 5 <= theirs, "{ours:?} is not a fifth of {theirs:?}");
}

/// Ten thousand workloads of all sizes over a hundred namespaces, found by lists and changed by watches, with the names and
/// words that clusters give them.
pub(crate) async fn what_ten_thousand_take(stage: &Stage) {
    const MANY: usize = 10_000;
    let ground = &stage.world.ground;
    for number in 0..100 {
        ground.add_namespace(&format!("project-{number}")).await.unwrap();
    }
    // One of each first, so that what a kind costs by itself is not counted as the cost of many.
    for number in 0..SORTS {
        ground.put_object(&sort(number, "team-a", &format!("first-{number}"), "First")).await.unwrap();
    }
    let known = async |count: usize| {
        let text = stage.http.send("GET", &format!("{}/metrics", stage.world.admin()), &[], "").await.unwrap().text();
        let lines =
            text.lines().filter_map(|line| line.strip_prefix("perses_sidecar_workloads{kind=")?.split_once("} "));
        let all: usize = lines.map(|(_, number)| number.trim().parse::<usize>().unwrap()).sum();
        (all == count).then_some(())
    };
    let soon = Duration::from_secs(75);
    until("one of each", soon, async || known(SORTS).await).await;
    assert_eq!(stage.send("root", "GET", "/api/v1/dashboards?metadata_only=true", None).await.status, 200);
    let before = stage.sidecar.resident().unwrap();
    for round in ["Made", "Changed"] {
        for number in 0..MANY {
            let (namespace, name) = (format!("project-{}", number % 100), format!("the-name-of-workload-{number}"));
            ground.put_object(&sort(number, &namespace, &name, round)).await.unwrap();
        }
        until("all of them", soon, async || known(MANY + SORTS).await).await;
        let after = stage.sidecar.resident().unwrap();
        let taken = after.saturating_sub(before);
        eprintln!("{MANY} workloads, {round}: {taken} KiB more, {after} KiB in all");
        assert!(taken <= 50 * 1024, "{round}: {taken} KiB more than {before} KiB");
    }
    let all = stage.send("root", "GET", "/-/api/v1/workloads?namespace=project-7", None).await.text();
    assert_eq!(all.matches("Changed").count(), MANY / 100, "{all}");
}

const SORTS: usize = 4;

/// One of some kinds, with as much as those of a cluster have: most of it is not kept.
fn sort(number: usize, namespace: &str, name: &str, word: &str) -> Value {
    let pod = json!({ "containers": [{ "name": "main", "image": "registry.example/team/image:1",
        "resources": { "limits": { "nvidia.com/gpu": "2", "cpu": "8", "memory": "64Gi" } },
        "env": [{ "name": "MODEL", "value": "x".repeat(200) }] }] });
    let holds = |kind: &str| {
        json!([{ "type": kind, "status": "True", "reason": "AsItShould", "message": "y".repeat(200),
            "lastTransitionTime": "2026-01-01T00:00:00Z" }])
    };
    let (api, kind, spec, status) = match number % SORTS {
        0 => (
            "serving.kserve.io/v1beta1",
            "InferenceService",
            json!({ "predictor": { "model": { "runtime": "vllm-cuda-runtime", "args": ["--served-model-name=org/model"],
                "resources": pod["containers"][0]["resources"] } } }),
            json!({ "conditions": holds("Ready"), "servingRuntimeName": "vllm-cuda-runtime" }),
        ),
        1 => (
            "kubeflow.org/v1",
            "PyTorchJob",
            json!({ "pytorchReplicaSpecs": { "Worker": { "replicas": 4, "template": { "spec": pod } } } }),
            json!({ "conditions": holds("Running") }),
        ),
        2 => (
            "ray.io/v1",
            "RayCluster",
            json!({ "headGroupSpec": { "template": { "spec": pod } } }),
            json!({ "conditions": holds("HeadPodReady"), "state": "ready" }),
        ),
        _ => ("kubeflow.org/v1", "Notebook", json!({ "template": { "spec": pod } }), json!({ "readyReplicas": 1 })),
    };
    json!({ "apiVersion": api, "kind": kind, "spec": spec, "status": status, "metadata": {
        "name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": { "kueue.x-k8s.io/queue-name": "the-queue-of-the-team" },
        "annotations": { "openshift.io/display-name": format!("{word}: what people call workload {number}"),
            "opendatahub.io/username": "somebody@example.com", "notes": "z".repeat(400) } } })
}

/// How long an API server is away, in seconds: as long as it takes to see that nothing is forgotten, or longer if
/// somebody wants to know.
fn outage() -> Duration {
    let asked = std::env::var("OUTAGE_SECONDS").ok().map(|text| text.parse().expect("OUTAGE_SECONDS in seconds"));
    Duration::from_secs(asked.unwrap_or(8))
}

/// A thousand workloads, a CRD that comes late, an API server that is killed and comes back as another, rights of ours.
pub(crate) async fn found_on_a_real_api_server(stage: &mut Stage) {
    let (many, soon) = (1000, Duration::from_secs(30));
    assert_eq!(metric(stage, KNOWN).await, 0);
    let began = Instant::now();
    stage.world.ground.put_object(&notebook("team-a", "late")).await.unwrap();
    until("a CRD that comes late", soon, async || listed(stage, "ada", "notebook-late").await.pop()).await;
    eprintln!("a late CRD is found after {:.1} s", began.elapsed().as_secs_f64());
    assert!(listed(stage, "grace", "notebook-late").await.is_empty());

    let Ground::Real(real) = &stage.world.ground else { panic!("a real cluster") };
    let each = async |method: &'static str, what: fn(usize) -> Value| {
        let gate = Arc::new(tokio::sync::Semaphore::new(8));
        let asks = (0..many).map(|number| {
            let gate = Arc::clone(&gate);
            async move {
                let _permit = gate.acquire().await.unwrap();
                let list = "/apis/kubeflow.org/v1/namespaces/team-a/notebooks";
                let (path, kind, body) = match method {
                    "POST" => (list.to_owned(), "application/json", what(number).to_string()),
                    "PATCH" => (format!("{list}/n{number}"), "application/merge-patch+json", what(number).to_string()),
                    _ => (format!("{list}/n{number}"), "", String::new()),
                };
                let answer = real.ask(method, &path, kind, body).await.unwrap();
                assert!(matches!(answer.status, 200..=202), "{} {}", answer.status, answer.text());
            }
        });
        all(asks.collect()).await;
    };
    let began = Instant::now();
    each("POST", |number| notebook("team-a", &format!("n{number}"))).await;
    let made = began.elapsed().as_secs_f64();
    until("a thousand", soon, async || (metric(stage, KNOWN).await == many as u64 + 1).then_some(())).await;
    eprintln!("{many} made in {made:.1} s, all known after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(listed(stage, "ada", "-notebook-n").await.len(), many);
    let lists = metric(stage, LISTS).await;
    each("PATCH", |_| json!({ "metadata": { "annotations": { "openshift.io/display-name": "Changed" } } })).await;
    let changed = async || {
        let all = stage.send("ada", "GET", "/api/v1/projects/team-a/dashboards?metadata_only=true", None).await;
        (all.text().matches("Changed").count() >= many).then_some(())
    };
    until("a thousand changes", soon, changed).await;
    assert_eq!(metric(stage, LISTS).await, lists, "changes are told by the watch");
    eprintln!("resident with a thousand workloads: {} KiB", stage.sidecar.resident().unwrap());

    // Killed, and back under a certificate of another authority. What was known stays known meanwhile.
    real.kill_server();
    let (away, began, mut told) = (outage(), Instant::now(), 0);
    // Who is known to be allowed keeps seeing it for as long as verdicts last; nobody waits for an API server meanwhile.
    while began.elapsed() < away {
        assert_eq!(metric(stage, KNOWN).await, many as u64 + 1, "after {:.1} s", began.elapsed().as_secs_f64());
        let answer = stage.send("ada", "GET", "/-/api/v1/workloads?namespace=team-a", None).await;
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
        told += usize::from(answer.status == 200);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    eprintln!("away for {:.0} s; {told} times people were told what runs", began.elapsed().as_secs_f64());
    let Ground::Real(real) = &mut stage.world.ground else { panic!("a real cluster") };
    real.start_server_again(true).await.unwrap();
    let began = Instant::now();
    let Ground::Real(real) = &stage.world.ground else { panic!("a real cluster") };
    real.put_object(&notebook("team-a", "after")).await.unwrap();
    let bound = Duration::from_secs(60);
    until("what was made since", bound, async || (metric(stage, KNOWN).await == many as u64 + 2).then_some(())).await;
    let again = metric(stage, LISTS).await - lists;
    eprintln!("after a kill and another certificate: {:.1} s, {again} lists", began.elapsed().as_secs_f64());
    assert!(again <= 1, "{again} lists of one kind");

    let began = Instant::now();
    let list = "/apis/kubeflow.org/v1/namespaces/team-a/notebooks";
    let gone = real.ask("DELETE", list, "", String::new()).await.unwrap();
    assert_eq!(gone.status, 200, "{}", gone.text());
    until("nothing", soon, async || (metric(stage, KNOWN).await == 0).then_some(())).await;
    eprintln!("all are gone {:.1} s after they were deleted", began.elapsed().as_secs_f64());

    // A right of ours that is taken away is felt with the next watch; people's own rights at once.
    real.put_object(&notebook("team-b", "shared")).await.unwrap();
    until("a workload of team-b", soon, async || listed(stage, "ada", "notebook-shared").await.pop()).await;
    let ada = Subject::User("ada".to_owned());
    real.unbind(Some("team-b"), &ada, "view").await.unwrap();
    until("no right", soon, async || listed(stage, "ada", "notebook-shared").await.is_empty().then_some(())).await;
    assert_eq!(listed(stage, "grace", "notebook-shared").await.len(), 1);
    let binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/perses-sidecar-workloads:perses";
    assert_eq!(real.ask("DELETE", binding, "", String::new()).await.unwrap().status, 200);
    // The watch that stands goes on; an API server that starts anew ends it, and lets us back no more.
    real.kill_server();
    let Ground::Real(real) = &mut stage.world.ground else { panic!("a real cluster") };
    real.start_server_again(false).await.unwrap();
    let began = Instant::now();
    let stage = &*stage;
    until("what we may not see", bound, async || (metric(stage, KNOWN).await == 0).then_some(())).await;
    eprintln!("without our right all is forgotten after {:.1} s", began.elapsed().as_secs_f64());
    assert!(listed(stage, "grace", "notebook-shared").await.is_empty());
    assert_eq!(stage.send("grace", "GET", "/-/whoami", None).await.status, 200);
}

/// All of them at once.
async fn all(asks: Vec<impl Future<Output = ()>>) {
    let mut asks: Vec<_> = asks.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        asks.retain_mut(|ask| ask.as_mut().poll(context).is_pending());
        if asks.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
