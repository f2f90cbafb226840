//! The layer as middleware of `reqwest-middleware`, which keeps the client's usual API.
//! (Feature `reqwest-middleware`.)

use bearer_auth::{BearerAuthLayer, ClientCredentials, testing::MockIdp};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Stands for your identity provider and your API.
    let idp = MockIdp::start().await?;

    let source =
        ClientCredentials::builder(idp.token_url(), "client-id", "client-secret").build()?;
    let auth = BearerAuthLayer::for_api(idp.api_url(), source)?;
    // Follows redirects within the API only.
    let client = reqwest::Client::builder().redirect(auth.redirect_policy());
    let client = reqwest_middleware::ClientBuilder::new(client.build()?)
        .with(auth)
        .build();

    let url = format!("{}orders", idp.api_url());
    let response = client.post(&url).body("one coffee").send().await?;
    println!("{}: {}", response.status(), response.text().await?);

    // The layer replaces a rejected token and resends the request.
    idp.revoke_all();
    let response = client.get(&url).send().await?;
    println!(
        "after a revocation, {}: {}",
        response.status(),
        response.text().await?
    );
    Ok(())
}
