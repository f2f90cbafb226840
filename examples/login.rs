//! A user signs in, and the program sends requests as that user. The identity provider runs inside this
//! program and has a sign-in page of its own. With arguments, the program uses a real one:
//!
//! ```text
//! cargo run --features browser --example login
//! cargo run --features browser --example login -- \
//!     --issuer https://… --client-id … --scope "openid offline_access"
//! ```
//!
//! Use `--authorize https://… --token https://…` instead of the issuer if the server has no metadata.
//!
//! Register the redirect URI `http://127.0.0.1/callback` with the real one, with any port (RFC 8252
//! §7.3), or the URI that you give as `--redirect-uri`.

use std::{
    env,
    error::Error,
    io::{IsTerminal as _, stdin},
};

use bearer_auth::{
    AuthorizationCode, BearerAuthLayer, Session, TokenCache, open_browser, testing::MockIdp,
};
use reqwest::{Client, Url};
use tower::{Layer as _, ServiceExt as _};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let given: Vec<String> = env::args().skip(1).collect();
    if given.is_empty() {
        return against_mock_idp().await;
    }
    let argument = |name: &str| {
        let at = given.iter().position(|argument| argument == name)?;
        given.get(at + 1).cloned()
    };
    let needed = |name: &str| argument(name).ok_or_else(|| format!("{name} is missing"));
    let id = needed("--client-id")?;
    let auth = match argument("--issuer") {
        Some(issuer) => AuthorizationCode::discover(issuer, id),
        None => AuthorizationCode::builder(needed("--authorize")?, needed("--token")?, id),
    };
    let auth = auth
        .scope(argument("--scope").unwrap_or_default())
        .redirect_uri(argument("--redirect-uri").unwrap_or_default())
        .client_secret(env::var("CLIENT_SECRET").unwrap_or_default())
        .build()?;
    let session = auth.login_on_loopback(open_browser).await?;
    let token = TokenCache::new(session).token().await?;
    println!(
        "signed in: a token for {:?}, until {:?}",
        token.scope(),
        token.expires_at()
    );
    Ok(())
}

async fn against_mock_idp() -> Outcome<()> {
    let idp = MockIdp::builder()
        .client("example", "")
        .sign_in_page()
        .start()
        .await?;
    // The three lines that a program needs.
    let auth =
        AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), "example").build()?;
    let session = sign_in(&auth).await?;
    let auth = BearerAuthLayer::for_api(idp.api_url(), session)?;

    let client = Client::builder().redirect(auth.redirect_policy());
    let api = auth.layer(client.build()?);
    let request = api.get_ref().get(idp.api_url()).build()?;
    let response = api.oneshot(request).await?.error_for_status()?;
    println!("the API says: {}", response.text().await?);
    Ok(())
}

/// Opens the browser. Without a terminal, this program submits the sign-in page itself.
async fn sign_in(auth: &AuthorizationCode) -> Outcome<Session> {
    if stdin().is_terminal() {
        println!("Your browser opens a page: sign in there.");
        return Ok(auth.login_on_loopback(open_browser).await?);
    }
    let (opened, url) = tokio::sync::oneshot::channel();
    let login = auth.login_on_loopback(|url| drop(opened.send(url.to_owned())));
    let (session, page) = tokio::join!(login, async {
        let url = Url::parse(&url.await?)?;
        let form = [("user", "ada"), ("decision", "sign-in")];
        let page = Client::new().post(url).form(&form).send().await?;
        Outcome::Ok(page.error_for_status()?.status())
    });
    println!("the browser's last page: {}", page?);
    Ok(session?)
}
