//! A simple hand-written cache: a lock, a second check under it, and a margin of 30 s.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, header::AUTHORIZATION};
use tokio::sync::RwLock;
use tower_layer::Layer;
use tower_service::Service;

use super::{Entry, seconds, start};
use crate::{
    BoxError,
    driving::{Peer, Tower},
    endpoint::Endpoint,
    stacks::Noop,
};

const MARGIN: Duration = Duration::from_secs(30);

pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        package: None,
        what: "`RwLock<Option<Token>>`, `format!`, in a tower layer",
        start: start!(start),
        without: None,
        lifetime: seconds(32),
        run: seconds(6),
        less: "From 30 s before expiry all callers wait for the new token. No 401 handling, no \
               check of the token's destination, no backoff. Dropping a caller drops its token \
               request. Secrets are not wiped. Monotonic clock only",
    }]
}

#[derive(Clone)]
struct Token {
    secret: String,
    expires_at: Instant,
}

#[derive(Clone)]
struct Tokens {
    cached: Arc<RwLock<Option<Token>>>,
    endpoint: Endpoint,
}

impl Tokens {
    async fn get(&self) -> String {
        if let Some(token) = good(&*self.cached.read().await) {
            return token.secret.clone();
        }
        let mut cached = self.cached.write().await;
        if let Some(token) = good(&cached) {
            return token.secret.clone();
        }
        let secret = self.endpoint.token().await;
        *cached = Some(Token {
            secret: secret.clone(),
            expires_at: Instant::now() + self.endpoint.lifetime(),
        });
        secret
    }
}

fn good(token: &Option<Token>) -> Option<&Token> {
    token
        .as_ref()
        .filter(|token| token.expires_at > Instant::now() + MARGIN)
}

#[derive(Clone)]
struct AuthLayer(Tokens);

impl<S> Layer<S> for AuthLayer {
    type Service = Auth<S>;

    fn layer(&self, inner: S) -> Auth<S> {
        Auth {
            inner,
            tokens: self.0.clone(),
        }
    }
}

#[derive(Clone)]
struct Auth<S> {
    inner: S,
    tokens: Tokens,
}

impl<S, B> Service<Request<B>> for Auth<S>
where
    S: Service<Request<B>, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // Take the ready service, and keep its clone.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let tokens = self.tokens.clone();
        Box::pin(async move {
            let token = tokens.get().await;
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
            inner.call(request).await.map_err(Into::into)
        })
    }
}

async fn start(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    let tokens = Tokens {
        cached: Arc::default(),
        endpoint,
    };
    Ok(Tower(AuthLayer(tokens).layer(Noop)))
}
