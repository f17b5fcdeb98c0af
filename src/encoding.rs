//! Bytes as text: base64url and hexadecimal digits, each with one spelling only.

/// base64url without padding (RFC 4648, 5).
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    sixes(bytes, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
}

/// base64 with padding (RFC 4648, 4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    let mut out = sixes(bytes, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    while !out.len().is_multiple_of(4) {
        out.push('=');
    }
    out
}

fn sixes(bytes: &[u8], letters: &[u8; 64]) -> String {
    let four = |group: u32| [18, 12, 6, 0].map(|shift| letters[(group >> shift & 63) as usize]);
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    let chunks = bytes.chunks_exact(3);
    let rest = chunks.remainder();
    for chunk in chunks {
        out.extend_from_slice(&four(u32::from(chunk[0]) << 16 | u32::from(chunk[1]) << 8 | u32::from(chunk[2])));
    }
    if let Some(first) = rest.first() {
        let second = rest.get(1).copied().unwrap_or_default();
        out.extend_from_slice(&four(u32::from(*first) << 16 | u32::from(second) << 8)[..=rest.len()]);
    }
    String::from_utf8(out).unwrap_or_default()
}

/// The bytes of a base64url text without padding; `None` for anything that [`base64url`] does not write.
#[must_use]
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut held) = (0_u32, 0_u8);
    for byte in text.bytes() {
        let value = VALUES[usize::from(byte)];
        if value > 63 {
            return None;
        }
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    // What is left over must be nothing, or one value would have several spellings.
    (held < 6 && bits & ((1 << held) - 1) == 0).then_some(out)
}

/// The value of each letter; 255 for what is none.
static VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let mut table = [255; 256];
    let mut value = 0;
    while value < 64 {
        let letter = match value {
            0..=25 => b'A' + value,
            26..=51 => b'a' + value - 26,
            52..=61 => b'0' + value - 52,
            62 => b'-',
            _ => b'_',
        };
        table[letter as usize] = value;
        value += 1;
    }
    table
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

/// One of the three parts of a JWT in its compact form (RFC 7515, 7.1), decoded and not believed: 0 is the header, 1 the claims.
#[must_use]
pub fn jwt_part(token: &str, index: usize) -> Option<Vec<u8>> {
    let mut parts = token.split('.');
    let three = [parts.next()?, parts.next()?, parts.next()?];
    if parts.next().is_some() {
        return None;
    }
    from_base64url(three.get(index)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base64_has_its_padding() {
        for (bytes, text) in [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xfb\xff", "+/8=")]
        {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn vectors_of_rfc_4648() {
        for (plain, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("fooba", "Zm9vYmE")]
        {
            assert_eq!(base64url(plain.as_bytes()), text);
            assert_eq!(from_base64url(text), Some(plain.as_bytes().to_vec()));
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
        for bad in ["Zh", "Zm9", "Z", "Zg==", "Zm9v ", "+/8", "Zm9\u{e9}"] {
            assert_eq!(from_base64url(bad), None, "{bad}");
        }
        assert_eq!(hex(&[0, 0x1f, 0xa0]), "001fa0");
    }

    #[test]
    fn a_jwt_has_three_parts() {
        assert_eq!(jwt_part("e30.e30.sig", 1), Some(b"{}".to_vec()));
        for bad in ["e30.e30", "e30.e30.x.y", "sha256~abc", "e30.!.x"] {
            assert_eq!(jwt_part(bad, 1), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn bytes_have_one_spelling(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "[A-Za-z0-9_-]{0,24}") {
            prop_assert_eq!(from_base64url(&base64url(&bytes)), Some(bytes));
            if let Some(bytes) = from_base64url(&text) {
                prop_assert_eq!(base64url(&bytes), text);
            }
        }
    }
}
