//! [`MockIdp`]'s methods for people who sign in.

use std::{io, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Version, header::LOCATION};

use super::{MockIdp, MockIdpBuilder, Recorded, RefreshTokens, authorize, port::Port};

/// # Signing in
///
/// The authorization code grant (RFC 6749 §4.1) with PKCE (RFC 7636) and refresh tokens (§6). Codes
/// (`code-1` …) are good for one use within ten minutes, by the client, with the `redirect_uri` and
/// the verifier that they were made for; a second use ends all that came of the first. A client
/// without a [secret](MockIdpBuilder::client) has to use PKCE.
impl MockIdp {
    /// `http://127.0.0.1:<port>/oauth2/v1/authorize`, on the identity provider's port.
    ///
    /// A browser that goes there with a good request is sent back at once, as `alice` would be who
    /// has signed in before; with a [page](MockIdpBuilder::sign_in_page), it asks first. Requests
    /// are neither counted as token requests nor scripted as such.
    pub fn authorization_url(&self) -> String {
        format!("{}{}", self.shared().base, authorize::PATH)
    }

    /// `http://127.0.0.1:<port>`, with the builder's [path](MockIdpBuilder::issuer_path) behind it:
    /// what to `discover`, and what to [`set_iss`](Self::set_iss) to.
    ///
    /// The identity provider's port has metadata (RFC 8414) of this issuer at all the well-known
    /// places, and they name an endpoint for pushed authorization requests (RFC 9126) and one for
    /// revocation (RFC 7009). Requests to these count as token requests, and are scripted as such.
    pub fn issuer(&self) -> String {
        self.shared().issuer()
    }

    /// A member that the metadata have from now on, whatever the server does; `null` leaves it out.
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

    /// What a browser does: goes to a login's URL, and comes back with the URL that the client is
    /// called back at. Nothing is sent over the network.
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
    /// The identity provider does not send the browser back: it is another's URL, the client or its
    /// redirect URI is not known, or there is a page to fill in.
    pub fn sign_in(&self, url: &str) -> io::Result<String> {
        let target = url
            .strip_prefix(self.shared().base.as_str())
            .filter(|target| target.starts_with(authorize::PATH));
        let target = target.ok_or_else(|| io::Error::other("not this server's login page"))?;
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
                let words = String::from_utf8_lossy(&reply.body).into_owned();
                Err(io::Error::other(words))
            }
        }
    }

    /// Every login from now on is refused with this error (`access_denied`), which the browser
    /// takes back; `None` ends it.
    pub fn refuse_sign_in(&self, error: Option<&str>) {
        self.shared().lock().sign_in_error = error.map(str::to_owned);
    }

    /// The `iss` (RFC 9207) that browsers take back from now on, with codes and errors; `None`, as
    /// it is by default, leaves it out.
    pub fn set_iss(&self, iss: Option<&str>) {
        self.shared().lock().iss = iss.map(str::to_owned);
    }

    /// Whether there are refresh tokens from now on, and whether they rotate, as they do by
    /// default.
    pub fn set_refresh_tokens(&self, refresh_tokens: RefreshTokens) {
        self.shared().lock().grants.refresh_tokens = refresh_tokens;
    }

    /// Everybody who has signed in is out: refresh tokens get an `invalid_grant`, and tokens that
    /// came of a login are [revoked](Self::revoke).
    pub fn sign_everybody_out(&self) {
        self.shared().lock().end_grants();
    }

    /// How many requests have arrived at the authorization endpoint.
    pub fn authorization_requests(&self) -> usize {
        self.shared().requests(Port::Browser)
    }

    /// The newest 65,536 requests to the authorization endpoint, in the order of their arrival.
    pub fn authorization_log(&self) -> Vec<Recorded> {
        self.shared().log(Port::Browser)
    }
}

impl MockIdpBuilder {
    /// A redirect URI that clients may use, compared as it is. Called again, one more. Default: any
    /// may be used.
    pub fn redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.config.redirect_uris.push(uri.into());
        self
    }

    /// A path of the [issuer](MockIdp::issuer), such as `/tenant`. Default: none.
    pub fn issuer_path(mut self, path: impl Into<String>) -> Self {
        self.config.issuer_path = path.into();
        self
    }

    /// The authorization endpoint asks: a page with a name and the buttons "Sign in" and "Refuse",
    /// for a person in front of an example, or for a browser that a test drives (a form of `user`
    /// and `decision`, which is `sign-in` or `refuse`). The API says the name back as `user`.
    pub fn sign_in_page(mut self) -> Self {
        self.config.sign_in_page = true;
        self
    }
}
