//! A service that becomes ready late, after the token has expired or was replaced.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bearer_auth::{BearerAuthLayer, TokenCache, testing::ManualClock};
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use tower::{Layer as _, Service};

use crate::support::tokens::Idp;

const LIFETIME: Duration = Duration::from_secs(60);

/// A service that is ready while its gate is open. It rejects the tokens in `rejected`, and logs all.
#[derive(Clone, Default)]
struct Gated(Arc<Mutex<Gate>>);

#[derive(Default)]
struct Gate {
    shut: bool,
    wakers: Vec<Waker>,
    rejected: Vec<&'static str>,
    seen: Vec<String>,
}

impl Gated {
    fn shut(&self) {
        self.0.lock().unwrap().shut = true;
    }

    fn open(&self) {
        let mut gate = self.0.lock().unwrap();
        gate.shut = false;
        gate.wakers.drain(..).for_each(Waker::wake);
    }

    fn reject(&self, token: &'static str) {
        self.0.lock().unwrap().rejected.push(token);
    }

    fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().seen.clone()
    }
}

impl Service<Request<()>> for Gated {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        let mut gate = self.0.lock().unwrap();
        if gate.shut {
            gate.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let mut gate = self.0.lock().unwrap();
        let token = request.headers()[AUTHORIZATION].to_str().unwrap();
        let token = token.trim_start_matches("Bearer ").to_owned();
        let mut response = Response::new(());
        if gate.rejected.iter().any(|rejected| *rejected == token) {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        gate.seen.push(token);
        ready(Ok(response))
    }
}

struct World {
    clock: ManualClock,
    cache: TokenCache,
    idp: Idp,
    api: Gated,
}

fn world() -> World {
    let clock = ManualClock::new();
    let idp = Idp::new(&clock);
    idp.lifetime(LIFETIME);
    idp.hold();
    World {
        cache: idp.cache(),
        clock,
        idp,
        api: Gated::default(),
    }
}

impl World {
    /// A request that waits for its token, and then for the gate.
    async fn at_the_gate(&self) -> tokio::task::JoinHandle<StatusCode> {
        let mut client = BearerAuthLayer::builder(self.cache.clone())
            .any_api()
            .build()
            .unwrap()
            .layer(self.api.clone());
        let answer = client.call(Request::get("https://h/").body(()).unwrap());
        let answer = tokio::spawn(async move { answer.await.unwrap().status() });
        self.clock.settle().await;
        self.api.shut();
        self.idp.release();
        self.clock.settle().await;
        assert!(self.cache.status().ready && !answer.is_finished());
        answer
    }
}

#[tokio::test]
async fn token_replaced_while_waiting_for_readiness_is_not_sent() {
    let world = world();
    let answer = world.at_the_gate().await;
    world.clock.advance(2 * LIFETIME);
    world.idp.release();
    let token = world.cache.token().await.unwrap();
    assert_eq!(token.expose_secret(), "token-2");
    world.api.open();
    assert_eq!(answer.await.unwrap(), 200);
    assert_eq!(world.api.seen(), ["token-2"]);
}

#[tokio::test]
async fn token_expired_while_waiting_for_readiness_is_not_sent() {
    let world = world();
    let answer = world.at_the_gate().await;
    world.clock.advance(2 * LIFETIME);
    world.api.open();
    world.clock.settle().await;
    assert_eq!(world.api.seen(), [""; 0], "nothing is sent yet");
    world.idp.release();
    assert_eq!(answer.await.unwrap(), 200);
    assert_eq!(world.api.seen(), ["token-2"]);
}

#[tokio::test]
async fn resend_uses_the_cached_token_at_the_time_of_sending() {
    let world = world();
    world.idp.release();
    world.cache.token().await.unwrap();
    world.api.reject("token-1");
    let answer = world.at_the_gate().await;
    assert_eq!(world.api.seen(), ["token-1"]);
    world.clock.advance(2 * LIFETIME);
    world.idp.release();
    world.api.open();
    assert_eq!(answer.await.unwrap(), 200);
    assert_eq!(world.api.seen(), ["token-1", "token-3"]);
}
