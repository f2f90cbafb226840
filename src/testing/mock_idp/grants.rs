//! What people have agreed to: codes, refresh tokens, and which tokens came of which.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::clock::Moment;

/// Whether a [`MockIdp`](super::MockIdp) gives out refresh tokens when people sign in, and for how
/// long one is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshTokens {
    /// Each is good for one exchange, which brings the next (RFC 9700 §4.14). A second use is taken
    /// for theft and ends the whole grant: the tokens that came of it are refused, too.
    #[default]
    Rotated,
    /// One for the whole grant; exchanges bring none.
    Kept,
    /// None at all.
    Absent,
}

/// One person's consent to one client.
pub(super) type GrantId = usize;

#[derive(Default)]
pub(super) struct Grants {
    pub(super) refresh_tokens: RefreshTokens,
    pub(super) grants: Vec<Grant>,
    pub(super) revoked: HashSet<GrantId>,
    pub(super) codes: HashMap<String, Code>,
    pub(super) refresh: HashMap<String, Refresh>,
    /// Queries of authorization requests (RFC 9126), until they are answered.
    pub(super) pushed: Vec<Option<String>>,
}

#[derive(Clone)]
pub(super) struct Grant {
    pub(super) client: String,
    pub(super) user: String,
    pub(super) scope: Option<String>,
}

/// What an authorization request has asked for, and a person has agreed to.
pub(super) struct Consent {
    pub(super) client: String,
    pub(super) user: String,
    pub(super) scope: Option<String>,
    /// As it was sent; `None` if it was not.
    pub(super) redirect_uri: Option<String>,
    pub(super) challenge: Option<Challenge>,
}

/// A code challenge (RFC 7636 §4.2).
pub(super) enum Challenge {
    S256(String),
    Plain(String),
}

pub(super) struct Code {
    pub(super) grant: GrantId,
    pub(super) redirect_uri: Option<String>,
    pub(super) challenge: Option<Challenge>,
    pub(super) ends: Moment,
    pub(super) used: bool,
}

pub(super) struct Refresh {
    pub(super) grant: GrantId,
    pub(super) used: bool,
}

/// What a token request is entitled to.
#[derive(Debug)]
pub(super) struct Entitled {
    pub(super) grant: GrantId,
    pub(super) scope: Option<String>,
    pub(super) refresh_token: Option<String>,
}

impl Challenge {
    /// What the parameters say; `Err` if no verifier can ever fit.
    pub(super) fn of(challenge: &str, method: Option<&str>) -> Result<Self, &'static str> {
        let unreserved =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        match method.unwrap_or("plain") {
            "S256" => match URL_SAFE_NO_PAD.decode(challenge) {
                Ok(digest) if digest.len() == 32 => Ok(Self::S256(challenge.to_owned())),
                _ => Err("code_challenge is no SHA-256 in base64url"),
            },
            "plain"
                if (43..=128).contains(&challenge.len()) && challenge.bytes().all(unreserved) =>
            {
                Ok(Self::Plain(challenge.to_owned()))
            }
            "plain" => Err("code_challenge is no code verifier"),
            _ => Err("code_challenge_method is neither S256 nor plain"),
        }
    }

    pub(super) fn fits(&self, verifier: &str) -> bool {
        match self {
            Self::S256(challenge) => {
                URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())) == *challenge
            }
            Self::Plain(challenge) => verifier == challenge,
        }
    }
}

/// RFC 9126 §2.2 suggests this form.
pub(super) const REQUEST_URI: &str = "urn:ietf:params:oauth:request_uri:";

/// RFC 6749 §4.1.2 recommends no more.
pub(super) const LIFE_OF_CODES: Duration = Duration::from_secs(600);
