//! Events and metrics.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use bearer_auth::{
    BearerAuthLayer, Event, TokenCache, TokenCacheBuilder,
    testing::{Answer, ManualClock, MockIdp},
};
use http::StatusCode;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::ServiceExt as _;
use tower_layer::Layer as _;

use crate::support::{http::*, tokens};

/// The reported events, as one line each.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    fn listen(&self, cache: TokenCacheBuilder) -> TokenCacheBuilder {
        let events = self.clone();
        cache.on_event(move |event| events.push(event))
    }

    fn push(&self, event: &Event<'_>) {
        let line = match event {
            Event::Requested {
                reason, attempt, ..
            } => format!("requested {reason:?} {attempt}"),
            Event::Obtained {
                reason,
                attempt,
                waiters,
                expires_at,
                ..
            } => {
                let expiry = if expires_at.is_some() {
                    ""
                } else {
                    ", no expiry"
                };
                format!("obtained {reason:?} {attempt}, {waiters} waited{expiry}")
            }
            Event::Failed {
                attempt,
                waiters,
                error,
                ..
            } => {
                assert!(error.retry_after().is_some());
                format!("failed {attempt}, {waiters} waited: {:?}", error.kind())
            }
            Event::Waited { .. } => "waited".to_owned(),
            Event::Rejected { .. } => "rejected".to_owned(),
            Event::Recovered { .. } => "recovered".to_owned(),
            event => panic!("{event:?}"),
        };
        self.0.lock().unwrap().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

struct Rig {
    idp: MockIdp,
    clock: ManualClock,
    cache: TokenCache,
    events: Events,
}

async fn rig() -> Rig {
    let clock = ManualClock::new();
    let builder = MockIdp::builder().clock(clock.clone());
    let idp = builder.start().await.unwrap();
    let events = Events::default();
    let source = credentials(&idp).build().unwrap();
    let cache = TokenCache::builder(source).name("orders");
    let cache = events.listen(cache.clock(clock.clone())).build();
    Rig {
        idp,
        clock,
        cache,
        events,
    }
}

impl Rig {
    async fn get(&self) -> StatusCode {
        let auth = BearerAuthLayer::for_api(self.idp.api_url(), self.cache.clone()).unwrap();
        let client = auth.layer(http1::<NoBody>());
        let request = get(self.idp.api_url() + "orders");
        client.oneshot(request).await.unwrap().status()
    }

    /// Waits for a token, and advances the clock through the pauses between attempts.
    async fn token(&self) -> Result<(), bearer_auth::Error> {
        let cache = self.cache.clone();
        let task = tokio::spawn(async move { cache.token().await });
        while !task.is_finished() {
            if let Some(next) = self.clock.next_wakeup()
                && next <= Duration::from_secs(3)
            {
                self.clock.advance(next);
            }
            tokio::task::yield_now().await;
        }
        task.await.unwrap().map(drop)
    }

    async fn landed(&self) {
        while self.cache.status().fetching {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn events_report_requests_refreshes_and_rejections() {
    let rig = rig().await;
    let hold = rig.idp.hold();
    let both = tokio::join!(rig.get(), rig.get(), async {
        rig.idp.token_requests_reach(1).await;
        rig.clock.settle().await;
        hold.release();
    });
    assert_eq!((both.0, both.1), (StatusCode::OK, StatusCode::OK));
    let first = [
        "requested First 1",
        "obtained First 1, 2 waited",
        "waited",
        "waited",
    ];
    assert_eq!(rig.events.take(), first);
    // A cached token causes no event.
    assert_eq!(rig.get().await, StatusCode::OK);
    assert!(rig.events.take().is_empty());
    // In the refresh window no caller waits.
    rig.clock.advance(Duration::from_secs(3_000));
    assert_eq!(rig.get().await, StatusCode::OK);
    rig.landed().await;
    let ahead = [
        "requested ExpiresSoon 1",
        "obtained ExpiresSoon 1, 0 waited",
    ];
    assert_eq!(rig.events.take(), ahead);
    // A 401, and the resend succeeds with another token.
    rig.clock.advance(Duration::from_secs(2));
    rig.idp.revoke_all();
    assert_eq!(rig.get().await, StatusCode::OK);
    let recovered = [
        "rejected",
        "requested Rejected 1",
        "obtained Rejected 1, 1 waited",
        "waited",
        "recovered",
    ];
    assert_eq!(rig.events.take(), recovered);
    // A 401, and the resend fails as well.
    rig.clock.advance(Duration::from_secs(400));
    rig.idp.api_answers("/api/orders", Answer::status(401));
    assert_eq!(rig.get().await, StatusCode::UNAUTHORIZED);
    let events = rig.events.take();
    assert!(events.contains(&"rejected".to_owned()), "{events:?}");
    assert!(!events.contains(&"recovered".to_owned()), "{events:?}");
}

#[tokio::test]
async fn each_failed_attempt_is_an_event() {
    let rig = rig().await;
    rig.idp.always(Answer::status(500));
    rig.token().await.unwrap_err();
    let expected = [
        "requested First 1",
        "failed 1, 1 waited: Status",
        "requested First 2",
        "failed 2, 1 waited: Status",
        "requested First 3",
        "failed 3, 1 waited: Status",
        "waited",
    ];
    assert_eq!(rig.events.take(), expected);
    // The backoff causes no event.
    rig.token().await.unwrap_err();
    assert!(rig.events.take().is_empty());
    // A token request that times out.
    rig.clock.advance(Duration::from_secs(600));
    rig.idp.recover();
    let hold = rig.idp.hold();
    let cache = rig.cache.clone();
    let slow = tokio::spawn(async move { cache.token().await });
    rig.idp.token_requests_reach(4).await;
    rig.clock.settle().await;
    rig.clock.advance(Duration::from_secs(30));
    slow.await.unwrap().unwrap_err();
    hold.release();
    let expected = ["requested First 1", "failed 1, 1 waited: Timeout", "waited"];
    assert_eq!(rig.events.take(), expected);
}

#[tokio::test]
async fn panicking_source_is_a_failed_event() {
    let idp = tokens::Idp::new(&ManualClock::new());
    idp.answer(tokens::Answer::Panic);
    let events = Events::default();
    let cache = events.listen(idp.builder()).build();
    cache.token().await.unwrap_err();
    let expected = [
        "requested First 1",
        "failed 1, 1 waited: Interrupted",
        "waited",
    ];
    assert_eq!(events.take(), expected);
}

#[tokio::test]
async fn metrics_count_each_event_under_the_documented_names() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // The recorder of this thread, on which everything runs.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = rig().await;
    rig.idp.then(Answer::status(500));
    rig.token().await.unwrap();
    rig.clock.advance(Duration::from_secs(2));
    rig.idp.revoke_all();
    assert_eq!(rig.get().await, StatusCode::OK);
    let mut seen: Vec<_> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let mut line = key.key().name().to_owned();
            for label in key.key().labels() {
                write!(line, " {}={}", label.key(), label.value()).unwrap();
            }
            match value {
                DebugValue::Counter(count) => write!(line, ": {count}"),
                DebugValue::Gauge(_) => write!(line, ": gauge"),
                DebugValue::Histogram(values) => write!(line, ": {} values", values.len()),
            }
            .unwrap();
            line
        })
        .collect();
    seen.sort();
    let expected = [
        "bearer_auth_requests_recovered_total cache=orders: 1",
        "bearer_auth_token_expires_at_seconds cache=orders: gauge",
        "bearer_auth_token_request_duration_seconds cache=orders outcome=ok: 2 values",
        "bearer_auth_token_request_duration_seconds cache=orders outcome=status: 1 values",
        "bearer_auth_token_request_waiters cache=orders: 2 values",
        "bearer_auth_token_requests_total cache=orders reason=first outcome=ok: 1",
        "bearer_auth_token_requests_total cache=orders reason=first outcome=status: 1",
        "bearer_auth_token_requests_total cache=orders reason=rejected outcome=ok: 1",
        "bearer_auth_tokens_rejected_total cache=orders: 1",
        "bearer_auth_wait_duration_seconds cache=orders: 2 values",
    ];
    assert_eq!(seen, expected);
    // The documentation lists all of them.
    let page = include_str!("../../../docs/observability.md");
    for line in expected {
        let name = line.split([' ', ':']).next().unwrap();
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}
