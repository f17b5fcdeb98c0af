//! Identity and access, one suite for the stand-in and the real API server: whatever differs between them is a
//! mistake of the stand-in. Each thing allowed stands beside its refused neighbour.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use perses_sidecar_stack::http::Https;
use perses_sidecar_stack::openshift::{Rule, Subject};
use perses_sidecar_stack::tour::{label_values, names};
use perses_sidecar_stack::world::{dashboard, datasource_spec};
use serde_json::{Value, json};

use crate::perses::object;
use crate::stage::Stage;

/// The stage's bounds of staleness are 2 s at most; a real API server remembers a good token for 10 s itself.
const BOUND: Duration = Duration::from_secs(3);
const TOKEN_BOUND: Duration = Duration::from_secs(14);

const WHOAMI: &str = "/-/whoami";

/// Everything; scenes keep to namespaces of their own, so that all can wait at once.
pub(crate) async fn suite(stage: &Stage) {
    the_words_of_the_api(stage).await;
    reviews_of_ones_own(stage).await;
    tokens_on_request(stage).await;
    tokio::join!(
        tokens(stage),
        groups(stage),
        roles(stage),
        global_objects(stage),
        reach_of_queries(stage),
        paths_that_are_no_resources(stage),
        rights_come_and_go(stage),
        namespaces_come_and_go(stage),
        deleted_accounts(stage),
    );
    // Changes the configuration under everybody's feet.
    audiences(stage).await;
}

fn account(namespace: &str, name: &str) -> Subject {
    Subject::User(format!("system:serviceaccount:{namespace}:{name}"))
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A service account of `team`, bound to a cluster role there.
async fn member(stage: &Stage, namespace: &str, name: &str, role: &str) -> String {
    let ground = &stage.world.ground;
    let token = ground.account_token(namespace, name, &[]).await.unwrap();
    ground.bind(Some(namespace), account(namespace, name), role).await.unwrap();
    token
}

/// Waits until an answer is as it should be; gives how long that took.
async fn within(bound: Duration, what: &str, mut done: impl AsyncFnMut() -> Result<(), String>) -> Duration {
    let began = Instant::now();
    loop {
        match done().await {
            Ok(()) => return began.elapsed(),
            Err(last) => assert!(began.elapsed() < bound, "{what}: not within {bound:?}, last {last}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(got: T, expected: &T) -> Result<(), String> {
    if got == *expected { Ok(()) } else { Err(format!("{got:?} instead of {expected:?}")) }
}

/// What the sidecar asks, asked directly: the stand-in must say what the API server says.
async fn the_words_of_the_api(stage: &Stage) {
    let ground = &stage.world.ground;
    let https = Https::new(ground.url(), &fs::read_to_string(ground.ca_file()).unwrap()).unwrap();
    let sidecar = fs::read_to_string(ground.token_file()).unwrap();
    let (ada, eve) = (ground.token("ada"), ground.token("eve"));
    let post = async |token: &str, path: &str, body: &Value| {
        https.send("POST", path, token, "application/json", body.to_string()).await.unwrap()
    };
    let get = async |token: &str, path: &str| https.send("GET", path, token, "", String::new()).await.unwrap().status;
    let whose = "/apis/authentication.k8s.io/v1/tokenreviews";
    let may = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let review = |token: &str| json!({ "spec": { "token": token } });
    let access = |user: &str, verb: &str, namespace: &str| {
        let what =
            json!({ "group": "perses.dev", "resource": "persesdashboards", "verb": verb, "namespace": namespace });
        json!({ "spec": { "user": user, "groups": ["system:authenticated"], "resourceAttributes": what } })
    };

    let answer = post(&sidecar, whose, &review(ground.token("lin"))).await;
    let status = answer.json()["status"].clone();
    assert_eq!((answer.status, &status["authenticated"]), (201, &json!(true)), "{status}");
    assert_eq!((&status["user"]["username"], &status["user"]["uid"]), (&json!("lin"), &json!("uid-lin")));
    assert_eq!(status["audiences"], json!(["https://kubernetes.default.svc"]));
    let answer = post(&sidecar, whose, &review("sha256~nobody")).await;
    let status = answer.json()["status"].clone();
    assert_eq!((answer.status, status["authenticated"] == json!(true)), (201, false), "{status}");
    assert!(status["error"].as_str().unwrap().contains("invalid bearer token"), "{status}");

    for (user, verb, namespace, allowed) in [
        ("ada", "patch", "team-a", true),
        ("ada", "patch", "team-b", false),
        ("ada", "get", "team-b", true),
        ("ada", "get", "", false),
        ("root", "get", "", true),
        ("eve", "get", "team-a", false),
    ] {
        let answer = post(&sidecar, may, &access(user, verb, namespace)).await;
        assert_eq!((answer.status, &answer.json()["status"]["allowed"]), (201, &json!(allowed)), "{}", answer.text());
    }
    assert_eq!(post(&sidecar, may, &json!({ "spec": { "user": "ada" } })).await.status, 422, "nothing is asked");
    let mut nobody = access("", "get", "team-a");
    nobody["spec"]["groups"] = json!([]);
    assert_eq!(post(&sidecar, may, &nobody).await.status, 422, "for nobody");
    assert_eq!(post(&sidecar, may, &json!("x")).await.status, 400);
    for path in [whose, may] {
        assert_eq!(post(ada, path, &access("ada", "get", "team-a")).await.status, 403, "reviews are ours to ask");
        assert_eq!(post("sha256~nobody", path, &json!({})).await.status, 401);
    }

    let namespaces = "/api/v1/namespaces";
    assert_eq!(
        (get(&sidecar, namespaces).await, get(ada, namespaces).await, get("x", namespaces).await),
        (200, 403, 401)
    );
    let private = ground.account_token("team-c", "private", &["perses"]).await.unwrap();
    let (api, projects) = ("/apis/project.openshift.io/v1", "/apis/project.openshift.io/v1/projects");
    let mut got = Vec::new();
    for token in [&sidecar, eve, ground.token("root"), &private] {
        got.push((get(token, api).await, get(token, projects).await));
    }
    let expected = match get(&sidecar, api).await {
        200 => [(200, 200), (200, 200), (200, 200), (401, 401)],
        _ => [(404, 403), (404, 403), (404, 404), (401, 401)],
    };
    assert_eq!(got, expected, "sidecar, eve, root, private audience");
}

/// The other ways to ask who may what: about oneself, in one namespace, and for all rules at once.
async fn reviews_of_ones_own(stage: &Stage) {
    let ground = &stage.world.ground;
    let https = Https::new(ground.url(), &fs::read_to_string(ground.ca_file()).unwrap()).unwrap();
    let post = async |token: &str, path: &str, body: &Value| {
        let path = format!("/apis/authorization.k8s.io/v1/{path}");
        https.send("POST", &path, token, "application/json", body.to_string()).await.unwrap()
    };
    let what = |verb: &str, namespace: &str| json!({ "group": "perses.dev", "resource": "persesdashboards", "verb": verb, "namespace": namespace });
    for (who, verb, namespace, allowed) in [
        ("ada", "patch", "team-a", true),
        ("ada", "patch", "team-b", false),
        ("ada", "get", "team-b", true),
        ("eve", "get", "team-a", false),
        ("root", "delete", "", true),
    ] {
        let asked = json!({ "spec": { "resourceAttributes": what(verb, namespace) } });
        let answer = post(ground.token(who), "selfsubjectaccessreviews", &asked).await;
        let verdict = &answer.json()["status"]["allowed"];
        assert_eq!((answer.status, verdict), (201, &json!(allowed)), "{who} {verb} {namespace}: {}", answer.text());
    }
    let ada = ground.token("ada");
    assert_eq!(post(ada, "selfsubjectaccessreviews", &json!({ "spec": {} })).await.status, 422);
    assert_eq!(post("sha256~nobody", "selfsubjectaccessreviews", &json!({ "spec": {} })).await.status, 401);

    // Whoever administers a namespace may ask about anybody there, and nowhere else.
    ground.add_namespace("words").await.unwrap();
    let chief = member(stage, "words", "chief", "admin").await;
    let local = |namespace: &str| format!("namespaces/{namespace}/localsubjectaccessreviews");
    let about = |user: &str, namespace: &str| {
        let asked = what("patch", namespace);
        json!({ "spec": { "user": user, "groups": ["system:authenticated"], "resourceAttributes": asked } })
    };
    for (token, place, user, namespace, status, allowed) in [
        (chief.as_str(), "words", "system:serviceaccount:words:chief", "words", 201, Some(true)),
        (&chief, "words", "ada", "words", 201, Some(false)),
        (&chief, "words", "ada", "team-a", 422, None),
        (&chief, "team-a", "ada", "team-a", 403, None),
        (ada, "words", "ada", "words", 403, None),
    ] {
        let answer = post(token, &local(place), &about(user, namespace)).await;
        let verdict = answer.json()["status"]["allowed"].as_bool();
        assert_eq!((answer.status, verdict), (status, allowed), "{place} {user} {namespace}: {}", answer.text());
    }

    for (namespace, patches) in [("team-a", true), ("team-b", false)] {
        let asked = json!({ "spec": { "namespace": namespace } });
        let answer = post(ada, "selfsubjectrulesreviews", &asked).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let told = answer.json();
        let rules = told["status"]["resourceRules"].as_array().cloned().unwrap_or_default();
        let has = |rule: &Value, key: &str, word: &str| {
            rule[key].as_array().is_some_and(|all| all.iter().any(|one| one == word || one == "*"))
        };
        let may = |verb: &str| {
            let ours =
                |rule: &&Value| has(rule, "apiGroups", "perses.dev") && has(rule, "resources", "persesdashboards");
            rules.iter().filter(ours).any(|rule| has(rule, "verbs", verb))
        };
        assert_eq!((may("get"), may("patch")), (true, patches), "{namespace}: {told}");
    }
    assert_eq!(post(ada, "selfsubjectrulesreviews", &json!({ "spec": {} })).await.status, 400);
}

/// TokenRequest, and the keys that its tokens are signed with.
async fn tokens_on_request(stage: &Stage) {
    const API: &str = "https://kubernetes.default.svc";
    let ground = &stage.world.ground;
    let https = Https::new(ground.url(), &fs::read_to_string(ground.ca_file()).unwrap()).unwrap();
    let sidecar = fs::read_to_string(ground.token_file()).unwrap();
    let ada = ground.token("ada");
    // The account is there from now on.
    ground.account_token("team-a", "trainer", &[]).await.unwrap();
    ground.account_token("team-b", "trainer", &[]).await.unwrap();
    let ask = async |token: &str, namespace: &str, account: &str, spec: Value| {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let body = json!({ "spec": spec }).to_string();
        https.send("POST", &path, token, "application/json", body).await.unwrap()
    };
    for (token, namespace, account, spec, status) in [
        (ada, "team-a", "trainer", json!({}), 201),
        (ada, "team-a", "nobody", json!({}), 404),
        (ada, "team-b", "trainer", json!({}), 403),
        (ground.token("eve"), "team-a", "trainer", json!({}), 403),
        (ada, "team-a", "trainer", json!({ "expirationSeconds": 60 }), 422),
        ("sha256~nobody", "team-a", "trainer", json!({}), 401),
    ] {
        let answer = ask(token, namespace, account, spec.clone()).await;
        assert_eq!(answer.status, status, "{namespace} {account} {spec}: {}", answer.text());
    }
    let part = |token: &str, at: usize| -> Value {
        let text = token.split('.').nth(at).unwrap();
        serde_json::from_slice(&perses_sidecar_stack::encoding::from_base64url(text).unwrap()).unwrap()
    };
    let get = async |token: &str, path: &str| https.send("GET", path, token, "", String::new()).await.unwrap();
    let (document, keys) = ("/.well-known/openid-configuration", "/openid/v1/jwks");
    for path in [document, keys] {
        let all = [get(&sidecar, path).await.status, get(ada, path).await.status, get("x", path).await.status];
        assert_eq!(all, [200, 403, 401], "{path}: service accounts may know");
    }
    assert_eq!(get(&sidecar, document).await.json()["issuer"], API);
    let published = get(&sidecar, keys).await.json();
    for (audiences, meant) in [(json!([]), API), (json!(["vault"]), "vault")] {
        let spec = json!({ "audiences": audiences, "expirationSeconds": 1200 });
        let answer = ask(ada, "team-a", "trainer", spec).await.json();
        let token = answer["status"]["token"].as_str().unwrap().to_owned();
        perses_sidecar_stack::secrets::note(&token);
        let claims = part(&token, 1);
        let number = |key: &str| claims[key].as_i64().unwrap_or_else(|| panic!("{key}: {claims}"));
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!(API), &json!([meant])), "{claims}");
        assert_eq!(claims["sub"], "system:serviceaccount:team-a:trainer");
        assert_eq!(claims["kubernetes.io"]["namespace"], "team-a");
        assert_eq!(claims["kubernetes.io"]["serviceaccount"]["name"], "trainer");
        assert!((1190..=1210).contains(&(number("exp") - number("iat"))), "{claims}");
        assert!(answer["status"]["expirationTimestamp"].as_str().unwrap().ends_with('Z'), "{answer}");

        // Signed by a key that is published under its name, and by no other.
        let kid = part(&token, 0)["kid"].clone();
        let key = published["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid).unwrap();
        let bytes = |name: &str| perses_sidecar_stack::encoding::from_base64url(key[name].as_str().unwrap()).unwrap();
        let point = [vec![4], bytes("x"), bytes("y")].concat();
        let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
        let (text, signature) = token.rsplit_once('.').unwrap();
        let signature = perses_sidecar_stack::encoding::from_base64url(signature).unwrap();
        let key = aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, point);
        key.verify(text.as_bytes(), &signature).unwrap();
        assert!(key.verify(format!("{text}x").as_bytes(), &signature).is_err());

        let review = async |audiences: Value| {
            let path = "/apis/authentication.k8s.io/v1/tokenreviews";
            let body = json!({ "spec": { "token": token, "audiences": audiences } }).to_string();
            https.send("POST", path, &sidecar, "application/json", body).await.unwrap().json()["status"].clone()
        };
        let status = review(json!([meant])).await;
        assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!([meant])), "{status}");
        let id = format!("JTI={}", claims["jti"].as_str().unwrap());
        assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/credential-id"], json!([id]), "{status}");
        let elsewhere = if meant == API { json!(["vault"]) } else { json!([API]) };
        assert_ne!(review(elsewhere).await["authenticated"], json!(true));
    }
}

async fn tokens(stage: &Stage) {
    let ground = &stage.world.ground;
    let ask = async |token: &str| stage.present(token, "GET", WHOAMI, None).await;
    let answer = ask(ground.token("ada")).await;
    assert_eq!((answer.status, &answer.json()["user"]), (200, &json!("ada")), "{}", answer.text());
    assert_eq!(answer.json()["projects"]["namespaces"], json!(["team-a", "team-b"]));
    let answer = ask(ground.token("eve")).await;
    assert_eq!(
        (answer.status, &answer.json()["projects"]["namespaces"]),
        (200, &json!([])),
        "known and without rights"
    );
    assert_eq!(ask("").await.status, 401);
    assert_eq!(ask("sha256~nobody").await.status, 401);
    assert_eq!(ask(&ground.token("ada")[..40]).await.status, 401);
    let token = ground.account_token("team-c", "visitor", &[]).await.unwrap();
    let answer = ask(&token).await;
    assert_eq!((answer.status, &answer.json()["user"]), (200, &json!("system:serviceaccount:team-c:visitor")));
    assert_eq!(answer.json()["projects"]["namespaces"], json!([]), "an account has no right to its own namespace");
    // The API server's own leeway is a minute.
    for (seconds, status) in [(600, 200), (-120, 401)] {
        let token = ground.account_token_ending("team-c", "visitor", seconds).await.unwrap();
        assert_eq!(ask(&token).await.status, status, "a token that ends in {seconds} s");
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [head, claims, signature] = parts[..] else { panic!("{} parts", parts.len()) };
    let other = ground.account_token("team-c", "other", &[]).await.unwrap();
    let foreign = other.rsplit('.').next().unwrap();
    for forged in [format!("{head}.{claims}.{foreign}"), format!("{head}.{claims}."), format!("{head}..{signature}")] {
        if forged != other {
            assert_eq!(ask(&forged).await.status, 401, "{forged}");
        }
    }
}

/// A right of a group is a right of its members: groups travel into reviews whole.
async fn groups(stage: &Stage) {
    let ground = &stage.world.ground;
    for namespace in ["crew", "tools"] {
        ground.add_namespace(namespace).await.unwrap();
    }
    ground.bind(Some("crew"), Subject::Group("night-shift".to_owned()), "view").await.unwrap();
    ground.bind(Some("crew"), Subject::Group("system:serviceaccounts:tools".to_owned()), "edit").await.unwrap();
    let whoami = stage.present(ground.token("lin"), "GET", WHOAMI, None).await.json();
    let carried: BTreeSet<&str> = whoami["groups"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(["devs", "night-shift", "system:authenticated"].iter().all(|group| carried.contains(group)), "{carried:?}");
    let inside = ground.account_token("tools", "bot", &[]).await.unwrap();
    let outside = ground.account_token("team-c", "outsider", &[]).await.unwrap();
    let list = "/api/v1/projects/crew/dashboards";
    let body = dashboard("by-group", "up");
    for (token, read, write) in [
        (ground.token("lin"), 200, 403),
        (ground.token("eve"), 404, 404),
        (inside.as_str(), 200, 200),
        (outside.as_str(), 404, 404),
    ] {
        assert_eq!(stage.present(token, "GET", list, None).await.status, read);
        assert_eq!(stage.present(token, "POST", list, Some(&body)).await.status, write);
    }
}

/// The stock roles, with ours aggregated into them, verb by verb.
async fn roles(stage: &Stage) {
    let ground = &stage.world.ground;
    ground.add_namespace("verbs").await.unwrap();
    let viewer = member(stage, "verbs", "viewer", "view").await;
    let editor = member(stage, "verbs", "editor", "edit").await;
    let admin = member(stage, "verbs", "admin", "admin").await;
    let stranger = ground.account_token("verbs", "stranger", &[]).await.unwrap();
    let elsewhere = member(stage, "team-c", "elsewhere", "admin").await;
    let url = &stage.world.prometheus_url;
    let text = json!({ "kind": "TextVariable", "spec": { "name": "x", "value": "1" } });
    let basic = json!({ "basicAuth": { "username": "u", "password": "p" } });
    let kinds = [
        ("dashboards", object("Dashboard", "x", dashboard("x", "up")["spec"].clone())),
        ("datasources", object("Datasource", "x", datasource_spec(url, false))),
        ("variables", object("Variable", "x", text)),
        ("folders", object("Folder", "x", json!({ "items": [] }))),
        ("secrets", object("Secret", "x", basic)),
    ];
    for (segment, body) in &kinds {
        let list = format!("/api/v1/projects/verbs/{segment}");
        let one = format!("{list}/x");
        // `view` reads all but secrets.
        let reads = if *segment == "secrets" { 403 } else { 200 };
        let steps: [(&str, &str, Option<&Value>, [u16; 5]); 6] = [
            ("POST", &list, Some(body), [403, 200, 409, 404, 404]),
            ("GET", &list, None, [reads, 200, 200, 404, 404]),
            ("GET", &one, None, [reads, 200, 200, 404, 404]),
            ("PUT", &one, Some(body), [403, 200, 200, 404, 404]),
            ("DELETE", &one, None, [403, 204, 404, 404, 404]),
            ("GET", &one, None, [if *segment == "secrets" { 403 } else { 404 }, 404, 404, 404, 404]),
        ];
        for (method, path, body, expected) in steps {
            let mut got = [0; 5];
            for (place, token) in [&viewer, &editor, &admin, &stranger, &elsewhere].into_iter().enumerate() {
                got[place] = stage.present(token, method, path, body).await.status;
            }
            assert_eq!(got, expected, "view, edit, admin, none, elsewhere: {method} {path}");
        }
    }
    // What the buttons of the UI are made of says the same.
    for (token, dashboards, secrets) in [
        (&viewer, json!(["read"]), Value::Null),
        (&editor, json!(["read", "create", "update", "delete"]), json!(["read", "create", "update", "delete"])),
    ] {
        let me = stage.present(token, "GET", WHOAMI, None).await.json()["user"].as_str().unwrap().to_owned();
        let answer = stage.present(token, "GET", &format!("/api/v1/users/{me}/permissions"), None).await;
        let map = answer.json();
        let actions = |scope: &str| {
            let list = map["verbs"].as_array().unwrap();
            list.iter()
                .find(|entry| entry["scopes"] == json!([scope]))
                .map_or(Value::Null, |entry| entry["actions"].clone())
        };
        assert_eq!((actions("Dashboard"), actions("Secret")), (dashboards, secrets), "{}", answer.text());
    }
}

/// Global objects are written with rights in the whole cluster alone.
async fn global_objects(stage: &Stage) {
    let ground = &stage.world.ground;
    ground.add_namespace("globe").await.unwrap();
    let local = member(stage, "globe", "admin", "admin").await;
    let editor = ground.account_token("globe", "editor", &[]).await.unwrap();
    ground.bind(None, account("globe", "editor"), "edit").await.unwrap();
    let variable =
        object("GlobalVariable", "gx", json!({ "kind": "TextVariable", "spec": { "name": "gx", "value": "1" } }));
    let secret = object("GlobalSecret", "gx", json!({ "basicAuth": { "username": "u", "password": "p" } }));
    let source = object("GlobalDatasource", "gx", datasource_spec(&stage.world.prometheus_url, false));
    for (segment, body, everywhere) in
        [("globalvariables", &variable, true), ("globalsecrets", &secret, true), ("globaldatasources", &source, false)]
    {
        let list = format!("/api/v1/{segment}");
        let one = format!("{list}/gx");
        // Our roles say nothing about global datasources: administrators of the cluster alone write those.
        let (creates, updates, deletes) = if everywhere { (200, 200, 204) } else { (403, 403, 403) };
        for (token, create, update, delete) in [
            (local.as_str(), 403, 403, 403),
            (editor.as_str(), creates, updates, deletes),
            (ground.token("root"), 200, 200, 204),
        ] {
            let create_status = stage.present(token, "POST", &list, Some(body)).await.status;
            let update_status = stage.present(token, "PUT", &one, Some(body)).await.status;
            let delete_status = stage.present(token, "DELETE", &one, None).await.status;
            assert_eq!((create_status, update_status, delete_status), (create, update, delete), "{segment}");
        }
    }
}

/// No namespace, some, all, and the series that belong to none.
async fn reach_of_queries(stage: &Stage) {
    let ground = &stage.world.ground;
    ground.add_namespace("watch").await.unwrap();
    let watcher = ground.account_token("watch", "watcher", &[]).await.unwrap();
    ground.bind(None, account("watch", "watcher"), "view").await.unwrap();
    let operator = ground.account_token("watch", "operator", &[]).await.unwrap();
    let rule = |names: &[&'static str]| Rule {
        groups: vec!["monitoring.coreos.com"],
        resources: vec!["prometheuses/api"],
        verbs: vec!["get"],
        names: names.to_vec(),
        paths: Vec::new(),
    };
    ground.add_role("all-metrics", vec![rule(&["k8s"])]).await.unwrap();
    ground.add_role("other-metrics", vec![rule(&["other"])]).await.unwrap();
    ground.add_namespace("openshift-monitoring").await.unwrap();
    ground.bind(Some("openshift-monitoring"), account("watch", "operator"), "all-metrics").await.unwrap();
    let neighbour = ground.account_token("watch", "neighbour", &[]).await.unwrap();
    ground.bind(Some("openshift-monitoring"), account("watch", "neighbour"), "other-metrics").await.unwrap();
    ground.bind(Some("watch"), account("watch", "neighbour"), "all-metrics").await.unwrap();
    let teams = set(&["team-a", "team-b", "team-c"]);
    let some = |words: &[&str]| Some(set(words));
    for (who, token, namespaces, homeless) in [
        ("eve", ground.token("eve"), None, false),
        ("grace", ground.token("grace"), some(&["team-b"]), false),
        ("watcher", &watcher, Some(teams.clone()), false),
        ("neighbour", &neighbour, None, false),
        ("operator", &operator, Some(teams.clone()), true),
        ("root", ground.token("root"), Some(teams.clone()), true),
    ] {
        let answer = stage.query(token, "vllm:num_requests_running").await;
        match &namespaces {
            None => assert_eq!(answer.status, 403, "{who}: {}", answer.text()),
            Some(expected) => assert_eq!(label_values(&answer, "namespace"), *expected, "{who}: {}", answer.text()),
        }
        // Prometheus' own series of the scrape carry no namespace.
        let answer = stage.query(token, "up{job=\"demo\"}").await;
        assert_eq!(!label_values(&answer, "job").is_empty(), homeless, "{who}: {}", answer.text());
    }
    // Who views everything sees every namespace as a project; whose right is to metrics alone sees none.
    let projects = async |token: &str| names(&stage.present(token, "GET", "/api/v1/projects", None).await);
    let seen = projects(&watcher).await;
    assert!(seen.is_superset(&set(&["perses", "team-a", "team-b", "team-c", "watch"])), "{seen:?}");
    assert!(!projects(ground.token("grace")).await.contains("watch"));
    assert_eq!(projects(&neighbour).await, set(&[]));
}

async fn paths_that_are_no_resources(stage: &Stage) {
    let ground = &stage.world.ground;
    ground.add_namespace("paths").await.unwrap();
    for (name, path) in [("exact", "/metrics"), ("below", "/metrics/*"), ("all", "/met*"), ("other", "/healthz")] {
        let token = ground.account_token("paths", name, &[]).await.unwrap();
        let rule = Rule { verbs: vec!["get"], paths: vec![path], ..Rule::default() };
        ground.add_role(&format!("paths-{name}"), vec![rule]).await.unwrap();
        ground.bind(None, account("paths", name), &format!("paths-{name}")).await.unwrap();
        let expected = if matches!(name, "exact" | "all") { 200 } else { 403 };
        // The API server's authorizer hears of a binding a moment after it was made, and a no is remembered for a while.
        let asked = async || expect(stage.present(&token, "GET", "/metrics", None).await.status, &expected);
        within(TOKEN_BOUND, path, asked).await;
    }
}

async fn rights_come_and_go(stage: &Stage) {
    let ground = &stage.world.ground;
    ground.add_namespace("tide").await.unwrap();
    let token = ground.account_token("tide", "bot", &[]).await.unwrap();
    let list = "/api/v1/projects/tide/dashboards";
    let state = async || {
        let seen = names(&stage.present(&token, "GET", "/api/v1/projects", None).await).contains("tide");
        let metrics = stage.query(&token, "up").await.status;
        let read = stage.present(&token, "GET", list, None).await.status;
        let write = stage.present(&token, "POST", list, Some(&dashboard("x", "up"))).await.status;
        (seen, metrics, read, write)
    };
    assert_eq!(state().await, (false, 403, 404, 404));
    ground.bind(Some("tide"), account("tide", "bot"), "view").await.unwrap();
    within(BOUND, "view comes", async || expect(state().await, &(true, 200, 200, 403))).await;
    ground.bind(Some("tide"), account("tide", "bot"), "edit").await.unwrap();
    within(BOUND, "edit comes", async || {
        expect(state().await, &(true, 200, 200, 200)).or(expect(state().await, &(true, 200, 200, 409)))
    })
    .await;
    ground.unbind(Some("tide"), account("tide", "bot"), "edit").await.unwrap();
    within(BOUND, "edit goes", async || expect(state().await, &(true, 200, 200, 403))).await;
    ground.unbind(Some("tide"), account("tide", "bot"), "view").await.unwrap();
    let took = within(BOUND, "view goes", async || expect(state().await, &(false, 403, 404, 404))).await;
    eprintln!("a right that is taken away ended after {took:?}");
}

async fn namespaces_come_and_go(stage: &Stage) {
    let ground = &stage.world.ground;
    ground.add_namespace("home").await.unwrap();
    let token = ground.account_token("home", "bot", &[]).await.unwrap();
    let visible =
        async |who: &str| names(&stage.present(who, "GET", "/api/v1/projects", None).await).contains("spring");
    let read = async |who: &str| stage.present(who, "GET", "/api/v1/projects/spring", None).await.status;
    let root = ground.token("root");
    assert_eq!((visible(&token).await, read(&token).await, visible(root).await), (false, 404, false));
    ground.add_namespace("spring").await.unwrap();
    within(BOUND, "an administrator sees a new namespace", async || {
        expect((visible(root).await, read(root).await), &(true, 200))
    })
    .await;
    assert_eq!((visible(&token).await, read(&token).await), (false, 404), "others do not");
    ground.bind(Some("spring"), account("home", "bot"), "view").await.unwrap();
    within(BOUND, "a member sees it", async || expect((visible(&token).await, read(&token).await), &(true, 200))).await;
    ground.remove_namespace("spring").await.unwrap();
    within(BOUND, "it is gone for the member", async || {
        expect((visible(&token).await, read(&token).await), &(false, 404))
    })
    .await;
    within(BOUND, "and for the administrator", async || expect((visible(root).await, read(root).await), &(false, 404)))
        .await;
}

/// Tokens end with their account, and not with another.
async fn deleted_accounts(stage: &Stage) {
    let ground = &stage.world.ground;
    ground.add_namespace("leavers").await.unwrap();
    let gone = member(stage, "leavers", "gone", "view").await;
    let stays = member(stage, "leavers", "stays", "view").await;
    let read =
        async |token: &str| stage.present(token, "GET", "/api/v1/projects/leavers/dashboards", None).await.status;
    assert_eq!((read(&gone).await, read(&stays).await), (200, 200));
    ground.remove_account("leavers", "gone").await.unwrap();
    let took = within(TOKEN_BOUND, "the token ends", async || expect(read(&gone).await, &401)).await;
    eprintln!("the token of a deleted account ended after {took:?}");
    assert_eq!(read(&stays).await, 200);
    // Its name belongs to whoever makes it anew; the old token does not come back.
    let anew = ground.account_token("leavers", "gone", &[]).await.unwrap();
    assert_eq!((read(&anew).await, read(&gone).await), (200, 401));
}

/// A token for a private audience is nobody's until that audience is configured, and never another's.
async fn audiences(stage: &Stage) {
    let ground = &stage.world.ground;
    ground.add_namespace("letters").await.unwrap();
    member(stage, "letters", "bot", "view").await;
    let ours = ground.account_token("letters", "bot", &["perses"]).await.unwrap();
    let both = ground.account_token("letters", "bot", &["vault", "perses"]).await.unwrap();
    let vault = ground.account_token("letters", "bot", &["vault"]).await.unwrap();
    let read =
        async |token: &str| stage.present(token, "GET", "/api/v1/projects/letters/dashboards", None).await.status;
    let state = async || {
        let plain = ground.account_token("letters", "bot", &[]).await.unwrap();
        (read(&ours).await, read(&both).await, read(&vault).await, read(&plain).await, read(ground.token("ada")).await)
    };
    assert_eq!(state().await, (401, 401, 401, 200, 404));
    let file = &stage.world.config_file;
    let before = fs::read_to_string(file).unwrap();
    fs::write(file, before.replace("\naccess:\n", "\naccess:\n  audiences: [\"perses\"]\n")).unwrap();
    let bound = Duration::from_secs(6);
    within(bound, "our audience", async || expect(state().await, &(200, 200, 401, 200, 404))).await;
    // Such a token is no good at the API server itself, and its rights are found all the same.
    let whoami = stage.present(&ours, "GET", WHOAMI, None).await.json();
    assert_eq!(whoami["metrics"]["namespaces"], json!(["letters"]), "{whoami}");
    assert_eq!(stage.query(&ours, "up").await.status, 200);
    fs::write(file, before).unwrap();
    within(bound, "no audience again", async || expect(state().await, &(401, 401, 401, 200, 404))).await;
}
