//! Kinds and workloads come and go, and the API server fails in every way.

use std::time::Duration;

use perses_sidecar_stack::openshift::{Endpoint, Fault, SIDECAR};
use serde_json::json;

use super::{BENCH, QUICK, notebook, perses, until};
use crate::support::{Mode, gate};

const LISTS: &str = "perses_sidecar_workload_lists_total{kind=\"Notebook\"}";
const KNOWN: &str = "perses_sidecar_workloads{kind=\"Notebook\"}";

#[tokio::test(flavor = "multi_thread")]
async fn workloads_come_change_and_go_and_are_listed_once() {
    let gate = gate(QUICK).await;
    let _store = perses(&gate);
    let cluster = gate.openshift.cluster();
    let ada = gate.token("ada");
    // The kind itself comes late.
    assert_eq!(gate.get(&ada, "/api/v1/dashboards").await.text(), "[]");
    cluster.put_object(notebook("team-a", "bench"));
    let name = gate.sees(&ada, BENCH).await;
    let one = format!("/api/v1/projects/{}", name.replace('/', "/dashboards/"));
    let mut titled = notebook("team-a", "bench");
    titled["metadata"]["annotations"] = json!({ "openshift.io/display-name": "My \"bench\"" });
    cluster.put_object(titled);
    until("a changed title", async || gate.get(&ada, &one).await.text().contains("My \\\"bench").then_some(())).await;
    for number in 0..300 {
        cluster.put_object(notebook("team-a", &format!("more-{number}")));
    }
    until("all of them", async || (gate.metric(KNOWN).await == 301).then_some(())).await;
    for number in 0..300 {
        cluster.remove_object(&notebook("team-a", &format!("more-{number}")));
    }
    until("one of them", async || (gate.metric(KNOWN).await == 1).then_some(())).await;
    assert_eq!(gate.metric(LISTS).await, 1);
    // And it goes with its CRD, and comes again.
    cluster.stop_serving("kubeflow.org", "notebooks");
    gate.sees_no(&ada, BENCH).await;
    assert_eq!(gate.metric(KNOWN).await, 0);
    cluster.put_object(notebook("team-a", "bench"));
    gate.sees(&ada, BENCH).await;
    assert_eq!(gate.metric(LISTS).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_ends_goes_on_from_where_it_was() {
    let gate = gate(QUICK).await;
    let _store = perses(&gate);
    let cluster = gate.openshift.cluster();
    let ada = gate.token("ada");
    cluster.put_object(notebook("team-a", "bench"));
    gate.sees(&ada, BENCH).await;
    until("a watch", async || (cluster.watches() == 1).then_some(())).await;
    cluster.end_watches();
    cluster.put_object(notebook("team-a", "second"));
    cluster.remove_object(&notebook("team-a", "bench"));
    gate.sees(&ada, "notebook-second").await;
    gate.sees_no(&ada, BENCH).await;
    assert_eq!(gate.metric(LISTS).await, 1, "what happened meanwhile was told by the next watch");
    // When the API server has forgotten, and only then, a list says what is so.
    until("a watch", async || (cluster.watches() == 1).then_some(())).await;
    cluster.put_object(notebook("team-a", "third"));
    gate.sees(&ada, "notebook-third").await;
    cluster.remove_object(&notebook("team-a", "second"));
    gate.sees_no(&ada, "notebook-second").await;
    cluster.forget_versions();
    cluster.put_object(notebook("team-a", "fourth"));
    gate.sees(&ada, "notebook-fourth").await;
    assert_eq!(gate.metric(LISTS).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_fails_is_not_stormed_and_what_is_known_stays() {
    let gate = gate(QUICK).await;
    let _store = perses(&gate);
    let cluster = gate.openshift.cluster();
    let ada = gate.token("ada");
    cluster.put_object(notebook("team-a", "bench"));
    gate.sees(&ada, BENCH).await;
    for fault in [
        Fault::Reset,
        Fault::Status(500, "{}".to_owned()),
        Fault::Truncated,
        Fault::TooMany(1),
        Fault::Redirect("https://elsewhere.example/".to_owned()),
    ] {
        let asked = |cluster: &perses_sidecar_stack::openshift::Cluster| {
            cluster.count(Endpoint::WorkloadLists) + cluster.count(Endpoint::WorkloadWatches)
        };
        let before = asked(cluster);
        for endpoint in [Endpoint::WorkloadLists, Endpoint::WorkloadWatches, Endpoint::Apis] {
            cluster.set_fault(endpoint, Some(fault.clone()));
        }
        cluster.end_watches();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        gate.sees(&ada, BENCH).await;
        assert!(asked(cluster) - before <= 6, "{fault:?}: {} times", asked(cluster) - before);
        for endpoint in [Endpoint::WorkloadLists, Endpoint::WorkloadWatches, Endpoint::Apis] {
            cluster.set_fault(endpoint, None);
        }
    }
    cluster.put_object(notebook("team-a", "after"));
    until("it goes on", async || gate.dashboards(&ada).await.into_iter().find(|name| name.contains("notebook-after")))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_go_on_while_lists_are_refused() {
    let gate = gate(QUICK).await;
    let _store = perses(&gate);
    let cluster = gate.openshift.cluster();
    cluster.set_fault(Endpoint::WorkloadLists, Some(Fault::TooMany(30)));
    cluster.put_object(notebook("team-a", "bench"));
    until("a refused list", async || (cluster.count(Endpoint::WorkloadLists) > 0).then_some(())).await;
    assert_eq!(gate.get(&gate.token("ada"), "/-/whoami").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_of_ours_come_and_go() {
    let gate = gate(QUICK).await;
    let _store = perses(&gate);
    let cluster = gate.openshift.cluster();
    let everywhere = perses_sidecar_stack::openshift::Subject::User(SIDECAR.to_owned());
    cluster.unbind(None, everywhere.clone(), "workload-reader");
    cluster.put_object(notebook("team-a", "bench"));
    let ada = gate.token("ada");
    until("a refused list", async || (cluster.count(Endpoint::WorkloadLists) > 0).then_some(())).await;
    assert_eq!(gate.get(&ada, "/api/v1/dashboards").await.text(), "[]");
    assert_eq!(gate.http.send("GET", &format!("{}/readyz", gate.admin), &[], "").await.unwrap().status, 200);
    cluster.bind(None, everywhere.clone(), "workload-reader");
    gate.sees(&ada, BENCH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_in_some_namespaces_are_enough() {
    let gate = gate("workloads:\n  discovery: 100ms\n  namespaces: [team-a, team-b]\n").await;
    let _store = perses(&gate);
    let cluster = gate.openshift.cluster();
    cluster.unbind(None, perses_sidecar_stack::openshift::Subject::User(SIDECAR.to_owned()), "workload-reader");
    cluster.bind_role("team-a", SIDECAR, "workload-reader");
    cluster.put_object(notebook("team-a", "bench"));
    cluster.put_object(notebook("team-b", "refused"));
    cluster.put_object(notebook("team-c", "other"));
    let root = gate.token("root");
    gate.sees(&root, BENCH).await;
    let all = gate.dashboards(&root).await;
    assert!(!all.iter().any(|name| name.contains("refused") || name.contains("other")), "{all:?}");
    cluster.bind_role("team-b", SIDECAR, "workload-reader");
    gate.sees(&root, "refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_takes_nothing_with_it() {
    let gate = gate(&format!("{QUICK}access:\n  allow_ttl: 60s\n")).await;
    let _store = perses(&gate);
    let cluster = gate.openshift.cluster();
    let ada = gate.token("ada");
    cluster.put_object(notebook("team-a", "bench"));
    gate.sees(&ada, BENCH).await;
    gate.taps.cluster.set(Mode::Refuse).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    gate.sees(&ada, BENCH).await;
    cluster.put_object(notebook("team-a", "meanwhile"));
    gate.taps.cluster.set(Mode::Pass).await;
    gate.sees(&ada, "meanwhile").await;
    assert_eq!(gate.metric(LISTS).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn excluded_kinds_are_not_asked_for() {
    let gate = gate("workloads:\n  discovery: 100ms\n  exclude: [Notebook]\n").await;
    let _store = perses(&gate);
    let cluster = gate.openshift.cluster();
    cluster.put_object(notebook("team-a", "bench"));
    let before = cluster.count(Endpoint::Apis);
    until("two looks", async || (cluster.count(Endpoint::Apis) > before + 2).then_some(())).await;
    assert_eq!((cluster.count(Endpoint::WorkloadLists), gate.metric(KNOWN).await), (0, 0));
}
