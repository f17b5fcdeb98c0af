//! Keys and lifetimes; the conversation with an API server is tested over sockets in `tests/it`.

use std::collections::BTreeMap;

use super::*;

fn identity(groups: &[&str], extra: &[(&str, &[&str])]) -> Identity {
    Identity {
        username: "ada".to_owned(),
        uid: "1".to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        extra: extra
            .iter()
            .map(|(key, values)| ((*key).to_owned(), values.iter().map(|value| (*value).to_owned()).collect()))
            .collect::<BTreeMap<_, _>>(),
    }
}

#[test]
fn keys_join_what_reviews_treat_alike_and_part_what_they_do_not() {
    let base = digest_of(&identity(&["a", "b"], &[("scopes", &["user:full"])]));
    assert_eq!(base, digest_of(&identity(&["b", "a", "a"], &[("scopes", &["user:full"])])), "order does not matter");
    let rotated = identity(&["a", "b"], &[("scopes", &["user:full"]), (NOT_IN_KEYS[0], &["JTI=1"])]);
    assert_eq!(base, digest_of(&rotated), "a rotated token is the same person");
    for other in [
        identity(&["a"], &[("scopes", &["user:full"])]),
        identity(&["ab"], &[("scopes", &["user:full"])]),
        identity(&["a", "b"], &[("scopes", &["user:info"])]),
        identity(&["a", "b"], &[]),
        identity(&["a", "b", "scopes"], &[]),
    ] {
        assert_ne!(base, digest_of(&other), "{:?} {:?}", other.groups, other.extra);
    }
}

#[test]
fn a_verdict_never_outlives_its_token() {
    let lifetimes = Lifetimes { known: Duration::from_secs(60), nobody: Duration::from_secs(5) };
    let caller = |until| {
        Verdict::Known(Arc::new(Caller {
            identity: identity(&[], &[]),
            digest: [0; 32],
            how: How::Bearer,
            token: Secret::new("t"),
            until,
        }))
    };
    let now = Instant::now();
    let create = |verdict| {
        let until = lifetimes.end_of(&verdict);
        let rest = moka::Expiry::expire_after_create(&OwnEnd, &[0_u8; 32], &(verdict, until), now);
        rest.map(|rest| Duration::from_secs(rest.as_secs()))
    };
    assert_eq!(create(Verdict::Nobody), Some(Duration::from_secs(5)));
    assert_eq!(create(caller(None)), Some(Duration::from_secs(60)));
    let soon = create(caller(Some(SystemTime::now() + Duration::from_secs(10)))).expect("a lifetime");
    assert!(soon <= Duration::from_secs(10) && soon >= Duration::from_secs(8), "{soon:?}");
    assert_eq!(create(caller(Some(SystemTime::UNIX_EPOCH))), Some(Duration::ZERO));
}
