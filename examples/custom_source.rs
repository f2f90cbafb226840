//! Tokens from a source of your own: a closure fetches them, and the cache does the rest.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bearer_auth::{BearerAuthLayer, Error, TokenCache, TokenResponse, source_fn};
use http::{Request, Response, header::AUTHORIZATION};
use tower::{Layer as _, ServiceExt as _, service_fn};

static ASKED: AtomicUsize = AtomicUsize::new(0);

/// Stands for a call to a vault, a metadata server or a command-line tool.
async fn ask_the_vault() -> io::Result<String> {
    let n = ASKED.fetch_add(1, Ordering::Relaxed) + 1;
    Ok(format!("token-{n}"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let source = source_fn(|request| async move {
        println!(
            "the vault is asked for a token; reason: {:?}",
            request.reason
        );
        let token = ask_the_vault().await.map_err(Error::from_source)?;
        TokenResponse::builder(token)
            .expires_in(Duration::from_secs(600))
            .build()
    });
    let cache = TokenCache::new(source);
    let auth = BearerAuthLayer::for_api("https://api.example.com/", cache.clone())?;

    // Stands for an HTTP client: returns the token that it received.
    let api = service_fn(|request: Request<()>| async move {
        let token = request.headers().get(AUTHORIZATION).cloned();
        Ok::<_, io::Error>(Response::new(token))
    });
    let client = auth.layer(api);

    for path in ["orders", "customers"] {
        let request = Request::get(format!("https://api.example.com/{path}")).body(())?;
        let response = client.clone().oneshot(request).await?;
        let token = response.into_body().ok_or("no token")?;
        println!("GET /{path} went with {}", token.to_str()?);
    }
    println!("explicitly refreshed: {:?}", cache.refresh().await?);
    println!(
        "the vault was asked {} times",
        ASKED.load(Ordering::Relaxed)
    );
    Ok(())
}
