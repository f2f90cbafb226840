//! Policies for sending a request again after the API has rejected its token.
//!
//! A 401 means that the server did not apply the request (RFC 9110 §15.5.2), so a request of any method
//! can be sent again, if its body is still available. [`InMemory`] recognises known in-memory types,
//! without a bound on the body's type; all other bodies stream.

use std::{
    any::Any,
    convert::Infallible,
    fmt,
    future::{Future, Pending},
    pin::Pin,
    task::{self, Context, Poll},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, header::CONTENT_LENGTH, request::Parts};
use http_body::Body;
use http_body_util::{
    BodyExt as _, Collected, Empty, Full, LengthLimitError, Limited, combinators::Collect,
};
use pin_project_lite::pin_project;

use super::resend::sealed::{Kept, Policy, ReadBody};
use crate::error::{BoxError, Error, ErrorBuilder, ErrorKind, Retry};

/// A policy for requests that the API has rejected because of their token.
///
/// Sealed: choose among [`InMemory`], [`Off`] and [`Buffered`]. Nothing else is one:
///
/// ```compile_fail,E0277
/// # use bearer_auth::{BearerAuthLayer, StaticToken};
/// let auth = BearerAuthLayer::builder(StaticToken::new("token")).resend(42);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a resend policy",
    note = "`resend::InMemory`, `resend::Off` and `resend::Buffered::new(limit, rebuild)` are"
)]
pub trait ResendPolicy: Clone + sealed::Sealed {}

/// A [`ResendPolicy`] for requests of type `R`.
///
/// Sealed, and implemented by the policies for the requests that they can send again.
#[diagnostic::on_unimplemented(
    message = "the resend policy `{Self}` cannot send requests of type `{R}` again",
    note = "`resend::Off` works with requests of any type"
)]
pub trait Replay<R>: ResendPolicy + sealed::Policy<R> {}

impl<R, P: ResendPolicy + sealed::Policy<R>> Replay<R> for P {}

impl ResendPolicy for InMemory {}
impl ResendPolicy for Off {}
impl<F: Clone> ResendPolicy for Buffered<F> {}

impl sealed::Sealed for InMemory {}
impl sealed::Sealed for Off {}
impl<F> sealed::Sealed for Buffered<F> {}

pub(crate) mod sealed {
    use super::{Error, Future};

    #[allow(unnameable_types, reason = "this is what seals")]
    pub trait Sealed {}

    #[allow(unnameable_types, reason = "this is what seals")]
    pub trait Policy<R> {
        /// The copy of a request. [`Infallible`](std::convert::Infallible) if no request is sent again:
        /// it takes no space in futures.
        type Copy;

        /// Marks that a body has to be read. `Infallible` if the policy reads none.
        type Later;

        /// Reads the body of a request.
        type Read: Future<Output = Result<ReadBody<R, Self::Copy>, Error>>;

        /// Keeps a copy of a request, if possible.
        fn keep(&self, request: &R) -> Kept<Self::Copy, Self::Later>;

        /// Reads the body, then keeps a copy.
        fn read(&self, request: R, later: Self::Later) -> Self::Read;

        /// Returns the request to be sent again.
        fn restore(copy: Self::Copy) -> R;
    }

    /// The copy to send again if the API rejects the token.
    #[allow(unnameable_types, reason = "part of a sealed trait")]
    #[allow(clippy::exhaustive_enums, reason = "part of a sealed trait")]
    #[derive(Debug)]
    pub enum Kept<C, L> {
        /// A copy.
        Copy(C),
        /// Nothing: the request is sent once.
        Nothing,
        /// A copy, when the body has been read.
        Later(L),
    }

    /// A request whose body has been read, and its copy if there can be one.
    #[allow(unnameable_types, reason = "part of a sealed trait")]
    #[allow(clippy::exhaustive_structs, reason = "part of a sealed trait")]
    #[derive(Debug)]
    pub struct ReadBody<R, C> {
        /// The request to send now.
        pub request: R,
        /// The request to send if the API rejects the token.
        pub again: Option<C>,
    }
}

/// The default policy: sends requests again that have no body, or a body in memory.
///
/// For `http::Request<B>`, `B` in memory is `()`, `Empty<Bytes>`, `Full<Bytes>`, `Bytes`, `Vec<u8>`,
/// `String`, `&'static str`, `&'static [u8]`, `Full<&'static [u8]>`, `Option<Full<Bytes>>`, and a
/// `reqwest::Body` made of bytes (which are copied). Any other body, however short, streams. For
/// `reqwest::Request`, it is a request that `try_clone` can clone.
#[derive(Clone, Copy, Debug, Default)]
#[allow(
    clippy::exhaustive_structs,
    reason = "a name for a policy, to be written as a value"
)]
pub struct InMemory;

/// Sends no request again. A rejected token is still replaced, for later requests.
#[derive(Clone, Copy, Debug, Default)]
#[allow(
    clippy::exhaustive_structs,
    reason = "a name for a policy, to be written as a value"
)]
pub struct Off;

/// Reads bodies up to a limit into memory, before they are sent: see [`Buffered::new`].
#[derive(Clone)]
pub struct Buffered<F> {
    limit: usize,
    rebuild: F,
}

impl<F> Buffered<F> {
    /// Returns a policy that reads bodies of up to `limit` bytes into memory, so that they can be sent
    /// again. `rebuild` turns the bytes into a body.
    ///
    /// A body that declares a greater length (`Content-Length`, `size_hint`) streams, and is not sent
    /// again. A body without a declared length that exceeds the limit fails the request with
    /// [`ErrorKind::RequestBody`], since the bytes already read are lost. Trailers are dropped.
    ///
    /// ```
    /// use bearer_auth::resend::Buffered;
    /// use bytes::Bytes;
    /// use http_body_util::Full;
    ///
    /// let policy = Buffered::new(64 * 1024, Full::<Bytes>::new);
    /// ```
    pub fn new<B>(limit: usize, rebuild: F) -> Self
    where
        F: Fn(Bytes) -> B,
    {
        Self { limit, rebuild }
    }
}

impl<F> fmt::Debug for Buffered<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffered")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// The `Read` of policies that read nothing.
type Never<R, C> = Pending<Result<ReadBody<R, C>, Error>>;

impl<R> Policy<R> for Off {
    type Copy = Infallible;
    type Later = Infallible;
    type Read = Never<R, Infallible>;

    #[inline]
    fn keep(&self, _: &R) -> Kept<Infallible, Infallible> {
        Kept::Nothing
    }

    fn read(&self, _: R, never: Infallible) -> Self::Read {
        match never {}
    }

    fn restore(copy: Infallible) -> R {
        match copy {}
    }
}

impl<B: 'static> Policy<Request<B>> for InMemory {
    type Copy = Request<B>;
    type Later = Infallible;
    type Read = Never<Request<B>, Request<B>>;

    #[inline]
    fn keep(&self, request: &Request<B>) -> Kept<Request<B>, Infallible> {
        match clone_in_memory(request.body()) {
            Some(body) => Kept::Copy(copy(request, body)),
            None => Kept::Nothing,
        }
    }

    fn read(&self, _: Request<B>, never: Infallible) -> Self::Read {
        match never {}
    }

    fn restore(copy: Request<B>) -> Request<B> {
        copy
    }
}

impl<B, F> Policy<Request<B>> for Buffered<F>
where
    B: Body + 'static,
    B::Error: Into<BoxError>,
    F: Fn(Bytes) -> B + Clone,
{
    type Copy = Request<B>;
    type Later = ();
    type Read = buffering::Buffering<B, F>;

    fn keep(&self, request: &Request<B>) -> Kept<Request<B>, ()> {
        match InMemory.keep(request) {
            Kept::Copy(again) => Kept::Copy(again),
            _ if declared_length(request.headers(), request.body()) > self.limit as u64 => {
                Kept::Nothing
            }
            _ => Kept::Later(()),
        }
    }

    fn read(&self, request: Request<B>, (): ()) -> Self::Read {
        let (parts, body) = request.into_parts();
        buffering::Buffering {
            body: Limited::new(body, self.limit).collect(),
            rest: Some((parts, self.rebuild.clone())),
        }
    }

    fn restore(copy: Request<B>) -> Request<B> {
        copy
    }
}

mod buffering {
    use super::*;

    pin_project! {
        /// A body that [`Buffered`] reads. Not boxed, so that it is `Send` if the body is.
        #[allow(unnameable_types, reason = "part of a sealed trait")]
        pub struct Buffering<B, F>
        where
            B: Body,
            B::Error: Into<BoxError>,
        {
            #[pin]
            pub(super) body: Collect<Limited<B>>,
            // The request without its body, until the body is read.
            pub(super) rest: Option<(Parts, F)>,
        }
    }

    impl<B, F> Future for Buffering<B, F>
    where
        B: Body,
        B::Error: Into<BoxError>,
        F: Fn(Bytes) -> B,
    {
        type Output = Result<ReadBody<Request<B>, Request<B>>, Error>;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            let this = self.project();
            let bytes = collected(task::ready!(this.body.poll(cx)))?;
            let Some((parts, rebuild)) = this.rest.take() else {
                return Poll::Ready(Err(unreadable().done()));
            };
            let request = Request::from_parts(parts, rebuild(bytes.clone()));
            let again = copy(&request, rebuild(bytes));
            Poll::Ready(Ok(ReadBody {
                request,
                again: Some(again),
            }))
        }
    }

    impl<B, F> fmt::Debug for Buffering<B, F>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Buffering")
        }
    }
}

#[cfg(feature = "reqwest")]
mod of_reqwest {
    use reqwest::{Body, Request};

    use super::*;

    impl Policy<Request> for InMemory {
        type Copy = Request;
        type Later = Infallible;
        type Read = Never<Request, Request>;

        #[inline]
        fn keep(&self, request: &Request) -> Kept<Request, Infallible> {
            request.try_clone().map_or(Kept::Nothing, Kept::Copy)
        }

        fn read(&self, _: Request, never: Infallible) -> Self::Read {
            match never {}
        }

        fn restore(copy: Request) -> Request {
            copy
        }
    }

    impl<F> Policy<Request> for Buffered<F>
    where
        F: Fn(Bytes) -> Body + Clone + Send + 'static,
    {
        type Copy = Request;
        type Later = ();
        type Read = Pin<Box<dyn Future<Output = Result<ReadBody<Request, Request>, Error>> + Send>>;

        fn keep(&self, request: &Request) -> Kept<Request, ()> {
            let longer = |body| declared_length(request.headers(), body) > self.limit as u64;
            match InMemory.keep(request) {
                Kept::Copy(again) => Kept::Copy(again),
                _ if request.body().is_none_or(longer) => Kept::Nothing,
                _ => Kept::Later(()),
            }
        }

        fn read(&self, mut request: Request, (): ()) -> Self::Read {
            let Self { limit, rebuild } = self.clone();
            Box::pin(async move {
                if let Some(body) = request.body_mut().take() {
                    let bytes = collected(Limited::new(body, limit).collect().await)?;
                    *request.body_mut() = Some(rebuild(bytes));
                }
                let again = request.try_clone();
                Ok(ReadBody { request, again })
            })
        }

        fn restore(copy: Request) -> Request {
            copy
        }
    }
}

/// Copies a request, with another body.
fn copy<B>(request: &Request<B>, body: B) -> Request<B> {
    let mut copy = Request::new(body);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    copy.extensions_mut().clone_from(request.extensions());
    copy
}

/// Copies a body of a known in-memory type. The compiler resolves the types, so this costs nothing at run
/// time.
#[inline]
fn clone_in_memory<B: 'static>(body: &B) -> Option<B> {
    /// Returns `body` if its type is `B`.
    fn cast<T: 'static, B: 'static>(body: T) -> Option<B> {
        let mut body = Some(body);
        let body = (&mut body as &mut dyn Any).downcast_mut::<Option<B>>();
        body.and_then(Option::take)
    }

    macro_rules! known {
        ($($body:ty),* $(,)?) => {$(
            if let Some(body) = (body as &dyn Any).downcast_ref::<$body>() {
                return cast(body.clone());
            }
        )*};
    }
    known!(
        (),
        Empty<Bytes>,
        Full<Bytes>,
        Bytes,
        Vec<u8>,
        String,
        &'static str,
        &'static [u8],
        Full<&'static [u8]>,
        Option<Full<Bytes>>,
    );
    #[cfg(feature = "reqwest")]
    if let Some(body) = (body as &dyn Any).downcast_ref::<reqwest::Body>() {
        let bytes = Bytes::copy_from_slice(body.as_bytes()?);
        return cast(reqwest::Body::from(bytes));
    }
    None
}

/// Returns the body's minimum length, by its `size_hint` or the headers.
fn declared_length(headers: &HeaderMap, body: &impl Body) -> u64 {
    let header = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    body.size_hint().lower().max(header.unwrap_or(0))
}

fn collected<D: Buf>(body: Result<Collected<D>, BoxError>) -> Result<Bytes, Error> {
    match body {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = "the request's body exceeds the limit of `resend::Buffered`";
            Err(Error::build(ErrorKind::RequestBody, Retry::Never, message).done())
        }
        Err(error) => Err(unreadable().caused_by(error).done()),
    }
}

fn unreadable() -> ErrorBuilder {
    let message = "the request's body could not be read";
    Error::build(ErrorKind::RequestBody, Retry::Never, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_in_memory_bodies_are_cloned_and_others_are_not() {
        fn known<B: 'static>(body: B) -> bool {
            clone_in_memory(&body).is_some()
        }
        assert!(known(()));
        assert!(known(Empty::<Bytes>::new()));
        assert!(known(Full::<Bytes>::from("x")));
        assert!(known(Bytes::from_static(b"x")));
        assert!(known(vec![1u8]));
        assert!(known("x".to_owned()));
        assert!(known("x"));
        assert!(known(Some(Full::<Bytes>::from("x"))));
        // Opaque, even when empty.
        assert!(!known(Empty::<Bytes>::new().boxed()));
        assert!(!known(Some(1u8)));
    }

    #[cfg(feature = "reqwest")]
    #[test]
    fn reqwest_body_of_bytes_is_cloned_and_a_stream_is_not() {
        let copy = clone_in_memory(&reqwest::Body::from("hello")).unwrap();
        assert_eq!(copy.as_bytes(), Some(&b"hello"[..]));
        let streaming = reqwest::Body::wrap(Empty::<Bytes>::new().boxed());
        assert!(clone_in_memory(&streaming).is_none());
    }
}
