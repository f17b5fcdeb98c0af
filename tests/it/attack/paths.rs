//! Paths, queries and methods that could mean two things, or something that nobody may ask.

use super::{ADA, Row, all_refused, all_well, row};
use crate::support::{More, gate, gate_with, speak, wire};

fn ask(name: &'static str, line: &str, refused: &'static [u16]) -> Row {
    row(name, format!("{line} HTTP/1.1\n{ADA}\n"), refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_climb_swallow_or_hide() {
    let gate = gate("").await;
    all_refused(
        &gate,
        &[
            // The name behind a project swallows slashes upstream.
            ask("climb to another project", "DELETE /api/v1/projects/team-a/dashboards/../team-b/d", &[400]),
            ask("climb to another kind", "DELETE /api/v1/projects/team-a/dashboards/../../secrets/team-a/s", &[400]),
            ask("swallowed slash", "DELETE /api/v1/projects/team-a/dashboards/x/y", &[404]),
            ask("escaped slash in a name", "DELETE /api/v1/projects/team-a/dashboards/..%2Fteam-b%2Fd", &[400]),
            ask("escaped dots in a name", "DELETE /api/v1/projects/team-a/dashboards/%2e%2e/team-b/d", &[400]),
            ask("climb by PUT", "PUT /api/v1/projects/team-a/dashboards/../team-b/d", &[400]),
            ask("climb by GET", "GET /api/v1/projects/team-a/dashboards/../../team-b/dashboards/d", &[400]),
            ask("all projects by two dots", "DELETE /api/v1/projects/..", &[400]),
            ask("all projects by one dot", "DELETE /api/v1/projects/.", &[400]),
            ask("all projects by escaped dots", "DELETE /api/v1/projects/%2e%2e", &[400]),
            ask("all projects by half escaped dots", "DELETE /api/v1/projects/.%2E", &[400]),
            ask("all projects by no name", "DELETE /api/v1/projects/", &[405]),
            ask("a name of three dots", "DELETE /api/v1/projects/...", &[400]),
            ask("a name that begins with a dot", "DELETE /api/v1/projects/.team-a", &[400]),
            // Which project is meant?
            ask("empty project in the query", "GET /api/v1/projects/team-a/dashboards?project=", &[400]),
            ask("another project in the query", "GET /api/v1/projects/team-a/dashboards?project=team-c", &[400]),
            ask("Project in the query", "GET /api/v1/projects/team-a/dashboards?Project=team-c", &[400]),
            ask("PROJECT, empty", "GET /api/v1/projects/team-a/dashboards?PROJECT=", &[400]),
            ask("escaped name in the query", "GET /api/v1/projects/team-a/dashboards?%70roject=team-c", &[400]),
            ask("two projects", "GET /api/v1/projects/team-a/dashboards?project=team-a&project=team-c", &[400]),
            ask("semicolon before a project", "GET /api/v1/projects/team-a/dashboards?x=1;project=team-c", &[400]),
            ask("semicolon alone", "GET /api/v1/projects/team-a/dashboards?;project=team-c", &[400]),
            ask("a project beside a single object", "GET /api/v1/projects/team-a/dashboards/d?project=team-c", &[400]),
            ask("a project beside a change", "DELETE /api/v1/projects/team-a/dashboards/d?project=team-c", &[400]),
            ask("a climbing project in the query", "GET /api/v1/dashboards?project=../secrets/team-a", &[400]),
            ask("a foreign project in the query", "GET /api/v1/dashboards?project=team-c", &[404]),
            ask("a folded foreign project", "GET /api/v1/dashboards?project=TEAM-C", &[404]),
            ask("a prefix that climbs", "GET /api/v1/dashboards?name=../", &[400]),
            ask("an unknown parameter", "GET /api/v1/dashboards?x=1", &[400]),
            ask("NUL in the query", "GET /api/v1/dashboards?name=a%00", &[400]),
            ask("broken escape in the query", "GET /api/v1/dashboards?name=%zz", &[400]),
            ask("bytes that are no text", "GET /api/v1/dashboards?name=%ff", &[400]),
            // Empty segments.
            ask("empty project", "GET /api/v1/projects//dashboards", &[400]),
            ask("empty project in a proxy path", "GET /proxy/projects//datasources/p/api/v1/query?query=up", &[400]),
            ask("empty datasource", "GET /proxy/globaldatasources//api/v1/query?query=up", &[400]),
            ask("two slashes first", "GET //api/v1/projects", &[400]),
            ask("two slashes last", "GET /api/v1/projects//", &[400]),
            ask("three slashes last", "DELETE /api/v1/projects/team-a///", &[400]),
            // Case.
            ask("a foreign project in another case", "GET /api/v1/projects/Team-C/dashboards", &[404]),
            ask("a viewed project in another case", "DELETE /api/v1/projects/TEAM-B/dashboards/d", &[403]),
            ask("another case of the API", "GET /API/v1/projects", &[404]),
            ask("another case of a kind", "GET /api/v1/Dashboards", &[404]),
            ask("another case of projects", "GET /api/v1/PROJECTS/team-a/dashboards", &[404]),
            ask("a letter that folds to k", "GET /api/v1/projects/team-%E2%84%AA/dashboards", &[400]),
            ask("raw bytes beyond ASCII", "GET /api/v1/projects/teamÿ/dashboards", &[400]),
            // Hidden characters.
            ask("an escaped letter", "GET /api/v1/%70rojects/team-c/dashboards", &[400]),
            ask("a matrix parameter", "GET /api/v1/projects/team-a;x=1/dashboards", &[400]),
            ask("a backslash", "GET /api/v1/projects/team-a\\..\\team-c/dashboards", &[400]),
            ask("an escaped backslash", "GET /api/v1/projects/team-a%5c..%5cteam-c/dashboards", &[400]),
            ask("an escaped NUL", "GET /api/v1/projects/team-a%00/dashboards", &[400]),
            ask("an escaped line break", "GET /api/v1/projects/team-a%0d%0aX:%20y/dashboards", &[400]),
            ask("an escaped fragment", "GET /api/v1/projects/team-c%23/dashboards", &[400]),
            ask("a fragment is not read", "GET /api/v1/projects/team-c#/../team-a", &[404]),
            ask("an escaped question mark", "GET /api/v1/projects/team-a%3Fproject=team-c/dashboards", &[400]),
            ask("escaped twice", "GET /api/v1/projects/%252e%252e/dashboards", &[400]),
            ask("a path without end", &format!("GET /{}", "a/".repeat(700)), &[400]),
            ask("a name without end", &format!("GET /api/v1/projects/{}/dashboards", "a".repeat(76)), &[400]),
            // Static files.
            ask("plugins climb", "GET /plugins/X/../../../etc/passwd", &[400]),
            ask("plugins climb, escaped", "GET /plugins/X/%2e%2e/%2e%2e/etc/passwd", &[400]),
            ask("plugins climb, escaped slash", "GET /plugins/X/..%2f..%2fetc%2fpasswd", &[400]),
            ask("plugins, changed", "POST /plugins/X/mf-manifest.json", &[405]),
            ask("assets climb into the API", "GET /assets/../api/v1/projects", &[400]),
            // What is closed for everybody.
            ask("Perses' users", "GET /api/v1/users", &[403]),
            ask("another user", "GET /api/v1/users/root", &[403]),
            ask("another user's rights", "GET /api/v1/users/root/permissions", &[403]),
            ask("Perses' login", "POST /api/auth/providers/native/login", &[403]),
            ask("Perses' refresh", "POST /api/auth/refresh", &[403]),
            ask("plugin development", "POST /api/v1/plugins/dev", &[403]),
            ask("plugin refresh", "POST /api/v1/plugins/dev/refresh", &[403]),
            ask("Perses' roles", "GET /api/v1/projects/team-a/roles", &[404]),
            ask("Perses' global roles", "POST /api/v1/globalroles", &[404]),
            ask("Perses' own metrics", "GET /metrics", &[403]),
            ask("profiles", "GET /debug/pprof/heap", &[404]),
            ask("a search that may come", "GET /api/v1/search/dashboards?q=x", &[404]),
            ask("an API that may come", "GET /api/v2/projects", &[404]),
            ask("ours that is none", "GET /-/auth", &[404]),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_forms_of_target() {
    let gate = gate("").await;
    let query = "/proxy/globaldatasources/p/api/v1/query?query=up";
    let of = |method: &str| format!("{method} {query}");
    all_refused(
        &gate,
        &[
            ask("PATCH a question", &of("PATCH"), &[405]),
            ask("PUT a question", &of("PUT"), &[405]),
            ask("DELETE a question", &of("DELETE"), &[405]),
            ask("PROPFIND a question", &of("PROPFIND"), &[405]),
            ask("TRACE a question", &of("TRACE"), &[405]),
            ask("OPTIONS of a question", &of("OPTIONS"), &[405]),
            ask("CONNECT with a path", &of("CONNECT"), &[400, 405]),
            ask("CONNECT", "CONNECT 127.0.0.1:80", &[400, 405]),
            ask("a method in lower case", &of("get"), &[400, 405]),
            ask("a method that begins like one", &of("GETX"), &[405]),
            ask("PATCH an object", "PATCH /api/v1/projects/team-a/dashboards/d", &[405]),
            ask("TRACE anything", "TRACE /", &[405]),
            ask("HEAD a list", "HEAD /api/v1/projects/team-a/dashboards", &[405]),
            ask("absolute form", "GET http://x/api/v1/projects", &[400]),
            ask("absolute form of somebody else", "GET http://169.254.169.254/latest/meta-data", &[400]),
            ask("absolute form of an open route", "GET http://other/api/config", &[400]),
            ask("authority form", "GET x:80", &[400]),
            ask("asterisk", "OPTIONS *", &[400, 405]),
            ask("asterisk for all", "GET *", &[400]),
            ask("no slash", "GET api/v1/projects", &[400]),
            ask("a query alone", "GET ?project=x", &[400]),
        ],
    )
    .await;
    // HEAD is GET without a body: confined all the same.
    let ada = gate.token("ada");
    let heard = speak(&gate.address, &wire(&format!("HEAD {query} HTTP/1.1\n{ADA}\n").replace("TOKEN", &ada))).await;
    assert_eq!(heard.codes(), [200]);
    let seen = gate.upstream.take();
    assert!(seen.iter().all(|seen| seen.body.contains("namespace")) && !seen.is_empty(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_leave_their_endpoint() {
    let gate = gate("").await;
    let tail = |name, tail: &str, refused| ask(name, &format!("GET /proxy/globaldatasources/p/{tail}"), refused);
    all_refused(
        &gate,
        &[
            tail("climb to administration", "api/v1/query/../admin/tsdb/delete_series?query=up", &[400]),
            tail("climb, escaped", "api/v1/query/%2e%2e/admin/tsdb/snapshot", &[400]),
            tail("climb, escaped slash", "api/v1/query%2F..%2Fadmin", &[400]),
            tail("climb out of a label", "api/v1/label/%2e%2e/query?query=secret", &[400, 404]),
            tail("climb in a label", "api/v1/label/../query?query=secret", &[400]),
            tail("a slash in a label", "api/v1/label/a%2Fb/../values", &[400]),
            tail("a NUL in a label", "api/v1/label/a%00/values", &[400]),
            tail("no label", "api/v1/label//values", &[400]),
            tail("two slashes", "/api/v1/query?query=up", &[400]),
            tail("another case", "API/V1/query?query=up", &[404]),
            tail("something behind", "api/v1/query/x?query=up", &[404]),
            tail("administration", "api/v1/admin/tsdb/delete_series?match[]=up", &[403]),
            tail("all series", "federate?match[]=up", &[403]),
            tail("files of rules", "api/v1/rules?file[]=/etc/passwd", &[400]),
            tail("rules of a group", "api/v1/rules/x", &[404]),
            tail("alert managers", "api/v1/alertmanagers", &[403]),
            tail("targets", "api/v1/targets", &[403]),
            tail("exemplars of nothing", "api/v1/query_exemplars", &[400]),
            tail("the configuration", "api/v1/status/config", &[403]),
            tail("the head of the database", "api/v1/status/tsdb", &[403]),
            tail("stores", "api/v1/stores", &[403]),
            tail("remote read", "api/v1/read", &[403]),
            tail("remote write", "api/v1/write", &[403]),
            tail("its own metrics", "metrics", &[403]),
            tail("profiles", "debug/pprof/heap", &[403]),
            tail("stop it", "-/quit", &[403]),
            tail("what comes later", "api/v1/novelty", &[404]),
            tail("nothing", "", &[404]),
            ask("a foreign project", "GET /proxy/projects/team-c/datasources/p/api/v1/query?query=up", &[404]),
            ask(
                "a foreign dashboard",
                "GET /proxy/projects/team-c/dashboards/d/datasources/p/api/v1/query?query=up",
                &[404],
            ),
            ask(
                "a datasource that climbs",
                "GET /proxy/projects/team-a/datasources/../../team-c/datasources/p/api/v1/query?query=up",
                &[400],
            ),
            ask(
                "a dashboard's datasource with a slash",
                "GET /proxy/projects/team-a/dashboards/d/datasources/a%2Fb/api/v1/query?query=up",
                &[400],
            ),
            ask("unsaved, global", "POST /proxy/unsaved/globaldatasources/api/v1/query", &[403]),
            ask("unsaved, project", "POST /proxy/unsaved/projects/team-a/datasources/api/v1/query", &[403]),
            ask(
                "unsaved, dashboard",
                "POST /proxy/unsaved/projects/team-a/dashboards/d/datasources/api/v1/query",
                &[403],
            ),
            ask("unsaved, by GET", "GET /proxy/unsaved/globaldatasources/x", &[403]),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_opens_nothing() {
    let gate = gate_with(More { perses: "  api_prefix: /p\n", ..More::default() }).await;
    let ada = gate.token("ada");
    for (line, codes) in [
        ("POST /p/proxy/unsaved/globaldatasources/api/v1/query", [403, 403]),
        ("POST /p/proxy/unsaved/projects/team-a/datasources/api/v1/query", [403, 403]),
        ("POST /p/proxy/unsaved/projects/team-a/dashboards/d/datasources/api/v1/query", [403, 403]),
        ("POST /proxy/unsaved/globaldatasources/api/v1/query", [404, 404]),
        ("GET /api/v1/projects", [404, 404]),
        ("GET /p/../api/v1/projects", [400, 400]),
        ("GET /p//api/v1/projects", [400, 400]),
        ("GET /px/api/v1/projects", [404, 404]),
        ("GET /P/api/v1/projects", [404, 404]),
        ("GET /p/p/api/v1/projects", [200, 404]),
        ("GET /p/metrics/../api/v1/projects", [400, 400]),
    ] {
        let request = wire(&format!("{line} HTTP/1.1\n{ADA}\n").replace("TOKEN", &ada));
        let heard = speak(&gate.address, &request).await;
        assert!(heard.codes().len() == 1 && codes.contains(&heard.codes()[0]), "{line}: {:?}", heard.codes());
        let seen = gate.upstream.lines();
        assert!(seen.iter().all(|line| line == "GET /p/p/api/v1/projects"), "{line}: {seen:?}");
    }
    gate.upstream.answers("GET /p/api/v1/projects", 200, "[]");
    assert_eq!(gate.get(&ada, "/p/api/v1/projects").await.status, 200);
}

/// Nobody without a credential gets anything but the open routes, whatever else the request says.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_skips_authentication() {
    let gate = gate("").await;
    let bare =
        |name, line: &str, headers: &str, refused| row(name, format!("{line} HTTP/1.1\nhost: x\n{headers}\n"), refused);
    let list = "GET /api/v1/projects";
    let mut rows = vec![
        bare("nothing", list, "", &[401]),
        bare("an open path in the query", "GET /api/v1/projects?y=/api/config", "", &[400]),
        bare("an open path climbs", "GET /api/config/../v1/projects", "", &[400]),
        bare("an open path climbs, escaped", "GET /api/config/%2e%2e/v1/projects", "", &[400]),
        bare("an open path climbs, escaped slash", "GET /-/ready%2f..%2f..%2fapi/v1/projects", "", &[400]),
        bare("two slashes before an open path", "GET //-/ready", "", &[400]),
        bare("an open path with a parameter", "GET /api/v1/health;/../projects", "", &[400]),
        bare("an open path with a fragment", "GET /api/v1/projects%23/api/config", "", &[400]),
        bare("an open path with NUL", "GET /-/ready%00/../x", "", &[400]),
        bare("an open path in another case", "GET /-/READY", "", &[404]),
        bare("an open path changed", "POST /api/config", "", &[405]),
        bare("an open path deleted", "DELETE /api/v1/health", "", &[405]),
        bare("plugins are not open", "GET /plugins/X/mf-manifest.json", "", &[401]),
        bare("plugins' list is not open", "GET /api/v1/plugins", "", &[401]),
        bare("migration is not open", "POST /api/migrate", "", &[401]),
        bare("validation is not open", "POST /api/validate/dashboards", "", &[401]),
        bare("views are not open", "POST /api/v1/view", "", &[401]),
        bare("metrics are not open", "GET /metrics", "", &[401]),
        bare("who am I", "GET /-/whoami", "", &[401]),
        bare("Perses' who am I", "GET /api/v1/user/whoami", "", &[401]),
        bare("a question", "GET /proxy/globaldatasources/p/api/v1/query?query=up", "", &[401]),
        bare("an unknown path", "GET /api/nothing", "", &[404]),
        bare(
            "a preflight",
            "OPTIONS /api/v1/projects",
            "origin: https://evil\naccess-control-request-method: GET\n",
            &[405],
        ),
        bare("OPTIONS", "OPTIONS /api/v1/projects", "", &[405]),
    ];
    for (name, headers) in [
        ("an open path in X-Forwarded-Uri", "x-forwarded-uri: /api/config\n"),
        ("an open path in X-Original-URL", "x-original-url: /-/ready\n"),
        ("an open path in X-Rewrite-URL", "x-rewrite-url: /-/ready\n"),
        ("another method", "x-http-method-override: GET\nx-forwarded-method: GET\n"),
        ("a health checker", "user-agent: GoogleHC/1.0\n"),
        ("a probe", "user-agent: kube-probe/1.33\n"),
        ("no agent", "user-agent:\n"),
        ("an identity of a proxy", "x-remote-user: root\nx-forwarded-user: root\nremote-user: root\n"),
        ("an impersonation", "impersonate-user: root\nimpersonate-group: system:masters\n"),
        ("a client certificate of a proxy", "x-ssl-client-cn: root\nx-forwarded-client-cert: Subject=root\n"),
        ("a cookie", "cookie: session=1; jwtPayload=e30; _oauth_proxy=x\n"),
        ("a proxy's credential", "proxy-authorization: Bearer TOKEN\n"),
        (
            "a token in a websocket protocol",
            "sec-websocket-protocol: base64url.bearer.authorization.k8s.io.dG9rZW4, x\n",
        ),
        ("a local address", "x-forwarded-for: 127.0.0.1\nx-real-ip: 127.0.0.1\nforwarded: for=127.0.0.1\n"),
        ("another host", "x-forwarded-host: localhost\n"),
        ("cors", "sec-fetch-mode: cors\nsec-fetch-dest: empty\naccept: text/html\n"),
        ("an image", "sec-fetch-mode: no-cors\nsec-fetch-dest: image\naccept: text/html\n"),
        ("a websocket's fetch", "sec-fetch-mode: websocket\nsec-fetch-dest: websocket\n"),
        ("a person", "sec-fetch-mode: navigate\nsec-fetch-dest: document\naccept: text/html\n"),
        ("a person in a frame", "sec-fetch-mode: navigate\nsec-fetch-dest: iframe\n"),
        ("an old browser", "accept: text/html,application/xhtml+xml\n"),
        ("a script that takes all", "accept: application/json, text/plain, */*\n"),
        ("JSON before HTML", "accept: application/json,text/html;q=0.9\nx-requested-with: XMLHttpRequest\n"),
    ] {
        rows.push(bare(name, list, headers, &[401]));
    }
    all_refused(&gate, &rows).await;
    // Whether a page or JSON is told follows Sec-Fetch first.
    for (headers, is_page) in [
        ("accept: text/html\nsec-fetch-dest: empty\n", false),
        ("accept: text/html\nsec-fetch-dest: image\n", false),
        ("accept: text/html\nx-requested-with: XMLHttpRequest\n", false),
        ("accept: application/json, text/plain, */*\n", false),
        ("sec-fetch-dest: document\n", true),
        ("sec-fetch-dest: iframe\n", true),
        ("accept: text/html;q=0.9,*/*\n", true),
        ("", false),
    ] {
        let heard = speak(&gate.address, &wire(&format!("{list} HTTP/1.1\nhost: x\n{headers}\n"))).await.text;
        assert_eq!(heard.contains("content-type: text/html"), is_page, "{headers}: {heard}");
        assert!(heard.contains("www-authenticate: Bearer") && heard.contains("cache-control: no-store"), "{heard}");
        assert!(!heard.contains("set-cookie") && !heard.contains("access-control") && !heard.contains("location:"));
    }
    let navigated = "POST /api/v1/projects HTTP/1.1\nhost: x\nsec-fetch-dest: document\ncontent-length: 0\n\n";
    assert!(speak(&gate.address, &wire(navigated)).await.text.contains("content-type: application/json"));
    all_well(&gate, &gate.token("ada")).await;
}
