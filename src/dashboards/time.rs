//! Timestamps of the cluster's objects.

/// Reads `2026-01-02T03:04:05Z`, with or without a fraction, with `Z` or an offset, into seconds since 1970
/// (RFC 3339, section 5.6). Fractions are cut off.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, digits: usize| -> Option<i64> {
        let part = bytes.get(from..from + digits)?;
        part.iter().all(u8::is_ascii_digit).then(|| part.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
    };
    let sign = |at: usize, allowed: &[u8]| bytes.get(at).is_some_and(|b| allowed.contains(b)).then_some(());
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    for (at, allowed) in [(4, &b"-"[..]), (7, b"-"), (10, b"Tt "), (13, b":"), (16, b":")] {
        sign(at, allowed)?;
    }
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = bytes.get(19..)?;
    if let [b'.', fraction @ ..] = rest {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        rest = (digits > 0).then(|| &fraction[digits..])?;
    }
    let offset = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = bytes.len() - 5;
            let minutes = number(at, 2)? * 60 + number(at + 3, 2)?;
            if *sign == b'+' { minutes * 60 } else { -minutes * 60 }
        }
        _ => return None,
    };
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// Days from 1970-01-01 in the Gregorian calendar: years begin in March, so that the leap day is the last.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month, day, hour, minute and second.
const fn parts(seconds: i64) -> [i64; 6] {
    let (day, second) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let era = day.div_euclid(146_097);
    let of_era = day - era * 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    [year, month, day, second / 3600, second / 60 % 60, second % 60]
}

/// The inverse, for people: `2026-01-02 03:04 UTC`. Nothing for times outside of the years 0 to 9999.
pub(super) fn words(seconds: i64) -> Option<String> {
    let [year, month, day, hour, minute, _] = parts(seconds);
    (0..=9999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC"))
}

/// The inverse, for machines; the beginning of 1970 for times outside of the years 0 to 9999.
pub(super) fn rfc3339(seconds: i64) -> String {
    let [year, month, day, hour, minute, second] = parts(seconds);
    if !(0..=9999).contains(&year) {
        return rfc3339(0);
    }
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-25T02:00:45Z", Some(1_795_572_045)),
            ("2026-11-25T02:00:45.123456Z", Some(1_795_572_045)),
            ("2026-11-25T04:00:45+02:00", Some(1_795_572_045)),
            ("2000-02-29T23:59:59Z", Some(951_868_799)),
            ("1969-12-31T23:59:59Z", Some(-1)),
            ("0000-01-01T00:00:00Z", Some(-62_167_219_200)),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for bad in [
            "",
            "2026",
            "2026-13-01T00:00:00Z",
            "2026-11-25T02:00:45",
            "2026-11-25T02:00:45.Z",
            "2026-11-25 02:00",
            "2026-11-25T02:00:45+2:00",
            "2026-11-25T24:00:45Z",
            "-026-11-25T02:00:45Z",
            "2026-11-25T02:00:45Zx",
            "٢٠٢٦-11-25T02:00:45Z",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        assert_eq!(words(1_795_572_045).as_deref(), Some("2026-11-25 02:00 UTC"));
        assert_eq!((words(i64::MAX), words(i64::MIN)), (None, None));
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00Z");
        for day in (-719_000..2_900_000).step_by(37) {
            let text = rfc3339(day * 86_400 + 59);
            assert_eq!(seconds(&text), Some(day * 86_400 + 59), "{text}");
        }
    }
}
