//! A world with the sidecar's own binary in it.

use std::time::Duration;

use perses_sidecar_stack::http::{Answer, Http};
use perses_sidecar_stack::servers::{self, Server};
use perses_sidecar_stack::world::{Options, World};
use serde_json::Value;

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) sidecar: Server,
    pub(crate) http: Http,
}

pub(crate) async fn stage(options: Options) -> Stage {
    stage_at("trace", options).await
}

/// With as few words as it has unless somebody asks for more, where it matters what something costs.
pub(crate) async fn stage_as_shipped(options: Options) -> Stage {
    stage_at("info", options).await
}

async fn stage_at(level: &str, options: Options) -> Stage {
    let world = World::start(&options, &|line| eprintln!("{line}")).await.unwrap();
    let log = world.folder.join("sidecar.log");
    let sidecar = Server::start(&servers::sidecar(), &world.arguments_at(level), &log, &[]).unwrap();
    sidecar.ready(&format!("{}/readyz", world.admin()), Duration::from_secs(20)).await.unwrap();
    Stage { world, sidecar, http: Http::default() }
}

/// Whatever a test was about, nobody has written down a secret meanwhile.
impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(found) = self.world.without_secrets(&self.sidecar)
            && !std::thread::panicking()
        {
            panic!("{found}");
        }
    }
}

impl Stage {
    /// As one of the demo's people, or as nobody.
    pub(crate) async fn send(&self, who: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.present(self.world.token(who), method, path, body).await
    }

    /// With a token, or without any if it is empty.
    pub(crate) async fn present(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let url = format!("{}{path}", self.world.gateway());
        let authorization = format!("Bearer {token}");
        let mut headers = vec![("authorization", authorization.as_str())];
        if token.is_empty() {
            headers.clear();
        }
        let text = body.map(ToString::to_string).unwrap_or_default();
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        self.http.send(method, &url, &headers, &text).await.unwrap()
    }

    pub(crate) async fn form(&self, who: &str, path: &str, pairs: &[(&str, &str)]) -> Answer {
        self.http.form(&format!("{}{path}", self.world.gateway()), self.world.token(who), pairs).await.unwrap()
    }

    /// An instant query through the default datasource.
    pub(crate) async fn query(&self, token: &str, query: &str) -> Answer {
        let url = format!("{}/proxy/globaldatasources/prometheus/api/v1/query", self.world.gateway());
        self.http.form(&url, token, &[("query", query)]).await.unwrap()
    }
}
