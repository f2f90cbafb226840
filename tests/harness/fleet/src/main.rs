//! Measures a fleet of processes that share tokens in Redis.
//!
//! ```text
//! cargo run --release -p fleet -- --processes 8
//! ```
//!
//! Starts `redis-server`, which must be installed, in memory and on a port of its own, an identity
//! provider that counts, and as many processes of this program. The processes start, lose all tokens,
//! lose Redis, and lose the lease's holder. A table shows, for each case, the token requests, the scripts
//! in Redis, and the time until all processes had a valid token. The program fails if a case exceeds its
//! bound of token requests.
#![allow(clippy::disallowed_methods, reason = "processes in real time")]

mod child;
mod fleet;
mod redis_server;
mod table;

use std::{
    env,
    error::Error,
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use bearer_auth::testing::{Answer, MockIdp};

use self::{
    fleet::Fleet,
    redis_server::RedisServer,
    table::{Counts, Table},
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Short, so that the last case does not take ten seconds.
const LEASE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<_> = env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["child", token_url, api_url, redis] => child::run(token_url, api_url, redis).await,
        ["--processes", count] => parent(count.parse()?).await,
        [] => parent(8).await,
        _ => Err("usage: fleet [--processes N]".into()),
    }
}

async fn parent(processes: usize) -> Result<()> {
    if processes < 2 {
        return Err("a fleet has two processes or more".into());
    }
    let Some(mut redis) = RedisServer::start().await? else {
        println!("redis-server is not installed: nothing to measure");
        return Ok(());
    };
    let idp = MockIdp::start().await?;
    // The response time of a server in another network.
    let slow = || idp.always(Answer::ok().delay(Duration::from_millis(100)));
    slow();
    let mut table = Table::default();

    progress("without sharing: all start");
    let before = Counts::now(&idp, &redis).await;
    let mut alone = Fleet::start(processes, &idp, "none").await?;
    let took = alone.all("get").await?;
    let counts = before.until_now(&idp, &redis).await;
    table.row("start, without sharing", processes, counts, took);
    drop(alone);

    progress("sharing: all start");
    let before = Counts::now(&idp, &redis).await;
    let mut fleet = Fleet::start(processes, &idp, &redis.url()).await?;
    let took = fleet.all("get").await?;
    let counts = before.until_now(&idp, &redis).await;
    table.row("start, sharing", 1, counts, took);

    progress("all tokens are revoked");
    let before = Counts::now(&idp, &redis).await;
    idp.revoke_all();
    let took = fleet.all("get").await?;
    let counts = before.until_now(&idp, &redis).await;
    table.row("all tokens are revoked", 1, counts, took);

    progress("Redis is killed, and all tokens are revoked");
    redis.kill();
    let before = Counts::now(&idp, &redis).await;
    idp.revoke_all();
    let took = fleet.all("get").await?;
    let counts = before.until_now(&idp, &redis).await;
    table.row("… while Redis is down", processes, counts, took);

    progress("Redis is back, empty, and all tokens are revoked");
    redis.run_again().await?;
    let before = Counts::now(&idp, &redis).await;
    idp.revoke_all();
    let took = fleet.all("get").await?;
    let counts = before.until_now(&idp, &redis).await;
    table.row("… and when it is back", 1, counts, took);
    drop(fleet);

    progress("the lease's holder is killed during its token request");
    redis.kill();
    redis.run_again().await?;
    let before = Counts::now(&idp, &redis).await;
    let mut fleet = Fleet::start(processes, &idp, &redis.url()).await?;
    let hold = idp.hold();
    fleet.send_all("get").await?;
    fleet.kill_first_fetching().await?;
    hold.release();
    slow();
    let took = fleet.wait_all().await?;
    let counts = before.until_now(&idp, &redis).await;
    table.row("the lease's holder is killed -9", 2, counts, took);

    progress("");
    println!("{processes} processes; the token endpoint takes 100 ms; a lease lasts {LEASE:?}\n");
    table.print()
}

/// Shows the current case on a terminal.
fn progress(what: &str) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        let _ = write!(out, "\r\x1b[K{what}");
        let _ = out.flush();
    }
}
