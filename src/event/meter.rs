//! Events for `metrics`.

use std::time::SystemTime;

use metrics::{counter, gauge, histogram};

use super::{Event, word};
use crate::error::ErrorKind;

pub(super) fn count(cache: &str, event: &Event<'_>) {
    let cache = || cache.to_owned();
    match event {
        Event::Requested { .. } => {}
        Event::Obtained {
            reason,
            took,
            waiters,
            expires_at,
            ..
        } => {
            let (reason, outcome) = (word(*reason), "ok");
            counter!("bearer_auth_token_requests_total",
                "cache" => cache(), "reason" => reason, "outcome" => outcome)
            .increment(1);
            histogram!("bearer_auth_token_request_duration_seconds",
                "cache" => cache(), "outcome" => outcome)
            .record(took.as_secs_f64());
            histogram!("bearer_auth_token_request_waiters", "cache" => cache())
                .record(*waiters as f64);
            let end = expires_at.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
            gauge!("bearer_auth_token_expires_at_seconds", "cache" => cache())
                .set(end.map_or(f64::INFINITY, |end| end.as_secs_f64()));
        }
        Event::Failed {
            reason,
            took,
            error,
            ..
        } => {
            let (reason, outcome) = (word(*reason), outcome(error.kind()));
            counter!("bearer_auth_token_requests_total",
                "cache" => cache(), "reason" => reason, "outcome" => outcome)
            .increment(1);
            histogram!("bearer_auth_token_request_duration_seconds",
                "cache" => cache(), "outcome" => outcome)
            .record(took.as_secs_f64());
        }
        Event::Waited { took } => {
            histogram!("bearer_auth_wait_duration_seconds", "cache" => cache())
                .record(took.as_secs_f64());
        }
        Event::Rejected {} => {
            counter!("bearer_auth_tokens_rejected_total", "cache" => cache()).increment(1);
        }
        Event::Recovered {} => {
            counter!("bearer_auth_requests_recovered_total", "cache" => cache()).increment(1);
        }
    }
}

fn outcome(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Connect => "connect",
        ErrorKind::Transport => "transport",
        ErrorKind::Timeout => "timeout",
        ErrorKind::OAuth => "oauth",
        ErrorKind::Status => "status",
        ErrorKind::InvalidResponse => "invalid_response",
        ErrorKind::UnsupportedTokenType => "unsupported_token_type",
        ErrorKind::Discovery => "discovery",
        ErrorKind::Source => "source",
        ErrorKind::SignIn => "sign_in",
        ErrorKind::SignInRequired => "sign_in_required",
        ErrorKind::Interrupted => "interrupted",
        ErrorKind::NoRuntime => "no_runtime",
        ErrorKind::Target => "target",
        ErrorKind::RequestBody => "request_body",
    }
}
