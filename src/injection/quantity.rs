//! Quantities of Kubernetes (`resource.Quantity`), as far as two must be compared.

/// A quantity as it was spelt, which is how it is written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity {
    text: String,
    /// In billionths.
    nano: i128,
}

impl Quantity {
    /// Reads `50m`, `0.5`, `128Mi`, `1e3`: not negative, and small enough to be meant.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || format!("expected a quantity such as 250m, 2, 128Mi or 1Gi, not {text:?}");
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (digits, suffix) = text.split_at(end);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let good = |part: &str, most| part.len() <= most && part.bytes().all(|b| b.is_ascii_digit());
        if !good(whole, 15) || !good(fraction, 9) || whole.len() + fraction.len() == 0 {
            return Err(expected());
        }
        let number = |part: &str| if part.is_empty() { Ok(0) } else { part.parse::<i128>().map_err(|_| expected()) };
        // In billionths before the suffix counts.
        let scaled = number(whole)? * 1_000_000_000
            + number(fraction)? * 10_i128.pow(9 - u32::try_from(fraction.len()).unwrap_or(9));
        let thousands = |power: u32| 1000_i128.pow(power);
        let factor = match suffix {
            "n" => (1, 1_000_000_000),
            "u" => (1, 1_000_000),
            "m" => (1, 1000),
            "" => (1, 1),
            "k" => (thousands(1), 1),
            "M" => (thousands(2), 1),
            "G" => (thousands(3), 1),
            "T" => (thousands(4), 1),
            "Ki" => (1 << 10, 1),
            "Mi" => (1 << 20, 1),
            "Gi" => (1 << 30, 1),
            "Ti" => (1 << 40, 1),
            exponent => match exponent.strip_prefix(['e', 'E']).and_then(|power| power.parse::<u32>().ok()) {
                Some(power) if power <= 15 => (10_i128.pow(power), 1),
                _ => return Err(expected()),
            },
        };
        Ok(Self { text: text.to_owned(), nano: scaled.saturating_mul(factor.0) / factor.1 })
    }

    /// As it was spelt.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.nano.partial_cmp(&other.nano)
    }
}

#[cfg(test)]
mod tests {
    use super::Quantity;

    #[test]
    fn quantities_compare_as_the_api_server_means_them() {
        let of = |text| Quantity::parse(text).unwrap_or_else(|error| panic!("{error}"));
        for (less, more) in
            [("50m", "0.1"), ("999m", "1"), ("128Mi", "1Gi"), ("1M", "1Mi"), ("1e3", "1001"), ("2k", "2Ki")]
        {
            assert!(of(less) < of(more), "{less} < {more}");
        }
        assert!(of("1000m") >= of("1") && of("1") >= of("1000m"));
        for bad in ["", "m", "-1", "+1", "1mi", "1 Gi", ".", "1.5.2", "1e", "1e99", "99999999999999999", "1Xi", "٣"] {
            assert!(Quantity::parse(bad).is_err(), "{bad:?}");
        }
    }
}
