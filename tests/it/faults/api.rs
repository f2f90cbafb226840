//! The protected API.

use std::{
    future::{Ready, ready},
    io,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use tower::Service;

/// The token that is cached before the fault, if the phase has one.
pub(crate) const OLD: &str = "token-1";

/// An in-process API: a response that needs no waiting is ready at the first poll.
#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    refuses: Refuses,
    requests: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Refuses {
    #[default]
    Nothing,
    Old,
    /// Rejects the old token, and breaks the connection for any other.
    OldAndBreaks,
    All,
    /// Answers 403.
    Forbids,
}

impl Api {
    pub(crate) fn refuse(&self, refuses: Refuses) {
        self.0.lock().unwrap().refuses = refuses;
    }

    pub(crate) fn requests(&self) -> usize {
        self.0.lock().unwrap().requests
    }
}

impl Service<Request<()>> for Api {
    /// The body names the token.
    type Response = Response<&'static str>;
    type Error = io::Error;
    type Future = Ready<io::Result<Response<&'static str>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let mut state = self.0.lock().unwrap();
        state.requests += 1;
        let value = request.headers()[AUTHORIZATION].to_str().unwrap();
        let old = value.strip_prefix("Bearer ").unwrap() == OLD;
        let status = match state.refuses {
            Refuses::OldAndBreaks if !old => {
                return ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            Refuses::All => StatusCode::UNAUTHORIZED,
            Refuses::Old | Refuses::OldAndBreaks if old => StatusCode::UNAUTHORIZED,
            Refuses::Forbids => StatusCode::FORBIDDEN,
            _ => StatusCode::OK,
        };
        let mut response = Response::new(if old { OLD } else { "a new one" });
        *response.status_mut() = status;
        ready(Ok(response))
    }
}
