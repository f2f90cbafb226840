//! The layer as middleware of other stacks. (`reqwest::Client` needs none: it is a tower service.)

#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;

#[cfg(feature = "reqwest")]
pub(crate) use self::reqwest_redirects::redirect_policy;

#[cfg(feature = "reqwest")]
mod reqwest_redirects {
    use reqwest::redirect::Policy;

    use crate::middleware::{http_types::target_of_url, target::Apis};

    /// Redirects with a token stay where tokens may go: what reqwest does by itself takes off
    /// `Authorization` alone, and that for one request.
    pub(crate) fn redirect_policy(apis: Apis) -> Policy {
        let limited = Policy::default();
        Policy::custom(move |attempt| {
            let from = attempt.previous().first().map(target_of_url);
            let to = target_of_url(attempt.url());
            // The first one is where the layer has put the token on.
            if from.is_none_or(|from| apis.may_follow(from, to)) {
                limited.redirect(attempt)
            } else {
                attempt.stop()
            }
        })
    }
}
