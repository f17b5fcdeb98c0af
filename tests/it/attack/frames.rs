//! HTTP/2 by hand (RFC 9113), for what no library would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// One setting.
pub(super) fn setting(id: u16, value: u32) -> Vec<u8> {
    let mut payload = id.to_be_bytes().to_vec();
    payload.extend(value.to_be_bytes());
    payload
}

/// A header block of literals that are not indexed.
pub(super) fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(headers: &[(N, V)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in headers {
        out.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            let mut rest = text.len();
            if rest < 127 {
                out.push(u8::try_from(rest).unwrap());
            } else {
                out.push(127);
                rest -= 127;
                while rest >= 128 {
                    out.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                out.push(u8::try_from(rest).unwrap());
            }
            out.extend_from_slice(text);
        }
    }
    out
}

/// A request's headers, with the four pseudo headers in front.
pub(super) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path)];
    all.extend_from_slice(headers);
    block(&all)
}

/// What a server says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Answer(u16),
    /// The stream is reset, with a code.
    Reset(u32),
    /// The connection is given up, with a code.
    Away(u32),
    Closed,
    Silent,
}

pub(super) struct Conversation {
    socket: TcpStream,
    heard: Vec<u8>,
}

impl Conversation {
    /// Begins with the preface and empty settings.
    pub(super) async fn begin(address: &str) -> Self {
        let mut conversation = Self { socket: TcpStream::connect(address).await.unwrap(), heard: Vec::new() };
        conversation.say(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        conversation
    }

    /// Writes as much as the peer takes within a second; whether it took all.
    pub(super) async fn say(&mut self, bytes: &[u8]) -> bool {
        matches!(tokio::time::timeout(Duration::from_secs(1), self.socket.write_all(bytes)).await, Ok(Ok(())))
    }

    /// The next frame: kind, stream, payload. An error is the end, or silence.
    async fn next(&mut self, patience: Duration) -> Result<(u8, u32, Vec<u8>), Said> {
        loop {
            if let [a, b, c, kind, _, stream @ ..] = self.heard.as_slice() {
                let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
                if self.heard.len() >= 9 + length {
                    let stream = u32::from_be_bytes(stream[..4].try_into().unwrap());
                    let kind = *kind;
                    let payload = self.heard[9..9 + length].to_vec();
                    self.heard.drain(..9 + length);
                    return Ok((kind, stream, payload));
                }
            }
            let mut buffer = [0; 16 << 10];
            match tokio::time::timeout(patience, self.socket.read(&mut buffer)).await {
                Ok(Ok(read)) if read > 0 => self.heard.extend_from_slice(&buffer[..read]),
                Ok(_) => return Err(Said::Closed),
                Err(_) => return Err(Said::Silent),
            }
        }
    }

    /// What becomes of a stream.
    pub(super) async fn outcome(&mut self, stream: u32, patience: Duration) -> Said {
        let code = |payload: &[u8], at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        loop {
            match self.next(patience).await {
                Ok((HEADERS, id, payload)) if id == stream => return Said::Answer(status(&payload)),
                Ok((RST_STREAM, id, payload)) if id == stream => return Said::Reset(code(&payload, 0)),
                // "No error" says that the connection will end; the stream may still be answered.
                Ok((GOAWAY, _, payload)) if code(&payload, 4) != 0 => return Said::Away(code(&payload, 4)),
                Ok(_) => {}
                Err(said) => return said,
            }
        }
    }
}

/// `:status` stands first in an answer: from the static table, or three digits, perhaps in Huffman's code.
fn status(block: &[u8]) -> u16 {
    let mut bytes = block.iter().copied().skip_while(|b| b & 0xe0 == 0x20);
    match bytes.next().unwrap() {
        first @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)],
        0x48 | 0x08 | 0x18 => {
            let length = bytes.next().unwrap();
            let text: Vec<u8> = bytes.take(usize::from(length & 127)).collect();
            if length & 128 == 0 {
                return std::str::from_utf8(&text).unwrap().parse().unwrap();
            }
            let bits = text.iter().fold(0_u32, |bits, b| bits << 8 | u32::from(*b)) << (32 - 8 * text.len());
            let (mut bits, mut code) = (bits, 0);
            for _ in 0..3 {
                let (digit, length) = if bits >> 27 < 3 { (bits >> 27, 5) } else { ((bits >> 26) - 0x19 + 3, 6) };
                code = code * 10 + u16::try_from(digit).unwrap();
                bits <<= length;
            }
            code
        }
        other => panic!("no status: {other:x}"),
    }
}

#[test]
fn statuses_are_read_as_servers_write_them() {
    assert_eq!(status(&[0x88]), 200);
    assert_eq!(status(&[0x20, 0x8d]), 404);
    assert_eq!(status(&[0x48, 3, b'4', b'0', b'1']), 401);
    // 401, 431 and 503 in Huffman's code.
    assert_eq!(status(&[0x48, 0x82, 0b0110_1000, 0b0000_0001]), 401);
    assert_eq!(status(&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111]), 431);
    assert_eq!(status(&[0x48, 0x83, 0b0110_1100, 0b0000_1100, 0b1111_1111]), 503);
}
