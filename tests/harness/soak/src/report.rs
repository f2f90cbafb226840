//! The output: a live line, one line for each phase, and a summary.

use std::{
    convert::Infallible,
    fmt::Display,
    future::Future,
    io::{IsTerminal as _, Write as _},
    sync::Arc,
    time::Duration,
};

use tokio::time;

use crate::{
    Arguments,
    ledger::Ledger,
    level::{self, Level},
    load::{Histogram, Seen},
    schedule::Phase,
    server::Counts,
};

pub(crate) struct Report {
    command: String,
    total: Duration,
    ledger: Arc<Ledger>,
    seen: Arc<Seen>,
    /// Waiting times for tokens.
    waits: Arc<Histogram>,
    is_live: bool,
    /// The counts that earlier lines have shown.
    shown: (u64, u64, u64),
    rest: Option<Level>,
}

impl Report {
    pub(crate) fn new(
        arguments: &Arguments,
        ledger: Arc<Ledger>,
        seen: Arc<Seen>,
        waits: Arc<Histogram>,
    ) -> Self {
        let Arguments {
            minutes,
            seed,
            rate,
        } = arguments;
        Self {
            command: format!(
                "cargo run --release -p soak -- --minutes {minutes} --seed {seed} --rate {rate}"
            ),
            total: arguments.duration(),
            ledger,
            seen,
            waits,
            is_live: std::io::stdout().is_terminal(),
            shown: (0, 0, 0),
            rest: None,
        }
    }

    pub(crate) fn begins(&self, phases: usize) {
        println!("{}", self.command);
        println!("{phases} phases, about {:.0?}", self.total);
        println!();
        println!("    time   requests   excused  token requests  at rest");
    }

    /// Runs the load until `task` has ended, and shows both.
    pub(crate) async fn run_load<T>(
        &self,
        what: impl Display,
        load: impl Future<Output = Infallible>,
        task: impl Future<Output = T>,
    ) -> T {
        let show = async || -> Infallible {
            let mut ticks = time::interval(Duration::from_millis(200));
            loop {
                ticks.tick().await;
                self.live(&what);
            }
        };
        tokio::select! {
            ended = task => ended,
            never = load => match never {},
            never = show() => match never {},
        }
    }

    fn live(&self, what: impl Display) {
        if !self.is_live {
            return;
        }
        let Level { heap, tasks } = Level::now();
        let line = format!(
            "{:>6.1} s of {:.0?}: {} requests, {} for tokens, {tasks} tasks, {} KiB; {what}",
            self.ledger.since_start().as_secs_f32(),
            self.total,
            self.seen.started(),
            self.ledger.token_requests(),
            heap / 1024,
        );
        // A line that wraps cannot be overwritten.
        print!("\r{line:.79}\x1b[K");
        let _ = std::io::stdout().flush();
    }

    pub(crate) fn level(&mut self, level: Level) {
        self.line("warming up: this is the level", level);
    }

    pub(crate) fn phase(&mut self, phase: Phase, rest: Level) {
        self.line(phase, rest);
    }

    fn line(&mut self, what: impl Display, rest: Level) {
        let now = (
            self.seen.started(),
            self.seen.excused(),
            self.ledger.token_requests(),
        );
        println!(
            "{}{:>6.1} s {:>10} {:>9} {:>15}  {} tasks, {:.1} KiB  {what}",
            if self.is_live { "\r\x1b[K" } else { "" },
            self.ledger.since_start().as_secs_f32(),
            now.0 - self.shown.0,
            now.1 - self.shown.1,
            now.2 - self.shown.2,
            rest.tasks,
            rest.heap as f32 / 1024.0,
        );
        self.shown = now;
        self.rest = Some(rest);
    }

    /// Prints the summary. Returns whether all bounds were kept.
    pub(crate) fn ends(&self, counts: Counts, sent: u64) -> bool {
        let (seen, took, lag) = (&self.seen, &self.seen.took, &self.seen.lag);
        let mib = |bytes: usize| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64);
        println!();
        println!(
            "  requests          {:>9}  sent: {sent}, arrived: {}",
            seen.started(),
            counts.api_requests
        );
        println!("  401s              {:>9}", counts.unauthorized);
        let failures = seen.failures();
        let failed: u64 = failures.values().map(|(_, failed)| failed).sum();
        println!("  failures          {failed:>9}  while a token was available");
        for (kind, (excused, _)) in failures {
            println!("    excused         {excused:>9}  {kind}");
        }
        println!(
            "  token requests    {:>9}  arrived: {}, tokens: {}",
            self.ledger.token_requests(),
            counts.token_requests,
            counts.issued,
        );
        let times = |name: &str, times: &Histogram| {
            let [half, most, nearly] = [0.5, 0.99, 0.999].map(|share| millis(times.share(share)));
            let longest = format!("{:.1} ms", millis(times.longest()));
            println!(
                "  {name:<17} {longest:>9}  50 %: {half:.1} ms, 99 %: {most:.1} ms, 99.9 %: {nearly:.1} ms"
            );
        };
        times("longest request", took);
        times("longest wait", &self.waits);
        times("longest lag", lag);
        println!(
            "  peak memory       {:>9}  heap: {}",
            level::peak_memory().map_or("?".to_owned(), mib),
            mib(level::peak_heap())
        );
        if let Some(rest) = self.rest {
            println!("  tasks alive       {:>9}  at rest", rest.tasks);
        }
        println!();
        let (violated, violations) = self.ledger.take_violations();
        for violation in &violations {
            let when = violation.when.as_secs_f32();
            println!(
                "VIOLATION at {when:.2} s: {}: {}",
                violation.bound, violation.what
            );
        }
        if violated == 0 {
            println!("all bounds kept");
            return true;
        }
        println!("{violated} violations. To repeat the plan:");
        println!("    {}", self.command);
        false
    }
}

fn millis(duration: Duration) -> f64 {
    1e3 * duration.as_secs_f64()
}
