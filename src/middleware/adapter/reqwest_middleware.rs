//! [`BearerAuthLayer`] as a [`Middleware`]: the way of a request, told a second time for an async
//! function. The decisions are the same ones.

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

use crate::{
    cache::Acquire,
    middleware::{
        decide::{Judgement, authorize},
        http_types::sealed::{Origin as _, Request as _},
        layer::BearerAuthLayer,
        resend::{
            Replay,
            sealed::{Kept, Prepared},
        },
        target::Admission,
    },
};

#[async_trait::async_trait]
impl<P> Middleware for BearerAuthLayer<P>
where
    P: Replay<Request> + Send + Sync + 'static,
    P::Read: Send,
    P::Copy: Send,
    P::Later: Send,
{
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        match self.rules().admit(&request) {
            Admission::Allowed => {}
            Admission::Elsewhere => return next.run(request, extensions).await,
            Admission::Refused(error) => return Err(Error::middleware(error)),
        }
        if self.cache().is_authorized(request.headers()) {
            return next.run(request, extensions).await;
        }
        let (mut request, again) = match self.policy().keep(&request) {
            Kept::Copy(again) => (request, Some(again)),
            Kept::Nothing => (request, None),
            Kept::Later(later) => {
                let read = self.policy().read(request, later).await;
                let Prepared { request, again } = read.map_err(Error::middleware)?;
                (request, again)
            }
        };
        let cache = self.cache();
        let token = match cache.acquire(again.is_some()) {
            Acquire::Now(token) => token,
            Acquire::Fail(error) => return Err(Error::middleware(error)),
            Acquire::Wait(waiting) => cache
                .wait(waiting, again.is_some())
                .await
                .map_err(Error::middleware)?,
        };
        let origin = request.origin();
        let ours = authorize(request.headers_mut(), &token).map_err(Error::middleware)?;
        let refused = next.clone().run(request, extensions).await?;
        let renew = ours
            && origin.answered(&refused)
            && self.rules().judge(&refused, || Some(token.clone())) == Judgement::Renew;
        if !renew {
            return Ok(refused);
        }
        let Some(again) = again else {
            cache.reject(&token);
            return Ok(refused);
        };
        let Some(token) = cache.renew(&token).await else {
            return Ok(refused);
        };
        drop(refused);
        let mut again = P::restore(again);
        authorize(again.headers_mut(), &token).map_err(Error::middleware)?;
        let response = next.run(again, extensions).await?;
        if self.rules().judge(&response, || Some(token)) == Judgement::Pass {
            cache.healed();
        }
        Ok(response)
    }
}
