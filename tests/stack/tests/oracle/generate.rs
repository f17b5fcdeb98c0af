//! Queries by chance, the same for the same seed: every kind of node, every function, spaces where nobody would put them.

/// A small generator of numbers (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most as u64).unwrap()
    }

    /// True in so many of a hundred cases.
    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'p>(&mut self, list: &[&'p str]) -> &'p str {
        list[self.below(list.len())]
    }
}

pub struct Generator {
    chance: Chance,
    /// Names that are there, and nothing whose answer depends on the order of series.
    data: bool,
}

/// Functions by their arguments: `v`ector, `m`atrix, `s`calar, `t`ext of a label, `x` a text.
const FUNCTIONS: &[(&str, &str)] = &[
    ("abs", "v"),
    ("absent", "v"),
    ("absent_over_time", "m"),
    ("acos", "v"),
    ("acosh", "v"),
    ("asin", "v"),
    ("asinh", "v"),
    ("atan", "v"),
    ("atanh", "v"),
    ("avg_over_time", "m"),
    ("ceil", "v"),
    ("changes", "m"),
    ("clamp", "vss"),
    ("clamp_max", "vs"),
    ("clamp_min", "vs"),
    ("cos", "v"),
    ("cosh", "v"),
    ("count_over_time", "m"),
    ("day_of_month", "v"),
    ("day_of_week", ""),
    ("day_of_year", "v"),
    ("days_in_month", ""),
    ("deg", "v"),
    ("delta", "m"),
    ("deriv", "m"),
    ("double_exponential_smoothing", "mff"),
    ("exp", "v"),
    ("first_over_time", "m"),
    ("floor", "v"),
    ("histogram_avg", "v"),
    ("histogram_count", "v"),
    ("histogram_fraction", "ssv"),
    ("histogram_quantile", "sv"),
    ("histogram_quantiles", "vtss"),
    ("histogram_stddev", "v"),
    ("histogram_stdvar", "v"),
    ("histogram_sum", "v"),
    ("hour", ""),
    ("idelta", "m"),
    ("increase", "m"),
    ("irate", "m"),
    ("label_join", "vtxtt"),
    ("label_replace", "vtxtr"),
    ("last_over_time", "m"),
    ("ln", "v"),
    ("log10", "v"),
    ("log2", "v"),
    ("mad_over_time", "m"),
    ("max_over_time", "m"),
    ("min_over_time", "m"),
    ("minute", "v"),
    ("month", "v"),
    ("predict_linear", "ms"),
    ("present_over_time", "m"),
    ("quantile_over_time", "sm"),
    ("rad", "v"),
    ("rate", "m"),
    ("resets", "m"),
    ("round", "vs"),
    ("sgn", "v"),
    ("sin", "v"),
    ("sinh", "v"),
    ("sort", "v"),
    ("sort_by_label", "vt"),
    ("sort_by_label_desc", "vtt"),
    ("sort_desc", "v"),
    ("sqrt", "v"),
    ("stddev_over_time", "m"),
    ("stdvar_over_time", "m"),
    ("sum_over_time", "m"),
    ("tan", "v"),
    ("tanh", "v"),
    ("timestamp", "v"),
    ("ts_of_first_over_time", "m"),
    ("ts_of_last_over_time", "m"),
    ("ts_of_max_over_time", "m"),
    ("ts_of_min_over_time", "m"),
    ("vector", "s"),
    ("year", "v"),
];

/// What only trees can judge: labels from matchers, and words of experiments that read the request's window.
const NOT_BY_DATA: &[&str] = &["absent", "absent_over_time", "histogram_quantiles", "double_exponential_smoothing"];

const NAMES: &[&str] = &[
    "up",
    "m_counter",
    "job:rate:sum",
    ":x",
    "_y",
    "sum",
    "offset",
    "by",
    "on",
    "start",
    "inf",
    "nan",
    "bool",
    "rate",
    "Ünï.code",
    "a b",
    "with\\nline",
];

const LABELS: &[&str] = &["job", "pod", "namespace", "__name", "le", "by", "sum", "on", "offset", "dotted.name", "ü"];

const SPACES: &[&str] = &["", "", "", " ", " ", "  ", "\t", "\n", "\r\n", " # a {namespace=\"x\"} or\n", " #\"\n "];

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { chance: Chance(seed), data: false }
    }

    /// Any query.
    pub fn anything(&mut self) -> String {
        self.data = false;
        let depth = 1 + self.chance.below(4);
        let inner = match self.chance.below(20) {
            0 => self.scalar(depth),
            1 => self.matrix(depth, ""),
            2 => self.text(),
            _ => self.vector(depth),
        };
        let (before, after) = (self.space(), self.space());
        format!("{before}{inner}{after}")
    }

    /// A query about series that are there.
    pub fn of_the_data(&mut self) -> String {
        self.data = true;
        let depth = 1 + self.chance.below(3);
        self.vector(depth)
    }

    fn space(&mut self) -> &'static str {
        if self.data { "" } else { self.chance.pick(SPACES) }
    }

    /// A space that parts words.
    fn gap(&mut self) -> &'static str {
        if self.data { " " } else { self.chance.pick(&SPACES[3..]) }
    }

    /// Joins tokens that need nothing between them.
    fn join(&mut self, tokens: &[&str]) -> String {
        let mut out = String::new();
        for token in tokens {
            out.push_str(token);
            out.push_str(self.space());
        }
        out
    }

    /// A keyword in a case of its own.
    fn word(&mut self, word: &str) -> String {
        match self.chance.below(if self.data { 1 } else { 4 }) {
            3 => word.to_uppercase(),
            2 => word.char_indices().map(|(i, c)| if i % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect(),
            _ => word.to_owned(),
        }
    }

    fn number(&mut self) -> &'static str {
        if self.data {
            return self.chance.pick(&["0", "1", "2", "0.5", "10", "1e1", "100"]);
        }
        self.chance.pick(&[
            "0", "1", "42", ".5", "1.", "1e3", "1.5E-3", "0x1F", "017", "Inf", "NaN", "inf", "5m", "1h30m", "1d",
        ])
    }

    fn scalar(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.number().to_owned();
        }
        match self.chance.below(8) {
            0 | 1 => self.number().to_owned(),
            2 => {
                let inner = self.vector(depth - 1);
                self.join(&["scalar", "(", &inner, ")"])
            }
            3 => {
                let (left, right) = (self.scalar(depth - 1), self.scalar(depth - 1));
                let op =
                    self.chance.pick(&["+", "-", "*", "/", "%", "^", " atan2 ", "== bool ", "< bool ", ">= bool "]);
                self.join(&["(", &left, op, &right, ")"])
            }
            4 => {
                let inner = self.scalar(depth - 1);
                let sign = self.chance.pick(&["-", "+"]);
                self.join(&["(", sign, &inner, ")"])
            }
            5 => self.chance.pick(&["time()", "pi()"]).to_owned(),
            6 if !self.data => self.chance.pick(&["start()", "end()", "range()", "step()"]).to_owned(),
            _ => {
                let (left, right) = (self.scalar(depth - 1), self.scalar(depth - 1));
                let name = self.chance.pick(&["min_of", "max_of"]);
                self.join(&[name, "(", &left, ",", &right, ")"])
            }
        }
    }

    fn text(&mut self) -> String {
        self.chance
            .pick(&["\"\"", "'it\\'s'", "`raw \\ \"`", "\"\\u00e9\\x41\\n\"", "\"{a=\\\"b\\\"}\"", "'ü'"])
            .to_owned()
    }

    fn label(&mut self) -> String {
        if self.data {
            return self.chance.pick(&["job", "pod", "namespace"]).to_owned();
        }
        let label = self.chance.pick(LABELS);
        let plain = label.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
        if plain && self.chance.percent(80) { label.to_owned() } else { format!("\"{label}\"") }
    }

    fn matcher(&mut self) -> String {
        let label = self.label();
        let (op, value) = if self.data {
            match label.as_str() {
                "namespace" => self.pair(&[
                    ("=", "team-a"),
                    ("=~", "team-b|team-c"),
                    ("=~", "team-.*"),
                    ("!=", "team-b"),
                    ("!~", ".*-c"),
                    ("=", "team-c"),
                ]),
                "pod" => self.pair(&[("=", "p1"), ("=~", "p1|p2"), ("!=", "p1"), ("!~", "p[12]"), ("=~", ".*")]),
                _ => self.pair(&[("=", "x"), ("!=", "x"), ("=~", "x|y"), ("!~", "z")]),
            }
        } else {
            let op = self.chance.pick(&["=", "!=", "=~", "!~"]);
            (op, self.chance.pick(&["", "x", "a|b", ".*", ".+", "(?i:A)[b-d]?", "a.b", "ü", "team-a"]))
        };
        let quote = self.chance.pick(&["\"", "'", "`"]);
        self.join(&[&label, op, &format!("{quote}{value}{quote}")])
    }

    fn pair<'p>(&mut self, list: &[(&'p str, &'p str)]) -> (&'p str, &'p str) {
        list[self.chance.below(list.len())]
    }

    /// A selector without range and modifiers.
    fn selector(&mut self) -> String {
        let mut parts = Vec::new();
        let name = if self.data {
            self.chance.pick(&["m_gauge", "m_gauge", "m_counter", "m_hist_bucket"])
        } else {
            self.chance.pick(NAMES)
        };
        let plain = self.data || matches!(name, "up" | "m_counter" | "job:rate:sum" | ":x" | "_y" | "rate");
        let outside = plain && self.chance.percent(70);
        match (outside, self.chance.below(3)) {
            (true, _) => {}
            (false, 0) => parts.push(format!("\"{name}\"")),
            (false, 1) => parts.push(format!("__name__=\"{name}\"")),
            (false, _) => {
                parts.push("__name__=~\"m_.+\"".to_owned());
                if self.data {
                    parts.push(format!("__name__=\"{name}\""));
                }
            }
        }
        let most = if self.chance.percent(if self.data { 50 } else { 30 }) { 0 } else { 3 };
        for _ in 0..self.chance.below(most + 1) {
            let matcher = self.matcher();
            parts.push(matcher);
        }
        if !outside && self.chance.percent(30) {
            parts.rotate_left(1);
        }
        if outside && parts.is_empty() && self.chance.percent(80) {
            return name.to_owned();
        }
        let mut tokens = vec![if outside { name } else { "" }, "{"];
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                tokens.push(",");
            }
            tokens.push(part);
        }
        if !parts.is_empty() && self.chance.percent(15) {
            tokens.push(",");
        }
        tokens.push("}");
        self.join(&tokens)
    }

    fn modifiers(&mut self) -> String {
        if self.chance.percent(75) {
            return String::new();
        }
        let offset = if self.data {
            self.chance.pick(&["5m", "1m", "-1m", "0s"])
        } else {
            self.chance.pick(&["5m", "-1h", "300", "(1m + 1m)", "step()", "-(2*5s)", "max_of(1s,step())", "1h30m"])
        };
        let at = if self.data {
            self.chance.pick(&["1700005000", "start()", "end()"])
        } else {
            self.chance.pick(&["0", "1700000000.5", "-5", "start()", "end()", "1e9"])
        };
        let (offset_word, gap) = (self.word("offset"), self.gap());
        let offset = format!("{offset_word}{gap}{offset}");
        let at = self.join(&["@", at]);
        match self.chance.below(4) {
            0 | 1 => format!(" {offset}"),
            2 => format!(" {at}"),
            _ if self.chance.percent(50) => format!(" {offset} {at}"),
            _ => format!(" {at} {offset}"),
        }
    }

    /// Behind a bracket upstream takes spaces but no comment.
    fn opening(&mut self) -> &'static str {
        if self.data { "[" } else { self.chance.pick(&["[", "[", "[ ", "[\n\t"]) }
    }

    fn range(&mut self) -> &'static str {
        if self.data {
            return self.chance.pick(&["1m", "5m", "10m"]);
        }
        self.chance.pick(&[
            "5m",
            "1h30m",
            "300",
            "90s",
            "5m+1m",
            "step()*2",
            "(1m + 30s) * 2",
            "1d",
            "0.5",
            "min_of(5m,1h)",
        ])
    }

    /// A range vector as a function's argument.
    fn matrix(&mut self, depth: usize, function: &str) -> String {
        let modifiers = self.modifiers();
        if depth > 0 && self.chance.percent(25) {
            let inner = self.vector(depth - 1);
            let inner = if self.chance.percent(50) { self.join(&["(", &inner, ")"]) } else { format!("({inner})") };
            let range = if self.data { self.chance.pick(&["5m", "10m"]) } else { self.range() };
            let step = if self.data {
                self.chance.pick(&["30s", "1m"])
            } else {
                self.chance.pick(&["", "30s", "1m", "60", "step()", "1m*2"])
            };
            let opening = self.opening();
            return self.join(&[&inner]) + opening + &self.join(&[range, ":", step, "]"]) + &modifiers;
        }
        let selector = self.selector();
        let edges: &[&str] = match function {
            "rate" | "increase" | "delta" => &["", "", "", "anchored", "smoothed"],
            "changes" | "resets" => &["", "", "anchored"],
            _ => &[""],
        };
        let edge = self.chance.pick(edges);
        let edge = if edge.is_empty() { String::new() } else { format!(" {edge}") };
        let range = self.range();
        let opening = self.opening();
        self.join(&[&selector]) + opening + &self.join(&[range, "]"]) + &edge + &modifiers
    }

    fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            let (selector, modifiers) = (self.selector(), self.modifiers());
            let edge = if !self.data && self.chance.percent(5) { " smoothed" } else { "" };
            return selector + edge + &modifiers;
        }
        match self.chance.below(12) {
            0 => {
                let (selector, modifiers) = (self.selector(), self.modifiers());
                selector + &modifiers
            }
            1..=3 => self.call(depth),
            4..=6 => self.aggregation(depth),
            7..=9 => self.binary(depth),
            10 => {
                let inner = self.vector(depth - 1);
                let sign = self.chance.pick(&["-", "+"]);
                self.join(&["(", sign, &inner, ")"])
            }
            _ => {
                let inner = self.vector(depth - 1);
                self.join(&["(", &inner, ")"])
            }
        }
    }

    fn call(&mut self, depth: usize) -> String {
        let (name, arguments) = loop {
            let found = FUNCTIONS[self.chance.below(FUNCTIONS.len())];
            if !self.data || !NOT_BY_DATA.contains(&found.0) && !found.1.is_empty() {
                break found;
            }
        };
        let mut tokens = vec![name.to_owned(), "(".to_owned()];
        for (index, kind) in arguments.chars().enumerate() {
            if index > 0 {
                tokens.push(",".to_owned());
            }
            tokens.push(match kind {
                'v' => self.vector(depth - 1),
                'm' => self.matrix(depth - 1, name),
                's' => self.scalar(depth - 1),
                'f' => "0.5".to_owned(),
                't' => self.chance.pick(&["\"pod\"", "'job'", "\"namespace\""]).to_owned(),
                'r' => self.chance.pick(&["'(.*)'", "\"p(.)\"", "`.+`"]).to_owned(),
                _ => self.chance.pick(&["'x'", "\"$1\"", "'team-c'", "\"-\""]).to_owned(),
            });
        }
        tokens.push(")".to_owned());
        self.join(&tokens.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn labels(&mut self) -> String {
        let mut tokens = vec!["(".to_owned()];
        let most = self.chance.below(4);
        for index in 0..most {
            if index > 0 {
                tokens.push(",".to_owned());
            }
            tokens.push(self.label());
        }
        if most > 0 && !self.data && self.chance.percent(10) {
            tokens.push(",".to_owned());
        }
        tokens.push(")".to_owned());
        self.join(&tokens.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn aggregation(&mut self, depth: usize) -> String {
        let words: &[&str] = if self.data {
            &["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar", "quantile", "topk", "count_values"]
        } else {
            &[
                "sum",
                "avg",
                "count",
                "min",
                "max",
                "group",
                "stddev",
                "stdvar",
                "topk",
                "bottomk",
                "quantile",
                "limitk",
                "limit_ratio",
                "count_values",
            ]
        };
        let name = self.chance.pick(words);
        let mut inner = self.vector(depth - 1);
        if self.data && name == "topk" {
            // Which of equals come first depends on their order, so there must be room for all.
            inner = self.join(&["topk(", "1000", ",", &inner, ")"]);
            return inner;
        }
        let parameter = match name {
            "topk" | "bottomk" | "quantile" | "limitk" | "limit_ratio" => Some(self.scalar(depth - 1)),
            "count_values" => Some(self.chance.pick(&["\"value\"", "'pod'", "\"namespace\""]).to_owned()),
            _ => None,
        };
        let word = self.word(name);
        let body = match &parameter {
            Some(parameter) => self.join(&["(", parameter, ",", &inner, ")"]),
            None => self.join(&["(", &inner, ")"]),
        };
        if self.chance.percent(30) {
            return format!("{word}{}{body}", self.space());
        }
        let grouping = self.chance.pick(&["by", "without"]);
        let (grouping, labels) = (self.word(grouping), self.labels());
        let (a, b, c) = (self.gap(), self.space(), self.space());
        if self.chance.percent(50) {
            format!("{word}{a}{grouping}{b}{labels}{c}{body}")
        } else {
            format!("{word}{b}{body}{a}{grouping}{c}{labels}")
        }
    }

    fn binary(&mut self, depth: usize) -> String {
        let left = self.vector(depth - 1);
        let with_scalar = self.chance.percent(30);
        let right = if with_scalar { self.scalar(depth - 1) } else { self.vector(depth - 1) };
        let arithmetic: &[&str] = &["+", "-", "*", "/", "%", "^", "atan2"];
        let comparison: &[&str] = &["==", "!=", ">", "<", ">=", "<="];
        let set: &[&str] = &["and", "or", "unless"];
        let trim: &[&str] = &["</", ">/"];
        let kind = self.chance.below(if with_scalar { 7 } else { 10 });
        let (op, is_comparison, is_set) = match kind {
            0..=2 => (self.chance.pick(arithmetic), false, false),
            3..=5 => (self.chance.pick(comparison), true, false),
            6 if !self.data => (self.chance.pick(trim), false, false),
            _ if with_scalar => ("*", false, false),
            _ => (self.chance.pick(set), false, true),
        };
        let named = op.bytes().all(|b| b.is_ascii_alphanumeric());
        let op = if named { self.word(op) } else { op.to_owned() };
        let mut middle = format!(" {op}");
        if is_comparison && self.chance.percent(40) {
            middle.push_str(self.gap());
            middle.push_str(&self.word("bool"));
        }
        if !with_scalar && self.chance.percent(60) {
            let matching = self.chance.pick(&["on", "ignoring"]);
            let labels = if self.data {
                if matching == "on" { "(namespace, pod, job)".to_owned() } else { "(le)".to_owned() }
            } else {
                self.labels()
            };
            let matching = self.word(matching);
            middle.push_str(self.gap());
            middle.push_str(&matching);
            middle.push_str(self.space());
            middle.push_str(&labels);
            if !is_set && (!self.data && self.chance.percent(40)) {
                // What is matched on must not be taken over as well.
                let group = self.chance.pick(&["group_left", "group_right"]);
                let group = self.word(group);
                let include = self.chance.pick(&["", " ()", " (new)", "(\"taken over\", new)"]);
                middle.push_str(self.gap());
                middle.push_str(&group);
                middle.push_str(include);
            }
        }
        if !with_scalar && !is_set && self.chance.percent(15) {
            let fill =
                self.chance.pick(&["fill(0)", "fill_left (1)", "fill_right(-2.5)", "fill_left(1) fill_right(2)"]);
            middle.push_str(self.gap());
            middle.push_str(fill);
        }
        let text = format!("{left}{middle} {right}");
        if self.data || self.chance.percent(50) { format!("({text})") } else { text }
    }
}
