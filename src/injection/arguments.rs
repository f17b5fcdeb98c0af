//! The command line of Perses, as Go's `flag` package reads it: `-x` and `--x` are one, a value follows behind `=` or as the
//! next word, the last one counts, and the first word that is no flag ends it all.

use serde_json::{Value, json};

use super::{Refused, refused};

const LISTEN: &str = "web.listen-address";
/// Where Perses listens without it.
const DEFAULT: &str = ":8080";
/// Flags of Perses that take no separate value.
const SWITCHES: [&str; 4] = ["web.hide-port", "log.method-trace", "pprof", "version"];
/// Those that do.
const VALUED: [&str; 10] = [
    "config",
    "log.level",
    "log.format",
    "web.listen-address",
    "web.telemetry-path",
    "web.tls-cert-file",
    "web.tls-key-file",
    "web.tls-min-version",
    "web.tls-max-version",
    "web.tls-cipher-suites",
];

/// What was taken out of a command line, and what counted of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Taken {
    /// The effective listen address.
    pub(super) listen: Option<String>,
    /// Effective `web.tls-*` flags: the word behind `web.tls-` and the value.
    pub(super) tls: Vec<(String, String)>,
    /// `web.telemetry-path`, which stays where it is.
    pub(super) telemetry: Option<String>,
}

impl Taken {
    pub(super) fn tls(&self, word: &str) -> Option<&str> {
        self.tls.iter().rev().find(|(known, _)| known == word).map(|(_, value)| value.as_str())
    }

    /// The flags that would mean the same again; the default is written out, so that there is one.
    pub(super) fn flags(&self) -> Vec<String> {
        let listen = std::iter::once(format!("--{LISTEN}={}", self.listen.as_deref().unwrap_or(DEFAULT)));
        listen.chain(self.tls.iter().map(|(word, value)| format!("--web.tls-{word}={value}"))).collect()
    }
}

/// A flag's name, and its value if that stands in the same word.
fn flag(word: &str) -> Option<(&str, Option<&str>)> {
    let bare = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    if bare.is_empty() || bare.starts_with(['-', '=']) {
        return None;
    }
    Some(bare.split_once('=').map_or((bare, None), |(name, value)| (name, Some(value))))
}

fn words(container: &Value, key: &str) -> Result<Vec<String>, Refused> {
    match container.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list
            .iter()
            .map(|word| word.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| Refused(format!("{key} of the Perses container must be a list of strings"))),
        Some(_) => refused(format!("{key} of the Perses container must be a list of strings")),
    }
}

/// Looks at the words in which a variable could become a flag that we do not see.
fn no_hidden_flags(words: &[String]) -> Result<(), Refused> {
    let mut value_of: Option<&str> = None;
    for word in words {
        let follows = value_of.take();
        let listens = flag(word).is_some_and(|(name, _)| name == LISTEN || name.starts_with("web.tls-"));
        if let Some(name) = follows.filter(|_| listens) {
            return refused(format!(
                "the argument {word:?} of Perses may be the value of --{name} or a flag; write --{name}=VALUE"
            ));
        }
        let name_end = word.find('=').unwrap_or(word.len());
        if follows.is_none_or(|name| !VALUED.contains(&name)) && word[..name_end].contains("$(") {
            return refused(format!(
                "the argument {word:?} of Perses takes a flag from a variable, so it cannot be seen where Perses would \
                 listen; write the flags out"
            ));
        }
        if let Some((name, None)) = flag(word)
            && !SWITCHES.contains(&name)
            && follows.is_none_or(|name| !VALUED.contains(&name))
        {
            value_of = Some(name);
        }
    }
    Ok(())
}

/// What counts, as Go reads it.
fn effective(words: &[String]) -> Taken {
    let mut taken = Taken::default();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            break;
        }
        let Some((name, value)) = flag(word) else { break };
        let value = match value {
            Some(value) => value.to_owned(),
            None if SWITCHES.contains(&name) => continue,
            None => match rest.next() {
                Some(value) => value.clone(),
                None => break,
            },
        };
        if name == LISTEN {
            taken.listen = Some(value);
        } else if name == "web.telemetry-path" {
            taken.telemetry = Some(value);
        } else if let Some(word) = name.strip_prefix("web.tls-") {
            taken.tls.retain(|(known, _)| known != word);
            taken.tls.push((word.to_owned(), value));
        }
    }
    taken
}

/// All words but those that say where and how to listen, wherever they stand: one that Go would not read is of no use, and
/// one that a later version reads must not be there.
fn without_listening(words: &[String]) -> Vec<String> {
    let mut kept = Vec::with_capacity(words.len());
    let mut rest = words.iter().peekable();
    while let Some(word) = rest.next() {
        match flag(word) {
            Some((name, value)) if name == LISTEN || name.starts_with("web.tls-") => {
                // Its value is the next word, unless that is a flag itself.
                if value.is_none() && rest.peek().is_some_and(|next| flag(next).is_none()) {
                    rest.next();
                }
            }
            _ => kept.push(word.clone()),
        }
    }
    kept
}

/// Makes Perses listen on a port of the loopback, without TLS. `image` are the arguments of the image itself.
pub(super) fn move_to_loopback(container: &mut Value, port: u16, image: &[String]) -> Result<(), Refused> {
    let command = words(container, "command")?;
    let mut arguments = words(container, "args")?;
    if command.is_empty() && arguments.is_empty() {
        arguments = image.to_vec();
    }
    let ours = format!("--{LISTEN}=127.0.0.1:{port}");
    let mut command = without_listening(&command);
    let mut arguments = without_listening(&arguments);
    if command.len() > 1 {
        command.insert(1, ours);
    } else {
        arguments.insert(0, ours);
    }
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    if !arguments.is_empty() || container.get("args").is_some_and(|args| !args.is_null()) {
        container["args"] = json!(arguments);
    }
    Ok(())
}

/// Undoes [`move_to_loopback`]: `flags` are those that counted before, `image` the arguments of the image if those counted.
pub(super) fn put_back(container: &mut Value, flags: Vec<String>, image: Option<Vec<String>>) -> Result<(), Refused> {
    let mut command = without_listening(&words(container, "command")?);
    let mut arguments = without_listening(&words(container, "args")?);
    if let Some(image) = image
        && command.is_empty()
        && arguments == image
    {
        if let Value::Object(container) = container {
            container.remove("args");
        }
        return Ok(());
    }
    let (list, at) = if command.len() > 1 { (&mut command, 1) } else { (&mut arguments, 0) };
    list.splice(
        at..at,
        flags.into_iter().filter(|word| {
            flag(word).is_some_and(|(name, value)| value.is_some() && (name == LISTEN || name.starts_with("web.tls-")))
        }),
    );
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    if !arguments.is_empty() || container.get("args").is_some_and(|args| !args.is_null()) {
        container["args"] = json!(arguments);
    }
    Ok(())
}

/// Reads where Perses would listen. `image` are the arguments of the image, if they are known.
pub(super) fn read(container: &Value, image: Option<&[String]>) -> Result<Taken, Refused> {
    let command = words(container, "command")?;
    let arguments = words(container, "args")?;
    if let Some(program) = command.first() {
        let name = program.rsplit('/').next().unwrap_or_default();
        if name != "perses" {
            return refused(format!(
                "the command {program:?} of the Perses container is not perses itself, so its flags cannot be \
                 rewritten; give Perses by command [\"/bin/perses\"] and its flags as args, without a shell or wrapper"
            ));
        }
    }
    let all: Vec<String> = match image {
        Some(image) if command.is_empty() && arguments.is_empty() => image.to_vec(),
        _ => command.iter().skip(1).chain(&arguments).cloned().collect(),
    };
    no_hidden_flags(&all)?;
    Ok(effective(&all))
}

/// Whether the arguments of the image count: neither command nor arguments are given.
pub(super) fn leaves_it_to_the_image(container: &Value) -> Result<bool, Refused> {
    Ok(words(container, "command")?.is_empty() && words(container, "args")?.is_empty())
}

/// The port of a listen address, and whether others than the pod itself reach it.
pub(super) fn listen_port(address: Option<&str>) -> Result<(u16, bool), Refused> {
    let text = address.unwrap_or(DEFAULT);
    let bad = || {
        Refused(format!("Perses' --{LISTEN}={text} has no port that can be read; write it as :8080 or 0.0.0.0:8080"))
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = if port.bytes().all(|b| b.is_ascii_digit()) { port.parse().map_err(|_| bad())? } else { 0 };
    if port == 0 {
        return Err(bad());
    }
    if port < 1024 {
        return refused(format!(
            "Perses listens on port {port}; the sidecar takes over its port without privileges, so choose one from 1024 on"
        ));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let local = bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    Ok((port, !local))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn flags_count_as_go_reads_them() {
        for (words, listen) in [
            (&["--config=x", "--web.listen-address=:9000"][..], Some(":9000")),
            (&["-web.listen-address", ":8081", "-pprof", "--web.listen-address=:8082"], Some(":8082")),
            (&["--web.hide-port", "--web.listen-address=:1"], Some(":1")),
            (&["--config", "--web.listen-address=:1"], None),
            (&["serve", "--web.listen-address=:1"], None),
            (&["--", "--web.listen-address=:1"], None),
            (&["-", "--web.listen-address=:1"], None),
            (&["---web.listen-address=:1"], None),
            (&["--web.listen-address"], None),
            (&["--web.listen-address="], Some("")),
        ] {
            assert_eq!(effective(&of(words)).listen.as_deref(), listen, "{words:?}");
        }
    }

    #[test]
    fn nothing_that_listens_is_left_wherever_it_stands() {
        let words = of(&[
            "--a",
            "--web.listen-address",
            ":1",
            "x",
            "--",
            "-web.listen-address=:2",
            "--web.tls-cert-file=c",
            "--web.listen-address",
            "--keep",
            "--web.listen-address",
        ]);
        assert_eq!(without_listening(&words), of(&["--a", "x", "--", "--keep"]));
    }

    #[test]
    fn variables_hide_no_flag() {
        for good in [&["--config=$(FILE)"][..], &["--config", "$(FILE)"], &["--log.level", "$(LEVEL)", "--pprof"]] {
            assert!(no_hidden_flags(&of(good)).is_ok(), "{good:?}");
        }
        for bad in [
            &["$(FLAGS)"][..],
            &["--pprof", "$(FLAGS)"],
            &["--$(NAME)=:1"],
            &["--unknown", "$(FLAGS)"],
            &["--config", "x", "$(FLAGS)"],
            &["x", "$(FLAGS)"],
            &["--config", "--web.listen-address=:1"],
            &["--a-new-switch", "-web.listen-address", ":1"],
        ] {
            assert!(no_hidden_flags(&of(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ports_are_read_from_addresses() {
        for (address, expected) in [
            (None, (8080, true)),
            (Some(":9090"), (9090, true)),
            (Some("0.0.0.0:8080"), (8080, true)),
            (Some("[::]:8080"), (8080, true)),
            (Some("[::1]:8080"), (8080, false)),
            (Some("127.0.0.1:8080"), (8080, false)),
            (Some("localhost:8081"), (8081, false)),
        ] {
            assert_eq!(listen_port(address), Ok(expected), "{address:?}");
        }
        for bad in ["", "8080", ":http", ":0", ":$(PORT)", ":80", ":99999", ":+8080", ":"] {
            assert!(listen_port(Some(bad)).is_err(), "{bad:?}");
        }
    }
}
