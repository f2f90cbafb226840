//! Ready configurations for known providers. The functions return a configured builder, or the
//! [`Issuer`](crate::Issuer) for discovery.
//!
//! | Provider | A service, with a secret | Users who sign in |
//! |---|---|---|
//! | Hexagon Smart Completions | [`smart_completions`] | [`smart_completions_sign_in`] |
//! | Hexagon Smart API Manager | [`smart_api_manager`] | [`smart_api_manager_sign_in`] |
//! | Okta | [`okta`] or [`okta_server`], and `ClientCredentials::discover` | the same, and `AuthorizationCode::discover` |
//! | Entra ID (Azure AD) | [`entra_id`], and `ClientCredentials::discover` | the same, and `AuthorizationCode::discover` |
//! | MediationZone / Usage Engine | [`usage_engine`] | |
//! | ADONIS, ADOIT, ADOGRC (ADOxx) | [`adoxx`] | |
//!
//! The parameters are those of the builders, in the same order: URL, client id, client secret. All other
//! values have named setters, so that a secret cannot be confused with another string and sent to the
//! wrong server.
//!
//! The functions follow the vendors' manuals. Tests run against
//! [`testing::MockIdp`](crate::testing::MockIdp), which behaves as the manuals say, and not against the
//! vendors' servers.

mod hexagon;
mod identity;

use secrecy::SecretString;

pub use self::{
    hexagon::{
        smart_api_manager, smart_api_manager_sign_in, smart_completions, smart_completions_sign_in,
    },
    identity::{entra_id, okta, okta_server},
};
use crate::grant::{ClientCredentials, ClientCredentialsBuilder, Required};

/// MediationZone / Usage Engine: client credentials with the address of the API as
/// [`audience`](ClientCredentialsBuilder::audience), which is required and sent verbatim.
///
/// ```
/// use bearer_auth::{BearerAuthLayer, provider};
///
/// let api = "https://usage.example/api/";
/// let source = provider::usage_engine("https://idp.example/oauth/token", "id", "secret")
///     .audience(api)
///     .build()?;
/// let auth = BearerAuthLayer::for_api(api, source)?;
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
pub fn usage_engine(
    token_url: impl Into<String>,
    client_id: impl Into<String>,
    client_secret: impl Into<SecretString>,
) -> ClientCredentialsBuilder {
    ClientCredentials::builder(token_url, client_id, client_secret)
        .require(Required::Secret)
        .require(Required::Audience)
}

/// ADONIS, ADOIT, ADOGRC (ADOxx REST): client credentials at `{base}/oauth2/token`, with the parameters
/// in the URL's query and an empty body.
///
/// `base` is the product's URL, such as `https://host:8000/ADOXX`. Its REST services are below
/// `{base}/rest/`: pass that URL to [`BearerAuthLayer::for_api`](crate::BearerAuthLayer::for_api), so
/// that the token endpoint receives no token. Add the [`scope`](ClientCredentialsBuilder::scope) of the
/// technical user.
///
/// ```
/// use bearer_auth::{BearerAuthLayer, provider};
///
/// let source = provider::adoxx("https://host:8000/ADOXX", "id", "secret").scope("myScope").build()?;
/// let auth = BearerAuthLayer::for_api("https://host:8000/ADOXX/rest/", source)?;
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
pub fn adoxx(
    base: impl AsRef<str>,
    client_id: impl Into<String>,
    client_secret: impl Into<SecretString>,
) -> ClientCredentialsBuilder {
    ClientCredentialsBuilder::below(base.as_ref(), "oauth2/token", client_id, client_secret)
        .require(Required::Secret)
        .params_in_query()
}
