//! A route that always answers 401, and a healthy route with the same token, for a minute of virtual
//! time.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bearer_auth::{
    BearerAuth, BearerAuthLayer, TokenCache, TokenResponse, resend, source_fn, testing::ManualClock,
};
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use tower::{Layer as _, Service, service_fn};

/// The latency of the token endpoint.
const LATENCY: Duration = Duration::from_millis(50);
const TICK: Duration = Duration::from_millis(25);
const MINUTE: u32 = 2_400;

/// Token requests after rejections: at 0, 1, 3, 7, 15 and 31 s, an interval of 1 s that doubles.
const RENEWALS: usize = 6;

struct World {
    clock: ManualClock,
    cache: TokenCache,
    token_requests: Arc<AtomicUsize>,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        let token_requests = Arc::new(AtomicUsize::new(0));
        let (endpoint, counter) = (clock.clone(), Arc::clone(&token_requests));
        let source = source_fn(move |_| {
            let n = counter.fetch_add(1, Ordering::Relaxed) + 1;
            let latency = endpoint.sleep(LATENCY);
            async move {
                latency.await;
                TokenResponse::builder(format!("token-{n}"))
                    .expires_in(Duration::from_secs(3600))
                    .build()
            }
        });
        let cache = TokenCache::builder(source).clock(clock.clone()).build();
        Self {
            clock,
            cache,
            token_requests,
        }
    }

    async fn first_token(&self) {
        self.cache.prefetch();
        self.clock.settle().await;
        self.clock.advance(LATENCY);
        self.clock.settle().await;
        assert!(self.cache.status().ready);
    }
}

async fn api(request: Request<()>) -> Result<Response<()>, Infallible> {
    assert!(request.headers().contains_key(AUTHORIZATION));
    let mut response = Response::new(());
    if request.uri().path() == "/broken" {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    Ok(response)
}

fn get(path: &str) -> Request<()> {
    let uri = format!("https://api.example{path}");
    Request::get(uri).body(()).unwrap()
}

/// Whether the future is ready at the first poll.
fn at_once<F: Future>(future: F) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    matches!(pin!(future).poll(&mut cx), Poll::Ready(_))
}

/// Sends forty requests a second to each route for a minute. Returns how many requests to the healthy
/// route had to wait.
async fn minute<S, P>(world: &World, client: BearerAuth<S, P>) -> usize
where
    BearerAuth<S, P>: Service<Request<()>, Response = Response<()>> + Clone + 'static,
    <BearerAuth<S, P> as Service<Request<()>>>::Error: std::fmt::Debug,
{
    let mut waited = 0;
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let mut broken = Vec::new();
            for _ in 0..MINUTE {
                let answer = client.clone().call(get("/broken"));
                broken.push(tokio::task::spawn_local(async move {
                    assert_eq!(answer.await.unwrap().status(), StatusCode::UNAUTHORIZED);
                }));
                world.clock.settle().await;
                waited += usize::from(!at_once(client.clone().call(get("/healthy"))));
                world.clock.advance(TICK);
                world.clock.settle().await;
            }
            world.clock.advance(LATENCY);
            for answer in broken {
                answer.await.unwrap();
            }
        })
        .await;
    waited
}

#[tokio::test]
async fn route_that_always_answers_401_never_delays_a_healthy_route() {
    let world = World::new();
    world.first_token().await;
    let layer = BearerAuthLayer::for_api("https://api.example/", world.cache.clone()).unwrap();
    let waited = minute(&world, layer.layer(service_fn(api))).await;
    assert_eq!(waited, 0, "the healthy route never waits");
    assert_eq!(world.token_requests.load(Ordering::Relaxed), 1 + RENEWALS);
}

/// A request that cannot be resent waits for the first refresh, because its token may be revoked.
/// After that, the fault is known to be the route's.
#[tokio::test]
async fn requests_without_resend_wait_only_for_the_first_refresh() {
    let world = World::new();
    world.first_token().await;
    let layer = BearerAuthLayer::builder(world.cache.clone())
        .api("https://api.example/")
        .resend(resend::Off)
        .build()
        .unwrap();
    let waited = minute(&world, layer.layer(service_fn(api))).await;
    let ticks = LATENCY.as_millis() / TICK.as_millis();
    assert_eq!(
        waited as u128, ticks,
        "for as long as one token request takes"
    );
    assert_eq!(world.token_requests.load(Ordering::Relaxed), 1 + RENEWALS);
}

/// The second 401 comes long after the minimum interval between token requests.
#[tokio::test]
async fn p230_late_second_401_makes_no_token_request() {
    let world = World::new();
    world.first_token().await;
    let layer = BearerAuthLayer::for_api("https://api.example/", world.cache.clone()).unwrap();
    let slow = world.clock.clone();
    let client = layer.layer(service_fn(move |request| {
        let pause = slow.sleep(Duration::from_secs(5));
        async move {
            pause.await;
            api(request).await
        }
    }));
    let mut client = client;
    let answer = tokio::spawn(client.call(get("/broken")));
    for _ in 0..4 {
        world.clock.settle().await;
        world.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(
        answer.await.unwrap().unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    world.clock.settle().await;
    assert_eq!(
        world.token_requests.load(Ordering::Relaxed),
        2,
        "one for this request"
    );
}
