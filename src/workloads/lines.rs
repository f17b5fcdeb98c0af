//! Lines of a watch, out of pieces that end anywhere.

/// The longest line that is read: an object in etcd has 1.5 MiB at most, and JSON writes some of it longer.
const LONGEST: usize = 8 << 20;

/// What has come of a line that has not ended yet.
#[derive(Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    /// The line is too long: what is left of it is passed over.
    skips: bool,
}

impl Lines {
    /// Gives each line that a piece ends to `take`, and whether one was passed over.
    pub(super) fn push(&mut self, mut piece: &[u8], mut take: impl FnMut(&[u8])) -> bool {
        let mut skipped = false;
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (line, rest) = piece.split_at(end);
            piece = &rest[1..];
            if std::mem::take(&mut self.skips) || self.begun.len() + line.len() > LONGEST {
                skipped = true;
            } else if self.begun.is_empty() {
                take(line);
            } else {
                self.begun.extend_from_slice(line);
                take(&self.begun);
            }
            self.begun = Vec::new();
        }
        if !self.skips {
            if self.begun.len() + piece.len() > LONGEST {
                self.begun = Vec::new();
                self.skips = true;
            } else {
                self.begun.extend_from_slice(piece);
            }
        }
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let (mut lines, mut found, mut skipped) = (Lines::default(), Vec::new(), false);
        for piece in pieces {
            skipped |= lines.push(piece, |line| found.push(String::from_utf8_lossy(line).into_owned()));
        }
        (found, skipped)
    }

    #[test]
    fn pieces_end_anywhere() {
        let text = b"one\n\ntwo\nthree\nfour";
        let whole = vec!["one".to_owned(), String::new(), "two".to_owned(), "three".to_owned()];
        for cut in 0..text.len() {
            for other in cut..text.len() {
                let pieces = [&text[..cut], &text[cut..other], &text[other..]];
                assert_eq!(read(&pieces), (whole.clone(), false), "{cut} {other}");
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_is_read() {
        let long = vec![b'x'; LONGEST];
        assert_eq!(read(&[b"a\n", &long, b"x", b"y\nb\n"]), (vec!["a".to_owned(), "b".to_owned()], true));
        assert_eq!(read(&[&long, b"x\nb\n"]), (vec!["b".to_owned()], true));
        assert_eq!(read(&[b"a", &long, b"\nb\n"]).0, ["b"]);
        let (found, skipped) = read(&[&long, b"\n"]);
        assert_eq!((found[0].len(), skipped), (LONGEST, false), "the longest is read");
    }
}
