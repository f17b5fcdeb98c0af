//! Words of one line: durations, sizes, URLs, address blocks. Each has one way in and says what it expects.

use std::net::IpAddr;
use std::time::Duration;

use super::{Cidr, Origin};

/// `250ms`, `15s`, `1h30m`, `30d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a duration such as 15s, 5m or 1h30m, not {text:?}");
    let (mut total, mut rest, mut last) = (0_u64, text, 6);
    if text.is_empty() {
        return Err(expected());
    }
    while !rest.is_empty() {
        let digits =
            rest.find(|c: char| !c.is_ascii_digit()).filter(|end| (1..=9).contains(end)).ok_or_else(expected)?;
        let number: u64 = rest[..digits].parse().map_err(|_| expected())?;
        rest = &rest[digits..];
        let (length, order, millis) = match rest.as_bytes() {
            [b'm', b's', ..] => (2, 1, 1),
            [b's', ..] => (1, 2, 1000),
            [b'm', ..] => (1, 3, 60_000),
            [b'h', ..] => (1, 4, 3_600_000),
            [b'd', ..] => (1, 5, 86_400_000),
            _ => return Err(expected()),
        };
        if order >= last {
            return Err(expected());
        }
        (last, rest) = (order, &rest[length..]);
        total += number * millis;
    }
    Ok(Duration::from_millis(total))
}

/// How a duration is printed.
pub(crate) fn write_duration(duration: Duration) -> String {
    let mut left = duration.as_millis();
    if left == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, millis) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if left >= millis {
            out.push_str(&format!("{}{unit}", left / millis));
            left %= millis;
        }
    }
    out
}

/// `512MiB`, `64KiB`, `1GiB`, or bytes.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let expected = || format!("expected a size such as 512MiB, 64KiB or 1048576, not {text:?}");
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: usize = text[..end].parse().map_err(|_| expected())?;
    let unit = match text[end..].trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(expected()),
    };
    number.checked_mul(unit).ok_or_else(expected)
}

/// How a size is printed.
pub(super) fn write_size(size: usize) -> String {
    for (unit, bytes) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if size >= bytes && size.is_multiple_of(bytes) {
            return format!("{}{unit}", size / bytes);
        }
    }
    size.to_string()
}

/// An absolute `http` or `https` URL.
pub(super) fn origin(text: &str) -> Result<Origin, String> {
    let expected = |what: &str| format!("expected a URL such as https://prometheus.example:9090, {what}");
    let (scheme, rest) = text.split_once("://").ok_or_else(|| expected("not a text without a scheme"))?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "https" => true,
        "http" => false,
        other => return Err(expected(&format!("not the scheme {other:?}"))),
    };
    if rest.bytes().any(|b| {
        !b.is_ascii_graphic() || matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'%')
    }) {
        return Err(expected("without spaces, escapes or other special characters"));
    }
    if rest.contains(['?', '#']) {
        return Err(expected("without a query or fragment"));
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if authority.contains('@') {
        return Err(expected("without a user name or password"));
    }
    let (host, port) = if let Some(end) = authority.find(']') {
        (&authority[..=end], authority[end + 1..].strip_prefix(':'))
    } else {
        authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
    };
    let named = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    let six = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    if !(named || six) {
        return Err(expected("with a host name or address"));
    }
    let port = match port {
        None => {
            if tls {
                443
            } else {
                80
            }
        }
        Some(port) => {
            port.parse().ok().filter(|port| *port > 0).ok_or_else(|| expected("with a port from 1 to 65535"))?
        }
    };
    let base = path.trim_end_matches('/');
    if base.split('/').skip(1).any(|segment| segment.is_empty() || segment == "." || segment == "..") {
        return Err(expected("without empty or dot segments in its path"));
    }
    Ok(Origin { tls, host: host.to_ascii_lowercase(), port, base: base.to_owned() })
}

/// `10.0.0.0/8`, or one address.
pub(super) fn cidr(text: &str) -> Result<Cidr, String> {
    let expected = || format!("expected an address or a block such as 10.128.0.0/14, not {text:?}");
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().map_err(|_| expected())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => most,
        Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= most).ok_or_else(expected)?,
    };
    Ok(Cidr { address, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_written() {
        for (text, millis) in [("15s", 15_000), ("250ms", 250), ("1h30m", 5_400_000), ("30d", 2_592_000_000), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(duration(&write_duration(Duration::from_millis(millis))), Ok(Duration::from_millis(millis)));
        }
        for bad in ["", "15", "s", "1.5s", "30m1h", "1s1s", "-1s", "1w", "9999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for (text, bytes) in [("512MiB", 512 << 20), ("1KiB", 1024), ("7", 7), ("2 GiB", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(size(&write_size(bytes)), Ok(bytes));
        }
        for bad in ["", "MiB", "1MB", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_are_plain() {
        let written = |text: &str| origin(text).map(|origin| origin.to_string());
        assert_eq!(written("http://Prom:9090/"), Ok("http://prom:9090".to_owned()));
        assert_eq!(written("https://a.b/x/y/"), Ok("https://a.b:443/x/y".to_owned()));
        assert_eq!(written("http://[::1]:80"), Ok("http://[::1]:80".to_owned()));
        for bad in [
            "",
            "prom:9090",
            "ftp://x",
            "http://",
            "http://u:p@x",
            "http://x?a",
            "http://x#a",
            "http://x:0",
            "http://x:99999",
            "http://x/../y",
            "http://x//y",
            "http://x y",
            "http://[x]",
            "http://x/%2e",
        ] {
            assert!(written(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn near_words_are_found() {}
}
