//! Dashboards that nobody stored: who sees them, and what becomes of them when somebody changes one.

use serde_json::{Value, json};

use super::{BENCH, QUICK, names, notebook, perses, with_notebook};
use crate::support::{Mode, gate};

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_has_a_dashboard_for_those_who_may_see_its_project_and_for_nobody_else() {
    let (gate, _, name) = with_notebook("").await;
    gate.openshift.cluster().put_object(notebook("team-c", "secret-bench"));
    let (ada, grace, root, eve) = (gate.token("ada"), gate.token("grace"), gate.token("root"), gate.token("eve"));
    gate.sees(&root, "secret-bench").await;
    let one = format!("/api/v1/projects/team-a/dashboards/{name}");

    let full = gate.get(&ada, "/api/v1/dashboards").await;
    let bare = gate.get(&ada, "/api/v1/dashboards?metadata_only=true").await;
    assert_eq!(names(&full), names(&bare));
    assert!(names(&full).contains(&format!("team-a/{name}")), "{:?}", names(&full));
    assert!(!full.text().contains("secret") && !bare.text().contains("secret"), "team-c is not ada's");
    let in_project = gate.get(&ada, "/api/v1/projects/team-a/dashboards").await;
    assert_eq!(names(&in_project), names(&full), "all that ada has is in team-a");
    let read = gate.get(&ada, &one).await;
    assert_eq!((read.status, &read.json()["metadata"]["name"]), (200, &json!(name)));
    assert!(full.json().as_array().unwrap().contains(&read.json()), "a list has the same as a read");
    assert!(read.json()["spec"]["panels"].as_object().unwrap().len() > 3);
    let entry =
        bare.json().as_array().unwrap().iter().find(|entry| entry["metadata"]["name"] == name.as_str()).cloned();
    assert_eq!(entry.unwrap()["spec"].as_object().unwrap().keys().collect::<Vec<_>>(), ["display"]);
    assert_eq!(gate.get(&ada, &one).await.text(), read.text(), "the same bytes");

    // The beginning of a name finds it, another does not.
    let found = gate.get(&ada, &format!("/api/v1/dashboards?metadata_only=true&name={}", &name[..24])).await;
    assert_eq!(names(&found), [format!("team-a/{name}")]);
    assert_eq!(gate.get(&ada, "/api/v1/dashboards?name=dashboard-99").await.text(), "[]");

    // Those who have no right in team-a see what they would see without any workload.
    for (token, projects) in [(&grace, "team-b"), (&eve, "none")] {
        for list in ["/api/v1/dashboards", "/api/v1/dashboards?metadata_only=true", "/-/api/v1/workloads"] {
            assert_eq!(gate.get(token, list).await.text(), "[]", "{projects} {list}");
        }
        gate.upstream.take();
        let there = gate.get(token, &one).await;
        let nowhere = gate.get(token, "/api/v1/projects/team-a/dashboards/no-such").await;
        let never = gate.get(token, "/api/v1/projects/nowhere/dashboards/no-such").await;
        assert_eq!((there.status, there.text()), (404, nowhere.text()));
        assert_eq!(there.text(), never.text());
        for method in ["PUT", "DELETE"] {
            let body = if method == "PUT" { read.json() } else { Value::Null };
            assert_eq!(gate.send(method, token, &one, &body).await.status, 404);
        }
        assert!(gate.upstream.take().is_empty(), "Perses was asked for what is not theirs");
    }
    assert_eq!(gate.get("", &one).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_saves_one_makes_it_stored_and_deleting_that_brings_the_own_one_back() {
    let (gate, store, name) = with_notebook("").await;
    let (ada, grace) = (gate.token("ada"), gate.token("grace"));
    let one = format!("/api/v1/projects/team-a/dashboards/{name}");
    let original = gate.get(&ada, &one).await;
    let mut changed = original.json();
    changed["spec"]["display"]["name"] = json!("Mine");

    // Whoever may change and not create, may not.
    gate.openshift.cluster().add_role(
        "patcher",
        vec![perses_sidecar_stack::openshift::Rule {
            groups: vec!["perses.dev"],
            resources: vec!["persesdashboards"],
            verbs: vec!["get", "patch", "delete"],
            ..Default::default()
        }],
    );
    gate.openshift.cluster().bind_role("team-a", "pat", "patcher");
    let pat = gate.token("pat");
    assert_eq!(gate.get(&pat, &one).await.status, 200);
    for (method, body) in [("PUT", &changed), ("DELETE", &Value::Null)] {
        let refused = gate.send(method, &pat, &one, body).await;
        assert_eq!(refused.status, 403, "{method}: {}", refused.text());
        assert!(refused.text().contains("create"), "{}", refused.text());
    }
    assert!(store.lock().unwrap().is_empty());
    assert_eq!(gate.send("PUT", &grace, &one, &changed).await.status, 404);

    let saved = gate.send("PUT", &ada, &one, &changed).await;
    assert_eq!(saved.status, 200, "{}", saved.text());
    assert_eq!(store.lock().unwrap().len(), 1);
    assert_eq!(gate.get(&ada, &one).await.json()["spec"]["display"]["name"], "Mine", "the stored one wins");
    let all = names(&gate.get(&ada, "/api/v1/dashboards").await);
    assert_eq!(all.iter().filter(|found| found.ends_with(&name)).count(), 1, "{all:?}");
    // From now on it is like any other: pat may change it.
    changed["spec"]["display"]["name"] = json!("Ours");
    assert_eq!(gate.send("PUT", &pat, &one, &changed).await.status, 200);
    assert_eq!(gate.get(&ada, &one).await.json()["spec"]["display"]["name"], "Ours");

    assert_eq!(gate.send("DELETE", &ada, &one, &Value::Null).await.status, 204);
    assert!(store.lock().unwrap().is_empty());
    assert_eq!(gate.get(&ada, &one).await.text(), original.text());
    let effects = effects(&gate, 2).await;
    assert_eq!(effects, ["patch copied ada", "delete restored ada"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_deletes_one_hides_it_for_the_project_however_often_until_the_gallery_shows_it_again() {
    let (gate, store, name) = with_notebook("").await;
    let ada = gate.token("ada");
    let one = format!("/api/v1/projects/team-a/dashboards/{name}");
    assert_eq!(gate.send("DELETE", &ada, &one, &Value::Null).await.status, 204);
    let marker = store.lock().unwrap().values().next().cloned().unwrap();
    assert_eq!(marker["metadata"]["tags"], json!(["perses-sidecar-hidden"]));
    for list in ["/api/v1/dashboards", "/api/v1/dashboards?metadata_only=true", "/api/v1/projects/team-a/dashboards"] {
        for token in [&ada, &gate.token("root")] {
            assert!(!names(&gate.get(token, list).await).iter().any(|found| found.ends_with(&name)), "{list}");
        }
    }
    // Others of the project stay.
    assert!(!names(&gate.get(&ada, "/api/v1/projects/team-a/dashboards").await).is_empty());
    let link = gate.get(&ada, &one).await.json();
    let told = link["spec"]["display"]["description"].as_str().unwrap();
    assert!(told.contains("(/-/gallery?project=team-a)"), "{link}");
    // A client that heard nothing asks again.
    for _ in 0..2 {
        assert_eq!(gate.send("DELETE", &ada, &one, &Value::Null).await.status, 204);
        assert_eq!(store.lock().unwrap().values().next(), Some(&marker));
    }
    let everybodys = gate.dashboards(&gate.token("root")).await;
    assert!(!everybodys.iter().any(|found| found.ends_with(&name)), "{everybodys:?}");

    let back = format!("/-/gallery/restore/team-a/{name}");
    for who in ["ada", "root"] {
        let page = gate.get(&gate.token(who), "/-/gallery?project=team-a").await.text();
        assert!(page.contains(&format!("action=\"{back}\"")), "{who}: {page}");
        assert!(!page.contains(&format!("href=\"/projects/team-a/dashboards/{name}\"")), "{who}: {page}");
    }
    gate.openshift.cluster().bind_role("team-a", "vera", "view");
    let (grace, eve, vera) = (gate.token("grace"), gate.token("eve"), gate.token("vera"));
    for token in [&grace, &eve] {
        let page = gate.get(token, "/-/gallery").await.text();
        assert!(!page.contains("restore") && !page.contains(&name), "{page}");
        gate.upstream.take();
        let there = gate.send("POST", token, &back, &Value::Null).await;
        let nowhere = gate.send("POST", token, "/-/gallery/restore/nowhere/no-such", &Value::Null).await;
        assert_eq!((there.status, there.text()), (404, nowhere.text()));
        assert!(gate.upstream.take().is_empty(), "Perses was asked for what is not theirs");
    }
    assert_eq!(gate.send("POST", &vera, &back, &Value::Null).await.status, 403);
    assert_eq!(gate.send("POST", "", &back, &Value::Null).await.status, 401);
    assert_eq!(gate.get(&ada, &back).await.status, 405);
    assert_eq!(store.lock().unwrap().len(), 1);

    let shown = gate.send("POST", &ada, &back, &Value::Null).await;
    let place = format!("/projects/team-a/dashboards/{name}");
    assert_eq!((shown.status, shown.headers["location"].to_str().unwrap()), (303, place.as_str()));
    assert!(store.lock().unwrap().is_empty());
    gate.sees(&ada, BENCH).await;
    // And that too may be asked again; it touches nothing that is stored for its own sake.
    assert_eq!(gate.send("POST", &ada, &back, &Value::Null).await.status, 303);
    let copy = gate.get(&ada, &one).await.json();
    assert_eq!(gate.send("PUT", &ada, &one, &copy).await.status, 200);
    assert_eq!(gate.send("POST", &ada, &back, &Value::Null).await.status, 409);
    assert_eq!(store.lock().unwrap().len(), 1);
    let nothing = gate.send("POST", &ada, "/-/gallery/restore/team-a/no-such", &Value::Null).await;
    assert_eq!(nothing.status, 404);
    assert_eq!(effects(&gate, 3).await, ["delete hidden ada", "delete restored ada", "patch copied ada"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_delete_at_once_both_hide_it() {
    let (gate, store, name) = with_notebook("").await;
    let ada = gate.token("ada");
    let one = format!("/api/v1/projects/team-a/dashboards/{name}");
    let (first, second) =
        tokio::join!(gate.send("DELETE", &ada, &one, &Value::Null), gate.send("DELETE", &ada, &one, &Value::Null));
    assert_eq!((first.status, second.status), (204, 204), "{} {}", first.text(), second.text());
    assert_eq!(store.lock().unwrap().len(), 1);
    // Neither could take away what the other one hid.
    assert!(gate.upstream.take().iter().all(|seen| !seen.line.starts_with("DELETE")));
    gate.sees_no(&ada, BENCH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gallery_waits_for_nobody_to_say_what_is_hidden() {
    let (gate, _, name) = with_notebook("").await;
    let ada = gate.token("ada");
    assert_eq!(
        gate.send("DELETE", &ada, &format!("/api/v1/projects/team-a/dashboards/{name}"), &Value::Null).await.status,
        204
    );
    gate.taps.perses.set(Mode::Refuse).await;
    let page = gate.get(&ada, "/-/gallery").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("bench") && !page.text().contains("restore"), "{}", page.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_where_nothing_runs_is_found_in_the_gallery_and_by_its_links() {
    let (gate, _, _) = with_notebook("").await;
    let (ada, grace) = (gate.token("ada"), gate.token("grace"));
    // Lists have nothing of it: everybody would have dashboards of every empty namespace.
    assert!(gate.dashboards(&grace).await.is_empty());
    let page = gate.get(&grace, "/-/gallery").await.text();
    let link = page.split("href=\"").find_map(|rest| {
        let link = rest.split('"').next()?;
        (link.contains("/team-b/") && link.contains("past-runs")).then(|| link.to_owned())
    });
    let link = link.unwrap_or_else(|| panic!("{page}"));
    let one = format!("/api/v1{link}");
    let found = gate.get(&grace, &one).await;
    assert_eq!((found.status, &found.json()["metadata"]["project"]), (200, &json!("team-b")), "{}", found.text());
    assert_eq!(gate.get(&gate.token("eve"), &one).await.status, 404);
    // Ada sees both, the one where something runs first.
    let page = gate.get(&ada, "/-/gallery").await.text();
    let at = |name: &str| page.find(&format!("<h2>{name}</h2>")).unwrap_or_else(|| panic!("{name}: {page}"));
    assert!(at("team-a") < at("team-b"));
    assert!(!page.contains("<h2>team-c</h2>"));
}

/// The first so many audit records that say what came of a change.
async fn effects(gate: &crate::support::Gate, count: usize) -> Vec<String> {
    super::until("audit records", async || {
        let text = std::fs::read_to_string(&gate.audit).unwrap();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<String> = lines
            .filter(|line| line.get("effect").is_some())
            .map(|line| {
                [&line["verb"], &line["effect"], &line["who"]["name"]].map(|part| part.as_str().unwrap()).join(" ")
            })
            .collect();
        (found.len() >= count).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_stays_good_when_the_workload_is_gone() {
    let (gate, store, name) = with_notebook("").await;
    let (ada, grace) = (gate.token("ada"), gate.token("grace"));
    let one = format!("/api/v1/projects/team-a/dashboards/{name}");
    gate.openshift.cluster().remove_object(&notebook("team-a", "bench"));
    gate.sees_no(&ada, BENCH).await;
    let gone = gate.get(&ada, &one).await;
    assert_eq!((gone.status, &gone.json()["metadata"]["name"]), (200, &json!(name)), "{}", gone.text());
    assert_eq!(gate.get(&grace, &one).await.status, 404);
    // Nothing is there to be hidden; what looks like a name of ours and is none is nothing.
    assert_eq!(gate.send("DELETE", &ada, &one, &Value::Null).await.status, 404);
    let (head, _) = one.rsplit_once('-').unwrap();
    assert_eq!(gate.get(&ada, &format!("{head}-aaaaaaaa")).await.status, 404);
    assert!(store.lock().unwrap().is_empty());
    // It can still be kept.
    assert_eq!(gate.send("PUT", &ada, &one, &gone.json()).await.status, 200);
    assert_eq!(store.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_long_name_that_is_gone_leads_to_past_runs() {
    let (gate, _, _) = with_notebook("").await;
    let (ada, grace) = (gate.token("ada"), gate.token("grace"));
    let long = format!("a{}-z", "b".repeat(60));
    gate.openshift.cluster().put_object(notebook("team-a", &long));
    let found = gate.sees(&ada, "-notebook-abb").await;
    let name = found.rsplit('/').next().unwrap();
    let one = format!("/api/v1/projects/team-a/dashboards/{name}");
    assert_eq!(gate.get(&ada, &one).await.json()["metadata"]["name"], json!(name));
    gate.openshift.cluster().remove_object(&notebook("team-a", &long));
    gate.sees_no(&ada, name).await;
    let gone = gate.get(&ada, &one).await;
    let shown = gone.json()["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    assert!(gone.status == 200 && shown.starts_with("dashboard-12-past-runs-"), "{}", gone.text());
    assert_eq!(gate.get(&grace, &one).await.status, 404);
    // Nothing else is found so: a short name, or another end than ours.
    for nothing in [name.replace("bbbbbbbbbbbbbbbb", "b"), format!("{}lllllllo", &name[..name.len() - 8])] {
        assert_eq!(
            gate.get(&ada, &format!("/api/v1/projects/team-a/dashboards/{nothing}")).await.status,
            404,
            "{nothing}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_one_is_fine_and_at_nothing_is_not() {
    let (gate, _, name) = with_notebook("").await;
    let look = |project: &str, name: &str| json!({ "project": project, "dashboard": name, "render_time": 1.5 });
    let (ada, grace) = (gate.token("ada"), gate.token("grace"));
    assert_eq!(gate.send("POST", &ada, "/api/v1/view", &look("team-a", &name)).await.status, 200);
    assert_eq!(gate.send("POST", &ada, "/api/v1/view", &look("team-a", "no-such")).await.status, 404);
    assert_eq!(gate.send("POST", &grace, "/api/v1/view", &look("team-a", &name)).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_served_while_perses_is_down() {
    let (gate, _, name) = with_notebook("").await;
    let (ada, grace) = (gate.token("ada"), gate.token("grace"));
    gate.taps.perses.set(Mode::Refuse).await;
    let read = gate.get(&ada, &format!("/api/v1/projects/team-a/dashboards/{name}")).await;
    assert_eq!(read.status, 200, "{}", read.text());
    assert!(read.headers["warning"].to_str().unwrap().contains("Perses does not answer"));
    for list in ["/api/v1/dashboards?metadata_only=true", "/api/v1/projects/team-a/dashboards"] {
        let list = gate.get(&ada, list).await;
        assert!(names(&list).contains(&format!("team-a/{name}")));
        assert!(list.headers.contains_key("warning"));
    }
    // Who has none is told that Perses does not answer, not that there is nothing.
    assert_eq!(gate.get(&grace, "/api/v1/dashboards?metadata_only=true").await.status, 502);
    assert_eq!(gate.get(&grace, &format!("/api/v1/projects/team-a/dashboards/{name}")).await.status, 404);
    assert_eq!(gate.get(&ada, "/api/v1/projects/team-a/dashboards/no-such").await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_whose_rights_lie_elsewhere_shows_no_workloads() {
    // The project team-a belongs to namespace team-b here: grace may see it, and nothing that runs in namespace team-a.
    let gate = gate(&format!("{QUICK}access:\n  projects:\n    team-a: team-b\n")).await;
    let _store = perses(&gate);
    gate.openshift.cluster().put_object(notebook("team-a", "bench"));
    gate.openshift.cluster().put_object(notebook("team-b", "seen"));
    let (grace, root) = (gate.token("grace"), gate.token("root"));
    gate.sees(&grace, "notebook-seen").await;
    assert!(!gate.dashboards(&grace).await.iter().any(|name| name.contains(BENCH)));
    assert!(!gate.dashboards(&root).await.iter().any(|name| name.contains(BENCH)), "it has no place for them");
    assert_eq!(gate.get(&grace, "/api/v1/projects/team-a/dashboards").await.text(), "[]");
    let (name, _) = bench_of_team_a();
    assert_eq!(gate.get(&grace, &format!("/api/v1/projects/team-a/dashboards/{name}")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn they_can_be_switched_off() {
    let gate = gate(&format!("{QUICK}dashboards:\n  enabled: false\n")).await;
    let store = perses(&gate);
    gate.openshift.cluster().put_object(notebook("team-a", "bench"));
    let line = "perses_sidecar_workloads{kind=\"Notebook\"}";
    super::until("a workload", async || (gate.metric(line).await == 1).then_some(())).await;
    let ada = gate.token("ada");
    assert_eq!(gate.get(&ada, "/api/v1/dashboards").await.text(), "[]");
    assert_eq!(gate.get(&ada, "/api/v1/dashboards?metadata_only=true").await.text(), "[]");
    assert_eq!(gate.get(&ada, "/api/v1/projects/team-a/dashboards").await.text(), "[]");
    // Not by its name either, which every other configuration would give it.
    let (name, document) = bench_of_team_a();
    let one = format!("/api/v1/projects/team-a/dashboards/{name}");
    for (method, path, body) in [
        ("GET", one.as_str(), Value::Null),
        ("PUT", &one, document),
        ("DELETE", &one, Value::Null),
        ("POST", &format!("/-/gallery/restore/team-a/{name}"), Value::Null),
        ("POST", "/api/v1/view", json!({ "project": "team-a", "dashboard": name, "render_time": 1.0 })),
    ] {
        let answer = gate.send(method, &ada, path, &body).await;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
    }
    assert!(store.lock().unwrap().is_empty());
    // What runs is told all the same, without ways to what is not there.
    let told = gate.get(&ada, "/-/api/v1/workloads").await.json();
    assert_eq!((&told[0]["name"], &told[0]["dashboards"]), (&json!("bench"), &json!([])), "{told}");
    let page = gate.get(&ada, "/-/gallery").await.text();
    assert!(page.contains("bench") && page.contains("dashboards.enabled"), "{page}");
    assert!(
        !page.contains("/dashboards/") && !page.contains("method=\"post\"") && !page.contains("<h2>team-b"),
        "{page}"
    );
    let form = [("template", "notebook"), ("project", "team-a"), ("workload", "bench")];
    let refused = gate.http.form(&format!("{}/-/gallery", gate.url), &ada, &form).await.unwrap();
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("dashboards.enabled"), "{}", refused.text());
    // One that was hidden before is an object like any other now: whoever deletes it, deletes it.
    let hidden = json!({ "kind": "Dashboard", "metadata": { "name": name, "project": "team-a",
        "tags": ["perses-sidecar-hidden"] }, "spec": {} });
    store.lock().unwrap().insert(("team-a".to_owned(), name.clone()), hidden);
    assert_eq!(gate.send("DELETE", &ada, &one, &Value::Null).await.status, 204);
    assert!(store.lock().unwrap().is_empty());
}

/// Name and document of the dashboard that the notebook bench of team-a has where they are not switched off.
fn bench_of_team_a() -> (String, Value) {
    use perses_sidecar::dashboards::{Kind, Library, Workload, WorkloadName};
    let namespace = perses_sidecar::names::Namespace::parse("team-a").unwrap();
    let workload = Workload::bare(Kind::Notebook, namespace, WorkloadName::parse("bench").unwrap());
    let library = Library::built_in();
    let template = library.of(&workload).next().unwrap();
    (template.dashboard_name(&workload), serde_json::from_str(&template.render(&workload)).unwrap())
}
