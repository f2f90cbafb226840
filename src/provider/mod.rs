//! Ready configurations for known providers: functions that return a configured builder, to which
//! anything can be added, or the [`Issuer`](crate::Issuer) to discover.
//!
//! | provider | a service, with a secret | users who sign in |
//! |---|---|---|
//! | Hexagon Smart Completions | [`smart_completions`] | [`smart_completions_sign_in`] |
//! | Hexagon Smart API Manager | [`smart_api_manager`] | [`smart_api_manager_sign_in`] |
//! | Okta | [`okta`] or [`okta_server`], and `ClientCredentials::discover` | the same, and `AuthorizationCode::discover` |
//! | Entra ID (Azure AD) | [`entra_id`], and `ClientCredentials::discover` | the same, and `AuthorizationCode::discover` |
//! | MediationZone / Usage Engine | [`usage_engine`] | |
//! | ADONIS, ADOIT, ADOGRC (ADOxx) | [`adoxx`] | |
//!
//! A function takes what every client has, in the order of the builders: where the server is, the
//! client's id, its secret. Everything else is a setter with a name, so that no two texts can be mixed up
//! on the way to a server that must not see the secret.
//!
//! The functions follow the vendors' manuals. They are tested against
//! [`testing::MockIdp`](crate::testing::MockIdp), which answers as the manuals say, not against the
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

/// ADONIS, ADOIT, ADOGRC (ADOxx REST): client credentials at `{base}/oauth2/token`, the parameters
/// in the URL's query and the body empty.
///
/// `base` is the product's URL, such as `https://host:8000/ADOXX`. Its REST services lie below
/// `{base}/rest/`: give that to [`BearerAuthLayer::for_api`](crate::BearerAuthLayer::for_api), so
/// that the token goes there and not to the token endpoint. Add the
/// [`scope`](ClientCredentialsBuilder::scope) that the technical user has.
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
