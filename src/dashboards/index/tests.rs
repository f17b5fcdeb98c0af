//! What list and watch tell, against what a list of everything would say.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const MOST: Most = Most { everywhere: 1000, in_namespace: 100 };

fn namespace(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

fn of(watched: Watched) -> Source {
    Source { watched, namespace: None }
}

fn notebooks() -> Source {
    of(Watched::Workloads(Kind::Notebook))
}

fn notebook(namespace: &str, name: &str) -> Value {
    json!({ "metadata": { "name": name, "namespace": namespace }, "spec": {} })
}

fn model(namespace: &str, name: &str, runtime: &str, status: Value) -> Value {
    let model = json!({ "modelFormat": { "name": "any" }, "runtime": runtime });
    json!({ "metadata": { "name": name, "namespace": namespace }, "spec": { "predictor": { "model": model } }, "status": status })
}

fn runtime(namespace: Option<&str>, name: &str, image: &str) -> Value {
    let spec = json!({ "containers": [{ "name": "kserve-container", "image": image }] });
    json!({ "metadata": { "name": name, "namespace": namespace }, "spec": spec })
}

/// Namespaces with the names in them, as the changes say.
fn words(changed: &Changed) -> Vec<String> {
    let names = |place: &Arc<Place>| {
        place.workloads().iter().map(|workload| workload.name.to_string()).collect::<Vec<_>>().join(",")
    };
    changed
        .iter()
        .map(|(namespace, place)| format!("{namespace}={}", place.as_ref().map_or_else(|| "none".to_owned(), names)))
        .collect()
}

#[test]
fn a_list_takes_away_what_it_does_not_hold_and_only_when_it_is_whole() {
    let mut index = Index::new(MOST);
    let puts =
        |names: &[(&str, &str)]| names.iter().map(|(ns, name)| Change::Put(notebook(ns, name))).collect::<Vec<_>>();
    let source = notebooks();
    let changed =
        index.apply(&source, std::iter::once(Change::Begin).chain(puts(&[("a", "x"), ("a", "y"), ("b", "z")])));
    assert_eq!(words(&changed), ["a=x,y", "b=z"]);
    assert!(index.apply(&source, [Change::Whole]).is_empty(), "nothing is new");
    // The next list is broken off: all stays.
    let again = index.apply(&source, std::iter::once(Change::Begin).chain(puts(&[("a", "x")])));
    assert!(again.is_empty(), "{again:?}");
    let whole = index
        .apply(&source, std::iter::once(Change::Begin).chain(puts(&[("a", "y"), ("c", "w")])).chain([Change::Whole]));
    assert_eq!(words(&whole), ["a=y", "b=none", "c=w"]);
    assert_eq!(index.count(Kind::Notebook), 2);
    // A list of another resource is another list.
    let other = of(Watched::Workloads(Kind::RayCluster));
    assert!(index.apply(&other, [Change::Begin, Change::Whole]).is_empty());
    assert_eq!(words(&index.apply(&source, [Change::Gone(notebook("a", "y"))])), ["a=none"]);
    assert_eq!(words(&index.apply(&source, [Change::Unserved])), ["c=none"]);
    assert_eq!(index.count(Kind::Notebook), 0);
}

#[test]
fn a_source_tells_of_its_own_namespace_alone() {
    let mut index = Index::new(MOST);
    let here = Source { watched: Watched::Workloads(Kind::Notebook), namespace: Some(namespace("a")) };
    let there = Source { namespace: Some(namespace("b")), ..here.clone() };
    assert_eq!(words(&index.apply(&here, [Change::Put(notebook("a", "x")), Change::Put(notebook("b", "y"))])), ["a=x"]);
    assert!(index.apply(&there, [Change::Gone(notebook("a", "x")), Change::Begin, Change::Whole]).is_empty());
    assert_eq!(words(&index.apply(&here, [Change::Begin, Change::Whole])), ["a=none"]);
}

#[test]
fn the_engine_follows_the_runtime_whichever_comes_first() {
    let mut index = Index::new(MOST);
    let (models, runtimes) = (of(Watched::Workloads(Kind::InferenceService)), of(Watched::Runtimes));
    let cluster = of(Watched::ClusterRuntimes);
    let engine = |changed: &Changed| changed[0].1.as_ref().unwrap().workloads()[0].engine;
    let changed = index.apply(&models, [Change::Put(model("a", "granite", "fast", json!({})))]);
    assert_eq!(engine(&changed), Engine::Other);
    let changed = index.apply(&runtimes, [Change::Put(runtime(Some("a"), "fast", "quay.io/x/vllm:1"))]);
    assert_eq!((words(&changed), engine(&changed)), (vec!["a=granite".to_owned()], Engine::Vllm));
    let elsewhere = index.apply(&runtimes, [Change::Put(runtime(Some("b"), "fast", "quay.io/x/triton:1"))]);
    assert!(elsewhere.is_empty(), "a runtime of another namespace");
    // Of the cluster there is one of the same name; the namespace's own counts until it is gone.
    assert!(index.apply(&cluster, [Change::Put(runtime(None, "fast", "quay.io/x/tgis:1"))]).is_empty());
    let changed = index.apply(&runtimes, [Change::Gone(runtime(Some("a"), "fast", ""))]);
    assert_eq!(engine(&changed), Engine::Tgis);
    let changed = index.apply(&cluster, [Change::Begin, Change::Whole]);
    assert_eq!(engine(&changed), Engine::Other);
    index.apply(&runtimes, [Change::Put(runtime(Some("a"), "fast", "quay.io/x/vllm:1"))]);
    // A status that names the cluster's does not mean the namespace's.
    let status = json!({ "clusterServingRuntimeName": "fast" });
    let changed = index.apply(&models, [Change::Put(model("a", "granite", "fast", status))]);
    assert_eq!(engine(&changed), Engine::Other);
}

#[test]
fn what_becomes_part_of_another_is_one_no_more() {
    let mut index = Index::new(MOST);
    let source = of(Watched::Workloads(Kind::RayCluster));
    index.apply(&source, [Change::Put(notebook("a", "rays"))]);
    let mut owned = notebook("a", "rays");
    owned["metadata"]["labels"] = json!({ "ray.io/originated-from-crd": "RayJob" });
    assert_eq!(words(&index.apply(&source, [Change::Put(owned)])), ["a=none"]);
}

#[test]
fn there_is_room_for_so_many_and_a_namespace_takes_none_of_others() {
    let mut index = Index::new(Most { everywhere: 5, in_namespace: 3 });
    let put = |ns: &str, number: usize| Change::Put(notebook(ns, &format!("n{number}")));
    let source = notebooks();
    index.apply(&source, (0..100).map(|number| put("greedy", number)));
    assert_eq!((index.count(Kind::Notebook), index.left_out()), (3, 97));
    assert_eq!(words(&index.apply(&source, (0..3).map(|number| put("other", number)))), ["other=n0,n1"]);
    assert_eq!(index.left_out(), 98);
    // What is known may change, and what goes makes room.
    let mut titled = notebook("other", "n0");
    titled["metadata"]["annotations"] = json!({ "openshift.io/display-name": "Mine" });
    assert_eq!(words(&index.apply(&source, [Change::Put(titled)])), ["other=n0,n1"]);
    index.apply(&source, [Change::Gone(notebook("greedy", "n0"))]);
    assert_eq!(words(&index.apply(&source, [put("other", 2)])), ["other=n0,n1,n2"]);
}

#[test]
fn ten_thousand_workloads_are_small() {
    // What a workload with all its texts is made of, and what the maps around it cost at most.
    let each = size_of::<Workload>() + 2 * size_of::<(Kind, WorkloadName)>() + size_of::<Held>() + 9 * 128 + 253 * 2;
    assert!(each * 10_000 < 50 << 20, "{each} bytes each");
}

fn step() -> impl Strategy<Value = (usize, usize, usize, bool)> {
    // Namespace, name, GPUs, whether it is there.
    (0..3_usize, 0..4_usize, 0..3_usize, any::<bool>())
}

proptest! {
    /// Whatever order events come in, and however often a list begins anew, the places are what the objects say.
    #[test]
    fn places_are_what_the_objects_say(steps in prop::collection::vec(step(), 0..60), cut in 0..60_usize) {
        let job = |ns: usize, name: usize, gpus: usize| {
            let limits = json!({ "limits": { "nvidia.com/gpu": gpus } });
            let pod = json!({ "spec": { "containers": [{ "resources": limits }] } });
            json!({ "metadata": { "name": format!("j{name}"), "namespace": format!("n{ns}") },
                    "spec": { "parallelism": 1, "template": pod } })
        };
        let source = of(Watched::Workloads(Kind::Job));
        let (mut index, mut truth, mut seen) = (Index::new(MOST), BTreeMap::new(), BTreeMap::new());
        let mut look = |changed: Changed| {
            for (namespace, place) in changed {
                match place {
                    Some(place) => seen.insert(namespace.to_string(), place),
                    None => seen.remove(namespace.as_str()),
                };
            }
        };
        for (at, (ns, name, gpus, there)) in steps.into_iter().enumerate() {
            if at == cut {
                // The watch is lost for a while, and a list says what is there now.
                truth.retain(|(ns, _), _| *ns != 0);
                let all: Vec<Change> = truth.iter().map(|((ns, name), gpus)| Change::Put(job(*ns, *name, *gpus))).collect();
                look(index.apply(&source, std::iter::once(Change::Begin).chain(all).chain([Change::Whole])));
            }
            if there {
                truth.insert((ns, name), gpus);
                look(index.apply(&source, [Change::Put(job(ns, name, gpus))]));
            } else {
                truth.remove(&(ns, name));
                look(index.apply(&source, [Change::Gone(job(ns, name, gpus))]));
            }
        }
        // A Job without GPUs is none of ours.
        let expected: Vec<String> = truth.iter().filter(|(_, gpus)| **gpus > 0)
            .map(|((ns, name), gpus)| format!("n{ns}/j{name} {gpus}")).collect();
        let got: Vec<String> = seen.values().flat_map(|place| place.workloads())
            .map(|workload| format!("{}/{} {}", workload.namespace, workload.name, workload.gpus)).collect();
        prop_assert_eq!(&got, &expected);
        prop_assert_eq!(index.count(Kind::Job), expected.len());
        for place in seen.values() {
            let sum: u32 = place.workloads().iter().map(|workload| workload.gpus).sum();
            prop_assert_eq!(place.project().gpus, sum);
            for workload in place.workloads() {
                prop_assert_eq!(place.get(workload.kind, &workload.name), Some(workload));
            }
        }
    }
}
