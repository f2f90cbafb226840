//! The policy for redirects that reqwest follows below the layer.

use reqwest::redirect::Policy;

use super::{http_types::target_of_url, target::Apis};

/// Follows a redirect of a request with a token only to where the token may go. reqwest alone removes
/// only `Authorization`, and only for one hop.
pub(super) fn redirect_policy(apis: Apis) -> Policy {
    let limited = Policy::default();
    Policy::custom(move |attempt| {
        let from = attempt.previous().first().map(target_of_url);
        let to = target_of_url(attempt.url());
        // The layer puts the token on the first request only.
        if from.is_none_or(|from| apis.may_follow(from, to)) {
            limited.redirect(attempt)
        } else {
            attempt.stop()
        }
    })
}
