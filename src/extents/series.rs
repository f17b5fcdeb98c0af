//! The series of answers: their labels as they were written, in the order of Prometheus.

use std::sync::Arc;

use super::matrix::Unreadable;

/// A series.
#[derive(Debug)]
pub(super) struct Series {
    /// Its labels as the backend wrote them: `{"__name__":"up"}`.
    pub(super) metric: Box<[u8]>,
    /// Labels sorted by name, so written that comparing bytes compares labels as Prometheus does: by the name of the first
    /// that differs, then by its value.
    order: Box<[u8]>,
}

impl Series {
    fn read(metric: &[u8]) -> Result<Self, Unreadable> {
        let mut labels = labels(metric)?;
        labels.sort_unstable();
        if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Unreadable::Shape);
        }
        let mut order = Vec::with_capacity(metric.len() + 8);
        for (name, value) in &labels {
            for text in [name, value] {
                for byte in text.bytes() {
                    order.push(byte);
                    if byte == 0 {
                        order.push(0xff);
                    }
                }
                order.extend_from_slice(&[0, 0]);
            }
        }
        Ok(Self { metric: metric.into(), order: order.into() })
    }
}

/// The names and values of labels as they were written.
fn labels(metric: &[u8]) -> Result<Vec<(String, String)>, Unreadable> {
    struct Pairs(Vec<(String, String)>);
    impl<'de> serde::Deserialize<'de> for Pairs {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Pairs;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("labels")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                    let mut pairs = Vec::new();
                    while let Some(pair) = map.next_entry()? {
                        pairs.push(pair);
                    }
                    Ok(Pairs(pairs))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }
    serde_json::from_slice::<Pairs>(metric).map(|pairs| pairs.0).map_err(|_| Unreadable::Shape)
}

/// The series of an answer, in order.
#[derive(Debug, Default)]
pub(super) struct List(pub(super) Vec<Arc<Series>>);

impl List {
    /// The list of these labels, and the place of each in it. `known` is a list that is likely the same.
    pub(super) fn of<'b>(
        metrics: impl ExactSizeIterator<Item = &'b [u8]> + Clone,
        known: Option<&Arc<Self>>,
    ) -> Result<(Arc<Self>, Option<Vec<u32>>), Unreadable> {
        if let Some(known) = known
            && known.0.len() == metrics.len()
            && known.0.iter().zip(metrics.clone()).all(|(series, metric)| *series.metric == *metric)
        {
            return Ok((Arc::clone(known), None));
        }
        let mut read: Vec<(Series, u32)> = Vec::with_capacity(metrics.len());
        for (place, metric) in metrics.enumerate() {
            read.push((Series::read(metric)?, u32::try_from(place).map_err(|_| Unreadable::Shape)?));
        }
        let sorted = read.is_sorted_by(|a, b| a.0.order < b.0.order);
        if !sorted {
            read.sort_unstable_by(|a, b| a.0.order.cmp(&b.0.order));
            if read.windows(2).any(|pair| pair[0].0.order == pair[1].0.order) {
                return Err(Unreadable::Duplicate);
            }
        }
        let mut places = vec![0; if sorted { 0 } else { read.len() }];
        let (mut series, mut old) =
            (Vec::with_capacity(read.len()), known.map_or(&[][..], |known| &known.0).iter().peekable());
        for (now, (one, before)) in read.into_iter().enumerate() {
            if let Some(place) = places.get_mut(before as usize) {
                *place = u32::try_from(now).unwrap_or(u32::MAX);
            }
            // A series that is known is kept once.
            while old.next_if(|old| old.order < one.order).is_some() {}
            series.push(old.next_if(|old| old.order == one.order).cloned().unwrap_or_else(|| Arc::new(one)));
        }
        Ok((Arc::new(Self(series)), (!sorted).then_some(places)))
    }

    /// How many bytes it takes.
    pub(super) fn weight(&self) -> usize {
        self.0.iter().map(|series| series.metric.len() + series.order.len() + 56).sum()
    }
}

/// All series of several lists in order, and for each list the place of its series in that.
pub(super) struct Union<'l> {
    pub(super) series: Vec<&'l Series>,
    lists: Vec<(*const List, Vec<u32>)>,
}

impl<'l> Union<'l> {
    pub(super) fn of(lists: impl Iterator<Item = &'l Arc<List>>) -> Self {
        let mut distinct: Vec<&Arc<List>> = Vec::new();
        for list in lists {
            if !distinct.iter().any(|known| Arc::ptr_eq(known, list)) {
                distinct.push(list);
            }
        }
        if let [one] = distinct.as_slice() {
            return Self { series: one.0.iter().map(AsRef::as_ref).collect(), lists: Vec::new() };
        }
        let mut series: Vec<&Series> = distinct.iter().flat_map(|list| list.0.iter().map(AsRef::as_ref)).collect();
        series.sort_by(|a, b| a.order.cmp(&b.order));
        series.dedup_by(|a, b| a.order == b.order);
        let places = |list: &List| {
            let mut at = 0;
            let place = |one: &Arc<Series>| {
                while series[at].order != one.order {
                    at += 1;
                }
                u32::try_from(at).unwrap_or(u32::MAX)
            };
            list.0.iter().map(place).collect()
        };
        let lists = distinct.iter().map(|list| (Arc::as_ptr(list), places(list))).collect();
        Self { series, lists }
    }

    /// The place in the union of a list's series.
    pub(super) fn place(&self, list: &Arc<List>) -> impl Fn(u32) -> u32 {
        let places = self.lists.iter().find(|(known, _)| std::ptr::eq(*known, Arc::as_ptr(list)));
        let places = places.map(|(_, places)| places.as_slice());
        move |series| places.map_or(series, |places| places[series as usize])
    }

    /// A list of all.
    pub(super) fn list(&self, lists: [&Arc<List>; 2]) -> Arc<List> {
        let [a, b] = lists;
        if Arc::ptr_eq(a, b) || self.series.len() == a.0.len() {
            return Arc::clone(a);
        }
        if self.series.len() == b.0.len() {
            return Arc::clone(b);
        }
        let (mut a, mut b) = (a.0.iter().peekable(), b.0.iter().peekable());
        let mut all = Vec::with_capacity(self.series.len());
        for series in &self.series {
            let ours = a.next_if(|one| one.order == series.order);
            let theirs = b.next_if(|one| one.order == series.order);
            all.extend(ours.or(theirs).cloned());
        }
        Arc::new(List(all))
    }
}
