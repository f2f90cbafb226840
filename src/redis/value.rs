//! An access token as it is shared.

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

/// As it is written. How long it lives on is not part of it: that is how long it stays in Redis, so
/// that the clocks of two machines are never compared.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    version: u32,
    #[serde(borrow)]
    token: Cow<'a, str>,
    scheme: String,
    header: String,
    /// In milliseconds, from when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    lifetime: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

/// An access token of another process.
pub(super) struct Shared {
    token: Zeroizing<String>,
    scheme: String,
    header: HeaderName,
    pub(super) lifetime: Option<Duration>,
    scope: Option<String>,
}

impl Shared {
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
        let written = Written {
            version: VERSION,
            token: Cow::Borrowed(&self.token),
            scheme: self.scheme.clone(),
            header: self.header.as_str().to_owned(),
            lifetime: lifetime.map(u64::try_from).transpose()?,
            scope: self.scope.clone(),
        };
        // Never growing, no copy is left behind.
        let most = 2 * self.token.len() + 1024 + written.scope.as_ref().map_or(0, |s| 2 * s.len());
        let mut json = Zeroizing::new(Vec::with_capacity(most));
        serde_json::to_writer(&mut *json, &written)?;
        Ok(json)
    }

    /// # Errors
    ///
    /// It is no such thing. Shows nothing of it.
    pub(super) fn from_json(json: &[u8]) -> Result<Self, &'static str> {
        const DAMAGED: &str = "not a token as it is shared";
        let written: Written<'_> = json::object(json).map_err(|_| DAMAGED)?;
        if written.version != VERSION {
            return Err("a token as another version shares it");
        }
        Ok(Self {
            token: Zeroizing::new(written.token.into_owned()),
            scheme: written.scheme,
            header: written.header.parse().map_err(|_| DAMAGED)?,
            lifetime: written.lifetime.map(Duration::from_millis),
            scope: written.scope,
        })
    }

    pub(super) fn is(&self, token: &str) -> bool {
        self.token.as_str() == token
    }

    /// With so much of its life left; of a token without an end, it is of `longest`.
    pub(super) fn response(
        &self,
        left: Option<Duration>,
        longest: Duration,
    ) -> Result<TokenResponse, Error> {
        let mut response = TokenResponse::builder(self.token.as_str())
            .scheme(self.scheme.as_str())
            .header_name(self.header.clone());
        // With the margins of its whole life.
        let left = left.unwrap_or_default();
        response = match self.lifetime {
            Some(lifetime) => response
                .expires_in(lifetime)
                .age(lifetime.saturating_sub(left)),
            None => response.age(longest.saturating_sub(left)),
        };
        if let Some(scope) = &self.scope {
            response = response.scope(scope.as_str());
        }
        response.build()
    }
}
