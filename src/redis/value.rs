//! [`SharedToken`]: an access token as Redis stores it.

use std::{borrow::Cow, time::Duration};

use http::HeaderName;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    error::{BoxError, Error},
    json,
    token::TokenResponse,
};

const VERSION: u32 = 1;

/// The JSON document. The remaining lifetime is not part of it but is the key's TTL in Redis, so that
/// the clocks of two machines are never compared.
#[derive(Serialize, Deserialize)]
struct Document<'a> {
    version: u32,
    #[serde(borrow)]
    token: Cow<'a, str>,
    scheme: String,
    header: String,
    /// The whole lifetime in milliseconds, from the token request on.
    #[serde(skip_serializing_if = "Option::is_none")]
    lifetime: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

/// An access token that processes share.
pub(super) struct SharedToken {
    token: Zeroizing<String>,
    scheme: String,
    header: HeaderName,
    pub(super) lifetime: Option<Duration>,
    scope: Option<String>,
}

impl SharedToken {
    pub(super) fn of(response: &TokenResponse, lifetime: Option<Duration>) -> Self {
        let (header, scheme, token) = response.header();
        Self {
            token: Zeroizing::new(token.to_owned()),
            scheme: scheme.to_owned(),
            header: header.clone(),
            lifetime,
            scope: response.scope().map(str::to_owned),
        }
    }

    pub(super) fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, BoxError> {
        let lifetime = self.lifetime.map(|lifetime| lifetime.as_millis());
        let document = Document {
            version: VERSION,
            token: Cow::Borrowed(&self.token),
            scheme: self.scheme.clone(),
            header: self.header.as_str().to_owned(),
            lifetime: lifetime.map(u64::try_from).transpose()?,
            scope: self.scope.clone(),
        };
        // Allocated in full: a vector that grows frees its old buffer without wiping it.
        let capacity =
            2 * self.token.len() + 1024 + document.scope.as_ref().map_or(0, |s| 2 * s.len());
        let mut json = Zeroizing::new(Vec::with_capacity(capacity));
        serde_json::to_writer(&mut *json, &document)?;
        Ok(json)
    }

    /// # Errors
    ///
    /// `json` is not a shared token. The error shows none of it.
    pub(super) fn from_json(json: &[u8]) -> Result<Self, &'static str> {
        const DAMAGED: &str = "not a shared token";
        let document: Document<'_> = json::object(json).map_err(|_| DAMAGED)?;
        if document.version != VERSION {
            return Err("a shared token of an unknown version");
        }
        Ok(Self {
            token: Zeroizing::new(document.token.into_owned()),
            scheme: document.scheme,
            header: document.header.parse().map_err(|_| DAMAGED)?,
            lifetime: document.lifetime.map(Duration::from_millis),
            scope: document.scope,
        })
    }

    pub(super) fn is(&self, token: &str) -> bool {
        self.token.as_str() == token
    }

    /// Returns the token as a token response. `left` is the remaining TTL in Redis. A token without an
    /// expiry started with `max_ttl`.
    pub(super) fn response(
        &self,
        left: Option<Duration>,
        max_ttl: Duration,
    ) -> Result<TokenResponse, Error> {
        let mut response = TokenResponse::builder(self.token.as_str())
            .scheme(self.scheme.as_str())
            .header_name(self.header.clone());
        // With its age, so that the refresh window is that of the whole lifetime.
        let left = left.unwrap_or_default();
        response = match self.lifetime {
            Some(lifetime) => response
                .expires_in(lifetime)
                .age(lifetime.saturating_sub(left)),
            None => response.age(max_ttl.saturating_sub(left)),
        };
        if let Some(scope) = &self.scope {
            response = response.scope(scope.as_str());
        }
        response.build()
    }
}
