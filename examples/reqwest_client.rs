//! A plain `reqwest::Client` with tokens on its requests: a reqwest client is a tower service.

use bearer_auth::{BearerAuthLayer, ClientCredentials, testing::MockIdp};
use reqwest::{Client, Method, Request};
use tower::{Layer as _, Service as _, ServiceExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Stands for your identity provider and your API.
    let idp = MockIdp::start().await?;

    let source = ClientCredentials::builder(idp.token_url(), "client-id", "client-secret")
        .scope("orders:read")
        .build()?;
    let auth = BearerAuthLayer::for_api(idp.api_url(), source)?;
    // Optional: starts the token request now, so that the first request does not wait for it.
    auth.cache().prefetch();

    // Follows redirects within the API only.
    let client = Client::builder().redirect(auth.redirect_policy());
    let mut client = auth.layer(client.build()?);
    let url = format!("{}orders", idp.api_url());

    let request = Request::new(Method::GET, url.parse()?);
    let response = client.ready().await?.call(request).await?;
    println!("{}: {}", response.status(), response.text().await?);

    // `get_ref` gives reqwest's request builder; the layered client sends the request.
    let request = client.get_ref().post(&url).body("one coffee").build()?;
    let response = client.ready().await?.call(request).await?;
    println!("{}: {}", response.status(), response.text().await?);
    Ok(())
}
