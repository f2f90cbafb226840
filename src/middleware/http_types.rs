//! The requests and responses that the layer reads: those of `http`, and those of reqwest.

use http::{HeaderMap, StatusCode};

/// A request that a token can be put on: `http::Request<B>` for any `B`, and `reqwest::Request`.
///
/// Sealed: it says what [`BearerAuth`](crate::BearerAuth) wraps.
pub trait HttpRequest: sealed::Request {}

/// The answer to an [`HttpRequest`].
///
/// Sealed: it says what [`BearerAuth`](crate::BearerAuth) wraps.
pub trait HttpResponse: sealed::Response {}

impl<R: sealed::Request> HttpRequest for R {}
impl<R: sealed::Response> HttpResponse for R {}

/// Where a request goes, as far as it says.
#[allow(unnameable_types, reason = "part of sealed traits")]
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub(crate) scheme: Option<&'a str>,
    /// With the brackets of an IPv6 address, without userinfo.
    pub(crate) host: Option<&'a str>,
    pub(crate) port: Option<u16>,
    pub(crate) path: &'a str,
}

pub(crate) mod sealed {
    use super::{HeaderMap, StatusCode, Target};

    #[allow(unnameable_types, reason = "this is what seals")]
    pub trait Request: Sized {
        type Origin: Origin;

        fn target(&self) -> Target<'_>;
        /// Scheme, authority and path as they are written; empty what is missing.
        fn spelled(&self) -> (&str, &str, &str);
        fn origin(&self) -> Self::Origin;
        fn headers(&self) -> &HeaderMap;
        fn headers_mut(&mut self) -> &mut HeaderMap;
    }

    #[allow(unnameable_types, reason = "this is what seals")]
    pub trait Response {
        fn status(&self) -> StatusCode;
        fn headers(&self) -> &HeaderMap;
        /// Who answered, if the client below follows redirects and says so.
        fn answered_by(&self) -> Option<Target<'_>>;
    }

    /// What a request leaves behind to tell whether an answer is from where it was sent: a client
    /// that follows a redirect to another host leaves the token behind, so that what that host
    /// says is not about it.
    #[allow(unnameable_types, reason = "this is what seals")]
    pub trait Origin {
        fn answered(&self, response: &impl Response) -> bool;
    }

    /// Of clients that follow no redirect, or do not say so.
    impl Origin for () {
        #[inline]
        fn answered(&self, _: &impl Response) -> bool {
            true
        }
    }
}

impl<B> sealed::Request for http::Request<B> {
    type Origin = ();

    #[inline]
    fn origin(&self) {}

    #[inline]
    fn target(&self) -> Target<'_> {
        let uri = self.uri();
        Target {
            scheme: uri.scheme_str(),
            host: uri.host(),
            port: uri.port_u16(),
            path: uri.path(),
        }
    }

    #[inline]
    fn spelled(&self) -> (&str, &str, &str) {
        let uri = self.uri();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        (uri.scheme_str().unwrap_or(""), authority, uri.path())
    }

    #[inline]
    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    #[inline]
    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }
}

impl<B> sealed::Response for http::Response<B> {
    #[inline]
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn answered_by(&self) -> Option<Target<'_>> {
        None
    }
}

#[cfg(feature = "reqwest")]
pub(crate) use self::of_reqwest::target as target_of_url;

#[cfg(feature = "reqwest")]
mod of_reqwest {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    use super::{HeaderMap, StatusCode, Target, sealed};

    pub(crate) fn target(url: &url::Url) -> Target<'_> {
        Target {
            scheme: Some(url.scheme()),
            host: url.host_str(),
            port: url.port(),
            path: url.path(),
        }
    }

    /// A hash, so that a request leaves nothing on the heap behind. A collision would take one
    /// 401 of another host for the API's.
    #[allow(unnameable_types, reason = "part of sealed traits")]
    #[derive(Debug)]
    pub struct OriginHash(u64);

    impl OriginHash {
        fn of(target: Target<'_>) -> Self {
            let mut hasher = DefaultHasher::new();
            (target.scheme, target.host, target.port).hash(&mut hasher);
            Self(hasher.finish())
        }
    }

    impl sealed::Origin for OriginHash {
        fn answered(&self, response: &impl sealed::Response) -> bool {
            let by = response.answered_by();
            by.is_none_or(|by| Self::of(by).0 == self.0)
        }
    }

    impl sealed::Request for reqwest::Request {
        type Origin = OriginHash;

        fn origin(&self) -> OriginHash {
            OriginHash::of(target(self.url()))
        }

        fn target(&self) -> Target<'_> {
            target(self.url())
        }

        fn spelled(&self) -> (&str, &str, &str) {
            let url = self.url();
            (url.scheme(), url.authority(), url.path())
        }

        fn headers(&self) -> &HeaderMap {
            self.headers()
        }

        fn headers_mut(&mut self) -> &mut HeaderMap {
            self.headers_mut()
        }
    }

    impl sealed::Response for reqwest::Response {
        fn status(&self) -> StatusCode {
            self.status()
        }

        fn headers(&self) -> &HeaderMap {
            self.headers()
        }

        fn answered_by(&self) -> Option<Target<'_>> {
            Some(target(self.url()))
        }
    }
}
