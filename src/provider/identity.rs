//! Identity providers: Okta and Microsoft Entra ID.

use crate::client::Issuer;

/// Okta's org authorization server, which issues tokens for Okta's own APIs. `org` is its URL, such as
/// `https://dev-1234.okta.com`.
///
/// For these APIs, a service must authenticate with `private_key_jwt`. `aud` of assertions is the
/// endpoint, as Okta documents.
///
/// ```
/// # #[cfg(feature = "jwt")]
/// # fn build(pem: String) -> Result<(), bearer_auth::ConfigError> {
/// use bearer_auth::{ClientAuth, ClientCredentials, SigningKey, provider};
///
/// let key = SigningKey::from_pem(pem)?.key_id("key-id");
/// let source = ClientCredentials::discover(provider::okta("https://dev-1234.okta.com"), "client-id", "")
///     .client_auth(ClientAuth::private_key_jwt(key))
///     .scope("okta.users.read")
///     .build()?;
/// # Ok(()) }
/// ```
pub fn okta(org: impl AsRef<str>) -> Issuer {
    okta_at(org.as_ref().trim_end_matches('/').to_owned())
}

/// A custom authorization server at Okta, which issues tokens for your own APIs. `server` is its id,
/// such as `default`.
///
/// ```
/// use bearer_auth::{AuthorizationCode, provider};
///
/// let server = provider::okta_server("https://dev-1234.okta.com", "default");
/// let auth = AuthorizationCode::discover(server, "client-id")
///     .redirect_uri("https://app.example/callback")
///     .scope("openid offline_access orders:read")
///     .build()?;
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
pub fn okta_server(org: impl AsRef<str>, server: impl AsRef<str>) -> Issuer {
    let org = org.as_ref().trim_end_matches('/');
    okta_at(format!("{org}/oauth2/{}", server.as_ref()))
}

/// Okta publishes its metadata after the issuer's path, not before it.
fn okta_at(issuer: String) -> Issuer {
    let metadata = format!("{issuer}/.well-known/oauth-authorization-server");
    with_endpoint_audience(Issuer::new(issuer).metadata_url(metadata))
}

/// Microsoft Entra ID (Azure AD), version 2.0. `authority` is the authority of Microsoft's libraries:
/// `https://login.microsoftonline.com/<tenant id>`, with or without `/v2.0`. Other clouds have other
/// hosts.
///
/// Use the tenant's *id*: a domain name leads to metadata whose issuer contains the id, and does not
/// match. With `common` or `organizations`, users of any tenant can sign in. Then the issuer of a
/// response is unknown, and each such server needs its own redirect URI
/// ([`check_together`](crate::AuthorizationCode::check_together)). `aud` of assertions is the endpoint,
/// as Microsoft documents.
///
/// The scope of a service is `<the API's application id URI>/.default`:
///
/// ```
/// use bearer_auth::{ClientCredentials, provider};
///
/// let tenant = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555";
/// let source = ClientCredentials::discover(provider::entra_id(tenant), "client-id", "secret")
///     .scope("https://graph.microsoft.com/.default")
///     .build()?;
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
pub fn entra_id(authority: impl AsRef<str>) -> Issuer {
    let authority = authority.as_ref().trim_end_matches('/');
    // Some of Microsoft's libraries include it.
    let authority = authority.strip_suffix("/v2.0").unwrap_or(authority);
    let any_tenant = ["common", "organizations"].iter();
    let issuer = any_tenant
        .filter_map(|tenant| authority.strip_suffix(tenant))
        .find(|host| host.ends_with('/'))
        .map_or_else(
            || format!("{authority}/v2.0"),
            |host| format!("{host}{{tenantid}}/v2.0"),
        );
    let metadata = format!("{authority}/v2.0/.well-known/openid-configuration");
    with_endpoint_audience(Issuer::new(issuer).metadata_url(metadata))
}

/// Sets `aud` of assertions to the endpoint.
fn with_endpoint_audience(issuer: Issuer) -> Issuer {
    #[cfg(feature = "jwt")]
    return issuer.assertions_to_endpoint();
    #[cfg(not(feature = "jwt"))]
    issuer
}
