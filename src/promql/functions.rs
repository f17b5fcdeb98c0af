//! The functions of PromQL, with their types, as Prometheus 3.16 knows them. What is not here is refused.

use super::tree::Type;
use Type::{Matrix, Scalar, Text, Vector};

#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) arguments: &'static [Type],
    /// How many of the last arguments may be left out.
    pub(super) optional: usize,
    /// Whether the last argument may repeat without end.
    pub(super) repeats: bool,
    pub(super) returns: Type,
    pub(super) experimental: bool,
}

pub(super) fn find(name: &str) -> Option<&'static Function> {
    let letter = name.as_bytes().first()?.wrapping_sub(b'a');
    let (start, end) = *LETTERS.get(usize::from(letter))?;
    FUNCTIONS[start..end].iter().find(|function| function.name == name)
}

/// Where the functions of each letter stand in the table.
static LETTERS: [(usize, usize); 26] = {
    let mut letters = [(0, 0); 26];
    let mut at = 0;
    while at < FUNCTIONS.len() {
        let letter = (FUNCTIONS[at].name.as_bytes()[0] - b'a') as usize;
        if letters[letter].1 == 0 {
            letters[letter].0 = at;
        }
        at += 1;
        letters[letter].1 = at;
    }
    letters
};

const fn plain(name: &'static str, arguments: &'static [Type], returns: Type) -> Function {
    Function { name, arguments, optional: 0, repeats: false, returns, experimental: false }
}

const fn optional(name: &'static str, arguments: &'static [Type], optional: usize) -> Function {
    Function { name, arguments, optional, repeats: false, returns: Vector, experimental: false }
}

const fn repeating(name: &'static str, arguments: &'static [Type], optional: usize) -> Function {
    Function { name, arguments, optional, repeats: true, returns: Vector, experimental: false }
}

const fn experimental(function: Function) -> Function {
    Function { experimental: true, ..function }
}

/// Sorted by name. `info` is left out on purpose: it reads series that no matcher of the query confines.
static FUNCTIONS: &[Function] = &[
    plain("abs", &[Vector], Vector),
    plain("absent", &[Vector], Vector),
    plain("absent_over_time", &[Matrix], Vector),
    plain("acos", &[Vector], Vector),
    plain("acosh", &[Vector], Vector),
    plain("asin", &[Vector], Vector),
    plain("asinh", &[Vector], Vector),
    plain("atan", &[Vector], Vector),
    plain("atanh", &[Vector], Vector),
    plain("avg_over_time", &[Matrix], Vector),
    plain("ceil", &[Vector], Vector),
    plain("changes", &[Matrix], Vector),
    plain("clamp", &[Vector, Scalar, Scalar], Vector),
    plain("clamp_max", &[Vector, Scalar], Vector),
    plain("clamp_min", &[Vector, Scalar], Vector),
    plain("cos", &[Vector], Vector),
    plain("cosh", &[Vector], Vector),
    plain("count_over_time", &[Matrix], Vector),
    optional("day_of_month", &[Vector], 1),
    optional("day_of_week", &[Vector], 1),
    optional("day_of_year", &[Vector], 1),
    optional("days_in_month", &[Vector], 1),
    plain("deg", &[Vector], Vector),
    plain("delta", &[Matrix], Vector),
    plain("deriv", &[Matrix], Vector),
    experimental(plain("double_exponential_smoothing", &[Matrix, Scalar, Scalar], Vector)),
    experimental(plain("end", &[], Scalar)),
    plain("exp", &[Vector], Vector),
    plain("first_over_time", &[Matrix], Vector),
    plain("floor", &[Vector], Vector),
    plain("histogram_avg", &[Vector], Vector),
    plain("histogram_count", &[Vector], Vector),
    plain("histogram_fraction", &[Scalar, Scalar, Vector], Vector),
    plain("histogram_quantile", &[Scalar, Vector], Vector),
    experimental(repeating("histogram_quantiles", &[Vector, Text, Scalar, Scalar], 1)),
    plain("histogram_stddev", &[Vector], Vector),
    plain("histogram_stdvar", &[Vector], Vector),
    plain("histogram_sum", &[Vector], Vector),
    optional("hour", &[Vector], 1),
    plain("idelta", &[Matrix], Vector),
    plain("increase", &[Matrix], Vector),
    plain("irate", &[Matrix], Vector),
    repeating("label_join", &[Vector, Text, Text, Text], 1),
    plain("label_replace", &[Vector, Text, Text, Text, Text], Vector),
    plain("last_over_time", &[Matrix], Vector),
    plain("ln", &[Vector], Vector),
    plain("log10", &[Vector], Vector),
    plain("log2", &[Vector], Vector),
    experimental(plain("mad_over_time", &[Matrix], Vector)),
    experimental(plain("max_of", &[Scalar, Scalar], Scalar)),
    plain("max_over_time", &[Matrix], Vector),
    experimental(plain("min_of", &[Scalar, Scalar], Scalar)),
    plain("min_over_time", &[Matrix], Vector),
    optional("minute", &[Vector], 1),
    optional("month", &[Vector], 1),
    plain("pi", &[], Scalar),
    plain("predict_linear", &[Matrix, Scalar], Vector),
    plain("present_over_time", &[Matrix], Vector),
    plain("quantile_over_time", &[Scalar, Matrix], Vector),
    plain("rad", &[Vector], Vector),
    experimental(plain("range", &[], Scalar)),
    plain("rate", &[Matrix], Vector),
    plain("resets", &[Matrix], Vector),
    optional("round", &[Vector, Scalar], 1),
    plain("scalar", &[Vector], Scalar),
    plain("sgn", &[Vector], Vector),
    plain("sin", &[Vector], Vector),
    plain("sinh", &[Vector], Vector),
    plain("sort", &[Vector], Vector),
    experimental(repeating("sort_by_label", &[Vector, Text], 1)),
    experimental(repeating("sort_by_label_desc", &[Vector, Text], 1)),
    plain("sort_desc", &[Vector], Vector),
    plain("sqrt", &[Vector], Vector),
    experimental(plain("start", &[], Scalar)),
    experimental(plain("start_timestamp", &[Vector], Vector)),
    plain("stddev_over_time", &[Matrix], Vector),
    plain("stdvar_over_time", &[Matrix], Vector),
    experimental(plain("step", &[], Scalar)),
    plain("sum_over_time", &[Matrix], Vector),
    plain("tan", &[Vector], Vector),
    plain("tanh", &[Vector], Vector),
    plain("time", &[], Scalar),
    plain("timestamp", &[Vector], Vector),
    experimental(plain("ts_of_first_over_time", &[Matrix], Vector)),
    experimental(plain("ts_of_last_over_time", &[Matrix], Vector)),
    experimental(plain("ts_of_max_over_time", &[Matrix], Vector)),
    experimental(plain("ts_of_min_over_time", &[Matrix], Vector)),
    plain("vector", &[Scalar], Vector),
    optional("year", &[Vector], 1),
];

/// An aggregation: its word, and the type of its parameter if it takes one.
#[derive(Debug)]
pub(super) struct Aggregation {
    pub(super) word: &'static str,
    pub(super) parameter: Option<Type>,
    pub(super) experimental: bool,
}

/// The aggregation that a word means.
pub(super) fn aggregation(index: u8) -> &'static Aggregation {
    &AGGREGATIONS[usize::from(index)]
}

const fn aggregate(word: &'static str, parameter: Option<Type>) -> Aggregation {
    Aggregation { word, parameter, experimental: false }
}

static AGGREGATIONS: &[Aggregation] = &[
    aggregate("sum", None),
    aggregate("avg", None),
    aggregate("count", None),
    aggregate("min", None),
    aggregate("max", None),
    aggregate("group", None),
    aggregate("stddev", None),
    aggregate("stdvar", None),
    aggregate("topk", Some(Scalar)),
    aggregate("bottomk", Some(Scalar)),
    aggregate("quantile", Some(Scalar)),
    aggregate("count_values", Some(Text)),
    Aggregation { word: "limitk", parameter: Some(Scalar), experimental: true },
    Aggregation { word: "limit_ratio", parameter: Some(Scalar), experimental: true },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_can_be_searched() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        assert!(FUNCTIONS.iter().all(|function| find(function.name).is_some_and(|found| found.name == function.name)));
        assert!(find("rate").is_some() && find("info").is_none() && find("RATE").is_none());
    }
}
