//! One process of the fleet. It reads its commands from standard input.

use std::time::Duration;

use bearer_auth::{
    BearerAuthLayer, ClientCredentials, TokenCache, TokenSource as _,
    redis::{SharedRedis, SharedSource},
    source_fn,
    store::SealingKey,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tower::{Layer as _, ServiceExt as _};

use crate::{LEASE, Result};

/// Runs until its standard input ends, which is also when the parent dies.
pub(crate) async fn run(token_url: &str, api_url: &str, redis: &str) -> Result<()> {
    let source = ClientCredentials::builder(token_url, "client-id", "client-secret").build()?;
    let key = source.token_key();
    let source = std::sync::Arc::new(source);
    let source = source_fn(move |request| {
        let source = source.clone();
        async move {
            // The parent kills the process that prints this.
            println!("fetching");
            source.fetch(request).await
        }
    });
    let cache = match redis {
        "none" => TokenCache::new(source),
        url => {
            // For this program only: load yours from where you keep your secrets.
            let sealing = SealingKey::new([1; 32]);
            let store = SharedRedis::sealed(redis::Client::open(url)?, sealing).lease(LEASE);
            TokenCache::new(SharedSource::new(source, store, key))
        }
    };
    let auth = BearerAuthLayer::for_api(api_url, cache)?;
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30));
    let client = auth.layer(client.build()?);

    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if line != "get" {
            return Err(format!("unknown command: {line:?}").into());
        }
        // Refreshes after a 401 are a second apart at first, so a request that needs two of them ends with
        // a 401.
        loop {
            let request = client.get_ref().get(api_url).build()?;
            let response = client.clone().oneshot(request).await?;
            if response.status().is_success() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("done");
    }
    Ok(())
}
