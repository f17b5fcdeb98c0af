//! Requests as a hostile ada would send them, from a seed: mostly well formed, then bent in one place or several.

/// A small generator of numbers (xorshift64*): the same seed gives the same request on any machine.
pub struct Dice {
    state: u64,
    /// A calm request is bent nowhere, so that some get through.
    calm: bool,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, calm: seed.is_multiple_of(3) }
    }

    pub fn below(&mut self, most: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        usize::try_from(self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % most
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0 && !(self.calm && many > 4)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

const METHODS: [&str; 12] =
    ["GET", "GET", "GET", "GET", "POST", "POST", "POST", "PUT", "PUT", "DELETE", "DELETE", "HEAD"];
const ODD_METHODS: [&str; 6] = ["PATCH", "OPTIONS", "TRACE", "PROPFIND", "get", "QUERY"];
const OWN: [&str; 4] = ["team-a", "team-b", "Team-A", "TEAM-B"];
const FOREIGN: [&str; 15] = [
    "team-c",
    "TEAM-C",
    "shared",
    "",
    "..",
    ".",
    "%2e%2e",
    "team-a/../team-c",
    "team-a%2f..%2fteam-c",
    "team-%63",
    "team-a;team-c",
    "team-a%00",
    "*",
    "perses",
    "team-\u{212a}",
];
const KINDS: [&str; 9] = [
    "dashboards",
    "dashboards",
    "datasources",
    "ephemeraldashboards",
    "folders",
    "secrets",
    "variables",
    "Dashboards",
    "roles",
];
const NAMES: [&str; 4] = ["d", "D", "x.y_z", "p"];
const ODD_NAMES: [&str; 10] = [
    "..",
    "../../team-c/dashboards/d",
    "x/y",
    "a%2Fb",
    "..%2f..",
    "",
    ".",
    "d;x=1",
    "d%00",
    "../../../secrets/team-c/s",
];
const PARAMETERS: [&str; 16] = [
    "project",
    "Project",
    "PROJECT",
    "%70roject",
    "project%00",
    "name",
    "metadata_only",
    "kind",
    "default",
    "query",
    "match[]",
    "time",
    "start",
    "replicaLabels[]",
    "namespace",
    "x",
];
const QUERIES: [&str; 14] = [
    "up",
    "up{namespace=\"team-c\"}",
    "{namespace=~\".*\"}",
    "sum by (namespace) (x)",
    "a or b{namespace=\"shared\"}",
    "quantile(scalar(sum(s{namespace=\"team-c\"})), up)",
    "topk(2, x)",
    "rate(x[5m]) offset 1h",
    "{__name__=~\".+\"}",
    "absent(x{namespace=\"\"})",
    "label_replace(x, \"namespace\", \"team-c\", \"\", \"\")",
    "x{namespace!=\"team-a\"}",
    "max_over_time((a * on (pod) b)[1h:5m])",
    "{\"up\", namespace=\"team-c\"}",
];
const TYPES: [&str; 12] = [
    "application/json",
    "application/json",
    "application/json",
    "application/x-www-form-urlencoded",
    "application/x-www-form-urlencoded",
    "application/xml",
    "application/xml; a=application/json",
    "multipart/form-data; boundary=x",
    "text/plain",
    "application/json; charset=utf-8",
    "Application/JSON",
    "",
];

fn project(dice: &mut Dice) -> &'static str {
    if dice.one_in(5) { dice.pick(&FOREIGN) } else { dice.pick(&OWN) }
}

fn name(dice: &mut Dice) -> &'static str {
    if dice.one_in(10) { dice.pick(&ODD_NAMES) } else { dice.pick(&NAMES) }
}

fn path(dice: &mut Dice) -> String {
    let endpoint = |dice: &mut Dice| {
        dice.pick(&[
            "api/v1/query",
            "api/v1/query",
            "api/v1/query_range",
            "api/v1/series",
            "api/v1/labels",
            "api/v1/label/job/values",
            "api/v1/label/a%2Eb/values",
            "api/v1/metadata",
            "api/v1/parse_query",
            "api/v1/rules",
            "federate",
            "api/v1/query/../admin",
            "api/v1/admin/tsdb/delete_series",
            "-/healthy",
            "api/v1/status/buildinfo",
        ])
    };
    match dice.below(16) {
        0..=3 => format!("/api/v1/projects/{}/{}", project(dice), dice.pick(&KINDS)),
        4..=6 => format!("/api/v1/projects/{}/{}/{}", project(dice), dice.pick(&KINDS), name(dice)),
        7 => format!("/api/v1/{}", dice.pick(&KINDS)),
        8 => format!("/api/v1/projects/{}", project(dice)),
        9 => dice
            .pick(&["/api/v1/projects", "/api/v1/view", "/api/migrate", "/api/validate/dashboards", "/api/config"])
            .to_owned(),
        10 => {
            format!("/api/v1/{}/{}", dice.pick(&["globaldatasources", "globalsecrets", "globalvariables"]), name(dice))
        }
        11 => dice
            .pick(&[
                "/api/v1/globaldatasources",
                "/api/v1/globalsecrets",
                "/api/v1/users",
                "/metrics",
                "/plugins/X/a.js",
                "/plugins/../x",
                "/proxy/unsaved/globaldatasources/x",
                "/api/v1/plugins/dev",
                "/assets/a.js",
                "/api/auth/refresh",
            ])
            .to_owned(),
        12..=13 => format!("/proxy/globaldatasources/{}/{}", dice.pick(&["p", "p", "p", "none", ""]), endpoint(dice)),
        14 => {
            format!("/proxy/projects/{}/datasources/{}/{}", project(dice), dice.pick(&["p", "p", "d"]), endpoint(dice))
        }
        _ => format!("/proxy/projects/{}/dashboards/{}/datasources/p/{}", project(dice), name(dice), endpoint(dice)),
    }
}

fn escape(dice: &mut Dice, text: &str) -> String {
    let all = dice.one_in(8);
    text.bytes()
        .map(|b| match b {
            b'%' | b'[' | b']' if !all => char::from(b).to_string(),
            b if b.is_ascii_alphanumeric() && !all || b"-._~".contains(&b) => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

fn pairs(dice: &mut Dice, most: usize) -> String {
    let count = dice.below(most + 1);
    let mut out = String::new();
    for number in 0..count {
        if number > 0 {
            out.push_str(if dice.one_in(20) { ";" } else { "&" });
        }
        let name = dice.pick(&PARAMETERS);
        let value = match name {
            "query" | "match[]" => dice.pick(&QUERIES),
            "metadata_only" | "default" => "true",
            "time" | "start" => "1700000000",
            "name" => "d",
            _ => project(dice),
        };
        let value = escape(dice, value);
        out.push_str(&format!("{name}={value}"));
    }
    out
}

fn question(dice: &mut Dice, path: &str) -> String {
    let query = dice.pick(&QUERIES);
    let selects = ["series", "labels", "values"].iter().any(|end| path.ends_with(end)) != dice.one_in(20);
    let query =
        if selects && !dice.one_in(8) { dice.pick(&["up", "{namespace=\"team-c\"}", "x{a!=\"b\"}"]) } else { query };
    let mut out = format!("{}={}", if selects { "match[]" } else { "query" }, escape(dice, query));
    if path.ends_with("query_range") != dice.one_in(20) {
        out.push_str("&start=1700000000&end=1700000600&step=60");
    }
    if dice.one_in(6) {
        out.push('&');
        out.push_str(&pairs(dice, 3));
    }
    out
}

fn json(dice: &mut Dice) -> String {
    let key = |dice: &mut Dice, plain: &'static str| {
        if !dice.one_in(30) {
            return plain.to_owned();
        }
        match dice.below(4) {
            0 => plain.to_uppercase(),
            1 => plain.replace('s', "\u{17f}").replace('k', "\u{212a}"),
            2 => format!("\\u00{:02x}{}", plain.as_bytes()[0], &plain[1..]),
            _ => plain[..1].to_uppercase() + &plain[1..],
        }
    };
    let mut metadata = Vec::new();
    for _ in 0..1 + usize::from(dice.one_in(6)) {
        metadata.push(format!("\"{}\":\"{}\"", key(dice, "name"), name(dice).replace('\\', "")));
    }
    for _ in 0..dice.below(2) + usize::from(dice.one_in(6)) {
        metadata.push(format!("\"{}\":\"{}\"", key(dice, "project"), project(dice)));
    }
    let spec = dice.pick(&[
        "{}",
        "{}",
        "{\"panels\":{},\"layouts\":[]}",
        "{\"display\":{\"name\":\"x\"}}",
        "{\"kind\":\"TextVariable\",\"spec\":{}}",
        "{\"basicAuth\":{\"username\":\"u\",\"passwordFile\":\"/etc/passwd\"}}",
        "{\"plugin\":{\"kind\":\"PrometheusDatasource\",\"spec\":\
         {\"proxy\":{\"kind\":\"HTTPProxy\",\"spec\":{\"url\":\"http://127.0.0.1:1\"}}}}}",
    ]);
    let mut parts = vec![
        format!("\"{}\":{{{}}}", key(dice, "metadata"), metadata.join(",")),
        format!("\"{}\":{spec}", key(dice, "spec")),
    ];
    if dice.one_in(6) {
        parts.push(format!("\"{}\":\"{}\"", key(dice, "kind"), dice.pick(&["Dashboard", "Secret", "Folder"])));
    }
    if dice.one_in(6) {
        parts.push(format!(
            "\"{}\":\"{}\",\"dashboard\":\"d\",\"render_time\":1,\"render_errors\":0",
            key(dice, "project"),
            project(dice)
        ));
    }
    if dice.one_in(12) {
        parts.push(format!("\"metadata\":{{\"project\":\"{}\"}}", project(dice)));
    }
    let mut out = format!("{{{}}}", parts.join(","));
    if dice.one_in(12) {
        out.push_str("{\"metadata\":{\"project\":\"team-c\",\"name\":\"d\"}}");
    }
    out
}

/// The bytes of one request.
pub fn request(seed: u64, token: &str) -> Vec<u8> {
    let dice = &mut Dice::new(seed);
    let mut path = path(dice);
    let method = if dice.one_in(10) {
        dice.pick(&ODD_METHODS)
    } else if dice.one_in(8) {
        dice.pick(&METHODS)
    } else {
        // What the path takes.
        match path.matches('/').count() {
            4 | 6 if path.starts_with("/api/") => dice.pick(&["GET", "PUT", "PUT", "DELETE"]),
            _ => dice.pick(&["GET", "POST"]),
        }
    };
    if dice.one_in(6) {
        bend(dice, &mut path);
    }
    let asks = path.starts_with("/proxy/");
    let query = if asks && method != "POST" {
        question(dice, &path)
    } else if dice.one_in(3) {
        pairs(dice, 3)
    } else {
        String::new()
    };
    let target = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
    let target = if dice.one_in(60) { format!("http://x{target}") } else { target };
    let has_body = matches!(method, "POST" | "PUT") || dice.one_in(15);
    let (mut kind, mut body) = ("", String::new());
    if has_body {
        (kind, body) = if asks {
            ("application/x-www-form-urlencoded", question(dice, &path))
        } else {
            ("application/json", json(dice))
        };
        if dice.one_in(6) {
            kind = dice.pick(&TYPES);
        }
        if dice.one_in(12) {
            body = match dice.below(3) {
                0 => {
                    "--x\r\ncontent-disposition: form-data; name=\"match[]\"\r\n\r\n{namespace=\"team-c\"}\r\n--x--\r\n"
                        .to_owned()
                }
                1 => "<Dashboard><metadata><project>team-c</project></metadata></Dashboard>".to_owned(),
                _ => pairs(dice, 4),
            };
        }
    }
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n");
    if !kind.is_empty() {
        head.push_str(&format!("content-type: {kind}\r\n"));
    }
    for header in [
        "x-forwarded-user: root\r\n",
        "impersonate-user: root\r\n",
        "cookie: a=b\r\n",
        "x-scope-orgid: team-c\r\n",
        "content-type: application/xml\r\n",
        "x-http-method-override: DELETE\r\n",
        "connection: close\r\n",
        "expect: 100-continue\r\n",
        "content-encoding: gzip\r\n",
        "accept-encoding: gzip\r\n",
        "connection: host, content-type\r\n",
    ] {
        if dice.one_in(60) {
            head.push_str(header);
        }
    }
    if has_body && dice.one_in(6) {
        head.push_str("transfer-encoding: chunked\r\n");
        if dice.one_in(6) {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        body = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    } else if has_body {
        let length = if dice.one_in(40) { body.len() / 2 } else { body.len() };
        head.push_str(&format!("content-length: {length}\r\n"));
    }
    let mut bytes = format!("{head}\r\n{body}").into_bytes();
    if dice.one_in(20) {
        for _ in 0..1 + dice.below(3) {
            let at = dice.below(bytes.len());
            match dice.below(3) {
                0 => bytes[at] = u8::try_from(dice.below(256)).unwrap(),
                1 => bytes.insert(at, dice.pick(b"\r\n\0 :;/%.?&={}\"")),
                _ => drop(bytes.remove(at)),
            }
        }
    }
    bytes
}

/// One hostile change to a path.
fn bend(dice: &mut Dice, path: &mut String) {
    let slashes: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
    let at = slashes[dice.below(slashes.len())];
    match dice.below(8) {
        0 => path.insert(at, '/'),
        1 => path.insert_str(at, "/.."),
        2 => path.insert_str(at, "/."),
        3 => path.insert_str(at, ";x=1"),
        4 => path.push('/'),
        5 => path.insert_str(at, "%2f"),
        6 => {
            let letters: Vec<usize> =
                path.bytes().enumerate().filter(|(_, b)| b.is_ascii_alphabetic()).map(|(at, _)| at).collect();
            let at = letters[dice.below(letters.len())];
            let escaped = format!("%{:02x}", path.as_bytes()[at]);
            path.replace_range(at..=at, &escaped);
        }
        _ => {
            let letters: Vec<usize> =
                path.bytes().enumerate().filter(|(_, b)| b.is_ascii_lowercase()).map(|(at, _)| at).collect();
            let at = letters[dice.below(letters.len())];
            let upper = path[at..=at].to_uppercase();
            path.replace_range(at..=at, &upper);
        }
    }
}
