//! What a grant makes of `match[]`, and what it says about an answer that names namespaces itself.

use super::{Grant, Granted, QueryError, Scope, internal};
use crate::config::Backend;
use crate::promql::{self, Confined, Reach};
use crate::refusal::{Reason, Refusal};
use crate::route::push_pair;

impl Grant {
    /// All `match[]` of a request, each confined to what the grant reaches. Without any, the selector of everything that the
    /// grant reaches; nothing at all only for a caller who reaches everything there is.
    ///
    /// They come in parts, each of which takes at most `most` bytes of a form; mostly there is one. Namespaces are told apart
    /// first, then selectors: what all parts find together is what the whole would find.
    ///
    /// # Errors
    /// As [`Self::query`]; 422 when it takes too many parts.
    pub fn selectors(
        &self,
        texts: &[impl AsRef<str>],
        backend: &Backend,
        limits: &promql::Limits,
        most: usize,
    ) -> Result<Vec<Granted<Vec<Confined>>>, QueryError> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let mut parts = Vec::with_capacity(1);
        divide(&texts, self.reach()?, backend, limits, most, &mut parts)?;
        Ok(parts)
    }

    /// The selectors for rules, which carry the default label whatever their metrics do. Where the grant's namespaces take more
    /// than `most` bytes of a form, those of any namespace; the answer must be filtered by [`Self::reaches`] either way.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub fn rule_selectors(
        &self,
        texts: &[impl AsRef<str>],
        backend: &Backend,
        limits: &promql::Limits,
        most: usize,
    ) -> Result<Granted<Vec<Confined>>, QueryError> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let labels = promql::Labels::new(backend.labels.default_label(), Vec::new())
            .map_err(|_| QueryError::Other(internal("the default label is none")))?;
        let reach = self.reach()?;
        match confine_all(&texts, reach, &labels, backend, limits) {
            Ok(selectors) if fits(&selectors, most) => return Ok(Granted(selectors)),
            Err(QueryError::Promql(error)) if error.kind() == promql::ErrorKind::Limit => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let selectors = confine_all(&texts, &Reach::AnyNamespace, &labels, backend, limits)?;
        if fits(&selectors, most) { Ok(Granted(selectors)) } else { Err(QueryError::Other(too_large())) }
    }

    /// Whether something that names its namespace is within the grant.
    #[must_use]
    pub fn reaches(&self, namespace: &str) -> bool {
        match &self.scope {
            Scope::Metrics(metrics) => match &metrics.reach {
                Reach::Everything => true,
                Reach::AnyNamespace => !namespace.is_empty(),
                Reach::Namespaces(names) => !namespace.is_empty() && names.iter().any(|name| **name == *namespace),
            },
            _ => false,
        }
    }

    /// Whether all series are within the grant, also those that name no namespace.
    #[must_use]
    pub fn reaches_everything(&self) -> bool {
        matches!(&self.scope, Scope::Metrics(metrics) if metrics.reach == Reach::Everything)
    }
}

/// The most parts of one question.
const MOST_PARTS: usize = 64;

fn too_large() -> Refusal {
    Refusal::new(Reason::QueryLimit, "this names too many namespaces at once; choose some by a matcher")
}

fn confine_all(
    texts: &[&str],
    reach: &Reach,
    labels: &promql::Labels,
    backend: &Backend,
    limits: &promql::Limits,
) -> Result<Vec<Confined>, QueryError> {
    if texts.is_empty() {
        return Ok(promql::confined_selector_for(reach, labels).into_iter().collect());
    }
    texts
        .iter()
        .map(|text| promql::confine_selector(text, reach, labels, limits, backend.features))
        .collect::<Result<_, _>>()
        .map_err(QueryError::Promql)
}

/// Whether selectors take at most so many bytes as `match[]` of a form.
fn fits(selectors: &[Confined], most: usize) -> bool {
    // No escape is longer than three bytes, and most requests are far from the bound.
    if selectors.iter().map(|selector| selector.text().len() * 3 + 16).sum::<usize>() <= most {
        return true;
    }
    let mut form = String::new();
    for selector in selectors {
        push_pair(&mut form, "match[]", selector.text());
    }
    form.len() <= most
}

fn divide(
    texts: &[&str],
    reach: &Reach,
    backend: &Backend,
    limits: &promql::Limits,
    most: usize,
    parts: &mut Vec<Granted<Vec<Confined>>>,
) -> Result<(), QueryError> {
    let confined = confine_all(texts, reach, &backend.labels, backend, limits);
    let large = match &confined {
        Ok(selectors) => !fits(selectors, most),
        Err(QueryError::Promql(error)) => error.kind() == promql::ErrorKind::Limit,
        Err(QueryError::Other(_)) => false,
    };
    match reach {
        Reach::Namespaces(names) if large && names.len() > 1 => {
            let (left, right) = names.split_at(names.len() / 2);
            divide(texts, &Reach::Namespaces(left.into()), backend, limits, most, parts)?;
            divide(texts, &Reach::Namespaces(right.into()), backend, limits, most, parts)
        }
        _ if large && texts.len() > 1 => {
            let (left, right) = texts.split_at(texts.len() / 2);
            divide(left, reach, backend, limits, most, parts)?;
            divide(right, reach, backend, limits, most, parts)
        }
        _ => {
            let confined = confined?;
            if large || parts.len() == MOST_PARTS {
                return Err(QueryError::Other(too_large()));
            }
            parts.push(Granted(confined));
            Ok(())
        }
    }
}
