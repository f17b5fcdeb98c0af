//! Questions about a regular expression that need no engine: does it match the empty text, is it a plain list, and how long is
//! it when its repetitions are written out?

/// Deeper groups than this are taken for "matches the empty text".
const DEEPEST: usize = 50;

/// What a class costs, beside a letter, that has a name or whose case is folded: a backend writes down its letters, and some
/// have a hundred thousand.
const CLASS: u64 = 50;

/// Whether an expression in RE2 syntax, anchored at both ends, matches the empty text. In doubt, yes: the selector then
/// needs another matcher.
pub(super) fn matches_empty(pattern: &[u8]) -> bool {
    let mut at = 0;
    alternation(pattern, &mut at, 0)
}

fn alternation(pattern: &[u8], at: &mut usize, depth: usize) -> bool {
    if depth > DEEPEST {
        *at = pattern.len();
        return true;
    }
    let mut any = false;
    let mut branch = true;
    while let Some(byte) = pattern.get(*at) {
        *at += 1;
        let atom = match byte {
            b'|' => {
                any |= branch;
                branch = true;
                continue;
            }
            b')' => break,
            b'(' => {
                skip_flags(pattern, at);
                alternation(pattern, at, depth + 1)
            }
            b'[' => {
                skip_class(pattern, at);
                false
            }
            b'\\' if pattern.get(*at) == Some(&b'Q') => match quoted(pattern, at) {
                0 => true,
                // What is repeated is the last of them.
                characters => {
                    branch &= characters == 1;
                    false
                }
            },
            b'\\' => escaped(pattern, at),
            b'^' | b'$' => true,
            _ => false,
        };
        branch &= repeated(pattern, at, atom);
    }
    any | branch
}

/// Reads the repetition behind an atom.
fn repeated(pattern: &[u8], at: &mut usize, mut empty: bool) -> bool {
    loop {
        match pattern.get(*at) {
            Some(b'*' | b'?') => empty = true,
            Some(b'+') => {}
            Some(b'{') => {
                let Some((least, _, end)) = numbers(&pattern[*at..]) else { return empty };
                empty |= least == 0;
                *at += end - 1;
            }
            _ => return empty,
        }
        *at += 1;
        // Behind a repetition it says which of several matches is preferred.
        if pattern.get(*at) == Some(&b'?') {
            *at += 1;
        }
    }
}

/// Reads what stands behind a backslash; whether it matches the empty text. A name or a number in braces is no repetition.
fn escaped(pattern: &[u8], at: &mut usize) -> bool {
    let Some(letter) = pattern.get(*at) else { return false };
    *at += 1;
    let rest = pattern.get(*at..).unwrap_or_default();
    let run = |of: &[u8], is: fn(&u8) -> bool| of.iter().take_while(|byte| is(byte)).count();
    *at += match (letter, rest) {
        (b'A' | b'z' | b'B', _) => return true,
        // `\p{Greek}`, `\x{1F600}`. Only what can be such a name is looked through.
        (b'p' | b'P' | b'x', [b'{', name @ ..]) => {
            let length = run(name, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'^'));
            if name.get(length) == Some(&b'}') { length + 2 } else { 0 }
        }
        (b'p' | b'P', _) => rest.len().min(1),
        (b'x', _) => run(rest, u8::is_ascii_hexdigit).min(2),
        (b'0'..=b'7', _) => run(rest, |b| matches!(b, b'0'..=b'7')).min(2),
        _ => 0,
    };
    false
}

/// Reads `\Q…\E`, or to the end, from the `Q` on; how many characters it quotes.
fn quoted(pattern: &[u8], at: &mut usize) -> usize {
    let rest = pattern.get(*at + 1..).unwrap_or_default();
    let end = memchr::memmem::find(rest, b"\\E");
    let text = &rest[..end.unwrap_or(rest.len())];
    *at += 1 + text.len() + end.map_or(0, |_| 2);
    text.iter().filter(|byte| (**byte & 0xc0) != 0x80).count()
}

/// The least and the most of `{2}`, `{2,}` or `{2,5}`, with which a piece begins, and its length; `None` when the brace stands
/// for itself. Only digits and commas are looked through, so that many open braces cost no more than one.
fn numbers(pattern: &[u8]) -> Option<(u64, u64, usize)> {
    let rest = pattern.get(1..)?;
    let end = rest.iter().position(|b| !(b.is_ascii_digit() || *b == b','))?;
    if rest[end] != b'}' || !rest[0].is_ascii_digit() {
        return None;
    }
    let mut numbers = rest[..end]
        .split(|b| *b == b',')
        .map(|number| number.iter().fold(0_u64, |sum, b| sum.saturating_mul(10).saturating_add(u64::from(b - b'0'))));
    let least = numbers.next()?;
    Some((least, numbers.fold(least, u64::max), end + 2))
}

/// Reads what stands behind an open bracket, up to the expression in it; whether case is folded from there on.
fn skip_flags(pattern: &[u8], at: &mut usize) -> bool {
    if pattern.get(*at) != Some(&b'?') {
        return false;
    }
    // `(?:`, `(?flags:`, `(?P<name>`, `(?<name>`; `(?flags)` ends at its parenthesis and is no group.
    let start = *at + 1;
    while let Some(byte) = pattern.get(*at) {
        match byte {
            b':' | b'>' => {
                *at += 1;
                break;
            }
            b')' => break,
            _ => *at += 1,
        }
    }
    let flags = &pattern[start..(*at).max(start)];
    !flags.starts_with(b"P") && !flags.starts_with(b"<") && flags.contains(&b'i')
}

fn skip_class(pattern: &[u8], at: &mut usize) {
    if pattern.get(*at) == Some(&b'^') {
        *at += 1;
    }
    let mut first = true;
    while let Some(byte) = pattern.get(*at) {
        *at += 1;
        match byte {
            b']' if !first => return,
            b'\\' => *at += 1,
            b'[' if pattern.get(*at) == Some(&b':') => {
                // `[:alpha:]`, `[:^alpha:]`; for the same reason only letters are looked through.
                let rest = &pattern[*at + 1..];
                let end = rest.iter().position(|b| !(b.is_ascii_alphabetic() || *b == b'^')).unwrap_or(rest.len());
                if rest[end..].starts_with(b":]") {
                    *at += end + 3;
                }
            }
            _ => {}
        }
        first = false;
    }
}

/// How many more parts an expression has when its counted repetitions are written out, and its classes where they are large.
/// In doubt more than there are.
pub(super) fn repetitions(pattern: &[u8]) -> u64 {
    if memchr::memchr3(b'{', b'?', b'\\', pattern).is_none() {
        return 0;
    }
    // Of each open group: its parts written out. And all parts as they stand.
    let mut open = vec![0_u64];
    let mut plain = 0_u64;
    // The parts of what a repetition would repeat.
    let mut last = 0_u64;
    let mut folds = false;
    let mut at = 0;
    while let Some(byte) = pattern.get(at) {
        at += 1;
        let class = |folds: bool| if folds { CLASS } else { 1 };
        let atom = match byte {
            b'|' => {
                last = 0;
                continue;
            }
            b'(' => {
                let flags = pattern.get(at) == Some(&b'?');
                folds |= skip_flags(pattern, &mut at);
                if !flags || pattern.get(at) != Some(&b')') {
                    open.push(0);
                    last = 0;
                    continue;
                }
                at += 1;
                None
            }
            b')' if open.len() > 1 => open.pop(),
            b'[' => {
                skip_class(pattern, &mut at);
                plain += 1;
                Some(class(folds))
            }
            b'\\' if pattern.get(at) == Some(&b'Q') => {
                let characters = quoted(pattern, &mut at) as u64;
                plain += characters;
                // What is repeated is the last of them.
                if let Some(parts) = open.last_mut() {
                    *parts = parts.saturating_add(characters.saturating_sub(1));
                }
                (characters > 0).then_some(1)
            }
            b'\\' => {
                let letter = pattern.get(at);
                escaped(pattern, &mut at);
                plain += 1;
                Some(match letter {
                    Some(b'p' | b'P') => CLASS,
                    Some(b'D' | b'S' | b'W') => class(folds),
                    _ => 1,
                })
            }
            _ => {
                plain += 1;
                Some(1)
            }
        };
        // Flags and quotes of nothing are no part: behind them, what stood before is repeated.
        let (before, atom) = atom.map_or((last, last), |atom| (0, atom));
        last = atom.saturating_mul(counted(pattern, &mut at));
        if let Some(parts) = open.last_mut() {
            *parts = parts.saturating_add(last - before);
        }
    }
    open.into_iter().fold(0, u64::saturating_add).saturating_sub(plain)
}

/// Reads the repetitions behind an atom; how often it stands there at most.
fn counted(pattern: &[u8], at: &mut usize) -> u64 {
    let mut times = 1_u64;
    while let Some(byte) = pattern.get(*at) {
        match byte {
            b'*' | b'?' | b'+' => *at += 1,
            b'{' => {
                let Some((_, most, end)) = numbers(&pattern[*at..]) else { return times };
                times = times.saturating_mul(most.max(1));
                *at += end;
            }
            _ => return times,
        }
    }
    times
}

/// Whether a piece of an expression stands for itself alone: the letters, digits and dashes of Kubernetes names.
pub(super) fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_as_they_are_written_out() {
        for (pattern, more) in [
            ("", 0),
            ("abc", 0),
            ("a{3}", 2),
            ("a{3,}", 2),
            ("a{3,7}", 6),
            ("a{0}", 0),
            ("(ab){10}", 18),
            ("(?:a(b[c{3}]){2}){10}", 48 - 3 + 2),
            ("[^]{9}]{5}", 4),
            ("\\.{5}", 4),
            ("a{x}{", 0),
            ("a{,3}", 0),
            ("a{10}{10}", 99),
            ("a{10}+{10}", 99),
            ("(((a{10}){10}){10}){10}", 9999),
            ("((a{5}", 4),
            ("a){5}", 4),
            ("\\x{3042}\\x{5}", 0),
            ("\\x{5}{5}", 4),
            ("\\p{Greek}{3}\\pL{3}", 298),
            ("\\Qab{9}\\E{3}", 2),
            ("\\Q{9}", 0),
            ("^{9}$", 8),
            ("(^){9}", 8),
            ("(ab)(?i){9}", 16),
            ("(ab){2}(?-s){9}", 34),
            ("(ab)\\Q\\E{9}", 16),
            ("a|(?i){9}", 0),
            ("(?P<i>[^a])[^b]\\W", 0),
            ("(?i:[^a])\\W", 98),
            ("(?s-i)[^a]{2}", 99),
            ("\\p{Greek}", 49),
            // A bracket that is quoted closes nothing.
            ("(\\Q)\\Eab){5}", 12),
            ("(\\Q(\\Eab){5}", 12),
        ] {
            assert_eq!(repetitions(pattern.as_bytes()), more, "{pattern}");
        }
        assert_eq!(repetitions("(".repeat(1000).as_bytes()), 0);
        let deep = format!("{}a{}", "(".repeat(100), "){9}".repeat(100));
        assert!(repetitions(deep.as_bytes()) > 1 << 60);
    }

    #[test]
    fn expressions_that_match_nothing_at_all_are_found() {
        for empty in [
            "",
            ".*",
            "a*",
            "a?",
            "(a|)",
            "a|",
            "()",
            "(?:a?)",
            "a{0,3}",
            "^$",
            "(?i)",
            "(a*)+",
            "[ab]*",
            "\\d*",
            "\\Q\\E",
            "a*|b",
            "a{0}?",
            "\\pN*",
            "\\p{Greek}?",
            "\\x41*",
            "\\x{41}*",
            "\\101*",
            "\\Qa\\E?",
            "\\Qé\\E*",
        ] {
            assert!(matches_empty(empty.as_bytes()), "{empty}");
        }
        for full in [
            ".+",
            "a",
            "a|b",
            "[]a]",
            "[^]]",
            "\\.",
            "(a|b)",
            "a{1,}",
            "x(?:a?)",
            "(?P<n>a)",
            "\\Qa\\E",
            "a+b*",
            "(?i)a",
            "[[:alpha:]]",
            "a+?",
            ".+?b*",
            "a{1,}?",
            "\\pN",
            "\\x{0}",
            "\\Qab\\E?",
            "\\Qa*",
        ] {
            assert!(!matches_empty(full.as_bytes()), "{full}");
        }
        let deep = "(".repeat(10_000);
        assert!(matches_empty(deep.as_bytes()));
    }

    #[test]
    fn hostile_expressions_cost_no_more_than_their_length() {
        for part in ["{", "{1", "{1,", "[[:", "[[:a", "[:", "(?", "\\Q", "\\Qa\\E", "\\p{", "\\x{a", "[^", "a|", "(|"] {
            let pattern = format!("[{}", part.repeat((64 << 10) / part.len()));
            for pattern in [&pattern, &pattern[1..]] {
                let began = std::time::Instant::now();
                let _ = (matches_empty(pattern.as_bytes()), repetitions(pattern.as_bytes()));
                // Looking ahead to the end from each byte takes many times longer.
                assert!(began.elapsed() < std::time::Duration::from_millis(400), "{part}: {:?}", began.elapsed());
            }
        }
    }

    #[test]
    fn plain_names_stand_for_themselves() {
        assert!(is_plain_name(b"a") && is_plain_name(b"team-b"));
        for other in ["", "a|b", "a.b", "(a)", "a\\-b", "A", "a_b", ".*"] {
            assert!(!is_plain_name(other.as_bytes()), "{other}");
        }
    }
}
