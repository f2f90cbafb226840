//! A client, an authorization server and an API with one fault, on a manual clock.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bearer_auth::{
    AuthorizationCode, BearerAuthLayer, ClientCredentials, ServiceError, Session, TokenCache,
    resend::Off,
    testing::{Answer as Script, ManualClock, MockIdp},
};
use http::{Request, Response, StatusCode};
use tower::{Layer as _, ServiceExt as _};

use crate::faults::{
    api::{Api, OLD, Refuses},
    cell::{Has, Phase, Sees, Token},
    fault::{Answer, Api as ApiFault, Clock, Fault, Network, When},
    network::{Bad, Line},
    store::Disk,
};

const SECOND: Duration = Duration::from_secs(1);
/// The longest pause between two attempts in a flight.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
const LIFETIME: Duration = Duration::from_secs(3600);

pub(crate) struct Rig {
    pub(crate) clock: ManualClock,
    pub(crate) cache: TokenCache,
    pub(crate) line: Arc<Line>,
    pub(crate) api: Api,
    phase: Phase,
    fault: Fault,
    idp: MockIdp,
    /// The target of redirects. It must get no request.
    elsewhere: MockIdp,
    bad: Option<Bad>,
    disk: Option<Disk>,
    /// How far the wall clock was set forward, in seconds. Negative if it was set back.
    set: Arc<AtomicI64>,
}

pub(crate) type Caller = Pin<Box<dyn Future<Output = Sees> + Send>>;

impl Rig {
    /// Builds everything, without the fault.
    pub(crate) async fn new(phase: Phase, fault: Fault) -> Self {
        let clock = ManualClock::new();
        let builder = MockIdp::builder().clock(clock.clone());
        let builder = match fault {
            Fault::Store(_) => builder.client("app", "").allow_grant("refresh_token"),
            _ => builder,
        };
        let idp = builder.start().await.unwrap();
        let line = Line::new();
        let disk = matches!(fault, Fault::Store(_)).then(Disk::new);
        let cache = match &disk {
            Some(disk) => TokenCache::builder(session(&idp, &line, disk)),
            None => TokenCache::builder(
                ClientCredentials::builder(idp.token_url(), "client-id", "client-secret")
                    .http_client(Arc::clone(&line))
                    .build()
                    .unwrap(),
            ),
        };
        let bad = match fault {
            Fault::Network(network) => Bad::start(network, &clock).await,
            _ => None,
        };
        Self {
            cache: cache.clock(clock.clone()).build(),
            clock,
            line,
            api: Api::default(),
            phase,
            fault,
            idp,
            elsewhere: MockIdp::start().await.unwrap(),
            bad,
            disk,
            set: Arc::default(),
        }
    }

    /// Brings the cache into the phase.
    pub(crate) async fn begin(&self) {
        if self.phase != Phase::First {
            let token = self.cache.token().await.unwrap();
            assert_eq!(token.expose_secret(), OLD);
        }
        self.clock.advance(match self.phase {
            Phase::First => Duration::ZERO,
            // Certainly in the refresh window: ten minutes are left.
            Phase::RefreshWindow => Duration::from_secs(3000),
            Phase::Expired => LIFETIME,
            Phase::After401 | Phase::Resend => 10 * SECOND,
        });
        self.api.refuse(match self.phase.is_refused() {
            true => Refuses::Old,
            false => Refuses::Nothing,
        });
    }

    pub(crate) fn inject(&self) {
        match self.fault {
            Fault::None => {}
            Fault::Network(network) => match &self.bad {
                Some(bad) => self.line.lead_to(Some(&bad.url)),
                None => self.idp.always(network_script(network)),
            },
            Fault::Answer(Answer::Expired) => self.idp.set_expires_in(Some("0")),
            Fault::Answer(answer) => self.idp.always(self.script(answer)),
            Fault::Clock(clock, when) => {
                let (here, set) = (self.clock.clone(), Arc::clone(&self.set));
                let set_clock = move || set.store(set_clock(clock, &here), Ordering::SeqCst);
                match when {
                    When::Before => set_clock(),
                    When::Meanwhile => self.line.meanwhile(set_clock),
                }
            }
            Fault::Store(fault) => self.disk.as_ref().unwrap().fail(fault),
            Fault::Api(fault) => self.api.refuse(match fault {
                ApiFault::RefusesAll => Refuses::All,
                ApiFault::Forbids => Refuses::Forbids,
                ApiFault::Breaks => Refuses::OldAndBreaks,
            }),
        }
    }

    /// Ends the fault. The API still rejects the old token.
    pub(crate) fn recover(&self) {
        self.idp.recover();
        self.idp.set_lifetime(LIFETIME);
        self.line.lead_to(None);
        if let Some(disk) = &self.disk {
            disk.recover();
        }
        self.api.refuse(match self.phase {
            Phase::First => Refuses::Nothing,
            _ => Refuses::Old,
        });
    }

    fn script(&self, answer: Answer) -> Script {
        match answer {
            Answer::Redirect(status) => {
                Script::status(status).header("location", &self.elsewhere.token_url())
            }
            Answer::Status {
                status,
                oauth,
                retry_after,
            } => {
                let script = match oauth {
                    None => Script::status(status),
                    Some(code) => Script::json(status, serde_json::json!({ "error": code })),
                };
                match retry_after {
                    None => script,
                    Some(wait) => script.header("retry-after", &wait.to_string()),
                }
            }
            Answer::Same | Answer::Expired => {
                let left = self.cache.status().expires_in.unwrap_or_default();
                let same = serde_json::json!({
                    "access_token": OLD,
                    "token_type": "Bearer",
                    "expires_in": left.as_secs(),
                });
                Script::json(200, same)
            }
        }
    }

    /// A request to the API, which can be sent again except in [`Phase::After401`].
    pub(crate) fn request(&self) -> Caller {
        let layer = BearerAuthLayer::builder(self.cache.clone())
            .any_api()
            .build()
            .unwrap();
        let request = Request::get("https://api.example/orders").body(()).unwrap();
        let (api, phase) = (self.api.clone(), self.phase);
        let sees =
            move |answer: Result<Response<&'static str>, ServiceError<io::Error>>| match answer {
                Ok(response) => match response.status() {
                    StatusCode::UNAUTHORIZED => Sees::Refused,
                    StatusCode::FORBIDDEN => Sees::Forbidden,
                    _ => Sees::Sent(which(phase, response.body())),
                },
                Err(ServiceError::Token(error)) => Sees::Error(error.kind()),
                Err(_) => Sees::Broken,
            };
        match self.phase {
            Phase::After401 => {
                let layer = BearerAuthLayer::builder(self.cache.clone())
                    .any_api()
                    .resend(Off)
                    .build()
                    .unwrap();
                let sent = layer.layer(api).oneshot(request);
                Box::pin(async move { sees(sent.await) })
            }
            _ => {
                let sent = layer.layer(api).oneshot(request);
                Box::pin(async move { sees(sent.await) })
            }
        }
    }

    /// Lets time pass until `done`: for pauses between attempts, and for the time limit if only that
    /// ends a token request.
    pub(crate) async fn pass_until(&self, done: impl Fn() -> bool) {
        while !done() {
            match self.clock.next_wakeup() {
                Some(next) if self.fault.hangs() => {
                    // No time may pass before the request has arrived.
                    self.clock.settle().await;
                    if self.has_arrived() {
                        self.clock.advance(next.min(SECOND));
                        self.clock.settle().await;
                    }
                }
                Some(next) if next <= LONGEST_PAUSE => self.clock.advance(next),
                _ => {}
            }
            tokio::task::yield_now().await;
        }
    }

    /// Whether every token request has arrived at a server.
    fn has_arrived(&self) -> bool {
        let bad = self.bad.as_ref().map_or(0, Bad::accepted);
        self.idp.token_requests() + bad >= self.line.sends()
    }

    /// Returns the time since the epoch, without jumps of the wall clock.
    pub(crate) fn elapsed(&self) -> Duration {
        let wall = self.clock.system_time();
        let wall = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let set = self.set.load(Ordering::SeqCst);
        let by = Duration::from_secs(set.unsigned_abs());
        if set < 0 { wall + by } else { wall - by }
    }

    /// Returns what is cached. Does not call an empty cache, which would send a token request.
    pub(crate) fn has(&self) -> Has {
        if !self.cache.status().ready {
            return Has::Nothing;
        }
        let token = self.cache.try_token();
        token.map_or(Has::Nothing, |token| {
            Has::Good(which(self.phase, token.expose_secret()))
        })
    }

    /// Checks that each token request arrived exactly once, and none at the target of a redirect.
    pub(crate) fn each_arrived_once(&self) -> Result<(), String> {
        let elsewhere = self.elsewhere.token_requests();
        let bad = self.bad.as_ref().map_or(0, Bad::accepted);
        let (arrived, sent) = (self.idp.token_requests() + bad, self.line.sends());
        let unreachable = matches!(
            self.fault,
            Fault::Network(Network::Refused | Network::NoSuchName)
        );
        let as_sent = match unreachable {
            true => arrived < sent,
            false => arrived == sent,
        };
        let met = self.bad.as_ref().is_none_or(Bad::was_met);
        match as_sent && met && elsewhere == 0 {
            true => Ok(()),
            false => Err(format!(
                "{arrived} of {sent} arrived, {elsewhere} elsewhere"
            )),
        }
    }

    /// Checks that the store has the session: another process can continue it.
    pub(crate) async fn another_process_continues_the_session(&self) {
        if let Some(disk) = &self.disk {
            let next = TokenCache::new(session(&self.idp, &self.line, disk));
            next.token().await.unwrap();
        }
    }
}

fn session(idp: &MockIdp, line: &Arc<Line>, disk: &Disk) -> Session {
    let client = AuthorizationCode::builder("https://idp.example/a", idp.token_url(), "app")
        .redirect_uri("https://app.example/callback")
        .http_client(Arc::clone(line))
        .store(disk.clone());
    client.build().unwrap().session()
}

/// Sets the clocks, and returns how far the wall clock moved, in seconds. To a reader of both clocks,
/// sleep looks the same as a wall clock that is set forward.
fn set_clock(how: Clock, clock: &ManualClock) -> i64 {
    let forward = |hours: u32| {
        clock.suspend(hours * LIFETIME);
        i64::from(hours) * 3600
    };
    match how {
        Clock::Back => {
            clock.set_back(LIFETIME);
            -3600
        }
        Clock::Forward => forward(24),
        Clock::Suspend => forward(2),
    }
}

fn network_script(network: Network) -> Script {
    match network {
        Network::Silence => Script::silence(),
        Network::ResetBefore => Script::reset_before_reading(),
        Network::Closed => Script::drop_connection(),
        Network::Truncated => Script::truncated(),
        Network::Oversized => Script::json(200, long_token_response()),
        Network::Garbage => Script::garbage(),
        Network::Html => Script::bytes(200, "text/html", "<html>Welcome</html>"),
        // These have a server of their own.
        _ => unreachable!("{network:?}"),
    }
}

/// A valid response, except for its length.
fn long_token_response() -> serde_json::Value {
    serde_json::json!({
        "access_token": "of-an-answer-without-end",
        "token_type": "Bearer",
        "expires_in": 3600,
        "padding": "x".repeat(1 << 20),
    })
}

/// Tells old tokens from new ones. In the first phase, all are new.
fn which(phase: Phase, token: &str) -> Token {
    match (phase, token) {
        (Phase::First, _) => Token::New,
        (_, OLD) => Token::Old,
        _ => Token::New,
    }
}
