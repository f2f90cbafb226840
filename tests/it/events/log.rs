//! Logs. The test runs in a process of its own, because it sets the global subscriber.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use bearer_auth::{
    BearerAuthLayer, TokenCache,
    testing::{Answer, ManualClock, MockIdp},
};
use http::StatusCode;
use tower::ServiceExt as _;
use tower_layer::Layer as _;
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::support::{alone::alone, http::*};

/// Collects everything that is logged, with fields.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("bearer_auth")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut log = self.0.lock().unwrap();
        write!(log, "span {}:", attributes.metadata().name()).unwrap();
        attributes.record(&mut Line(&mut log));
        log.push('\n');
        span::Id::from_u64(1)
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut log = self.0.lock().unwrap();
        write!(log, "{}:", event.metadata().level()).unwrap();
        event.record(&mut Line(&mut log));
        log.push('\n');
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn logs_report_each_event_and_no_secret() {
    alone!();
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    let clock = ManualClock::new();
    let builder = MockIdp::builder().clock(clock.clone());
    let idp = builder.start().await.unwrap();
    let source = credentials(&idp).build().unwrap();
    let cache = TokenCache::builder(source).name("orders");
    let cache = cache.clock(clock.clone()).build();
    idp.then(Answer::oauth_error("invalid_scope"));
    cache.token().await.unwrap_err();
    clock.advance(Duration::from_secs(600));
    cache.token().await.unwrap();
    idp.revoke_all();
    let auth = BearerAuthLayer::for_api(idp.api_url(), cache).unwrap();
    let client = auth.layer(http1::<NoBody>());
    let response = client.oneshot(get(idp.api_url() + "orders")).await;
    assert_eq!(response.unwrap().status(), StatusCode::OK);
    let log = log.0.lock().unwrap().clone();
    for part in [
        "span token_request: cache=\"orders\" reason=\"first\"\n",
        "DEBUG: message=requesting a token cache=\"orders\" reason=\"first\" attempt=1\n",
        "WARN: message=token request failed cache=\"orders\" reason=\"first\" attempt=1",
        "kind=OAuth error=the token endpoint returned an error: invalid_scope",
        "INFO: message=token obtained cache=\"orders\" reason=\"first\"",
        "TRACE: message=waited for a token cache=\"orders\"",
        "INFO: message=the API rejected the token cache=\"orders\"",
        "INFO: message=a rejected request succeeded with another token cache=\"orders\"",
    ] {
        assert!(log.contains(part), "{part}\nin\n{log}");
    }
    for secret in ["token-1", "token-2", "client-secret"] {
        assert!(!log.contains(secret), "{log}");
    }
}
