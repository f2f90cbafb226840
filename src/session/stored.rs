//! [`StoredSession`]: a session as stores keep it, and its JSON form.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::{
    clock::{Clock, Moment},
    error::{BoxError, Error},
    json,
    token::TokenResponse,
};

/// The stored form of a [`Session`](crate::Session): what a process needs to continue it.
///
/// `Debug` shows no secret.
#[derive(Clone)]
pub struct StoredSession {
    pub(crate) refresh_token: Option<SecretString>,
    /// How often the refresh token was sent without a usable answer, as far as is known.
    pub(crate) sends: u8,
    pub(crate) access: Option<StoredAccess>,
}

/// The access token of the last answer.
#[derive(Clone)]
pub(crate) struct StoredAccess {
    pub(crate) token: SecretString,
    /// The authentication scheme, usually `Bearer`.
    pub(crate) scheme: String,
    pub(crate) expires_at: Option<SystemTime>,
    /// When it was requested.
    pub(crate) since: SystemTime,
    pub(crate) scope: Option<String>,
}

impl StoredAccess {
    /// The stored form of a response that arrived `now`.
    pub(crate) fn of(response: &TokenResponse, now: Moment) -> Self {
        let (_, scheme, token) = response.header();
        let expires_at = response
            .lifetime(now, now)
            .and_then(|(anchor, lifetime)| anchor.after(lifetime).system_time());
        Self {
            token: token.into(),
            scheme: scheme.to_owned(),
            expires_at,
            since: now.system_time().unwrap_or(SystemTime::UNIX_EPOCH),
            scope: response.scope().map(str::to_owned),
        }
    }

    /// Returns the access token as a token response, for a cache.
    pub(crate) fn response(&self) -> Result<TokenResponse, Error> {
        let mut response =
            TokenResponse::builder(self.token.expose_secret()).scheme(self.scheme.as_str());
        if let Some(end) = self.expires_at {
            // With its age, so that the refresh window is that of the whole lifetime.
            let age = Clock::default().system_time().duration_since(self.since);
            response = match (end.duration_since(self.since), age) {
                (Ok(lifetime), Ok(age)) => response.expires_in(lifetime).age(age),
                _ => response.expires_at(end),
            };
        }
        if let Some(scope) = &self.scope {
            response = response.scope(scope.as_str());
        }
        response.build()
    }
}

/// The JSON document, version 1.
#[derive(Serialize, Deserialize)]
struct Document<'a> {
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    refresh_token: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    sends: u8,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    access_token: Option<std::borrow::Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

const VERSION: u32 = 1;

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

impl StoredSession {
    /// Returns the session as a JSON document, for a store. It is as secret as the tokens in it.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn to_json(&self) -> Result<SecretString, BoxError> {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.unwrap_or_default().as_secs()
        };
        let access = self.access.as_ref();
        let document = Document {
            version: VERSION,
            refresh_token: self
                .refresh_token
                .as_ref()
                .map(|t| t.expose_secret().into()),
            sends: self.sends,
            access_token: access.map(|access| access.token.expose_secret().into()),
            scheme: access.map(|access| access.scheme.clone()),
            expires_at: access.and_then(|access| access.expires_at).map(seconds),
            since: access.map(|access| seconds(access.since)),
            scope: access.and_then(|access| access.scope.clone()),
        };
        Ok(serde_json::to_string(&document)?.into())
    }

    /// Reads a document of [`to_json`](Self::to_json), from this version of the crate or an earlier one.
    ///
    /// # Errors
    ///
    /// The document is damaged, or from a later version.
    pub fn from_json(json: &str) -> Result<Self, DamagedSession> {
        let document: Document<'_> = json::object(json.as_bytes())
            .map_err(|why| DamagedSession::new(format!("not a session: {why}")))?;
        if document.version != VERSION {
            let why = format!("a session of the unknown version {}", document.version);
            return Err(DamagedSession::new(why));
        }
        let time = |seconds: u64| {
            let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            time.ok_or_else(|| DamagedSession::new("a session with an impossible time"))
        };
        let access = match document.access_token {
            None => None,
            Some(token) => Some(StoredAccess {
                token: SecretString::from(&*token),
                scheme: document.scheme.unwrap_or_else(|| "Bearer".to_owned()),
                expires_at: document.expires_at.map(time).transpose()?,
                since: document.since.map_or(Ok(SystemTime::UNIX_EPOCH), time)?,
                scope: document.scope,
            }),
        };
        Ok(Self {
            refresh_token: document
                .refresh_token
                .map(|token| SecretString::from(&*token)),
            sends: document.sends,
            access,
        })
    }

    /// Returns the refresh token, if the server issued one.
    pub fn refresh_token(&self) -> Option<&SecretString> {
        self.refresh_token.as_ref()
    }
}

/// Reads the content of a store. The error says what is wrong with it.
pub(crate) fn read_session(content: &[u8]) -> Result<StoredSession, String> {
    if content.is_empty() {
        return Err("empty: not a session".to_owned());
    }
    let json = str::from_utf8(content).map_err(|_| "not UTF-8: not a session")?;
    StoredSession::from_json(json).map_err(|why| why.to_string())
}

impl fmt::Debug for StoredSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSession")
            .field("refresh_token", &self.refresh_token)
            .field("expires_at", &self.access.as_ref().map(|a| a.expires_at))
            .finish_non_exhaustive()
    }
}

/// The error of a store whose content is not a session: a retry does not help.
#[derive(Debug)]
pub struct DamagedSession(String);

impl DamagedSession {
    /// Returns the error. `why` is for humans, and must show none of the content.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for DamagedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DamagedSession {}
