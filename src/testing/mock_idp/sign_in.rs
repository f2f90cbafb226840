//! [`MockIdp`]'s methods for user sign-in.

use std::{io, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Version, header::LOCATION};

use super::{MockIdp, MockIdpBuilder, Recorded, RefreshTokens, authorize, port::Port};

/// # Signing in
///
/// The authorization code grant (RFC 6749 §4.1) with PKCE (RFC 7636) and refresh tokens (§6). A code
/// (`code-1` …) is valid once, for ten minutes, with its client, `redirect_uri` and verifier. A
/// second use revokes the tokens of the first. A public client (without a
/// [secret](MockIdpBuilder::client)) has to use PKCE.
impl MockIdp {
    /// Returns the authorization endpoint: `http://127.0.0.1:<port>/oauth2/v1/authorize`, on the
    /// port of the token endpoint.
    ///
    /// A valid request is redirected back at once, for the user `alice`, or after a
    /// [page](MockIdpBuilder::sign_in_page). Requests to it do not count as token requests and
    /// take no scripted answers.
    pub fn authorization_url(&self) -> String {
        format!("{}{}", self.shared().base, authorize::PATH)
    }

    /// Returns the issuer: `http://127.0.0.1:<port>` and the configured
    /// [path](MockIdpBuilder::issuer_path). Use it for `discover` and [`set_iss`](Self::set_iss).
    ///
    /// The server publishes metadata (RFC 8414) of this issuer at all well-known URLs. They name
    /// an endpoint for pushed authorization requests (RFC 9126) and one for revocation (RFC 7009).
    /// Requests to these endpoints count as token requests and take scripted answers.
    pub fn issuer(&self) -> String {
        self.shared().issuer()
    }

    /// Sets a member of the metadata, which does not change what the server does. `null` omits it.
    ///
    /// ```
    /// # use bearer_auth::testing::MockIdp;
    /// # fn example(idp: &MockIdp) {
    /// idp.set_metadata("token_endpoint_auth_methods_supported", ["client_secret_post"].into());
    /// # }
    /// ```
    pub fn set_metadata(&self, member: &str, value: serde_json::Value) {
        let metadata = &mut self.shared().lock().metadata;
        metadata.insert(member.to_owned(), value);
    }

    /// Plays the browser: opens the URL of a login, and returns the callback URL. Sends nothing
    /// over the network.
    ///
    /// ```
    /// # use bearer_auth::{AuthorizationCode, testing::MockIdp};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let idp = MockIdp::builder().client("app", "").start().await?;
    /// let auth = AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), "app")
    ///     .redirect_uri("https://app.example/callback")
    ///     .build()?;
    /// let login = auth.start().await.unwrap();
    /// let callback = idp.sign_in(login.url())?;
    /// let session = login.finish(&callback).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The server does not redirect: the URL is another server's, the client or the redirect URI
    /// is unknown, or a [page](MockIdpBuilder::sign_in_page) waits for input.
    pub fn sign_in(&self, url: &str) -> io::Result<String> {
        let target = url
            .strip_prefix(self.shared().base.as_str())
            .filter(|target| target.starts_with(authorize::PATH));
        let target =
            target.ok_or_else(|| io::Error::other("not this server's authorization endpoint"))?;
        let request = Arc::new(Recorded {
            method: Method::GET,
            target: target.to_owned(),
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            too_large: false,
        });
        self.shared().arrive(Port::Browser, &request);
        let reply = authorize::answer(self.shared(), &request);
        match reply
            .headers
            .get(LOCATION)
            .map(|location| location.to_str())
        {
            Some(Ok(location)) => Ok(location.to_owned()),
            _ => {
                let message = String::from_utf8_lossy(&reply.body).into_owned();
                Err(io::Error::other(message))
            }
        }
    }

    /// Sets the error (`access_denied`) for every sign-in from now on; the redirect carries it.
    /// `None` removes it.
    pub fn refuse_sign_in(&self, error: Option<&str>) {
        self.shared().lock().sign_in_error = error.map(str::to_owned);
    }

    /// Sets the `iss` (RFC 9207) of redirects with codes and errors. Defaults to `None`, which
    /// omits it.
    pub fn set_iss(&self, iss: Option<&str>) {
        self.shared().lock().iss = iss.map(str::to_owned);
    }

    /// Sets whether the server issues refresh tokens, and whether it rotates them. Defaults to
    /// [`RefreshTokens::Rotated`].
    pub fn set_refresh_tokens(&self, refresh_tokens: RefreshTokens) {
        self.shared().lock().grants.refresh_tokens = refresh_tokens;
    }

    /// Signs all users out: refresh tokens get an `invalid_grant`, and access tokens issued for a
    /// sign-in are [revoked](Self::revoke).
    pub fn sign_out_all_users(&self) {
        self.shared().lock().revoke_all_grants();
    }

    /// Returns how many requests have arrived at the authorization endpoint.
    pub fn authorization_requests(&self) -> usize {
        self.shared().requests(Port::Browser)
    }

    /// Returns the newest 65,536 requests to the authorization endpoint, in the order of arrival.
    pub fn authorization_log(&self) -> Vec<Recorded> {
        self.shared().log(Port::Browser)
    }
}

impl MockIdpBuilder {
    /// Adds an allowed redirect URI, compared verbatim. Without a call, all are allowed.
    pub fn redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.config.redirect_uris.push(uri.into());
        self
    }

    /// Sets the path of the [issuer](MockIdp::issuer), such as `/tenant`. Defaults to no path.
    pub fn issuer_path(mut self, path: impl Into<String>) -> Self {
        self.config.issuer_path = path.into();
        self
    }

    /// Shows a page at the authorization endpoint, with a name field and the buttons "Sign in" and
    /// "Refuse". Use it for examples, or for a browser that a test drives.
    ///
    /// The form has `user` and `decision` (`sign-in` or `refuse`). The API returns the name as
    /// `user`.
    pub fn sign_in_page(mut self) -> Self {
        self.config.sign_in_page = true;
        self
    }
}
