//! The requests and responses that the layer accepts: those of `http`, and those of reqwest.

use http::{HeaderMap, StatusCode};

/// A request that can get a token: `http::Request<B>` for any `B`, and `reqwest::Request`.
///
/// Sealed. It is the bound for the services that [`BearerAuth`](crate::BearerAuth) wraps.
pub trait HttpRequest: sealed::Request {}

/// The response to an [`HttpRequest`].
///
/// Sealed. It is the bound for the services that [`BearerAuth`](crate::BearerAuth) wraps.
pub trait HttpResponse: sealed::Response {}

impl<R: sealed::Request> HttpRequest for R {}
impl<R: sealed::Response> HttpResponse for R {}

/// The target of a request, with the parts that its URI has.
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
        /// Returns scheme, authority and path verbatim. A missing part is empty.
        fn raw_parts(&self) -> (&str, &str, &str);
        fn origin(&self) -> Self::Origin;
        fn headers(&self) -> &HeaderMap;
        fn headers_mut(&mut self) -> &mut HeaderMap;
    }

    #[allow(unnameable_types, reason = "this is what seals")]
    pub trait Response {
        fn status(&self) -> StatusCode;
        fn headers(&self) -> &HeaderMap;
        /// Returns the target that sent the response, if the client below reports it after redirects.
        fn answered_by(&self) -> Option<Target<'_>>;
    }

    /// The origin of a request, to recognise a response from another host. A client that follows a
    /// redirect to another host drops the token, so the response is not about the token.
    #[allow(unnameable_types, reason = "this is what seals")]
    pub trait Origin {
        fn answered(&self, response: &impl Response) -> bool;
    }

    /// For clients that follow no redirects, or do not report them.
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
    fn raw_parts(&self) -> (&str, &str, &str) {
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

    /// A hash of an origin, which needs no heap. In a collision, one 401 of another host counts as the
    /// API's.
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

        fn raw_parts(&self) -> (&str, &str, &str) {
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
