//! What people read: small pages that say what happened and what to do next. They load nothing and run nothing.
//!
//! Light and dark, and every text at least 7:1 against its ground. Whatever comes from elsewhere is a text and is escaped.

/// A page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The heading.
    pub title: String,
    /// What stands below, in order.
    pub parts: Vec<Part>,
    /// The value of `X-Request-Id`, to be told to whoever runs this.
    pub request_id: String,
}

/// A part of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A paragraph.
    Text(String),
    /// Facts: a word and what it says.
    Facts(Vec<(&'static str, String)>),
    /// A way to somewhere: where, and what it is called. Anything but `/…` and `https://…` is left out.
    Link(String, &'static str),
    /// A button that sends a form by POST: where to, and what it is called.
    Button(String, &'static str),
}

impl Page {
    /// A page with a heading.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// Adds a part.
    #[must_use]
    pub fn with(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    /// Adds a paragraph.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.with(Part::Text(text.into()))
    }

    /// Adds a way to somewhere.
    #[must_use]
    pub fn link(self, to: impl Into<String>, called: &'static str) -> Self {
        self.with(Part::Link(to.into(), called))
    }

    /// Adds a button that sends a form.
    #[must_use]
    pub fn button(self, to: impl Into<String>, called: &'static str) -> Self {
        self.with(Part::Button(to.into(), called))
    }

    /// The page as HTML.
    #[must_use]
    pub fn html(&self) -> String {
        let mut out = String::with_capacity(2048);
        let title = escape(&self.title);
        out.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
        out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
        out.push_str(&format!(
            "<title>{title} – Perses</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>\n"
        ));
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(&format!("<p>{}</p>\n", escape(text))),
                Part::Facts(facts) => {
                    out.push_str("<dl>");
                    for (word, fact) in facts {
                        out.push_str(&format!("<dt>{}</dt><dd>{}</dd>", escape(word), escape(fact)));
                    }
                    out.push_str("</dl>\n");
                }
                Part::Link(to, called) if is_place(to) => {
                    out.push_str(&format!("<p><a href=\"{}\">{}</a></p>\n", escape(to), escape(called)));
                }
                Part::Button(to, called) if is_place(to) => out.push_str(&format!(
                    "<form method=\"post\" action=\"{}\"><button type=\"submit\">{}</button></form>\n",
                    escape(to),
                    escape(called)
                )),
                Part::Link(..) | Part::Button(..) => {}
            }
        }
        if !self.request_id.is_empty() {
            out.push_str(&format!("<p class=\"id\">Request <code>{}</code></p>\n", escape(&self.request_id)));
        }
        out.push_str("</main></body></html>\n");
        out
    }
}

const STYLE: &str = ":root{color-scheme:light dark;--ground:#fff;--text:#151515;--quiet:#3c3f42;--accent:#003f7f;--on:#fff}\
@media (prefers-color-scheme:dark){:root{--ground:#151515;--text:#f5f5f5;--quiet:#d2d2d2;--accent:#92c5f9;--on:#151515}}\
body{font:1rem/1.5 system-ui,sans-serif;background:var(--ground);color:var(--text);margin:0}\
main{max-width:40rem;margin:4rem auto;padding:0 1rem;overflow-wrap:anywhere}\
h1{font-size:1.6rem;line-height:1.25}a{color:var(--accent)}\
button{font:inherit;background:var(--accent);color:var(--on);border:0;border-radius:.25rem;padding:.5rem 1.25rem;cursor:pointer}\
a:focus-visible,button:focus-visible{outline:3px solid var(--text);outline-offset:2px}\
dt{font-weight:600}dd{margin:0 0 .5rem}.id,code{font-size:.9rem;color:var(--quiet)}";

/// Whether a link leads to a place of this origin or over TLS to another; nothing that runs.
fn is_place(to: &str) -> bool {
    to.starts_with('/') && !to.starts_with("//") || to.starts_with("https://")
}

/// Text in HTML, in an element or a quoted attribute.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_elsewhere_is_text() {
        let page = Page::new("<b>")
            .text("<script>alert('x')</script>")
            .link("/a?b=\"c", "go")
            .with(Part::Facts(vec![("Name", "<i>".into())]));
        let html = Page { request_id: "<id>".into(), ..page }.html();
        for raw in ["<b>", "<script>", "<i>", "<id>", "\"c"] {
            assert!(!html.contains(raw), "{raw}");
        }
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)") && html.contains("href=\"/a?b=&quot;c\""));
    }

    #[test]
    fn links_lead_to_places() {
        for bad in ["javascript:alert(1)", "//evil.example", "http://plain.example", "data:text/html,x", ""] {
            let html = Page::new("t").link(bad, "called").button(bad, "called").html();
            assert!(!html.contains("called"), "{bad}");
        }
        let html = Page::new("t").link("https://a.example/", "called").button("/-/logout", "out").html();
        assert!(html.contains("href=\"https://a.example/\"") && html.contains("method=\"post\" action=\"/-/logout\""));
    }

    /// WCAG 2.2, 1.4.6: the contrast of text in both schemes, computed from the colours of the style.
    #[test]
    fn every_text_stands_out_in_light_and_dark() {
        let colour = |scheme: &str, name: &str| {
            let text = scheme.split(&format!("--{name}:#")).nth(1).expect("the colour");
            let digits: String = text.chars().take_while(char::is_ascii_hexdigit).collect();
            let wide = if digits.len() == 3 { digits.chars().flat_map(|c| [c, c]).collect() } else { digits };
            let channel = |at: usize| {
                let value = f64::from(u8::from_str_radix(&wide[at..at + 2], 16).expect("two digits")) / 255.0;
                if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
        };
        let (light, dark) = STYLE.split_once("@media").expect("two schemes");
        for scheme in [light, dark] {
            for (text, ground) in [("text", "ground"), ("quiet", "ground"), ("accent", "ground"), ("on", "accent")] {
                let (a, b) = (colour(scheme, text), colour(scheme, ground));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast >= 7.0, "{text} on {ground}: {contrast}");
            }
        }
    }
}
