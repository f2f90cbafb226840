//! One route that answers 401 to everything, beside a healthy one, for a minute of virtual time.

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

/// How long the token endpoint takes.
const LATENCY: Duration = Duration::from_millis(50);
const TICK: Duration = Duration::from_millis(25);
const MINUTE: u32 = 2_400;

/// At 0, 1, 3, 7, 15 and 31 s: one second apart, doubling.
const RENEWALS: usize = 6;

struct World {
    clock: ManualClock,
    cache: TokenCache,
    asked: Arc<AtomicUsize>,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let (endpoint, counter) = (clock.clone(), Arc::clone(&asked));
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
            asked,
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

/// Whether the answer is there without any waiting.
fn at_once<F: Future>(future: F) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    matches!(pin!(future).poll(&mut cx), Poll::Ready(_))
}

/// A minute with forty requests a second to either route: how many of the healthy one's had to wait.
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
async fn a_route_that_always_answers_401_costs_little_and_a_healthy_one_never_waits() {
    let world = World::new();
    world.first_token().await;
    let layer = BearerAuthLayer::for_api("https://api.example/", world.cache.clone()).unwrap();
    let waited = minute(&world, layer.layer(service_fn(api))).await;
    assert_eq!(waited, 0, "the healthy route never waits");
    assert_eq!(world.asked.load(Ordering::Relaxed), 1 + RENEWALS);
}

/// A request that cannot be sent again waits for the first renewal: its token may be dead. From
/// then on the fault is known to be the route's.
#[tokio::test]
async fn requests_that_cannot_be_sent_again_wait_for_the_first_renewal_only() {
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
    assert_eq!(world.asked.load(Ordering::Relaxed), 1 + RENEWALS);
}

#[tokio::test]
async fn after_five_quiet_minutes_a_rejection_is_the_first_again() {
    let world = World::new();
    world.first_token().await;
    let layer = BearerAuthLayer::for_api("https://api.example/", world.cache.clone()).unwrap();
    minute(&world, layer.layer(service_fn(api))).await;
    let asked = world.asked.load(Ordering::Relaxed);

    let reject = || {
        let token = world.cache.try_token().unwrap();
        world.cache.reject(&token);
    };
    reject();
    world.clock.settle().await;
    assert_eq!(world.asked.load(Ordering::Relaxed), asked, "not quiet yet");
    world.clock.advance(Duration::from_secs(5 * 60));
    for renewals in 1..=2 {
        reject();
        world.clock.settle().await;
        world.clock.advance(LATENCY);
        world.clock.settle().await;
        assert_eq!(world.asked.load(Ordering::Relaxed), asked + renewals);
        world.clock.advance(Duration::from_secs(1));
    }
}

/// The answer to the second try comes long after the spacing of renewals is over.
#[tokio::test]
async fn p230_a_second_401_asks_for_no_token_however_late_it_comes() {
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
        world.asked.load(Ordering::Relaxed),
        2,
        "one for this request"
    );
}
