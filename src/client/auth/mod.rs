//! [`ClientAuth`]: client authentication at the token endpoint (RFC 6749 §2.3).
//!
//! A request uses one method. No other method is tried after a failure, as failed attempts can lock an
//! account.

use std::{borrow::Cow, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded;
use zeroize::Zeroizing;

#[cfg(feature = "jwt")]
pub use self::{key::SigningKey, key_pair::SigningAlgorithm};
use super::form::Form;
use crate::error::ConfigError;
#[cfg(feature = "jwt")]
use {
    self::assertion::{Signer, Statement},
    crate::clock::Clock,
    std::time::Duration,
};

#[cfg(feature = "jwt")]
pub(crate) mod assertion;
#[cfg(feature = "jwt")]
mod jwk;
#[cfg(feature = "jwt")]
mod key;
#[cfg(feature = "jwt")]
mod key_pair;

/// The method by which a client authenticates at the token endpoint (RFC 6749 §2.3).
///
/// ```
/// use bearer_auth::{ClientAuth, ClientCredentials};
///
/// let source = ClientCredentials::builder("https://idp.example/token", "client-id", "secret")
///     .client_auth(ClientAuth::post())
///     .build()?;
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientAuth {
    method: Method,
    /// The spelling of `Basic`.
    scheme: Option<Cow<'static, str>>,
    #[cfg(feature = "jwt")]
    assertion: assertion::Settings,
}

#[derive(Clone, Debug)]
enum Method {
    Basic,
    BasicRaw,
    Post,
    None,
    Tls,
    #[cfg(feature = "jwt")]
    SecretJwt,
    #[cfg(feature = "jwt")]
    KeyJwt(SigningKey),
}

impl ClientAuth {
    /// `client_secret_basic`, the default: client id and secret in an `Authorization: Basic` header,
    /// both form-encoded (RFC 6749 §2.3.1) with `%20` for a space.
    pub fn basic() -> Self {
        Self::new(Method::Basic)
    }

    /// [`basic`](Self::basic) without form-encoding. Use it for a server that does not decode, and
    /// therefore rejects secrets with special characters. The client id must not contain `:`.
    pub fn basic_raw() -> Self {
        Self::new(Method::BasicRaw)
    }

    /// `client_secret_post`: `client_id` and `client_secret` in the request body (RFC 6749 §2.3.1).
    pub fn post() -> Self {
        Self::new(Method::Post)
    }

    /// A public client: `client_id` in the body, without authentication. Not allowed for client
    /// credentials (RFC 6749 §4.4).
    pub fn none() -> Self {
        Self::new(Method::None)
    }

    /// Mutual TLS (RFC 8705 §2): the HTTP client's certificate authenticates the client, and the body
    /// has the `client_id`. This method covers `tls_client_auth` and
    /// `self_signed_tls_client_auth`. A client secret is ignored.
    ///
    /// Set the certificate with [`ReqwestClient::identity_pem`](crate::endpoint::ReqwestClient), or in
    /// the connector of your own [`HttpClient`](crate::endpoint::HttpClient). If the server binds
    /// tokens to the certificate (§3), present the same one to the API:
    ///
    /// ```
    /// # #[cfg(feature = "reqwest")]
    /// # fn client(pem: String) -> Result<(), Box<dyn std::error::Error>> {
    /// use bearer_auth::{BearerAuthLayer, ClientAuth, ClientCredentials, endpoint::ReqwestClient};
    /// use tower_layer::Layer as _;
    ///
    /// let identity = reqwest::Identity::from_pem(pem.as_bytes())?;
    /// let source = ClientCredentials::builder("https://idp.example/token", "client-id", "")
    ///     .client_auth(ClientAuth::tls())
    ///     .http_client(ReqwestClient::new().identity_pem(pem)?)
    ///     .build()?;
    /// let auth = BearerAuthLayer::for_api("https://api.example.com/", source)?;
    /// let to_the_api = reqwest::Client::builder()
    ///     .identity(identity)
    ///     .redirect(auth.redirect_policy())
    ///     .build()?;
    /// let client = auth.layer(to_the_api);
    /// # Ok(()) }
    /// ```
    ///
    /// To change the certificate, build source, layer and client again: cached tokens and open
    /// connections belong to the old one. If a connector or a proxy changes it, call
    /// [`TokenCache::refresh`](crate::TokenCache::refresh) for a token bound to the new one. Otherwise
    /// the API's next 401 does that, at the cost of one more request.
    ///
    /// Tokens of public clients ([`none`](Self::none)) can be bound, too (§4): set the same
    /// `http_client`. Their refresh tokens are then bound as well, so users sign in again after a
    /// change.
    pub fn tls() -> Self {
        Self::new(Method::Tls)
    }

    /// Sets the spelling of the scheme `Basic`. Use it for a server that compares the case-insensitive
    /// name verbatim (RFC 9110 §11.1). Defaults to `Basic`.
    pub fn scheme(mut self, spelling: impl Into<Cow<'static, str>>) -> Self {
        self.scheme = Some(spelling.into());
        self
    }

    /// `private_key_jwt`: a JWT that the client signs with its private key, of which the server has
    /// the public one (RFC 7523 §2.2, OpenID Connect Core §9). A client secret is ignored.
    ///
    /// Each request has a new JWT: `iss` and `sub` are the client id, `aud` is the server's
    /// [issuer](Self::assertion_audience), `jti` is 128 random bits, and `exp` is a
    /// [minute](Self::assertion_lifetime) after `iat`.
    ///
    /// ```
    /// use bearer_auth::{ClientAuth, ClientCredentials, ConfigError, SigningKey};
    ///
    /// # fn source(pem: String) -> Result<ClientCredentials, ConfigError> {
    /// let key = SigningKey::from_pem(pem)?.key_id("2026-11");
    /// let auth = ClientAuth::private_key_jwt(key).assertion_audience("https://idp.example");
    /// ClientCredentials::builder("https://idp.example/token", "client-id", "")
    ///     .client_auth(auth)
    ///     .build()
    /// # }
    /// ```
    #[cfg(feature = "jwt")]
    pub fn private_key_jwt(key: SigningKey) -> Self {
        Self::new(Method::KeyJwt(key))
    }

    /// `client_secret_jwt`: like [`private_key_jwt`](Self::private_key_jwt), signed with the client
    /// secret (HS256), which needs 32 bytes or more (RFC 7518 §3.2). Prefer a private key if the
    /// server supports it, as the server also knows the secret.
    #[cfg(feature = "jwt")]
    pub fn client_secret_jwt() -> Self {
        Self::new(Method::SecretJwt)
    }

    /// Sets the audience of the assertion (`aud`, RFC 7523 §3), sent verbatim: usually the server's
    /// issuer (draft-ietf-oauth-rfc7523bis), for some servers the token endpoint's URL. Defaults to
    /// the issuer if it is configured, for example by
    /// [`AuthorizationCodeBuilder::issuer`](crate::AuthorizationCodeBuilder::issuer), otherwise to the
    /// token endpoint's URL.
    #[cfg(feature = "jwt")]
    pub fn assertion_audience(mut self, audience: impl Into<String>) -> Self {
        self.assertion.audience = Some(audience.into());
        self
    }

    /// Sets the lifetime of an assertion (`exp`, RFC 7523 §3): whole seconds, from 1 s to 5 min.
    /// Defaults to 60 s.
    #[cfg(feature = "jwt")]
    pub fn assertion_lifetime(mut self, lifetime: Duration) -> Self {
        self.assertion.lifetime = Some(lifetime);
        self
    }

    /// Adds `nbf` (RFC 7523 §3), the time of signing, to the assertion. By default there is none, as a
    /// server whose clock is behind would reject the assertion.
    #[cfg(feature = "jwt")]
    pub fn assertion_not_before(mut self) -> Self {
        self.assertion.not_before = true;
        self
    }

    /// Sets the `typ` of the assertion's header (RFC 7519 §5.1): `client-authentication+jwt` for servers
    /// that follow draft-ietf-oauth-rfc7523bis, or `""` for none. Defaults to `JWT`, as some servers
    /// accept nothing else.
    #[cfg(feature = "jwt")]
    pub fn assertion_type(mut self, typ: impl Into<String>) -> Self {
        self.assertion.typ = Some(typ.into());
        self
    }

    fn new(method: Method) -> Self {
        Self {
            method,
            scheme: None,
            #[cfg(feature = "jwt")]
            assertion: assertion::Settings::default(),
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self.method, Method::None)
    }

    /// Whether the HTTP client's certificate authenticates the client.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.method, Method::Tls)
    }

    /// Whether the method adds parameters to the request.
    pub(crate) fn is_in_body(&self) -> bool {
        !matches!(self.method, Method::Basic | Method::BasicRaw | Method::Tls)
    }

    /// Whether the method sends an assertion.
    pub(crate) fn is_assertion(&self) -> bool {
        #[cfg(feature = "jwt")]
        return matches!(self.method, Method::SecretJwt | Method::KeyJwt(_));
        #[cfg(not(feature = "jwt"))]
        false
    }

    /// Whether the method authenticates the client with a key instead of a secret.
    pub(crate) fn has_key(&self) -> bool {
        #[cfg(feature = "jwt")]
        return matches!(self.method, Method::Tls | Method::KeyJwt(_));
        #[cfg(not(feature = "jwt"))]
        self.is_tls()
    }

    pub(crate) fn check(&self, client_id: &str, secret: &SecretString) -> Result<(), ConfigError> {
        if client_id.is_empty() {
            return Err(ConfigError::new(
                "client_id",
                "empty; set the id that the client is registered with",
            ));
        }
        if client_id.chars().any(char::is_control) {
            return Err(ConfigError::new(
                "client_id",
                "contains a control character; check for a line break",
            ));
        }
        if secret.expose_secret().chars().any(char::is_control) {
            return Err(ConfigError::new(
                "client_secret",
                "contains a control character; check for a line break at the end of a file",
            ));
        }
        if matches!(self.method, Method::BasicRaw) && client_id.contains(':') {
            return Err(ConfigError::new(
                "client_id",
                "contains `:`, the separator in raw Basic; use `ClientAuth::basic()`",
            ));
        }
        if let Some(scheme) = &self.scheme {
            if !matches!(self.method, Method::Basic | Method::BasicRaw) {
                return Err(ConfigError::new(
                    "client_auth",
                    "`scheme` is set, but this method sends no `Authorization` header; remove it",
                ));
            }
            if !scheme.eq_ignore_ascii_case("basic") {
                return Err(ConfigError::new(
                    "client_auth",
                    "`scheme` is not `Basic`; only its case may differ",
                ));
            }
        }
        #[cfg(feature = "jwt")]
        self.check_assertion(secret)?;
        Ok(())
    }

    #[cfg(feature = "jwt")]
    fn check_assertion(&self, secret: &SecretString) -> Result<(), ConfigError> {
        match &self.method {
            Method::SecretJwt => assertion::check_secret(secret)?,
            Method::KeyJwt(key) => key.check()?,
            _ if self.assertion != assertion::Settings::default() => {
                return Err(ConfigError::new(
                    "client_auth",
                    "an assertion is configured, but this method sends none; \
                     use `private_key_jwt` or `client_secret_jwt`",
                ));
            }
            _ => {}
        }
        let names = ["assertion_audience", "assertion_lifetime"];
        self.assertion.check(names, assertion::MAX_LIFETIME)
    }

    /// Adds the authentication to a request. `audience` is the default `aud` of an assertion.
    ///
    /// # Errors
    ///
    /// An assertion cannot be signed.
    pub(crate) fn apply(
        &self,
        client_id: &str,
        secret: &SecretString,
        #[cfg_attr(not(feature = "jwt"), expect(unused_variables))] audience: &str,
        headers: &mut HeaderMap,
        form: &mut Form,
    ) -> Result<(), ConfigError> {
        match &self.method {
            Method::Basic | Method::BasicRaw => {
                let scheme = self.scheme.as_deref().unwrap_or("Basic");
                let raw = matches!(self.method, Method::BasicRaw);
                if let Some(value) = basic(scheme, raw, client_id, secret.expose_secret()) {
                    headers.insert(AUTHORIZATION, value);
                }
            }
            Method::Post => {
                form.push_missing("client_id", client_id);
                form.push("client_secret", secret.expose_secret());
            }
            Method::None | Method::Tls => form.push_missing("client_id", client_id),
            #[cfg(feature = "jwt")]
            Method::SecretJwt => {
                self.add_assertion(Signer::Secret(secret), client_id, audience, form)?;
            }
            #[cfg(feature = "jwt")]
            Method::KeyJwt(key) => {
                self.add_assertion(Signer::Key(key), client_id, audience, form)?;
            }
        }
        Ok(())
    }

    #[cfg(feature = "jwt")]
    fn add_assertion(
        &self,
        signer: Signer<'_>,
        client_id: &str,
        audience: &str,
        form: &mut Form,
    ) -> Result<(), ConfigError> {
        let now = Clock::default().system_time();
        let statement = Statement {
            issuer: client_id,
            subject: Some(client_id),
            audience,
            claims: &[],
        };
        let assertion = assertion::assertion(signer, &self.assertion, statement, now)?;
        form.push_missing("client_id", client_id);
        form.push("client_assertion_type", assertion::TYPE);
        form.push("client_assertion", &assertion);
        Ok(())
    }
}

impl Default for ClientAuth {
    fn default() -> Self {
        Self::basic()
    }
}

/// Never `None`: Base64 and a checked scheme are valid in a header.
fn basic(scheme: &str, raw: bool, client_id: &str, secret: &str) -> Option<HeaderValue> {
    // Each byte becomes three at most. Reallocation would leave a copy that is not wiped.
    let max_len = 3 * (client_id.len() + secret.len()) + 1;
    let mut pair = Zeroizing::new(String::with_capacity(max_len));
    if raw {
        let _ = write!(pair, "{client_id}:{secret}");
    } else {
        form_encode_with_percent(client_id, &mut pair);
        pair.push(':');
        form_encode_with_percent(secret, &mut pair);
    }
    let encoded = base64::encoded_len(pair.len(), true)?;
    let mut value = Zeroizing::new(vec![0; scheme.len() + 1 + encoded]);
    let (prefix, rest) = value.split_at_mut(scheme.len() + 1);
    prefix[..scheme.len()].copy_from_slice(scheme.as_bytes());
    prefix[scheme.len()] = b' ';
    STANDARD.encode_slice(pair.as_bytes(), rest).ok()?;
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Form encoding (RFC 6749 Appendix B) with `%20` for a space, which every form decoder accepts, and
/// so do servers that decode only `%XX`.
fn form_encode_with_percent(text: &str, to: &mut String) {
    for piece in form_urlencoded::byte_serialize(text.as_bytes()) {
        to.push_str(if piece == "+" { "%20" } else { piece });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(auth: ClientAuth, id: &str, secret: &str) -> String {
        let secret = SecretString::from(secret);
        auth.check(id, &secret).unwrap();
        let (mut headers, mut form) = (HeaderMap::new(), Form::default());
        auth.apply(id, &secret, "", &mut headers, &mut form)
            .unwrap();
        assert!(headers[AUTHORIZATION].is_sensitive());
        assert_eq!(form.encode().as_str(), "", "one method only");
        headers[AUTHORIZATION].to_str().unwrap().to_owned()
    }

    fn decoded(auth: ClientAuth, id: &str, secret: &str) -> String {
        let header = header(auth, id, secret);
        let pair = STANDARD.decode(&header["Basic ".len()..]).unwrap();
        String::from_utf8(pair).unwrap()
    }

    #[test]
    fn p8_basic_form_encodes_id_and_secret() {
        assert_eq!(
            header(
                ClientAuth::basic(),
                "1PpG/Q 1",
                "z/tZ9VwFZqApmIQ+ZH1I5pLk/uB4ud:X2/8bL+wfFTt1rFw="
            ),
            // A well-known vector, with `%20` instead of `+` for the space.
            format!(
                "Basic {}",
                STANDARD.encode(
                    "1PpG%2FQ%201:z%2FtZ9VwFZqApmIQ%2BZH1I5pLk%2FuB4ud%3AX2%2F8bL%2BwfFTt1rFw%3D"
                )
            )
        );
    }

    #[test]
    fn p9_s4_7_c8_unreserved_credentials_are_unchanged() {
        let basic = |id, secret| header(ClientAuth::basic(), id, secret);
        assert_eq!(
            basic("s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw"),
            "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3"
        );
        assert_eq!(basic("client", "secret"), "Basic Y2xpZW50OnNlY3JldA==");
        assert_eq!(
            basic("s6BhdRkqt3", "gX1fBat3bV"),
            "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW"
        );
        assert_eq!(decoded(ClientAuth::basic(), "id", ""), "id:");
    }

    #[test]
    fn c7_question_marks_are_form_encoded() {
        assert_eq!(
            header(ClientAuth::basic(), "CLIENT_ID??", "CLIENT_SECRET??"),
            "Basic Q0xJRU5UX0lEJTNGJTNGOkNMSUVOVF9TRUNSRVQlM0YlM0Y="
        );
    }

    #[test]
    fn p10_colon_in_client_id_is_escaped() {
        assert_eq!(
            header(ClientAuth::basic(), "a:b", "p+q r"),
            "Basic YSUzQWI6cCUyQnElMjBy"
        );
    }

    #[test]
    fn p11_credentials_are_utf8_with_upper_case_escapes() {
        assert_eq!(
            decoded(ClientAuth::basic(), "ünï", " %&+£€"),
            "%C3%BCn%C3%AF:%20%25%26%2B%C2%A3%E2%82%AC"
        );
    }

    #[test]
    fn p12_only_unreserved_characters_are_not_escaped() {
        let plain = "ABCXYZabcxyz019*-._";
        assert_eq!(
            decoded(ClientAuth::basic(), plain, "0jQKm_heHj4Ba7-IP~"),
            format!("{plain}:0jQKm_heHj4Ba7-IP%7E")
        );
    }

    #[test]
    fn p13_s0_6_s4_8_raw_basic_sends_credentials_verbatim() {
        let raw = ClientAuth::basic_raw;
        assert_eq!(decoded(ClientAuth::basic(), "id", "p%5^g"), "id:p%255%5Eg");
        assert_eq!(decoded(raw(), "id", "p%5^g"), "id:p%5^g");
        assert_eq!(decoded(ClientAuth::basic(), "id", "p+q"), "id:p%2Bq");
        assert_eq!(decoded(raw(), "id", "p+q"), "id:p+q");
        assert_eq!(decoded(raw(), "id", "pä€"), "id:pä€");
        let error = raw().check("a:b", &"s".into()).unwrap_err();
        assert_eq!(error.field(), "client_id");
    }

    #[test]
    fn s0_5_basic_scheme_spelling_is_configurable() {
        let lower = ClientAuth::basic().scheme("basic");
        assert_eq!(
            header(lower, "client", "secret"),
            "basic Y2xpZW50OnNlY3JldA=="
        );
        for wrong in [
            ClientAuth::basic().scheme("Bearer"),
            ClientAuth::post().scheme("basic"),
        ] {
            let error = wrong.check("id", &"s".into()).unwrap_err();
            assert_eq!(error.field(), "client_auth");
        }
    }

    #[test]
    fn p16_empty_secret_is_left_out_of_the_body() {
        let (mut headers, mut form) = (HeaderMap::new(), Form::default());
        ClientAuth::post()
            .apply("id", &"".into(), "", &mut headers, &mut form)
            .unwrap();
        assert_eq!(form.encode().as_str(), "client_id=id");
        assert!(headers.is_empty());
    }

    #[test]
    fn invalid_credentials_error_names_the_field_and_shows_no_secret() {
        for (id, secret, field) in [
            ("", "s", "client_id"),
            ("i\nd", "s", "client_id"),
            ("id", "canary\n", "client_secret"),
        ] {
            let error = ClientAuth::basic().check(id, &secret.into()).unwrap_err();
            assert_eq!(error.field(), field);
            assert!(!error.to_string().contains("canary"));
        }
    }
}
