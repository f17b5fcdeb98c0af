//! What is remembered holds no longer than it should, and who is not remembered yet is heard all the same.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use perses_sidecar_stack::openshift::{Endpoint, Fault};

use crate::support::{gate, speak};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_datasource_that_was_deleted_during_a_look_does_not_come_back() {
    let gate = Arc::new(gate("").await);
    let root = gate.token("root");
    let datasource = format!(
        r#"{{"kind":"GlobalDatasource","metadata":{{"name":"p"}},"spec":{{"plugin":{{"kind":"PrometheusDatasource","spec":{{"proxy":{{"kind":"HTTPProxy","spec":{{"url":"http://127.0.0.1:{}"}}}}}}}}}}}}"#,
        gate.taps.prometheus.port
    );
    // Perses has read the datasource, and its answer is late.
    let ((asked, began), (answer, wait)) = (channel(), channel::<()>());
    let (asked, wait) = (Mutex::new(asked), Mutex::new(wait));
    gate.upstream.forget("GET /api/v1/globaldatasources/p");
    gate.upstream.answers("DELETE /api/v1/globaldatasources/p", 204, "");
    gate.upstream.answers_by(move |seen| {
        (seen.line == "GET /api/v1/globaldatasources/p").then(|| {
            asked.lock().unwrap().send(()).unwrap();
            let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(10));
            (200, datasource.clone())
        })
    });
    let query = tokio::spawn({
        let (gate, root) = (Arc::clone(&gate), root.clone());
        async move { gate.query(&root, "up").await.status }
    });
    tokio::task::spawn_blocking(move || began.recv_timeout(Duration::from_secs(10)).unwrap()).await.unwrap();
    let delete = format!(
        "DELETE /api/v1/globaldatasources/p HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {root}\r\n\
         connection: close\r\n\r\n"
    );
    assert_eq!(speak(&gate.address, delete.as_bytes()).await.codes(), [204]);
    gate.upstream.answers("GET /api/v1/globaldatasources/p", 404, "{}");
    answer.send(()).unwrap();
    assert_eq!(query.await.unwrap(), 200, "it began before the end");
    // A backend of its own is shown under no name here, so that nothing stands in for what is gone.
    for _ in 0..2 {
        assert_eq!(gate.query(&root, "up").await.status, 404);
    }
}

/// Everybody comes at nine, each with a token that nobody has seen, and the API server takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn many_newcomers_at_once_are_all_heard() {
    let gate = Arc::new(gate("").await);
    let cluster = gate.openshift.cluster();
    cluster.set_fault(Endpoint::TokenReviews, Some(Fault::Slow(Duration::from_millis(100))));
    let began = std::time::Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..500 {
        let token = cluster.issue_token(&format!("newcomer-{number}"));
        let gate = Arc::clone(&gate);
        asking.spawn(async move { gate.get(&token, "/api/v1/user/whoami").await.status });
    }
    let answers = asking.join_all().await;
    let refused = answers.iter().filter(|status| **status != 200).count();
    eprintln!("{} newcomers in {:.1} s", answers.len(), began.elapsed().as_secs_f64());
    assert_eq!(refused, 0, "of {} were turned away", answers.len());
}
