//! Sends load through the layer for minutes or hours, while an identity provider fails in every way,
//! and checks bounds meanwhile:
//!
//! ```text
//! cargo run --release -p soak -- --minutes 10
//! ```
//!
//! The load is 2,000 requests a second (`--rate`) to an API on loopback. Each request starts at its
//! time, whether or not earlier ones have ended. Tokens live for some seconds. Meanwhile tokens are
//! revoked, the signing key is rotated, and the token endpoint is slow or fails: connections refused or
//! reset, no answer, error statuses, `Retry-After`. The seed (`--seed`) decides the plan of these
//! faults. After each phase with a fault, the load rests. The servers run in a process of their own.
//!
//! The program exits with 1 on:
//!
//! | bound | violation |
//! |---|---|
//! | failures | a request fails while there is a valid token, while the token endpoint would give one, or after the backoff has ended |
//! | expired tokens | a request goes out with an expired token, or without one |
//! | token requests | a token request starts while another is in flight; before the last quarter of the token's life, unless the token was revoked; or before the backoff after a failure has ended |
//! | refresh ahead | a token is not refreshed before it expires, although requests used it |
//! | every request ends | a request never ends |
//! | heap and tasks | after a phase there are more tasks than before the first one, or 8 KiB more on the heap |
//!
//! No bound depends on the speed of the machine. The report shows how late requests started (*lag*);
//! times count from the planned start of a request. A violation prints the command that repeats its
//! plan. The plan is then the same, but the crate's jitter and the order of tasks are not.
//!
//! Without arguments, it runs for twelve seconds with 200 requests a second.
#![allow(clippy::disallowed_methods, reason = "load in real time")]

mod ledger;
mod level;
mod load;
mod report;
mod schedule;
mod server;
mod wire;

use std::{
    env,
    error::Error,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bearer_auth::{BearerAuthLayer, ClientCredentials, Event, TokenCache};
use tokio::time;
use tower::ServiceBuilder;

use self::{
    ledger::Ledger,
    level::Level,
    load::{AT_ONCE, Histogram, Load},
    report::Report,
    schedule::{Fault, Phase, Schedule, Trouble, WARM_UP},
    server::Server,
    wire::{ToApi, ToIdp},
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A seed whose first minute has faults of all kinds.
const SEED: u64 = 262;
/// Short, so that a silent token endpoint costs two seconds, not half a minute.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the API takes to reject a token.
const LATE: Duration = Duration::from_millis(30);

/// Two threads on every machine: the memory of each thread is part of the level.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some(server::ARGUMENT) {
        return match server::serve().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: the server: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let soaked = async { soak(Arguments::parse()?).await };
    match soaked.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the load. Returns whether all bounds were kept.
async fn soak(arguments: Arguments) -> Outcome<bool> {
    let mut server = Server::start().await?;
    let ledger = Arc::new(Ledger::new());
    let refused = Arc::new(AtomicBool::new(false));
    let waits = Arc::new(Histogram::default());

    let source = ClientCredentials::builder(&server.token_url, "client-id", "client-secret")
        .http_client(ToIdp::new(Arc::clone(&ledger), Arc::clone(&refused)))
        .build()?;
    let seen = (Arc::clone(&ledger), Arc::clone(&waits));
    let cache = TokenCache::builder(source)
        .fetch_timeout(FETCH_TIMEOUT)
        .on_event(move |event| match event {
            Event::Requested {
                reason, attempt, ..
            } => seen.0.will_ask(*reason, *attempt),
            Event::Waited { took, .. } => seen.1.add(*took),
            _ => {}
        })
        .build();
    let auth = BearerAuthLayer::for_api(&server.api_url, cache)?;
    let to_api = ToApi::new(Arc::clone(&ledger));
    let client = ServiceBuilder::new()
        .layer(auth)
        .concurrency_limit(AT_ONCE)
        .service(to_api.clone());
    let uri = format!("{}orders", server.api_url).parse()?;
    let load = Load::new(client, uri, arguments.rate, Arc::clone(&ledger));

    let phases = Schedule::new(arguments.seed).lasting(arguments.duration());
    let mut report = Report::new(
        &arguments,
        Arc::clone(&ledger),
        Arc::clone(load.seen()),
        waits,
    );
    report.begins(phases.len());

    server.lifetime(Duration::from_secs(5)).await?;
    report
        .run_load("warming up", load.run(), time::sleep(WARM_UP))
        .await;
    load.ends().await;
    let level = Level::settled().await;
    report.level(level);

    for phase in phases {
        let trouble = async {
            let (ended, end) = tokio::join!(
                cause(phase, &mut server, &ledger, &refused),
                time::sleep(phase.load),
            );
            let () = end;
            ended
        };
        report.run_load(phase, load.run(), trouble).await?;
        load.ends().await;
        let rest = level.is_back(&ledger).await;
        report.phase(phase, rest);
        if ledger.is_violated() {
            break;
        }
    }
    Ok(report.ends(server.counts().await?, to_api.sent()))
}

/// Causes the fault of a phase, from its start to its end.
async fn cause(
    phase: Phase,
    server: &mut Server,
    ledger: &Ledger,
    refused: &AtomicBool,
) -> Outcome<()> {
    let begins = Instant::now() + phase.begins;
    let ends = begins + phase.lasts;
    server.lifetime(phase.lifetime).await?;
    time::sleep_until(begins.into()).await;
    match phase.trouble {
        Trouble::Nothing => {}
        Trouble::Outage(fault) => {
            down(fault, server, refused).await?;
            time::sleep_until(ends.into()).await;
        }
        Trouble::Slow { idp, api } => {
            server.well(idp).await?;
            server.api(api).await?;
            time::sleep_until(ends.into()).await;
        }
        Trouble::Revocation => {
            recovers_at_once(ledger).await;
            // The first 401 brings a new token long before the last 401 about the old one.
            server.api(LATE).await?;
            revoke(ledger.good_tokens(), server, ledger).await?;
            time::sleep_until(ends.into()).await;
        }
        Trouble::Rotation => {
            let of_the_old_key = ledger.good_tokens();
            time::sleep_until(ends.into()).await;
            recovers_at_once(ledger).await;
            revoke(of_the_old_key, server, ledger).await?;
        }
        Trouble::Storm(fault) => {
            recovers_at_once(ledger).await;
            down(fault, server, refused).await?;
            revoke(ledger.good_tokens(), server, ledger).await?;
            time::sleep_until(ends.into()).await;
        }
    }
    refused.store(false, Ordering::Relaxed);
    server.well(Duration::ZERO).await?;
    server.api(Duration::ZERO).await?;
    Ok(())
}

async fn down(fault: Fault, server: &mut Server, refused: &AtomicBool) -> Outcome<()> {
    refused.store(matches!(fault, Fault::Refused), Ordering::Relaxed);
    Ok(server.down(fault).await?)
}

async fn revoke(tokens: Vec<String>, server: &mut Server, ledger: &Ledger) -> Outcome<()> {
    ledger.revoked(&tokens);
    Ok(server.revoke(&tokens).await?)
}

/// Waits until a revocation would be recovered from at once. The plan leaves time for that; a machine
/// that stalls may need more.
async fn recovers_at_once(ledger: &Ledger) {
    while !ledger.would_recover_at_once() {
        time::sleep(Duration::from_millis(10)).await;
    }
}

struct Arguments {
    minutes: f64,
    seed: u64,
    rate: u32,
}

impl Arguments {
    fn parse() -> Outcome<Self> {
        let mut given = env::args().skip(1).peekable();
        let any = given.peek().is_some();
        let mut arguments = Self {
            minutes: if any { 1.0 } else { 0.2 },
            seed: SEED,
            rate: if any { 2_000 } else { 200 },
        };
        while let Some(name) = given.next() {
            let value = given.next().ok_or(USAGE)?;
            match name.as_str() {
                "--minutes" => arguments.minutes = value.parse()?,
                "--seed" => arguments.seed = value.parse()?,
                "--rate" => arguments.rate = value.parse()?,
                _ => return Err(USAGE.into()),
            }
        }
        let possible = arguments.minutes > 0.0 && arguments.minutes < 1e6 && arguments.rate > 0;
        if possible {
            Ok(arguments)
        } else {
            Err(USAGE.into())
        }
    }

    fn duration(&self) -> Duration {
        Duration::from_secs_f64(60.0 * self.minutes)
    }
}

const USAGE: &str = "usage: soak [--minutes MINUTES] [--seed SEED] [--rate REQUESTS_PER_SECOND]";
