//! Hexagon's two servers.

use secrecy::SecretString;

use crate::{
    grant::{ClientCredentialsBuilder, Required},
    sign_in::{AuthorizationCode, AuthorizationCodeBuilder},
};

/// Hexagon Smart Completions: client credentials at `{base}/v1/token`, scope `ingr.api`.
///
/// `base` is the URL of the authorization server, path included.
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

/// Hexagon Smart Completions with its own server, for users who sign in. The manual's table names five
/// values, all of which are required: Auth URL, Access Token URL and Client ID here, Callback URL as
/// [`redirect_uri`](AuthorizationCodeBuilder::redirect_uri), and
/// [`scope`](AuthorizationCodeBuilder::scope).
///
/// The scope depends on the installation: the manual's `openid_offline_access` is sent as it is
/// written, and is not what `openid offline_access` means to a standard server. A secret is
/// [optional](AuthorizationCodeBuilder::client_secret). For Okta and Azure AD behind Smart
/// Completions, see [`okta`](super::okta) and [`entra_id`](super::entra_id).
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
/// `base` is where it is installed, such as `https://sam.example/sam`. The
/// [`scope`](ClientCredentialsBuilder::scope) is required: the id of the Smart API as it is registered
/// there.
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

/// Hexagon Smart API Manager, for users who sign in: like [`smart_api_manager`], with the authorization
/// endpoint at `{base}/oauth/connect/authorize`.
/// [`redirect_uri`](AuthorizationCodeBuilder::redirect_uri) and
/// [`scope`](AuthorizationCodeBuilder::scope) are required.
///
/// The manuals name the token endpoint only; this is the other endpoint of the server that the product
/// is built on. If yours is elsewhere, give the URLs to [`smart_completions_sign_in`].
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
