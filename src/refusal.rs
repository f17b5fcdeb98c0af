//! In how many ways can a request end early? One type: status, public text, metric word, and nothing a stranger may not see.
//!
//! A [`Refusal`] is made where the cause is known and turned into bytes in one place (`gateway::answer`). The public text
//! never names an upstream address, a token or another namespace; what an operator needs goes to the log by
//! [`Refusal::because`].

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

/// Why a request is not served. The word of each goes into metrics and audit records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The request head breaks HTTP or our stricter reading of it.
    MalformedHead,
    /// The path is not one that the table could know.
    MalformedPath,
    /// A query string or form is not what its route takes.
    MalformedQuery,
    /// A body is not what its route takes.
    MalformedBody,
    /// Not the media type that the route takes.
    MediaType,
    /// Body larger than its limit.
    BodyTooLarge,
    /// Head larger than its limit.
    HeadTooLarge,
    /// The client was too slow.
    SlowClient,
    /// Upgrade or CONNECT.
    Upgrade,
    /// No such route.
    UnknownRoute,
    /// No such method on a route.
    Method,
    /// No credential.
    NoCredential,
    /// A credential that is not one.
    MalformedCredential,
    /// A credential that the cluster does not accept.
    InvalidCredential,
    /// Too many credentials from one address that were not good.
    Attempts,
    /// A browser request from another origin.
    CrossOrigin,
    /// A login that was finished before, took too long, or was begun elsewhere.
    LoginStale,
    /// Whoever logs in, or the server at which they do, said no.
    LoginRefused,
    /// A login that could not be finished.
    LoginFailed,
    /// The server at which people log in cannot be found out.
    LoginUnavailable,
    /// There is nowhere to log in.
    NoLogin,
    /// The caller has no right at all there; told as "not found".
    Hidden,
    /// The caller has some right, but not this one.
    Forbidden,
    /// Something that nobody may do through us.
    NeverAllowed,
    /// The thing does not exist, and the caller may know.
    NotFound,
    /// The stored state stands against it.
    Conflict,
    /// A datasource that is no configured backend, or no Prometheus.
    Datasource,
    /// PromQL that is none, or is not allowed.
    Query,
    /// PromQL beyond a limit.
    QueryLimit,
    /// The read-back check of the confined query failed.
    ReadBack,
    /// A review could not be made.
    ReviewUnavailable,
    /// An upstream could not be reached or broke off.
    UpstreamDown,
    /// An upstream answered something that we cannot vouch for.
    UpstreamNonsense,
    /// An upstream was too slow.
    UpstreamSlow,
    /// An upstream's answer was larger than its limit.
    UpstreamTooLarge,
    /// An upstream refused in its own words, which the caller may see.
    UpstreamRefused,
    /// We are at a limit.
    Overload,
    /// A programming error, caught.
    Internal,
}

impl Reason {
    /// Every reason, for metrics that begin at 0.
    pub const ALL: &'static [Self] = &[
        Self::MalformedHead,
        Self::MalformedPath,
        Self::MalformedQuery,
        Self::MalformedBody,
        Self::MediaType,
        Self::BodyTooLarge,
        Self::HeadTooLarge,
        Self::SlowClient,
        Self::Upgrade,
        Self::UnknownRoute,
        Self::Method,
        Self::NoCredential,
        Self::MalformedCredential,
        Self::InvalidCredential,
        Self::Attempts,
        Self::CrossOrigin,
        Self::LoginStale,
        Self::LoginRefused,
        Self::LoginFailed,
        Self::LoginUnavailable,
        Self::NoLogin,
        Self::Hidden,
        Self::Forbidden,
        Self::NeverAllowed,
        Self::NotFound,
        Self::Conflict,
        Self::Datasource,
        Self::Query,
        Self::QueryLimit,
        Self::ReadBack,
        Self::ReviewUnavailable,
        Self::UpstreamDown,
        Self::UpstreamNonsense,
        Self::UpstreamSlow,
        Self::UpstreamTooLarge,
        Self::UpstreamRefused,
        Self::Overload,
        Self::Internal,
    ];

    /// The word for metrics, logs and audit.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::MalformedHead => "malformed_head",
            Self::MalformedPath => "malformed_path",
            Self::MalformedQuery => "malformed_query",
            Self::MalformedBody => "malformed_body",
            Self::MediaType => "media_type",
            Self::BodyTooLarge => "body_too_large",
            Self::HeadTooLarge => "head_too_large",
            Self::SlowClient => "slow_client",
            Self::Upgrade => "upgrade",
            Self::UnknownRoute => "unknown_route",
            Self::Method => "method",
            Self::NoCredential => "no_credential",
            Self::MalformedCredential => "malformed_credential",
            Self::InvalidCredential => "invalid_credential",
            Self::Attempts => "attempts",
            Self::CrossOrigin => "cross_origin",
            Self::LoginStale => "login_stale",
            Self::LoginRefused => "login_refused",
            Self::LoginFailed => "login_failed",
            Self::LoginUnavailable => "login_unavailable",
            Self::NoLogin => "no_login",
            Self::Hidden => "hidden",
            Self::Forbidden => "forbidden",
            Self::NeverAllowed => "never_allowed",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Datasource => "datasource",
            Self::Query => "query",
            Self::QueryLimit => "query_limit",
            Self::ReadBack => "read_back",
            Self::ReviewUnavailable => "review_unavailable",
            Self::UpstreamDown => "upstream_down",
            Self::UpstreamNonsense => "upstream_nonsense",
            Self::UpstreamSlow => "upstream_slow",
            Self::UpstreamTooLarge => "upstream_too_large",
            Self::UpstreamRefused => "upstream_refused",
            Self::Overload => "overload",
            Self::Internal => "internal",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::MalformedHead | Self::MalformedPath | Self::MalformedQuery | Self::MalformedBody => {
                StatusCode::BAD_REQUEST
            }
            Self::MalformedCredential | Self::LoginStale => StatusCode::BAD_REQUEST,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::SlowClient => StatusCode::REQUEST_TIMEOUT,
            Self::Upgrade => StatusCode::BAD_REQUEST,
            Self::UnknownRoute | Self::Hidden | Self::NotFound | Self::NoLogin => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoCredential | Self::InvalidCredential => StatusCode::UNAUTHORIZED,
            Self::Attempts => StatusCode::TOO_MANY_REQUESTS,
            Self::CrossOrigin | Self::LoginRefused | Self::Forbidden | Self::NeverAllowed | Self::Datasource => {
                StatusCode::FORBIDDEN
            }
            Self::Conflict => StatusCode::CONFLICT,
            Self::Query | Self::UpstreamRefused => StatusCode::BAD_REQUEST,
            Self::QueryLimit => StatusCode::UNPROCESSABLE_ENTITY,
            Self::ReadBack | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ReviewUnavailable | Self::LoginUnavailable | Self::Overload => StatusCode::SERVICE_UNAVAILABLE,
            Self::LoginFailed | Self::UpstreamDown | Self::UpstreamNonsense | Self::UpstreamTooLarge => {
                StatusCode::BAD_GATEWAY
            }
            Self::UpstreamSlow => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Whether the connection must not be used again, because its framing cannot be trusted or is not read to its end.
    #[must_use]
    pub const fn closes(self) -> bool {
        matches!(
            self,
            Self::MalformedHead
                | Self::MalformedPath
                | Self::MalformedQuery
                | Self::MalformedBody
                | Self::MalformedCredential
                | Self::BodyTooLarge
                | Self::HeadTooLarge
                | Self::SlowClient
                | Self::Upgrade
        )
    }
}

/// A request ends here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(Box<Parts>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parts {
    reason: Reason,
    status: StatusCode,
    message: Cow<'static, str>,
    /// For the operator's log only.
    cause: Option<String>,
    allow: Option<&'static str>,
    retry_after: Option<Duration>,
    next: Option<(String, &'static str)>,
}

impl Refusal {
    /// A refusal with its public text.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts {
            reason,
            status: reason.status(),
            message: message.into(),
            cause: None,
            allow: None,
            retry_after: None,
            next: None,
        }))
    }

    /// Adds what only the log may know.
    #[must_use]
    pub fn because(mut self, cause: impl ToString) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// What cannot happen, for a cause that only the log may know.
    #[must_use]
    pub fn internal(cause: impl ToString) -> Self {
        Self::new(Reason::Internal, "internal error").because(cause)
    }

    /// 405 with the methods that there are.
    #[must_use]
    pub fn method(allow: &'static str) -> Self {
        let mut refusal = Self::new(Reason::Method, "this method is not available here");
        refusal.0.allow = Some(allow);
        refusal
    }

    /// Tells the client when to come back.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Where a person goes from here, and what that is called.
    #[must_use]
    pub fn next(mut self, to: impl Into<String>, called: &'static str) -> Self {
        self.0.next = Some((to.into(), called));
        self
    }

    /// Another status than the reason's own: an upstream's 4xx, passed on.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// No right at all in a project: the same bytes whether it exists or not.
    #[must_use]
    pub fn hidden() -> Self {
        Self::new(Reason::Hidden, "document not found")
    }

    /// No such route.
    #[must_use]
    pub fn unknown_route() -> Self {
        Self::new(Reason::UnknownRoute, "not found")
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The status code of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The text that the caller sees.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The text that only the log sees.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The value of `Allow`.
    #[must_use]
    pub fn allow(&self) -> Option<&'static str> {
        self.0.allow
    }

    /// Where a person goes from here.
    #[must_use]
    pub fn way(&self) -> Option<&(String, &'static str)> {
        self.0.next.as_ref()
    }

    /// The value of `Retry-After`.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }
}
