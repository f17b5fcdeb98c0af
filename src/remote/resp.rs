//! The Redis serialization protocol, version 2, as far as it is spoken here: commands as arrays of bulk strings, and the
//! replies that they have. What a reply claims to be is bounded before anything is set aside for it.

use std::time::Duration;

use bytes::{Buf, BytesMut};

/// The longest line: a status, an error, a number.
const LONGEST_LINE: usize = 4096;

/// A reply that is no error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// `+OK`
    Simple,
    /// `:1`
    Number,
    /// `$-1`
    Nothing,
    /// `$3 abc`
    Bulk(BytesMut),
}

/// Why bytes are no reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// `-ERR …`
    Error(String),
    /// More than is taken.
    TooLarge,
    /// Not of the protocol.
    Nonsense,
}

/// A command.
pub(super) fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(words.iter().map(|word| word.len() + 16).sum::<usize>() + 16);
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

pub(super) fn get(name: &str) -> Vec<u8> {
    command(&[b"GET", name.as_bytes()])
}

/// Stores for a while; `once`: only if nothing has the name.
pub(super) fn set(name: &str, value: &[u8], ttl: Duration, once: bool) -> Vec<u8> {
    let millis = ttl.as_millis().clamp(1, 1 << 45).to_string();
    let mut words: Vec<&[u8]> = vec![b"SET", name.as_bytes(), value, b"PX", millis.as_bytes()];
    if once {
        words.push(b"NX");
    }
    command(&words)
}

/// Takes the next reply off what has been received; `None` while it is not whole. A bulk string has at most `largest` bytes.
pub(super) fn take(buffer: &mut BytesMut, largest: usize) -> Result<Option<Reply>, Bad> {
    let Some(end) = buffer.windows(2).take(LONGEST_LINE).position(|pair| pair == b"\r\n") else {
        return if buffer.len() > LONGEST_LINE { Err(Bad::Nonsense) } else { Ok(None) };
    };
    let (kind, line) = buffer[..end].split_first().ok_or(Bad::Nonsense)?;
    let line = std::str::from_utf8(line).map_err(|_| Bad::Nonsense)?;
    let reply = match kind {
        b'+' => Reply::Simple,
        b'-' => return Err(Bad::Error(line.chars().take(120).collect())),
        b':' => {
            line.parse::<i64>().map_err(|_| Bad::Nonsense)?;
            Reply::Number
        }
        b'$' if line == "-1" => Reply::Nothing,
        b'$' => {
            let length: usize = line.parse().map_err(|_| Bad::Nonsense)?;
            if length > largest {
                return Err(Bad::TooLarge);
            }
            let whole = end + 2 + length + 2;
            if buffer.len() < whole {
                buffer.reserve(whole - buffer.len());
                return Ok(None);
            }
            if &buffer[whole - 2..whole] != b"\r\n" {
                return Err(Bad::Nonsense);
            }
            buffer.advance(end + 2);
            let value = buffer.split_to(length);
            buffer.advance(2);
            return Ok(Some(Reply::Bulk(value)));
        }
        _ => return Err(Bad::Nonsense),
    };
    buffer.advance(end + 2);
    Ok(Some(reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Result<Option<Reply>, Bad> {
        take(&mut BytesMut::from(text), 10)
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        assert_eq!(get("a"), b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
        assert_eq!(
            set("a", b"\r\n", Duration::from_millis(1500), true),
            b"*6\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\n\r\n\r\n$2\r\nPX\r\n$4\r\n1500\r\n$2\r\nNX\r\n"
        );
        assert!(set("a", b"", Duration::ZERO, false).ends_with(b"$2\r\nPX\r\n$1\r\n1\r\n"), "no time is the shortest");
    }

    #[test]
    fn replies_are_whole_or_wait_or_are_refused() {
        assert_eq!(all(b"+OK\r\n"), Ok(Some(Reply::Simple)));
        assert_eq!(all(b":12\r\n"), Ok(Some(Reply::Number)));
        assert_eq!(all(b"$-1\r\n"), Ok(Some(Reply::Nothing)));
        assert_eq!(all(b"$3\r\na\r\n\r\n"), Ok(Some(Reply::Bulk(BytesMut::from(&b"a\r\n"[..])))));
        assert_eq!(all(b"-OOM no\r\n"), Err(Bad::Error("OOM no".to_owned())));
        for bad in [
            &b"*1\r\n"[..],
            b"$x\r\n",
            b"$-2\r\n",
            b":a\r\n",
            b"\r\n",
            b"HTTP/1.1 400\r\n",
            b"$1\r\nab\r\n",
            b"+\xff\r\n",
        ] {
            assert_eq!(all(bad), Err(Bad::Nonsense), "{bad:?}");
        }
        assert_eq!(all(b"$11\r\n"), Err(Bad::TooLarge));
        assert_eq!(all(b"$99999999999999999999999\r\n"), Err(Bad::Nonsense));
        assert_eq!(all(&[b'+'; LONGEST_LINE + 1]), Err(Bad::Nonsense));
        // However it is cut.
        let stream = b"$5\r\nhello\r\n+OK\r\n$0\r\n\r\n";
        let (mut buffer, mut replies) = (BytesMut::new(), Vec::new());
        for byte in stream {
            buffer.extend_from_slice(&[*byte]);
            replies.extend(take(&mut buffer, 10).expect("good"));
        }
        assert!(buffer.is_empty());
        assert_eq!(replies, [Reply::Bulk(BytesMut::from(&b"hello"[..])), Reply::Simple, Reply::Bulk(BytesMut::new())]);
    }
}
