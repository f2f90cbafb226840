//! Ready configurations for known providers: plain functions that return a configured builder, to
//! which anything can be added.

use secrecy::SecretString;

use crate::source::{ClientCredentials, ClientCredentialsBuilder, Required};

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

/// MediationZone / Usage Engine: client credentials with the address of the API as `audience`,
/// sent to the letter.
///
/// ```
/// use bearer_auth::{BearerAuthLayer, provider};
///
/// let api = "https://usage.example/api/";
/// let source = provider::usage_engine("https://idp.example/oauth/token", api, "id", "secret").build()?;
/// let auth = BearerAuthLayer::for_api(api, source)?;
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
pub fn usage_engine(
    token_url: impl Into<String>,
    audience: impl Into<String>,
    client_id: impl Into<String>,
    client_secret: impl Into<SecretString>,
) -> ClientCredentialsBuilder {
    ClientCredentials::builder(token_url, client_id, client_secret)
        .require(Required::Secret)
        .require(Required::Audience)
        .audience(audience)
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
