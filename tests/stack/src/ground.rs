//! What a suite does with a cluster, whichever it stands on: the stand-in, as OpenShift or as plain Kubernetes, or a
//! real API server.

use std::io;
use std::path::{Path, PathBuf};

use crate::kubernetes::Kubernetes;
use crate::openshift::{Discovery, Endpoint, Fault, OpenShift, Rule, Subject};

/// Everybody, with their groups. Nobody has a right yet.
pub const PEOPLE: [(&str, &[&str]); 5] =
    [("ada", &[]), ("grace", &[]), ("root", &[]), ("eve", &[]), ("lin", &["devs", "night-shift"])];

/// Which cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// The stand-in, with OpenShift's projects.
    #[default]
    OpenShift,
    /// The stand-in without them.
    Plain,
    /// The real API server with etcd.
    Real,
    /// The same behind the stand-in, which lets people log in and reviews their tokens for it, as on OpenShift; it also
    /// believes an external provider, when there is one.
    RealWithLogin,
}

/// A running cluster. Users of service accounts are bound by their full names.
pub enum Ground {
    /// The stand-in.
    StandIn(OpenShift, Vec<(&'static str, String)>),
    /// The real one.
    Real(Box<Kubernetes>),
}

impl Ground {
    /// Starts one; its `ca.crt` and the sidecar's `token` are in `folder` then.
    ///
    /// # Errors
    /// When something cannot be built or started; the text says what.
    pub async fn start(kind: Kind, folder: &Path, say: &dyn Fn(&str)) -> io::Result<Self> {
        if matches!(kind, Kind::Real | Kind::RealWithLogin) {
            return Ok(Self::Real(Box::new(Kubernetes::start(folder, kind == Kind::RealWithLogin, say).await?)));
        }
        let stand_in = OpenShift::start(folder).await?;
        let cluster = stand_in.cluster();
        if kind == Kind::Plain {
            cluster.set_fault(Endpoint::Projects, Some(Fault::Missing));
            cluster.set_discovery(Discovery::Missing);
        }
        let tokens = PEOPLE
            .iter()
            .map(|(name, groups)| {
                cluster.add_user(name, groups);
                (*name, cluster.issue_token(name))
            })
            .collect();
        Ok(Self::StandIn(stand_in, tokens))
    }

    /// `https://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> &str {
        match self {
            Self::StandIn(stand_in, _) => stand_in.url(),
            Self::Real(real) => real.url(),
        }
    }

    /// The certificate authority's file.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        match self {
            Self::StandIn(stand_in, _) => stand_in.ca_file(),
            Self::Real(real) => real.ca_file(),
        }
    }

    /// The file of the sidecar's token.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        match self {
            Self::StandIn(stand_in, _) => stand_in.token_file(),
            Self::Real(real) => real.folder().join("token"),
        }
    }

    /// The stand-in, with its OAuth server.
    #[must_use]
    pub fn stand_in(&self) -> Option<&OpenShift> {
        match self {
            Self::StandIn(stand_in, _) => Some(stand_in),
            Self::Real(real) => real.front(),
        }
    }

    /// The token of one of [`PEOPLE`].
    #[must_use]
    pub fn token(&self, name: &str) -> &str {
        match self {
            Self::StandIn(_, tokens) => tokens.iter().find(|(known, _)| *known == name).map_or("", |(_, token)| token),
            Self::Real(real) => real.token(name),
        }
    }

    /// One more namespace.
    ///
    /// # Errors
    /// As the API server says; so for all of these. The stand-in always does it.
    pub async fn add_namespace(&self, name: &str) -> io::Result<()> {
        match self {
            Self::StandIn(stand_in, _) => stand_in.cluster().add_namespace(name),
            Self::Real(real) => real.add_namespace(name).await?,
        }
        Ok(())
    }

    /// One less, with all that is in it.
    ///
    /// # Errors
    /// As above.
    pub async fn remove_namespace(&self, name: &str) -> io::Result<()> {
        match self {
            Self::StandIn(stand_in, _) => stand_in.cluster().remove_namespace(name),
            Self::Real(real) => real.remove_namespace(name).await?,
        }
        Ok(())
    }

    /// Stores an object of a kind, which is served from then on.
    ///
    /// # Errors
    /// As above.
    pub async fn put_object(&self, object: &serde_json::Value) -> io::Result<()> {
        match self {
            Self::StandIn(stand_in, _) => stand_in.cluster().put_object(object.clone()),
            Self::Real(real) => real.put_object(object).await?,
        }
        Ok(())
    }

    /// Adds a cluster role.
    ///
    /// # Errors
    /// As above.
    pub async fn add_role(&self, name: &str, rules: Vec<Rule>) -> io::Result<()> {
        match self {
            Self::StandIn(stand_in, _) => stand_in.cluster().add_role(name, rules),
            Self::Real(real) => real.add_role(name, &rules).await?,
        }
        Ok(())
    }

    /// Binds a cluster role to a user or group, in a namespace or everywhere.
    ///
    /// # Errors
    /// As above.
    pub async fn bind(&self, namespace: Option<&str>, subject: Subject, role: &str) -> io::Result<()> {
        match self {
            Self::StandIn(stand_in, _) => stand_in.cluster().bind(namespace, subject, role),
            Self::Real(real) => real.bind(namespace, &subject, role).await?,
        }
        Ok(())
    }

    /// Takes such a binding away.
    ///
    /// # Errors
    /// As above.
    pub async fn unbind(&self, namespace: Option<&str>, subject: Subject, role: &str) -> io::Result<()> {
        match self {
            Self::StandIn(stand_in, _) => stand_in.cluster().unbind(namespace, subject, role),
            Self::Real(real) => real.unbind(namespace, &subject, role).await?,
        }
        Ok(())
    }

    /// A service account's token, meant for these audiences; for the API server's own if there are none. The account
    /// is made when there is none.
    ///
    /// # Errors
    /// As above.
    pub async fn account_token(&self, namespace: &str, name: &str, audiences: &[&str]) -> io::Result<String> {
        match self {
            Self::StandIn(stand_in, _) => Ok(stand_in.cluster().service_account_token(namespace, name, audiences)),
            Self::Real(real) => real.account_token(namespace, name, audiences).await,
        }
    }

    /// Such a token for the API server that ends `seconds` from now, which may be negative.
    ///
    /// # Errors
    /// As above.
    pub async fn account_token_ending(&self, namespace: &str, name: &str, seconds: i64) -> io::Result<String> {
        match self {
            Self::StandIn(stand_in, _) => Ok(stand_in.cluster().service_account_token_ending(namespace, name, seconds)),
            Self::Real(real) => real.account_token_ending(namespace, name, seconds).await,
        }
    }

    /// Deletes a service account; its tokens end.
    ///
    /// # Errors
    /// As above.
    pub async fn remove_account(&self, namespace: &str, name: &str) -> io::Result<()> {
        match self {
            Self::StandIn(stand_in, _) => stand_in.cluster().remove_account(namespace, name),
            Self::Real(real) => real.remove_account(namespace, name).await?,
        }
        Ok(())
    }
}
