//! The table of results.

use std::time::Duration;

use bearer_auth::testing::MockIdp;

use crate::{Result, redis_server::RedisServer};

/// Requests to the servers.
pub(crate) struct Counts {
    token_requests: usize,
    /// `None`: Redis is down.
    scripts: Option<u64>,
}

impl Counts {
    pub(crate) async fn now(idp: &MockIdp, redis: &RedisServer) -> Self {
        Self {
            token_requests: idp.token_requests(),
            scripts: redis.scripts().await,
        }
    }

    pub(crate) async fn until_now(self, idp: &MockIdp, redis: &RedisServer) -> Self {
        let now = Self::now(idp, redis).await;
        let scripts = now.scripts.zip(self.scripts);
        Self {
            token_requests: now.token_requests - self.token_requests,
            scripts: scripts.map(|(now, before)| now - before),
        }
    }
}

#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

struct Row {
    what: &'static str,
    /// The bound of token requests.
    bound: usize,
    counts: Counts,
    took: Duration,
}

impl Table {
    pub(crate) fn row(&mut self, what: &'static str, bound: usize, counts: Counts, took: Duration) {
        self.0.push(Row {
            what,
            bound,
            counts,
            took,
        });
    }

    /// # Errors
    ///
    /// A bound is exceeded.
    pub(crate) fn print(&self) -> Result<()> {
        println!(
            "{:<34} {:>14} {:>8} {:>17} {:>10}",
            "", "token requests", "at most", "scripts in Redis", "until all"
        );
        let mut exceeded = 0;
        for row in &self.0 {
            let requests = row.counts.token_requests;
            let good = requests <= row.bound && requests > 0;
            exceeded += usize::from(!good);
            let mark = if good { "" } else { "  <-- out of bounds" };
            let scripts = row.counts.scripts;
            let scripts = scripts.map_or("-".to_owned(), |scripts| scripts.to_string());
            let took = format!("{} ms", row.took.as_millis());
            println!(
                "{:<34} {requests:>14} {:>8} {scripts:>17} {took:>10}{mark}",
                row.what, row.bound
            );
        }
        match exceeded {
            0 => Ok(()),
            exceeded => Err(format!("{exceeded} cases are out of bounds").into()),
        }
    }
}
