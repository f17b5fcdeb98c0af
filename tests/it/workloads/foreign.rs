//! Nothing about a namespace without rights shows: not in what is answered, and not in what is asked on the way.

use perses_sidecar_stack::http::Answer;
use perses_sidecar_stack::openshift::Endpoint;
use serde_json::{Value, json};

use super::with_notebook;

/// What a request came to: status and bytes, and what it cost the cluster and Perses to say so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    status: u16,
    body: String,
    allow: Option<String>,
    reviews: u64,
    listings: u64,
    upstream: usize,
}

/// Where something runs, where nothing does, and where there is no namespace at all: for somebody who has rights elsewhere
/// all three are the same, to the byte and to the last question that is asked.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_theirs_costs_the_same_whether_it_is_there_or_not() {
    let (gate, store, name) = with_notebook("").await;
    let cluster = gate.openshift.cluster();
    let document = gate.get(&gate.token("ada"), &format!("/api/v1/projects/team-a/dashboards/{name}")).await.json();
    // Somebody new for each place: what was found out for one must not help with another.
    let mut all = Vec::new();
    for (who, place) in [("ann", "team-a"), ("ben", "team-c"), ("cyd", "nowhere")] {
        cluster.bind_role("team-b", who, "edit");
        let token = gate.token(who);
        assert_eq!(gate.get(&token, "/-/whoami").await.status, 200, "known before anything is counted");
        let one = format!("/api/v1/projects/{place}/dashboards/{name}");
        let mut saved = document.clone();
        saved["metadata"]["project"] = json!(place);
        let look = json!({ "project": place, "dashboard": name, "render_time": 1.0 });
        let mut outcomes = Vec::new();
        for (method, path, body) in [
            ("GET", one.clone(), Value::Null),
            ("PUT", one.clone(), saved.clone()),
            ("DELETE", one.clone(), Value::Null),
            ("GET", format!("/api/v1/projects/{place}/dashboards"), Value::Null),
            ("GET", format!("/api/v1/projects/{place}/dashboards?metadata_only=true"), Value::Null),
            ("GET", format!("/-/api/v1/workloads?namespace={place}"), Value::Null),
            ("GET", format!("/-/api/v1/workloads/{place}/Notebook/bench"), Value::Null),
            ("GET", format!("/-/gallery?project={place}"), Value::Null),
            ("POST", format!("/-/gallery/restore/{place}/{name}"), Value::Null),
            ("POST", "/api/v1/view".to_owned(), look),
            ("FORM", "/-/gallery".to_owned(), Value::Null),
            ("GET", "/-/api/v1/workloads".to_owned(), Value::Null),
            ("GET", "/api/v1/dashboards?metadata_only=true".to_owned(), Value::Null),
        ] {
            gate.upstream.take();
            let counts = || (cluster.count(Endpoint::AccessReviews), cluster.count(Endpoint::Projects));
            let before = counts();
            let answer: Answer = if method == "FORM" {
                let form = [("template", "notebook"), ("project", place), ("workload", "bench")];
                gate.http.form(&format!("{}{path}", gate.url), &token, &form).await.unwrap()
            } else {
                gate.send(method, &token, &path, &body).await
            };
            let after = counts();
            let allow = answer.headers.get("allow").map(|value| value.to_str().unwrap().to_owned());
            // Their own words may come back, and no other; each page has an id.
            let body = answer.text().replace(place, "PLACE");
            let body = body.split("Request <code>").next().unwrap_or_default().to_owned();
            assert!(!body.contains("bench") || path.contains("gallery"), "{who} {method} {path}: {body}");
            let upstream = gate.upstream.take().len();
            let (reviews, listings) = (after.0 - before.0, after.1 - before.1);
            outcomes.push((
                path.replace(place, "PLACE"),
                Outcome { status: answer.status, body, allow, reviews, listings, upstream },
            ));
        }
        all.push(outcomes);
    }
    let [there, without, nowhere] = &all[..] else { panic!("three places") };
    for ((path, there), (others, nowhere)) in there.iter().zip(without.iter().zip(nowhere)) {
        assert_eq!(there, &others.1, "{path}: where nothing runs");
        assert_eq!(there, &nowhere.1, "{path}: where nothing is");
        let lists = path.starts_with("/-/gallery?") || !path.contains("PLACE") && there.status == 200;
        assert!(there.status == 404 || lists, "{path}: {there:?}");
        if there.status == 404 {
            assert_eq!(there.upstream, 0, "{path}: Perses is asked nothing about what is not theirs");
        }
    }
    assert!(there.iter().filter(|(_, outcome)| outcome.status == 404).count() >= 10);
    assert!(store.lock().unwrap().is_empty());
    // The neighbour for whom all of it is there.
    let ada = gate.token("ada");
    assert_eq!(gate.get(&ada, "/-/api/v1/workloads/team-a/Notebook/bench").await.status, 200);
    assert!(gate.get(&ada, "/-/gallery?project=team-a").await.text().contains("bench"));
}
