//! A tower stack over hyper-util's client, without reqwest: token requests use hyper as well.

use std::time::Duration;

use bearer_auth::{BearerAuthLayer, ClientCredentials, endpoint::TowerClient, testing::MockIdp};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Service as _, ServiceBuilder, ServiceExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Stands for your identity provider and your API.
    let idp = MockIdp::start().await?;

    // For https, give both clients a connector of hyper-rustls.
    let to_idp = TowerClient::new(Client::builder(TokioExecutor::new()).build_http());
    let source = ClientCredentials::builder(idp.token_url(), "client-id", "client-secret")
        .http_client(to_idp)
        .build()?;
    let auth = BearerAuthLayer::for_api(idp.api_url(), source)?;

    let mut client = ServiceBuilder::new()
        // Outside: the time limit includes waiting for a token.
        .timeout(Duration::from_secs(5))
        .layer(auth)
        // Inside: a request that waits for a token does not count towards the limit.
        .concurrency_limit(10)
        .service(Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>());

    let request = Request::get(format!("{}orders", idp.api_url())).body(Empty::new())?;
    let response = client.ready().await?.call(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    println!("{status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}
