//! [`BearerAuthLayer`] as a [`Middleware`]: the request path as an async function, with the decisions of
//! the service.

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

use crate::middleware::{
    decide::{Prepared, Sent, renewed},
    layer::BearerAuthLayer,
    resend::{Replay, sealed::ReadBody},
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
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let core = self.core();
        let mut copy = None;
        let sent = match core.prepare(self.policy(), &mut request, &mut copy) {
            Prepared::Send(token) => Some(Sent::new(token, &request, copy)),
            Prepared::Pass => None,
            Prepared::Refuse(error) => return Err(Error::middleware(error)),
            Prepared::Wait(pending) => {
                let token = core.cache.wait(pending, copy.is_some()).await;
                let token = token.map_err(Error::middleware)?;
                core.attach(&mut request, &token, copy)
                    .map_err(Error::middleware)?
            }
            Prepared::Read(later) => {
                let read = self.policy().read(request, later).await;
                let ReadBody {
                    request: read,
                    again,
                } = read.map_err(Error::middleware)?;
                request = read;
                let token = core.cache.token_for(again.is_some()).await;
                let token = token.map_err(Error::middleware)?;
                core.attach(&mut request, &token, again)
                    .map_err(Error::middleware)?
            }
        };
        let response = next.clone().run(request, extensions).await?;
        let sent = match sent {
            Some(sent) if core.rejects(Some(&sent), &response) => sent,
            _ => return Ok(response),
        };
        let Some((again, rejected)) = core.reject(sent) else {
            return Ok(response);
        };
        let Some(token) = renewed(core.cache.clone(), rejected).await else {
            return Ok(response);
        };
        // Frees its connection for the second request.
        drop(response);
        let mut request = P::restore(again);
        core.attach(&mut request, &token, None::<()>)
            .map_err(Error::middleware)?;
        let response = next.run(request, extensions).await?;
        core.after_resend(&response);
        Ok(response)
    }
}
