//! Load: many callers at the start, and a stream of requests while tokens are refreshed.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    BoxError,
    driving::AnyPeer,
    endpoint::{DELAY, Endpoint},
    peers::Entry,
};

/// Callers that arrive at once.
pub const CALLERS: usize = 1_000;
/// Requests a second while tokens are refreshed.
pub const RATE: u64 = 2_000;
/// A request that takes longer has waited.
pub const A_WAIT: Duration = Duration::from_millis(5);
/// Long enough for a peer whose callers send token requests one after the other.
const PATIENCE: Duration = Duration::from_secs(70);

/// The token requests of a crowd.
pub struct Crowd {
    pub requests: usize,
    /// Whether the peer gets a token before the first call.
    pub token_first: bool,
    pub failed: usize,
}

/// Measures a thousand callers without a cached token.
pub async fn crowd(entry: &Entry) -> Result<Crowd, BoxError> {
    let endpoint = Endpoint::start(Duration::from_secs(3_600)).await?;
    let start = Instant::now();
    let peer = entry.start.over(endpoint.clone()).await?;
    let token_first = endpoint.requests() > 0 && start.elapsed() >= DELAY;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(peer.send_one());
    }
    let answers = timeout(PATIENCE, callers.join_all()).await?;
    Ok(Crowd {
        requests: endpoint.requests(),
        token_first,
        failed: answers.iter().filter(|(result, _)| result.is_err()).count(),
    })
}

/// The requests while tokens are refreshed.
#[derive(Default)]
pub struct Stream {
    /// How often the token was refreshed, with any number of token requests.
    pub renewals: usize,
    pub requests: usize,
    pub waited: usize,
    pub failed: usize,
}

/// Sends requests at a fixed rate, whether or not earlier ones have ended.
pub async fn stream(entry: &Entry) -> Result<Stream, BoxError> {
    let endpoint = Endpoint::start(entry.lifetime).await?;
    let peer = entry.start.over(endpoint.clone()).await?;
    peer.send_one().await.0?;
    let before = (endpoint.occasions(), endpoint.requests());

    let mut sent = JoinSet::new();
    send(&*peer, entry.run, &mut sent).await;
    let answers = timeout(PATIENCE, sent.join_all()).await?;
    Ok(Stream {
        renewals: endpoint.occasions() - before.0,
        requests: endpoint.requests() - before.1,
        waited: answers.iter().filter(|(_, wait)| *wait > A_WAIT).count(),
        failed: answers.iter().filter(|(result, _)| result.is_err()).count(),
    })
}

async fn send(
    peer: &dyn AnyPeer,
    run: Duration,
    sent: &mut JoinSet<(Result<(), BoxError>, Duration)>,
) {
    // The resolution of the runtime's clock.
    let mut tick = interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + run;
    while Instant::now() < end {
        tick.tick().await;
        for _ in 0..RATE / 1_000 {
            sent.spawn(peer.send_one());
        }
    }
}
