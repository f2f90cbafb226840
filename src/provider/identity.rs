//! Servers that many APIs stand behind.

use crate::client::Issuer;

/// Okta's org authorization server, whose tokens open Okta's own APIs. `org` is its URL, such as
/// `https://dev-1234.okta.com`.
///
/// For these APIs, services have to prove themselves by `private_key_jwt`. Assertions are addressed
/// to the endpoint, as Okta's documents say.
///
/// ```
/// # #[cfg(feature = "jwt")]
/// # fn build(pem: String) -> Result<(), bearer_auth::ConfigError> {
/// use bearer_auth::{ClientAuth, ClientCredentials, SigningKey, provider};
///
/// let key = SigningKey::from_pem(pem)?.key_id("as Okta shows it");
/// let source = ClientCredentials::discover(provider::okta("https://dev-1234.okta.com"), "client-id", "")
///     .client_auth(ClientAuth::private_key_jwt(key))
///     .scope("okta.users.read")
///     .build()?;
/// # Ok(()) }
/// ```
pub fn okta(org: impl AsRef<str>) -> Issuer {
    okta_at(org.as_ref().trim_end_matches('/').to_owned())
}

/// A custom authorization server of Okta's, whose tokens open your APIs: `server` is its id, such
/// as `default`.
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

/// Its metadata are behind the issuer's path, not before it.
fn okta_at(issuer: String) -> Issuer {
    let metadata = format!("{issuer}/.well-known/oauth-authorization-server");
    addressed(Issuer::new(issuer).metadata_url(metadata))
}

/// Microsoft Entra ID (Azure AD), version 2.0. `authority` is what Microsoft's libraries call so:
/// `https://login.microsoftonline.com/<tenant id>`, with `/v2.0` behind it or without; other clouds
/// have other hosts.
///
/// The tenant's *id*: a domain name finds the same metadata, but they name the issuer by the id.
/// `common` and `organizations` let people of any tenant sign in; then nobody is known as the issuer
/// of an answer, and each such server wants a redirect URI of its own
/// ([`check_together`](crate::AuthorizationCode::check_together)). Assertions are addressed to the
/// endpoint, as Microsoft's documents say.
///
/// A service asks for `<the API's application id URI>/.default`:
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
    // As some of Microsoft's libraries write it.
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
    addressed(Issuer::new(issuer).metadata_url(metadata))
}

fn addressed(issuer: Issuer) -> Issuer {
    #[cfg(feature = "jwt")]
    return issuer.assertions_to_endpoint();
    #[cfg(not(feature = "jwt"))]
    issuer
}
