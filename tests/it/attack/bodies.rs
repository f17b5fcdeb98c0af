//! Bodies that two readers read differently, and things that nobody may store or ask.

use super::{Row, all_refused, row, with_body};
use crate::support::gate;

const JSON: &str = "content-type: application/json\n";
const FORM: &str = "content-type: application/x-www-form-urlencoded\n";
const QUERY: &str = "/proxy/globaldatasources/p/api/v1/query";

/// A document with such metadata.
fn about(metadata: &str) -> String {
    format!(r#"{{"metadata":{{{metadata}}},"spec":{{}}}}"#)
}

/// What the UI tells of a view.
fn view(project: &str, dashboard: &str, errors: i32) -> String {
    format!(r#"{{"project":"{project}","dashboard":"{dashboard}","render_time":1,"render_errors":{errors}}}"#)
}

/// A dashboard's spec with a panel of this plugin.
fn panel(plugin: &str) -> String {
    format!(r#"{{"panels":{{"a":{{"kind":"Panel","spec":{{"plugin":{plugin}}}}}}}}}"#)
}

fn post(name: &'static str, path: &str, headers: &str, body: &str, refused: &'static [u16]) -> Row {
    row(name, with_body(&format!("POST {path}"), headers, body), refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_say_two_things() {
    let gate = gate("").await;
    let root = "/api/v1/dashboards";
    let own = "/api/v1/projects/team-a/dashboards";
    let json = |name, body: &str, refused| post(name, root, JSON, body, refused);
    let deep = "[".repeat(5000) + &"]".repeat(5000);
    let deep = about(r#""name":"d","project":"team-a""#).replace("{}", &deep);
    let chunked = format!(
        "GET /api/v1/dashboards HTTP/1.1\n{}{JSON}transfer-encoding: chunked\n\n14\n{{\"Project\":\"team-c\"}}\n0\n\n",
        super::ADA
    );
    let good = about(r#""name":"d","project":"team-a""#);
    let good = good.as_str();
    all_refused(
        &gate,
        &[
            json("a key twice", &about(r#""name":"d","project":"team-a","project":"team-c""#), &[400]),
            json("a key in two cases", &about(r#""name":"d","project":"team-a","Project":"team-c""#), &[400]),
            json("a key in another case", &about(r#""name":"d","PROJECT":"team-a""#), &[400]),
            json("metadata twice", &good.replacen('{', r#"{"metadata":{"project":"team-c"},"#, 1), &[400]),
            json("metadata in two cases", &good.replacen('{', r#"{"Metadata":{"project":"team-c"},"#, 1), &[400]),
            json("a long s", "{\"metadata\":{\"name\":\"d\",\"project\":\"team-a\"},\"\u{17f}pec\":{}}", &[400]),
            json(
                "a Kelvin sign",
                "{\"\u{212a}ind\":\"Secret\",\"metadata\":{\"name\":\"d\",\"project\":\"team-a\"},\"spec\":{}}",
                &[400],
            ),
            json("an escaped long s", r#"{"metadata":{"name":"d","project":"team-a"},"\u017fpec":{}}"#, &[400]),
            json("an escaped key twice", &about(r#""name":"d","project":"team-a","\u0070roject":"team-c""#), &[400]),
            json("a second document", &format!(r#"{good}{{"metadata":{{"project":"team-c"}}}}"#), &[400]),
            json("something behind", r#"{"metadata":{"name":"d","project":"team-a"},"spec":{}} x"#, &[400]),
            json("a byte order mark", &format!("\u{feff}{good}"), &[400]),
            json("bytes that are no text", &about(r#""name":"dÿ","project":"team-a""#), &[400]),
            json(
                "half a surrogate pair",
                r#"{"metadata":{"name":"d","project":"team-a"},"spec":{"x":"\ud800"}}"#,
                &[400],
            ),
            json("NUL in a name", &about(r#""name":"d\u0000","project":"team-a""#), &[400]),
            json("a comment", &about(r#""name":"d",/*"project":"x",*/"project":"team-a""#), &[400]),
            json("a trailing comma", &about(r#""name":"d","project":"team-a","#), &[400]),
            json("NaN", r#"{"metadata":{"name":"d","project":"team-a"},"spec":{"x":NaN}}"#, &[400]),
            json("a number beyond all", r#"{"metadata":{"name":"d","project":"team-a"},"spec":{"x":1e999}}"#, &[400]),
            json("too deep", &deep, &[400]),
            json("no project", &about(r#""name":"d""#), &[400]),
            json("an empty project", &about(r#""name":"d","project":"""#), &[400]),
            json("a climbing project", &about(r#""name":"d","project":"../team-c""#), &[400]),
            json("a climbing name", &about(r#""name":"../../team-c/x","project":"team-a""#), &[400]),
            json("a project that is no text", &about(r#""name":"d","project":["team-a"]"#), &[400]),
            json("a foreign project", &about(r#""name":"d","project":"team-c""#), &[404]),
            json("a foreign project in another case", &about(r#""name":"d","project":"TEAM-C""#), &[404]),
            json("a viewed project", &about(r#""name":"d","project":"Team-B""#), &[403]),
            json("another kind", r#"{"kind":"Secret","metadata":{"name":"d","project":"team-a"},"spec":{}}"#, &[400]),
            json("a list", "[]", &[400]),
            json("nothing", "", &[400]),
            json("null", "null", &[400]),
            post("the path's project and another", own, JSON, &about(r#""name":"d","project":"team-c""#), &[400]),
            row(
                "the path's name and another",
                with_body("PUT /api/v1/projects/team-a/dashboards/d", JSON, &about(r#""name":"e""#)),
                &[400],
            ),
            post("XML that says JSON", own, "content-type: application/xml; a=application/json\n", good, &[415]),
            post("XML", own, "content-type: application/xml\n", "<Dashboard/>", &[415]),
            post("a form", own, FORM, "metadata.project=team-c", &[415]),
            post(
                "a form of parts",
                own,
                "content-type: multipart/form-data; boundary=application/json\n",
                good,
                &[415],
            ),
            post("text", own, "content-type: text/plain\n", good, &[415]),
            post("no type", own, "", good, &[415]),
            post("two types in one", own, "content-type: application/json, application/xml\n", good, &[415]),
            post(
                "two types in two lines",
                own,
                "content-type: application/json\ncontent-type: application/xml\n",
                good,
                &[400],
            ),
            post("another charset", own, "content-type: application/json; charset=utf-16\n", good, &[415]),
            post("another parameter", own, "content-type: application/json; charset=utf-8; x=1\n", good, &[415]),
            post("a suffix", own, "content-type: application/vnd.x+json\n", good, &[415]),
            post("compressed", own, "content-type: application/json\ncontent-encoding: gzip\n", good, &[415]),
            post("identity twice", own, "content-type: application/json\ncontent-encoding: identity\n", good, &[415]),
            row("a body on a list", with_body("GET /api/v1/dashboards", JSON, r#"{"Project":"team-c"}"#), &[400]),
            row(
                "a body on one project's list",
                with_body("GET /api/v1/projects/team-a/dashboards", JSON, r#"{"Project":""}"#),
                &[400],
            ),
            row(
                "an XML body on a list",
                with_body("GET /api/v1/dashboards", "content-type: application/xml\n", "<a/>"),
                &[400],
            ),
            row("a chunked body on a list", chunked, &[400]),
            row(
                "a body on a deletion",
                with_body("DELETE /api/v1/projects/team-a/dashboards/d", JSON, r#"{"project":"team-c"}"#),
                &[400],
            ),
            post(
                "a project for a namespace that is not there",
                "/api/v1/projects",
                JSON,
                &about(r#""name":"not-yet""#),
                &[403, 404],
            ),
            post("a foreign project created", "/api/v1/projects", JSON, &about(r#""name":"team-c""#), &[403, 404]),
            post("a global datasource", "/api/v1/globaldatasources", JSON, &about(r#""name":"g""#), &[403]),
            post("a user", "/api/v1/users", JSON, &about(r#""name":"evil""#), &[403]),
            post("a view of a foreign project", "/api/v1/view", JSON, &view("team-c", "d", 0), &[404]),
            post("a view with negative errors", "/api/v1/view", JSON, &view("team-a", "d", -1), &[400]),
            post("a view of labels without end", "/api/v1/view", JSON, &view("team-a", "a/b", 0), &[400]),
            post(
                "a validation for a foreign project",
                "/api/validate/dashboards",
                JSON,
                &about(r#""name":"d","project":"team-c""#),
                &[404],
            ),
        ],
    )
    .await;
}

/// A migration costs Perses much: its size is bounded as any other's, and so is their number.
#[tokio::test(flavor = "multi_thread")]
async fn migrations_without_end() {
    let gate = gate("").await;
    let head = |line: &str, framing: &str| format!("{line} HTTP/1.1\n{}{JSON}{framing}\n", super::ADA);
    let chunk = format!("100000\n{}\n", " ".repeat(0x10_0000));
    let rows = ["/api/migrate", "/api/validate/dashboards", "/api/validate/variables"].map(|path| {
        let line = format!("POST {path}");
        [
            row("a length without end", head(&line, "content-length: 10000000000\n"), &[413]),
            row("chunks without end", head(&line, "transfer-encoding: chunked\n") + &chunk.repeat(5), &[0, 413]),
            post("no JSON", path, JSON, "{", &[400]),
            post("too deep", path, JSON, &"[".repeat(100_000), &[400]),
        ]
    });
    all_refused(&gate, rows.as_flattened()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_act_for_somebody_else() {
    let gate = gate("").await;
    let spec = |path: &'static str, name, spec: &str, refused| {
        post(name, path, JSON, &format!(r#"{{"metadata":{{"name":"d"}},"spec":{spec}}}"#), refused)
    };
    let proxy = |inner: &str| format!(r#"{{"plugin":{{"kind":"PrometheusDatasource","spec":{inner}}}}}"#);
    let url = |url: &str| proxy(&format!(r#"{{"proxy":{{"kind":"HTTPProxy","spec":{{"url":"{url}"}}}}}}"#));
    let data = |name, text: String| spec("/api/v1/projects/team-a/datasources", name, &text, &[403]);
    let dash = |name, text: &str| spec("/api/v1/projects/team-a/dashboards", name, text, &[403]);
    let secret = |name, text: &str| spec("/api/v1/projects/team-a/secrets", name, text, &[403]);
    let http = r#"{"kind":"HTTPProxy","spec":{"url":"http://x"}}"#;
    let lower = r#"{"kind":"httpproxy","spec":{"url":"http://x"}}"#;
    let mut rows = vec![
        data(
            "another kind",
            r#"{"plugin":{"kind":"LokiDatasource","spec":{"proxy":{"kind":"HTTPProxy","spec":{"url":"http://x"}}}}}"#
                .into(),
        ),
        data(
            "a database",
            r#"{"plugin":{"kind":"SQLDatasource","spec":{"proxy":{"kind":"SQLProxy","spec":{}}}}}"#.into(),
        ),
        data("two proxies", proxy(&format!(r#"{{"a":{http},"proxy":{http}}}"#))),
        data("a proxy in another case", proxy(r#"{"proxy":{"kind":"httpPROXY","spec":{"url":"http://x"}}}"#)),
        data("a hidden proxy", proxy(&format!(r#"{{"x":[{lower}],"proxy":{http}}}"#))),
        data("no proxy", proxy(r#"{"directUrl":"http://x"}"#)),
        data(
            "a proxy and a direct address",
            proxy(r#"{"directUrl":"http://x","proxy":{"kind":"HTTPProxy","spec":{"url":"http://x"}}}"#),
        ),
    ];
    for (name, target) in [
        ("the metadata service", "http://169.254.169.254/"),
        ("the loopback", "http://127.0.0.1:8080"),
        ("localhost", "http://localhost:8080"),
        ("the loopback of IPv6", "http://[::1]:8080"),
        ("the loopback within IPv6", "http://[::ffff:127.0.0.1]:8080"),
        ("the loopback as a number", "http://2130706433:8080"),
        ("any address", "http://0.0.0.0:8080"),
        ("credentials in an address", "http://u:p@prometheus:9090"),
        ("a file", "file:///etc/passwd"),
        ("no host", "http://"),
        ("an API server", "https://kubernetes.default.svc"),
    ] {
        rows.push(data(name, url(target)));
    }
    rows.extend([
        dash(
            "a local datasource that is no backend",
            &format!(r#"{{"datasources":{{"p":{}}},"panels":{{}}}}"#, url("http://127.0.0.1:1")),
        ),
        dash(
            "a local datasource of another kind",
            r#"{"datasources":{"p":{"plugin":{"kind":"TempoDatasource","spec":{}}}},"panels":{}}"#,
        ),
        dash(
            "a webhook",
            &panel(r#"{"kind":"Table","spec":{"actions":[{"type":"webhook","url":"/api/v1/projects/team-b"}]}}"#),
        ),
        dash("a direct address", &panel(r#"{"kind":"X","spec":{"directUrl":"http://x"}}"#)),
        dash("a script as a link", r#"{"links":[{"url":"javascript:alert(1)"}],"panels":{}}"#),
        dash("a script with a tab", r#"{"links":[{"url":"java\tscript:alert(1)"}],"panels":{}}"#),
        dash("a script in other letters", r#"{"links":[{"url":" JaVaScRiPt:alert(1)"}],"panels":{}}"#),
        dash("a document as a link", r#"{"links":[{"url":"data:text/html,<script>"}],"panels":{}}"#),
        dash("a script in Markdown", &panel(r#"{"kind":"Markdown","spec":{"text":"[x](javascript:alert(1))"}}"#)),
        secret("a password's file", r#"{"basicAuth":{"username":"u","passwordFile":"/etc/passwd"}}"#),
        secret("a credential's file", r#"{"authorization":{"credentialsFile":"/var/run/secrets/token"}}"#),
        secret("a client secret's file", r#"{"oauth":{"clientSecretFile":"/etc/passwd"}}"#),
        secret("a key's file", r#"{"tlsConfig":{"keyFile":"/etc/passwd"}}"#),
        secret("an authority's file in another case", r#"{"tlsConfig":{"CAFILE":"/etc/passwd"}}"#),
        secret("a file with a long s", "{\"basicAuth\":{\"pa\u{17f}swordFile\":\"/etc/passwd\"}}"),
        secret("a token's server", r#"{"oauth":{"tokenURL":"http://evil"}}"#),
    ]);
    all_refused(&gate, &rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_say_two_things() {
    let gate = gate("").await;
    let form = |name, body: &str, refused| post(name, QUERY, FORM, body, refused);
    let series = "/proxy/globaldatasources/p/api/v1/series";
    let parts = "--x\r\ncontent-disposition: form-data; name=\"match[]\"\r\n\r\n{namespace=\"team-c\"}\r\n--x--\r\n";
    all_refused(
        &gate,
        &[
            form("a query twice", "query=up&query=down", &[400]),
            form("a query twice, one empty", "query=&query=down", &[400]),
            form("a query twice, one escaped", "query=up&%71uery=down", &[400]),
            post("a query in the address and the body", &format!("{QUERY}?query=down"), FORM, "query=up", &[400]),
            post("a time in the address and the body", &format!("{QUERY}?time=1"), FORM, "query=up&time=2", &[400]),
            post(
                "a namespace in the address, another in the body",
                &format!("{QUERY}?namespace=team-a"),
                FORM,
                "query=up&namespace=team-c",
                &[400],
            ),
            form("a namespace", "query=up&namespace=team-c", &[400]),
            form("a name in another case", "Query=up", &[400]),
            form("a semicolon", "query=up;query=down", &[400]),
            form("a semicolon in a name", "query=up&a;query=down", &[400]),
            form("a broken escape", "query=%zz", &[400]),
            form("half an escape", "query=up%4", &[400]),
            form("NUL", "query=up%00", &[400]),
            form("bytes that are no text", "query=%ff", &[400]),
            form("raw bytes that are no text", "query=ÿ", &[400]),
            form("a parameter without a name", "query=up&=x", &[400]),
            form("parameters without end", &format!("query=up{}", "&match[]=a".repeat(300)), &[400]),
            form("replica labels", "query=up&replicaLabels[]=namespace", &[400]),
            form("a store", "query=up&storeMatch[]={a=\"b\"}", &[400]),
            form("an engine", "query=up&engine=thanos", &[400]),
            form("an analysis", "query=up&analyze=true", &[400]),
            form("no query", "time=1", &[400]),
            form("an empty query", "query=", &[400]),
            form("a query that is none", "query=up(", &[400]),
            post(
                "a form of parts",
                QUERY,
                "content-type: multipart/form-data; boundary=x\n",
                "--x\r\ncontent-disposition: form-data; name=\"query\"\r\n\r\nup\r\n--x--\r\n",
                &[415],
            ),
            post("JSON", QUERY, JSON, r#"{"query":"up"}"#, &[415]),
            post(
                "another charset",
                QUERY,
                "content-type: application/x-www-form-urlencoded; charset=utf-7\n",
                "query=up",
                &[415],
            ),
            post(
                "two types in one",
                QUERY,
                "content-type: application/x-www-form-urlencoded, multipart/form-data; boundary=x\n",
                "query=up",
                &[415],
            ),
            post(
                "two types in two lines",
                QUERY,
                &format!("{FORM}content-type: multipart/form-data; boundary=x\n"),
                "query=up",
                &[400],
            ),
            post("no type", QUERY, "", "query=up", &[415]),
            post("compressed", QUERY, &format!("{FORM}content-encoding: gzip\n"), "query=up", &[415]),
            row("a body on GET", with_body(&format!("GET {QUERY}?query=up"), FORM, "query=down"), &[400]),
            row(
                "parts on GET of labels",
                with_body(
                    "GET /proxy/globaldatasources/p/api/v1/labels",
                    "content-type: multipart/form-data; boundary=x\n",
                    parts,
                ),
                &[400],
            ),
            row(
                "parts on GET of values",
                with_body(
                    "GET /proxy/globaldatasources/p/api/v1/label/a/values",
                    "content-type: multipart/form-data; boundary=x\n",
                    parts,
                ),
                &[400],
            ),
            post("series without a selector", series, FORM, "start=1", &[400]),
            post("series with a selector that is none", series, FORM, "match[]=up&match[]=1%2B1", &[400]),
            post("a body for metadata", "/proxy/globaldatasources/p/api/v1/metadata", FORM, "metric=up", &[405]),
            post(
                "a range without end",
                "/proxy/globaldatasources/p/api/v1/query_range",
                FORM,
                "query=up&start=0&end=1000000000&step=1",
                &[422],
            ),
            post("a body that is too large", QUERY, FORM, &format!("query={}", "a".repeat(300 << 10)), &[413]),
        ],
    )
    .await;
    // Foreign series can be named, and are confined away; nothing else of the text is believed.
    let ada = gate.token("ada");
    for query in [
        "secret{namespace=\"team-c\"}",
        "quantile(scalar(sum(secret{namespace=\"team-c\"})), up)",
        "topk(scalar(secret{namespace=\"team-c\"}), up)",
        "{namespace=~\".*\"}",
        "{namespace!=\"\"} or {namespace=\"\",__name__=\"x\"}",
        "label_replace(x, \"namespace\", \"team-c\", \"\", \"\")",
        "x{\"namespace\"=\"team-c\"}",
        "sum_over_time(x[5m:1m] offset 5m) and on() absent(y{namespace=~\"team-c|team-a\"})",
    ] {
        let answer = gate.query(&ada, query).await;
        assert!(answer.status == 200 || answer.status == 400, "{query}: {}", answer.text());
        for seen in gate.upstream.take().iter().filter(|seen| seen.line.contains("/query")) {
            let opened = seen.body.matches("%7B").count();
            let own = seen.body.matches("namespace%3D~%22team-a%7Cteam-b%22").count();
            // A selector that names only foreign namespaces matches nothing at all.
            let none = seen.body.matches("namespace%3D%22%22%2Cnamespace%21%3D%22%22").count();
            let narrowed = seen.body.matches("namespace%3D%22team-a%22").count();
            let confined = own + none + narrowed;
            assert!(opened > 0 && confined == opened, "{query}: {}", seen.body);
        }
    }
}
