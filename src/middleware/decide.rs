//! The decisions of the request path: what to do with a request, and whether a response rejects its
//! token.
//!
//! Nothing here waits. The service and the reqwest-middleware adapter share these decisions, and differ
//! in how they wait and send.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, StatusCode, header::AUTHORIZATION};

use super::{
    http_types::{HttpRequest, sealed},
    resend::{Replay, sealed::Kept},
    target::{Admission, Apis},
};
use crate::{
    cache::{Acquire, Pending, TokenCache},
    error::{Error, ErrorKind, Retry},
    per_core::{CacheAligned, PerCore},
    token::{AccessToken, TokenId, challenges},
};

/// Which requests get the token, and which responses reject it: the configuration of a layer.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) apis: Apis,
    /// Replaces the default rule for 401 responses.
    pub(crate) renew_on: Option<Arc<RenewOn>>,
}

pub(crate) type RenewOn = dyn Fn(StatusCode, &HeaderMap) -> bool + Send + Sync;

impl Rules {
    #[inline]
    fn admit(&self, request: &impl sealed::Request) -> Admission {
        self.apis.admit_request(request)
    }

    /// Whether `response` rejects its request's token: `token`, or another one with the same scheme.
    #[inline]
    fn rejects(
        &self,
        response: &impl sealed::Response,
        token: impl FnOnce() -> Option<AccessToken>,
    ) -> bool {
        let rejects = match &self.renew_on {
            Some(renew_on) => renew_on(response.status(), response.headers()),
            None => {
                response.status() == StatusCode::UNAUTHORIZED
                    && renewal_helps(response.headers(), token().as_ref())
            }
        };
        rejects && self.is_from_api(response)
    }

    /// Whether the API sent `response`. The client below may have followed a redirect to another host,
    /// which has not seen the token.
    fn is_from_api(&self, response: &impl sealed::Response) -> bool {
        match response.answered_by() {
            Some(target) => matches!(self.apis.admit(target), Admission::Allowed),
            None => true,
        }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("apis", &self.apis)
            .field("renew_on", &self.renew_on.as_ref().map(|_| "…"))
            .finish()
    }
}

/// The state that a layer, its services and their requests in flight share.
#[derive(Clone, Debug)]
pub(super) struct Core {
    pub(super) cache: TokenCache,
    pub(super) rules: Rules,
}

/// [`Core`], once per processor core, so that threads do not share its reference count.
pub(super) type SharedCore = Arc<PerCore<Arc<CacheAligned<Core>>>>;

/// A request that was sent with the layer's token. `K` is the copy to send again.
pub(super) struct Sent<O, K> {
    token: TokenId,
    /// The target: only a response from there is about the token.
    origin: O,
    again: Option<K>,
}

/// What to do with a request.
pub(super) enum Prepared<L> {
    /// Send it unchanged: it goes to another target, or the caller has set the header.
    Pass,
    /// Send it: it carries this token.
    Send(TokenId),
    /// Wait for the token request in flight, then [attach](Core::attach) its token.
    Wait(Pending),
    /// Read the body first, then acquire a token.
    Read(L),
    /// Do not send it.
    Refuse(Error),
}

impl Core {
    pub(super) fn shared(self) -> SharedCore {
        let core = Arc::new(CacheAligned(self));
        let copy = |core: &Arc<CacheAligned<Self>>| Arc::new(CacheAligned(core.0.clone()));
        Arc::new(PerCore::new(core, copy))
    }

    /// Decides what to do with a request, and writes the token's header if there is a valid token.
    /// Sets `copy` to the copy to send again, if the policy keeps one.
    #[inline]
    pub(super) fn prepare<R: HttpRequest, P: Replay<R>>(
        &self,
        resend: &P,
        request: &mut R,
        copy: &mut Option<P::Copy>,
    ) -> Prepared<P::Later> {
        match self.rules.admit(request) {
            Admission::Allowed => {}
            Admission::Elsewhere => return Prepared::Pass,
            Admission::Refused(error) => return Prepared::Refuse(error),
        }
        match resend.keep(request) {
            Kept::Copy(kept) => *copy = Some(kept),
            Kept::Nothing => {}
            Kept::Later(_) if self.cache.is_authorized(request.headers()) => return Prepared::Pass,
            Kept::Later(later) => return Prepared::Read(later),
        }
        let attached = match self.cache.with_fresh(|token| put(token, request)) {
            Some(attached) => attached,
            None if self.cache.is_authorized(request.headers()) => return Prepared::Pass,
            None => match self.cache.acquire(copy.is_some()) {
                Acquire::Now(token) => put(&token, request),
                Acquire::Wait(pending) => return Prepared::Wait(pending),
                Acquire::Fail(error) => return Prepared::Refuse(error),
            },
        };
        match attached {
            Ok(Some(token)) => Prepared::Send(token),
            Ok(None) => Prepared::Pass,
            Err(error) => Prepared::Refuse(error),
        }
    }

    /// Writes the header of `token`. `None`: the caller has set that header.
    pub(super) fn attach<R: HttpRequest, K>(
        &self,
        request: &mut R,
        token: &AccessToken,
        again: Option<K>,
    ) -> Result<Option<Sent<R::Origin, K>>, Error> {
        let token = put(token, request)?;
        Ok(token.map(|token| Sent::new(token, request, again)))
    }

    /// Whether the response to a request rejects the token that it carried.
    #[inline]
    pub(super) fn rejects<O: sealed::Origin, K>(
        &self,
        sent: Option<&Sent<O, K>>,
        response: &impl sealed::Response,
    ) -> bool {
        self.rules.rejects(response, || self.cache.present())
            && sent.is_some_and(|sent| sent.origin.answered(response))
    }

    /// Handles the rejection of a token. Returns the copy to send again, with the token of [`renewed`].
    /// `None`: the caller gets the response, and the token is replaced in the background.
    #[cold]
    pub(super) fn reject<O, K>(&self, sent: Sent<O, K>) -> Option<(K, TokenId)> {
        if sent.again.is_none()
            && let Some(token) = self.cache.recall(sent.token)
        {
            self.cache.reject(&token);
        }
        sent.again.map(|again| (again, sent.token))
    }

    /// Handles the response to a request that was sent again. A second rejection is final.
    pub(super) fn after_resend(&self, response: &impl sealed::Response) {
        if !self.rules.rejects(response, || self.cache.present()) {
            self.cache.recovered();
        }
    }
}

/// Returns the next token after the rejection of the one sent as `id`, and waits for it if necessary.
pub(super) async fn renewed(cache: TokenCache, id: TokenId) -> Option<AccessToken> {
    match cache.recall(id) {
        Some(token) => cache.renew(&token).await,
        // The cache has a newer one.
        None => cache.token().await.ok(),
    }
}

impl<O, K> Sent<O, K> {
    /// `request` carries the token; `again` is the copy to send again.
    #[inline(always)]
    pub(super) fn new<R>(token: TokenId, request: &R, again: Option<K>) -> Self
    where
        R: HttpRequest<Origin = O>,
    {
        Self {
            token,
            origin: request.origin(),
            again,
        }
    }

    /// Converts the copy to send again.
    #[inline(always)]
    pub(super) fn keep<L>(self, keep: impl FnOnce(K) -> L) -> Sent<O, L> {
        Sent {
            token: self.token,
            origin: self.origin,
            again: self.again.map(keep),
        }
    }
}

/// Writes the token's header. `None`: the caller has set that header.
#[inline(always)]
fn put<R: HttpRequest>(token: &AccessToken, request: &mut R) -> Result<Option<TokenId>, Error> {
    let ours = authorize(request.headers_mut(), token)?;
    Ok(ours.then(|| token.id()))
}

/// Writes the token's header. `false`: the caller has set that header, which stays unchanged.
#[inline(always)]
fn authorize(headers: &mut HeaderMap, token: &AccessToken) -> Result<bool, Error> {
    // One search instead of two: appending shows whether the header was there.
    let name = token.header_name();
    let value = token.header_value().clone();
    // A constant costs fewer instructions than a name, and nearly all tokens have this one.
    let put = if name == AUTHORIZATION {
        headers.try_append(AUTHORIZATION, value)
    } else {
        headers.try_append(name, value)
    };
    match put {
        Ok(false) => Ok(true),
        Ok(true) => {
            remove_last(headers, token.header_name());
            Ok(false)
        }
        Err(_) => Err(too_many_headers()),
    }
}

/// Removes the last value of a header.
#[cold]
fn remove_last(headers: &mut HeaderMap, name: &HeaderName) {
    let mut values: Vec<_> = headers.get_all(name).iter().cloned().collect();
    values.pop();
    let mut values = values.into_iter();
    if let Some(first) = values.next() {
        // Keeps the header's place, and drops its other values.
        headers.insert(name, first);
    }
    for value in values {
        headers.append(name, value);
    }
}

#[cold]
fn too_many_headers() -> Error {
    let message = "the request has too many headers to add the token's";
    Error::build(ErrorKind::Target, Retry::Never, message).done()
}

/// Whether a new token of the same kind can help against a 401 (RFC 9110 §15.5.2).
///
/// Yes without any challenge (many servers send none), and with one for the token's scheme unless its
/// error has another cause than the token. No if all challenges are for other schemes.
#[cold]
fn renewal_helps(headers: &HeaderMap, token: Option<&AccessToken>) -> bool {
    /// Errors (RFC 6750 §3.1, RFC 9470 §3, Entra ID) that a new token of the same kind does not fix.
    const NOT_RENEWABLE: [&str; 4] = [
        "insufficient_claims",
        "insufficient_scope",
        "insufficient_user_authentication",
        "invalid_request",
    ];

    let scheme = token.map_or("", AccessToken::scheme);
    let (mut ours, mut others) = (false, false);
    for challenge in challenges(headers) {
        if !challenge.is(scheme) && !challenge.is("Bearer") {
            others = true;
            continue;
        }
        ours = true;
        if let Some(error) = challenge.param("error")
            && NOT_RENEWABLE.contains(&error)
        {
            return false;
        }
    }
    ours || !others
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response, header::WWW_AUTHENTICATE};

    use super::*;
    use crate::token::access_token::Header;

    fn token(name: HeaderName, scheme: &str) -> AccessToken {
        let header = Header::new(name, scheme, "a-token").unwrap();
        AccessToken::new(header, None, None)
    }

    fn bearer() -> AccessToken {
        token(AUTHORIZATION, "Bearer")
    }

    fn rejects(status: u16, challenges: &[&str]) -> bool {
        let rules = Rules {
            apis: Apis::any(false),
            renew_on: None,
        };
        let mut response = Response::builder().status(status);
        for challenge in challenges {
            response = response.header(WWW_AUTHENTICATE, *challenge);
        }
        rules.rejects(&response.body(()).unwrap(), || Some(bearer()))
    }

    #[test]
    fn p65_p69_c25_401_with_a_challenge_for_the_scheme_or_none_rejects_the_token() {
        for challenges in [
            &[][..],
            &["Bearer"],
            &[r#"Bearer realm="api", error="invalid_token""#],
            &[r#"BEARER ERROR=invalid_token"#],
            &["Negotiate", r#"Bearer error="invalid_token""#],
            &[r#"Basic realm="x", Bearer error="expired_token""#],
            &["error=invalid_request,error_description=nonsense"],
        ] {
            assert!(rejects(401, challenges), "{challenges:?}");
        }
    }

    #[test]
    fn p231_401_for_another_scheme_does_not_reject_the_token() {
        for challenges in [
            &[r#"Basic realm="x""#][..],
            &["Negotiate", "NTLM"],
            &[r#"DPoP algs="ES256""#],
        ] {
            assert!(!rejects(401, challenges), "{challenges:?}");
        }
    }

    #[test]
    fn p249_401_that_a_new_token_cannot_fix_does_not_reject_the_token() {
        for error in [
            "insufficient_user_authentication",
            "insufficient_claims",
            "insufficient_scope",
            "invalid_request",
        ] {
            let challenge = format!(r#"Bearer error="{error}", claims="eyJ9""#);
            assert!(!rejects(401, &[&challenge]), "{error}");
        }
    }

    #[test]
    fn p67_p68_p233_p234_p235_other_statuses_do_not_reject_the_token() {
        let challenge = r#"Bearer error="invalid_token""#;
        for status in [200, 400, 403, 407, 419, 500, 503] {
            assert!(!rejects(status, &[challenge]), "{status}");
        }
        let insufficient = r#"Bearer error="insufficient_scope", scope="w""#;
        assert!(!rejects(403, &[insufficient]));
    }

    #[test]
    fn renew_on_replaces_the_default_rule() {
        let rules = Rules {
            apis: Apis::any(false),
            renew_on: Some(Arc::new(|status, _| status == 419)),
        };
        let rejects = |status: u16| {
            let response = Response::builder().status(status).body(()).unwrap();
            rules.rejects(&response, || Some(bearer()))
        };
        assert!(rejects(419));
        assert!(!rejects(401));
    }

    #[test]
    fn p58_p59_token_is_added_once_and_the_callers_header_wins() {
        let mut headers = HeaderMap::new();
        assert!(authorize(&mut headers, &bearer()).unwrap());
        assert_eq!(headers[AUTHORIZATION], "Bearer a-token");
        assert!(headers[AUTHORIZATION].is_sensitive());

        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic own"));
        assert!(!authorize(&mut headers, &bearer()).unwrap());
        assert_eq!(headers.get_all(AUTHORIZATION).iter().count(), 1);
        assert_eq!(headers[AUTHORIZATION], "Basic own");
    }

    #[test]
    fn p59_all_values_of_the_callers_header_stay_unchanged() {
        let mut headers = HeaderMap::new();
        headers.insert("before", HeaderValue::from_static("1"));
        for value in ["Basic own", "Digest own", "Negotiate own"] {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        headers.insert("after", HeaderValue::from_static("2"));
        let before: Vec<_> = headers
            .iter()
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect();
        assert!(!authorize(&mut headers, &bearer()).unwrap());
        let after: Vec<_> = headers
            .iter()
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect();
        assert_eq!(after, before, "same values in the same order");
    }

    #[test]
    fn header_map_at_capacity_is_a_target_error() {
        let mut headers = HeaderMap::new();
        let full = (0..).find(|n| {
            let name = HeaderName::try_from(format!("x-{n}")).unwrap();
            headers
                .try_insert(name, HeaderValue::from_static(""))
                .is_err()
        });
        assert!(full.is_some());
        let error = authorize(&mut headers, &bearer()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Target);
    }

    #[test]
    fn token_in_a_custom_header_without_a_scheme_leaves_authorization_alone() {
        let name = HeaderName::from_static("x-amz-access-token");
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("AWS4 own"));
        let token = token(name.clone(), "");
        assert!(authorize(&mut headers, &token).unwrap());
        assert_eq!(headers[name], "a-token");
    }
}
