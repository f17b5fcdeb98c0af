//! The API of workloads and the gallery: what runs, for those who may see it, and dashboards made from templates.

use serde_json::{Value, json};

use super::{QUICK, notebook, perses, until, with_notebook};
use crate::support::{Gate, gate};

const LIST: &str = "/-/api/v1/workloads";

async fn form(gate: &Gate, token: &str, pairs: &[(&str, &str)]) -> perses_sidecar_stack::http::Answer {
    gate.http.form(&format!("{}/-/gallery", gate.url), token, pairs).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_are_told_to_those_who_may_see_their_project() {
    let (gate, _, name) = with_notebook("").await;
    let cluster = gate.openshift.cluster();
    let mut model = json!({ "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
        "metadata": { "name": "granite", "namespace": "team-b", "annotations": { "openshift.io/display-name": "Granite <1>" } },
        "spec": { "predictor": { "model": { "runtime": "vllm", "resources": { "limits": { "nvidia.com/gpu": "2" } } } } } });
    let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    model["status"] = json!({ "conditions": [ready] });
    cluster.put_object(model);
    cluster.put_object(notebook("team-c", "hidden"));
    let (ada, grace, root, eve) = (gate.token("ada"), gate.token("grace"), gate.token("root"), gate.token("eve"));
    let all = until("both", async || {
        let all = gate.get(&root, LIST).await.json();
        (all.as_array().unwrap().len() == 3).then_some(all)
    })
    .await;
    assert!(all.to_string().contains("hidden"));
    let own = gate.get(&ada, LIST).await.json();
    let told = json!({ "kind": "InferenceService", "namespace": "team-b", "name": "granite", "title": "Granite <1>",
        "state": "ready", "since": "2026-01-01T00:00:00Z", "gpus": 2, "engine": "vLLM" });
    let granite = own.as_array().unwrap().iter().find(|workload| workload["name"] == "granite").cloned().unwrap();
    for (key, value) in told.as_object().unwrap() {
        assert_eq!(granite[key], *value, "{key}: {granite}");
    }
    let bench = own.as_array().unwrap().iter().find(|workload| workload["name"] == "bench").cloned().unwrap();
    assert_eq!(bench["dashboards"][0]["name"], name.as_str());
    assert_eq!(bench["dashboards"][0]["url"], format!("/projects/team-a/dashboards/{name}"));
    assert_eq!((own.as_array().unwrap().len(), bench.get("engine")), (2, None));

    let count = async |token: &str, query: &str| {
        gate.get(token, &format!("{LIST}{query}")).await.json().as_array().map(Vec::len)
    };
    assert_eq!(count(&ada, "?kind=Notebook").await, Some(1));
    assert_eq!(count(&ada, "?namespace=team-b").await, Some(1));
    assert_eq!(count(&ada, "?namespace=team-b&kind=notebook").await, Some(0));
    assert_eq!((count(&grace, "").await, count(&eve, "").await), (Some(1), Some(0)));
    let one = format!("{LIST}/team-b/InferenceService/granite");
    for token in [&ada, &grace, &root] {
        assert_eq!(gate.get(token, &one).await.json(), granite);
    }
    // Of what is not theirs, nobody learns whether it is there.
    let there = gate.get(&eve, &one).await;
    let nowhere = gate.get(&eve, &format!("{LIST}/nowhere/InferenceService/granite")).await;
    assert_eq!((there.status, there.text()), (404, nowhere.text()));
    let there = gate.get(&grace, &format!("{LIST}?namespace=team-a")).await;
    let nowhere = gate.get(&grace, &format!("{LIST}?namespace=nowhere")).await;
    assert_eq!((there.status, there.text()), (404, nowhere.text()));
    for missing in ["team-b/InferenceService/other", "team-b/Nothing/granite", "team-b/Notebook/granite"] {
        assert_eq!(gate.get(&ada, &format!("{LIST}/{missing}")).await.status, 404, "{missing}");
    }
    assert_eq!(gate.get("", LIST).await.status, 401);
    for bad in ["?namespace=../x", "?kind=a%22b", "?x=1"] {
        assert_eq!(gate.get(&ada, &format!("{LIST}{bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gallery_shows_what_runs_and_runs_nothing_itself() {
    let (gate, _, name) = with_notebook("").await;
    let cluster = gate.openshift.cluster();
    let mut hostile = notebook("team-a", "odd");
    let title = "<script>alert(1)</script>\" onload=x";
    hostile["metadata"]["annotations"] = json!({ "openshift.io/display-name": title });
    cluster.put_object(hostile);
    cluster.put_object(notebook("team-c", "foreign"));
    let (ada, grace, eve) = (gate.token("ada"), gate.token("grace"), gate.token("eve"));
    let page = until("the page", async || {
        let page = gate.get(&ada, "/-/gallery").await;
        page.text().contains("alert(1)").then_some(page)
    })
    .await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("form-action 'self'"), "{policy}");
    let text = page.text();
    assert!(
        text.contains(&format!("href=\"/projects/team-a/dashboards/{name}\"")) && text.contains("● ready"),
        "{text}"
    );
    assert!(!text.contains("<script") && !text.contains("\" onload") && text.contains("&lt;script&gt;"), "{text}");
    assert!(!text.contains("foreign") && !text.contains("team-c"));
    // The first click fills the form in.
    let filled = gate.get(&ada, "/-/gallery?template=notebook&project=team-a&workload=Notebook/bench").await.text();
    assert!(filled.contains("<option value=\"notebook\" selected>") && filled.contains("value=\"Notebook/bench\""));
    for (token, what) in [(&grace, "team-b"), (&eve, "may not see any project")] {
        let page = gate.get(token, "/-/gallery").await;
        assert_eq!(page.status, 200);
        assert!(
            page.text().contains(what) && !page.text().contains("Notebook/bench") && !page.text().contains("team-a")
        );
    }
    let other = gate.get(&grace, "/-/gallery?project=team-a").await.text();
    assert!(!other.contains("Notebook/bench") && !other.contains("notebook-bench"), "{other}");
    assert_eq!(gate.get("", "/-/gallery").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_makes_a_dashboard_where_its_sender_may() {
    let (gate, store, _) = with_notebook("").await;
    let (ada, grace, eve) = (gate.token("ada"), gate.token("grace"), gate.token("eve"));
    let wish = [
        ("template", "notebook"),
        ("project", "team-a"),
        ("workload", "Notebook/bench"),
        ("name", ""),
        ("title", "Mine"),
    ];
    for token in [&grace, &eve] {
        let refused = form(&gate, token, &wish).await;
        assert_eq!(refused.status, 404, "{}", refused.text());
    }
    let in_b = [("template", "notebook"), ("project", "team-b"), ("workload", "bench")];
    assert_eq!(form(&gate, &ada, &in_b).await.status, 403, "ada views team-b");
    assert_eq!(form(&gate, "", &wish).await.status, 401);
    assert!(store.lock().unwrap().is_empty());

    let made = form(&gate, &ada, &wish).await;
    assert_eq!(
        (made.status, made.headers["location"].to_str().unwrap()),
        (303, "/projects/team-a/dashboards/notebook-bench")
    );
    let stored = store.lock().unwrap().values().next().cloned().unwrap();
    assert_eq!(stored["metadata"], json!({ "name": "notebook-bench", "project": "team-a" }));
    assert_eq!(stored["spec"]["display"]["name"], "Mine");
    assert!(stored.to_string().contains("bench-0"), "its pod: {stored}");
    let again = form(&gate, &ada, &wish).await;
    assert_eq!(again.status, 409);
    assert!(again.text().contains("choose another name"), "{}", again.text());
    // A model that is not there yet, under a name of its own.
    let other = [
        ("template", "vllm"),
        ("project", "team-a"),
        ("workload", "next"),
        ("name", "Next-One"),
        ("model", "org/next"),
    ];
    assert_eq!(form(&gate, &ada, &other).await.headers["location"], "/projects/team-a/dashboards/next-one");
    let next = gate.get(&ada, "/api/v1/projects/team-a/dashboards/next-one").await.text();
    assert!(next.contains("next-predictor"), "{next}");
    let whole = [("template", "past-runs"), ("project", "team-a")];
    assert_eq!(form(&gate, &ada, &whole).await.headers["location"], "/projects/team-a/dashboards/past-runs-own");

    for (pairs, told) in [
        (vec![("project", "team-a")], "choose a template"),
        (vec![("template", "notebook")], "choose a project"),
        (vec![("template", "none"), ("project", "team-a"), ("workload", "x")], "no such template"),
        (vec![("template", "notebook"), ("project", "team-a")], "say its name"),
        (vec![("template", "notebook"), ("project", "team-a"), ("workload", "A B")], "workload's name"),
        (vec![("template", "notebook"), ("project", "team-a"), ("workload", "Thing/x")], "kind of workload"),
        (vec![("template", "notebook"), ("project", "team-a"), ("workload", "x"), ("name", "a/b")], "dashboard's name"),
        (vec![("template", "notebook"), ("project", "team-a"), ("other", "x")], "not taken here"),
        (vec![("template", "notebook"), ("project", "shared"), ("workload", "x")], "document not found"),
    ] {
        let refused = form(&gate, &ada, &pairs).await;
        assert!(matches!(refused.status, 400 | 404) && refused.text().contains(told), "{pairs:?}: {}", refused.text());
    }
    let audit = until("the record", async || {
        let text = std::fs::read_to_string(&gate.audit).unwrap();
        text.lines().find(|line| line.contains("notebook-bench") && line.contains("\"code\":303")).map(str::to_owned)
    })
    .await;
    let record: Value = serde_json::from_str(&audit).unwrap();
    assert_eq!(
        (&record["verb"], &record["resource"], &record["namespace"]),
        (&json!("create"), &json!("dashboards"), &json!("team-a"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_whose_form_is_refused_reads_a_page() {
    let (gate, _, _) = with_notebook("").await;
    let authorization = format!("Bearer {}", gate.token("ada"));
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
        ("accept", "text/html"),
    ];
    let url = format!("{}/-/gallery", gate.url);
    let page = gate.http.send("POST", &url, &headers, "template=notebook&project=team-a").await.unwrap();
    assert_eq!(page.status, 400);
    assert!(page.text().starts_with("<!doctype html>") && page.text().contains("say its name"), "{}", page.text());
    let json = gate.http.send("POST", &url, &headers[..2], "template=notebook&project=team-a").await.unwrap();
    assert!(json.text().starts_with("{\"message\""), "{}", json.text());
    for method in ["PUT", "DELETE"] {
        let answer = gate.http.send(method, &url, &headers[..1], "").await.unwrap();
        assert_eq!((answer.status, answer.headers["allow"].to_str().unwrap()), (405, "GET, HEAD, POST"));
    }
    assert_eq!(gate.http.send("POST", &url, &headers[..1], "x=y").await.unwrap().status, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_carry_the_prefix() {
    let more = crate::support::More { perses: "  api_prefix: /p\n", rest: QUICK, ..Default::default() };
    let gate = crate::support::gate_with(more).await;
    let _store = perses(&gate);
    gate.openshift.cluster().put_object(notebook("team-a", "bench"));
    let ada = gate.token("ada");
    let all = until("a workload", async || {
        let all = gate.get(&ada, "/p/-/api/v1/workloads").await.json();
        all.get(0).is_some().then_some(all)
    })
    .await;
    assert!(all[0]["dashboards"][0]["url"].as_str().unwrap().starts_with("/p/projects/team-a/dashboards/"), "{all}");
    assert!(gate.get(&ada, "/p/-/gallery").await.text().contains("action=\"/p/-/gallery\""));
    assert_eq!(gate.get(&ada, "/-/gallery").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_and_more_are_shown_in_part() {
    let gate = gate(QUICK).await;
    let _store = perses(&gate);
    for number in 0..250 {
        gate.openshift.cluster().put_object(notebook("team-a", &format!("n{number}")));
    }
    let ada = gate.token("ada");
    let text = until("the page", async || {
        let text = gate.get(&ada, "/-/gallery").await.text();
        text.contains("51 more are not shown").then_some(text)
    })
    .await;
    assert!(text.len() < 400_000, "{} bytes", text.len());
    let all = gate.get(&ada, LIST).await.json();
    assert_eq!(all.as_array().unwrap().len(), 250);
}
