//! What a grant makes of `match[]`, and what it says about an answer that names namespaces itself.

use super::{Grant, Granted, QueryError, Scope};
use crate::config::Backend;
use crate::promql::{self, Confined, Reach};
use crate::refusal::{Reason, Refusal};
use crate::route::push_pair;

impl Grant {
    /// All `match[]` of a request, each confined to what the grant reaches. Without any, the selector of everything that the
    /// grant reaches by the default label, so that values of that label are the caller's own; nothing at all only for a
    /// caller who reaches everything there is.
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
        if texts.is_empty() {
            divide(&texts, self.reach()?, &default_label(backend)?, backend, limits, most, &mut parts)?;
        } else {
            divide(&texts, self.reach()?, &backend.labels, backend, limits, most, &mut parts)?;
        }
        Ok(parts)
    }

    /// The selectors that together find the names of all metrics that the grant reaches, under whatever label their owner
    /// stands; in parts, as above.
    ///
    /// # Errors
    /// As [`Self::selectors`].
    pub fn selectors_of_names(
        &self,
        backend: &Backend,
        limits: &promql::Limits,
        most: usize,
    ) -> Result<Vec<Granted<Vec<Confined>>>, QueryError> {
        let mut parts = Vec::with_capacity(1);
        divide(&[], self.reach()?, &backend.labels, backend, limits, most, &mut parts)?;
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
        let labels = default_label(backend)?;
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

/// The default label alone.
fn default_label(backend: &Backend) -> Result<promql::Labels, QueryError> {
    promql::Labels::new(backend.labels.default_label(), Vec::new())
        .map_err(|_| QueryError::Other(Refusal::internal("the default label is none")))
}

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
        return Ok(promql::confined_selectors_for(reach, labels));
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
    labels: &promql::Labels,
    backend: &Backend,
    limits: &promql::Limits,
    most: usize,
    parts: &mut Vec<Granted<Vec<Confined>>>,
) -> Result<(), QueryError> {
    let confined = confine_all(texts, reach, labels, backend, limits);
    let large = match &confined {
        Ok(selectors) => !fits(selectors, most),
        Err(QueryError::Promql(error)) => error.kind() == promql::ErrorKind::Limit,
        Err(QueryError::Other(_)) => false,
    };
    match reach {
        Reach::Namespaces(names) if large && names.len() > 1 => {
            let (left, right) = names.split_at(names.len() / 2);
            divide(texts, &Reach::Namespaces(left.into()), labels, backend, limits, most, parts)?;
            divide(texts, &Reach::Namespaces(right.into()), labels, backend, limits, most, parts)
        }
        _ if large && texts.len() > 1 => {
            let (left, right) = texts.split_at(texts.len() / 2);
            divide(left, reach, labels, backend, limits, most, parts)?;
            divide(right, reach, labels, backend, limits, most, parts)
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::{BackendKind, Origin};

    fn backend() -> Backend {
        Backend {
            name: "p".to_owned(),
            kind: BackendKind::Prometheus,
            url: Origin::parse("http://127.0.0.1:9090").expect("a URL"),
            also_urls: Vec::new(),
            labels: Arc::new(promql::Labels::new("namespace", Vec::new()).expect("a label")),
            features: promql::Features::default(),
            datasource: None,
            token: None,
            ca: None,
            parameters: BTreeMap::new(),
            timeout: Duration::from_secs(60),
            retention: Duration::from_secs(3600),
            evaluation_interval: Duration::from_secs(60),
        }
    }

    fn parts(texts: &[&str], reach: &Reach, most: usize) -> Result<Vec<Vec<String>>, QueryError> {
        let (mut parts, limits) = (Vec::new(), promql::Limits::default());
        let backend = backend();
        divide(texts, reach, &backend.labels, &backend, &limits, most, &mut parts)?;
        for part in &parts {
            let mut form = String::new();
            part.get().iter().for_each(|selector| push_pair(&mut form, "match[]", selector.text()));
            assert!(form.len() <= most, "{} bytes", form.len());
        }
        let text = |part: Granted<Vec<Confined>>| part.into_inner().into_iter().map(Confined::into_text).collect();
        Ok(parts.into_iter().map(text).collect())
    }

    fn reach(count: usize) -> Reach {
        Reach::Namespaces((0..count).map(|n| Arc::from(format!("team-{n:04}"))).collect())
    }

    #[test]
    fn parts_name_every_namespace_once_for_every_selector() {
        for (texts, count, most) in [(&[][..], 2000, 1000), (&["a", "b"], 2000, 4000), (&["a"], 3, 10_000)] {
            let parts = parts(texts, &reach(count), most).expect("parts");
            assert_eq!(parts.len() > 1, count > 3);
            for selector in 0..texts.len().max(1) {
                let named: Vec<&str> = parts
                    .iter()
                    .flat_map(|part| part[selector].split('"').nth(1).unwrap_or_default().split('|'))
                    .collect();
                assert_eq!(named.len(), count, "none twice");
                assert_eq!(named.into_iter().collect::<BTreeSet<_>>().len(), count, "all of them");
            }
        }
    }

    #[test]
    fn selectors_are_told_apart_where_namespaces_cannot_be() {
        let texts: Vec<String> = (0..20).map(|n| format!("m{n}{{x=\"{}\"}}", "y".repeat(50))).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for reach in [Reach::Everything, Reach::AnyNamespace, reach(1)] {
            let parts = parts(&texts, &reach, 500).expect("parts");
            assert!(parts.len() >= 4 && parts.iter().flatten().count() == 20, "{parts:?}");
        }
    }

    #[test]
    fn what_takes_too_many_parts_is_refused() {
        let refused = |texts: &[&str], reach: &Reach, most| match parts(texts, reach, most) {
            Err(QueryError::Other(refusal)) => refusal.message().contains("too many namespaces"),
            other => panic!("{other:?}"),
        };
        assert!(refused(&[], &reach(2000), 300));
        assert!(refused(&["a"], &reach(1), 20));
        assert!(matches!(parts(&["a +"], &reach(2000), 300), Err(QueryError::Promql(_))));
    }
}
