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
    /// Whether it is as wide as the window, for lists.
    pub wide: bool,
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
    /// A heading below the page's own.
    Heading(String),
    /// Things beside each other.
    Cards(Vec<Card>),
    /// A form.
    Form(Form),
}

/// A thing with its ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// What it is called.
    pub title: String,
    /// How it fares, in a sign and a word.
    pub mark: Option<String>,
    /// What else there is to say.
    pub lines: Vec<String>,
    /// Where to go, and what that is called. Anything but `/…` and `https://…` is left out.
    pub links: Vec<(String, String)>,
    /// A button that sends a form by POST: where to, and what it is called.
    pub button: Option<(String, &'static str)>,
}

/// A form with a button.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Where it is sent. Nothing is shown for anything but `/…` and `https://…`.
    pub to: String,
    /// Its name on the page, for links to it.
    pub id: &'static str,
    /// Whether it changes something.
    pub post: bool,
    /// What is filled in.
    pub fields: Vec<Field>,
    /// What the button is called.
    pub called: &'static str,
}

/// One thing to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    name: &'static str,
    label: &'static str,
    hint: &'static str,
    input: Input,
}

/// How it is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Text: what stands there at first, and what is offered.
    Text(String, Vec<String>),
    /// One of these, each with its words; and the one that is chosen at first.
    Choice(Vec<(String, String)>, String),
}

impl Field {
    /// A field by its name in the form, with its words.
    #[must_use]
    pub const fn new(name: &'static str, label: &'static str, input: Input) -> Self {
        Self { name, label, hint: "", input }
    }

    /// With a line of help.
    #[must_use]
    pub const fn hint(mut self, hint: &'static str) -> Self {
        self.hint = hint;
        self
    }
}

impl Page {
    /// A page with a heading.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// As wide as the window.
    #[must_use]
    pub const fn wide(mut self) -> Self {
        self.wide = true;
        self
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
            "<title>{title} – Perses</title><style>{STYLE}</style></head><body><main{}><h1>{title}</h1>\n",
            if self.wide { " class=\"wide\"" } else { "" }
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
                Part::Button(to, called) if is_place(to) => write_button(to, called, &mut out),
                Part::Heading(text) => out.push_str(&format!("<h2>{}</h2>\n", escape(text))),
                Part::Cards(cards) => write_cards(cards, &mut out),
                Part::Form(form) if is_place(&form.to) => write_form(form, &mut out),
                Part::Link(..) | Part::Button(..) | Part::Form(_) => {}
            }
        }
        if !self.request_id.is_empty() {
            out.push_str(&format!("<p class=\"id\">Request <code>{}</code></p>\n", escape(&self.request_id)));
        }
        out.push_str("</main></body></html>\n");
        out
    }
}

fn write_button(to: &str, called: &str, out: &mut String) {
    out.push_str(&format!(
        "<form method=\"post\" action=\"{}\"><button type=\"submit\">{}</button></form>\n",
        escape(to),
        escape(called)
    ));
}

fn write_cards(cards: &[Card], out: &mut String) {
    if cards.is_empty() {
        return;
    }
    out.push_str("<ul class=\"cards\">\n");
    for card in cards {
        out.push_str(&format!("<li><h3>{}", escape(&card.title)));
        if let Some(mark) = &card.mark {
            out.push_str(&format!(" <span class=\"mark\">{}</span>", escape(mark)));
        }
        out.push_str("</h3>");
        for line in &card.lines {
            out.push_str(&format!("<p class=\"line\">{}</p>", escape(line)));
        }
        let links = card.links.iter().filter(|(to, _)| is_place(to));
        let links: Vec<String> =
            links.map(|(to, called)| format!("<a href=\"{}\">{}</a>", escape(to), escape(called))).collect();
        if !links.is_empty() {
            out.push_str(&format!("<p class=\"ways\">{}</p>", links.join(" ")));
        }
        if let Some((to, called)) = card.button.as_ref().filter(|(to, _)| is_place(to)) {
            write_button(to, called, out);
        }
        out.push_str("</li>\n");
    }
    out.push_str("</ul>\n");
}

fn write_form(form: &Form, out: &mut String) {
    let method = if form.post { "post" } else { "get" };
    out.push_str(&format!("<form id=\"{}\" method=\"{method}\" action=\"{}\">\n", form.id, escape(&form.to)));
    for field in &form.fields {
        let id = format!("{}-{}", form.id, field.name);
        let help = if field.hint.is_empty() { String::new() } else { format!(" aria-describedby=\"{id}-help\"") };
        out.push_str(&format!("<p><label for=\"{id}\">{}</label>", field.label));
        match &field.input {
            Input::Text(value, offered) => {
                let list = if offered.is_empty() { String::new() } else { format!(" list=\"{id}-list\"") };
                out.push_str(&format!(
                    "<input id=\"{id}\" name=\"{}\" value=\"{}\" maxlength=\"300\" autocomplete=\"off\"{list}{help}>",
                    field.name,
                    escape(value)
                ));
                if !offered.is_empty() {
                    out.push_str(&format!("<datalist id=\"{id}-list\">"));
                    for offer in offered {
                        out.push_str(&format!("<option value=\"{}\"></option>", escape(offer)));
                    }
                    out.push_str("</datalist>");
                }
            }
            Input::Choice(choices, chosen) => {
                out.push_str(&format!("<select id=\"{id}\" name=\"{}\"{help}>", field.name));
                for (value, words) in choices {
                    let selected = if value == chosen { " selected" } else { "" };
                    out.push_str(&format!("<option value=\"{}\"{selected}>{}</option>", escape(value), escape(words)));
                }
                out.push_str("</select>");
            }
        }
        if !field.hint.is_empty() {
            out.push_str(&format!("<span class=\"line\" id=\"{id}-help\">{}</span>", escape(field.hint)));
        }
        out.push_str("</p>\n");
    }
    out.push_str(&format!("<button type=\"submit\">{}</button></form>\n", form.called));
}

const STYLE: &str = ":root{color-scheme:light dark;--ground:#fff;--text:#151515;--quiet:#3c3f42;--accent:#003f7f;--on:#fff}\
@media (prefers-color-scheme:dark){:root{--ground:#151515;--text:#f5f5f5;--quiet:#d2d2d2;--accent:#92c5f9;--on:#151515}}\
body{font:1rem/1.5 system-ui,sans-serif;background:var(--ground);color:var(--text);margin:0}\
main{max-width:40rem;margin:4rem auto;padding:0 1rem;overflow-wrap:anywhere}\
.wide{max-width:72rem;margin:2rem auto}h2{font-size:1.25rem;margin:2rem 0 .75rem}h3{font-size:1rem;margin:0 0 .25rem}\
.cards{list-style:none;margin:0;padding:0;display:grid;gap:.75rem;grid-template-columns:repeat(auto-fill,minmax(min(18rem,100%),1fr))}\
.cards li{border:1px solid var(--quiet);border-radius:.5rem;padding:.75rem 1rem}.mark{font-weight:400;white-space:nowrap}\
.line{font-size:.9rem;color:var(--quiet);margin:.25rem 0;display:block}.ways{margin:.5rem 0 0;display:flex;flex-wrap:wrap;gap:.25rem 1rem}\
label{display:block;font-weight:600}input,select{font:inherit;color:inherit;background:var(--ground);border:1px solid var(--quiet);\
border-radius:.25rem;padding:.4rem .5rem;box-sizing:border-box;width:100%;max-width:32rem}\
h1{font-size:1.6rem;line-height:1.25}a{color:var(--accent)}\
button{font:inherit;background:var(--accent);color:var(--on);border:0;border-radius:.25rem;padding:.5rem 1.25rem;cursor:pointer}\
a:focus-visible,button:focus-visible,input:focus-visible,select:focus-visible{outline:3px solid var(--text);outline-offset:2px}\
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

    #[test]
    fn cards_and_forms_are_text_too_and_every_field_has_its_words() {
        let card = Card {
            title: "<b>".into(),
            mark: Some("<i>".into()),
            lines: vec!["<u>".into()],
            links: vec![("/a".into(), "<s>".into()), ("javascript:alert(1)".into(), "bad".into())],
            button: Some(("//evil.example/".into(), "bad")),
        };
        let choices = vec![("\"a".to_owned(), "<a>".to_owned()), ("b".to_owned(), "B".to_owned())];
        let form = Form {
            to: "/-/x".into(),
            id: "new",
            post: true,
            fields: vec![
                Field::new("one", "One", Input::Text("\"><script>".into(), vec!["\"o".into()])).hint("Help"),
                Field::new("two", "Two", Input::Choice(choices, "b".into())),
            ],
            called: "Go",
        };
        let page = Page::new("t").wide().with(Part::Cards(vec![card])).with(Part::Form(form.clone()));
        let html = page.html();
        for raw in ["<b>", "<i>", "<u>", "<s>", "<script>", "<a>", "\"\"", "javascript", "bad"] {
            assert!(!html.contains(raw), "{raw}: {html}");
        }
        assert!(html.contains("<option value=\"b\" selected>B</option>") && html.contains("<main class=\"wide\">"));
        for field in ["one", "two"] {
            assert!(
                html.contains(&format!("<label for=\"new-{field}\">"))
                    && html.contains(&format!("id=\"new-{field}\" name=\"{field}\""))
            );
        }
        assert!(html.contains("aria-describedby=\"new-one-help\"") && html.contains("id=\"new-one-help\""));
        let elsewhere = Page::new("t").with(Part::Form(Form { to: "//evil.example".into(), ..form })).html();
        assert!(!elsewhere.contains("<form"), "{elsewhere}");
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
