//! Hexagon's servers: Smart Completions and Smart API Manager.

use secrecy::SecretString;

use crate::{
    grant::{ClientCredentialsBuilder, Required},
    sign_in::{AuthorizationCode, AuthorizationCodeBuilder},
};

/// Hexagon Smart Completions: client credentials at `{base}/v1/token` with the scope `ingr.api`.
///
/// `base` is the URL of the authorization server, including its path.
///
/// ```
/// use bearer_auth::{BearerAuthLayer, provider};
///
/// let source = provider::smart_completions("https://sc.example/oauth2/abc", "id", "secret").build()?;
/// let auth = BearerAuthLayer::for_api("https://sc.example/api/", source)?;
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
pub fn smart_completions(
    base: impl AsRef<str>,
    client_id: impl Into<String>,
    client_secret: impl Into<SecretString>,
) -> ClientCredentialsBuilder {
    ClientCredentialsBuilder::below(base.as_ref(), "v1/token", client_id, client_secret)
        .require(Required::Secret)
        .scope("ingr.api")
}

/// Hexagon Smart Completions with its own server, for users who sign in.
///
/// All five values of the manual's table are required: Auth URL, Access Token URL and Client ID here,
/// Callback URL as [`redirect_uri`](AuthorizationCodeBuilder::redirect_uri), and
/// [`scope`](AuthorizationCodeBuilder::scope).
///
/// The scope depends on the installation. The manual's `openid_offline_access` is sent verbatim; a
/// standard server expects `openid offline_access` instead. A secret is
/// [optional](AuthorizationCodeBuilder::client_secret). If Smart Completions uses Okta or Azure AD, see
/// [`okta`](super::okta) and [`entra_id`](super::entra_id).
///
/// ```
/// use bearer_auth::provider;
///
/// let auth = provider::smart_completions_sign_in(
///     "https://sc.example/oauth2/authorize",
///     "https://sc.example/oauth2/token",
///     "client-id",
/// )
/// .redirect_uri("https://app.example/callback")
/// .scope("openid offline_access ingr.api")
/// .build()?;
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
pub fn smart_completions_sign_in(
    auth_url: impl Into<String>,
    access_token_url: impl Into<String>,
    client_id: impl Into<String>,
) -> AuthorizationCodeBuilder {
    AuthorizationCode::builder(auth_url, access_token_url, client_id)
        .require_redirect_uri_and_scope()
}

/// Hexagon Smart API Manager: client credentials at `{base}/oauth/connect/token`.
///
/// `base` is the URL of the installation, such as `https://sam.example/sam`. The
/// [`scope`](ClientCredentialsBuilder::scope) is required: the registered id of the Smart API.
///
/// ```
/// use bearer_auth::{BearerAuthLayer, provider};
///
/// let source = provider::smart_api_manager("https://sam.example/sam", "id", "secret")
///     .scope("api-id")
///     .build()?;
/// let auth = BearerAuthLayer::for_api("https://sc.example/api/", source)?;
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
pub fn smart_api_manager(
    base: impl AsRef<str>,
    client_id: impl Into<String>,
    client_secret: impl Into<SecretString>,
) -> ClientCredentialsBuilder {
    let path = "oauth/connect/token";
    ClientCredentialsBuilder::below(base.as_ref(), path, client_id, client_secret)
        .require(Required::Secret)
        .require(Required::Scope)
}

/// Hexagon Smart API Manager, for users who sign in.
///
/// The endpoints are `{base}/oauth/connect/authorize` and, as for [`smart_api_manager`],
/// `{base}/oauth/connect/token`. [`redirect_uri`](AuthorizationCodeBuilder::redirect_uri) and
/// [`scope`](AuthorizationCodeBuilder::scope) are required.
///
/// The manuals name only the token endpoint. The authorization endpoint is that of the server product
/// underneath. If yours differs, pass both URLs to [`smart_completions_sign_in`].
///
/// ```
/// use bearer_auth::provider;
///
/// let auth = provider::smart_api_manager_sign_in("https://sam.example/sam", "client-id")
///     .redirect_uri("https://app.example/callback")
///     .scope("openid offline_access api-id")
///     .build()?;
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
pub fn smart_api_manager_sign_in(
    base: impl AsRef<str>,
    client_id: impl Into<String>,
) -> AuthorizationCodeBuilder {
    AuthorizationCodeBuilder::below(
        base.as_ref(),
        "oauth/connect/authorize",
        "oauth/connect/token",
        client_id,
    )
    .require_redirect_uri_and_scope()
}
