//! Grants by users: codes, refresh tokens, and the tokens issued for each grant.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::clock::Moment;

/// Whether a [`MockIdp`](super::MockIdp) issues refresh tokens when a user signs in, and whether
/// it rotates them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshTokens {
    /// Each refresh token is valid once, and its use returns the next (RFC 9700 §4.14). A second
    /// use counts as theft and revokes the whole grant, with its access tokens.
    #[default]
    Rotated,
    /// One refresh token for the whole grant; its use returns no other.
    Kept,
    /// No refresh tokens.
    Absent,
}

/// The index of a grant: one user's consent to one client.
pub(super) type GrantId = usize;

#[derive(Default)]
pub(super) struct Grants {
    pub(super) refresh_tokens: RefreshTokens,
    pub(super) grants: Vec<Grant>,
    pub(super) revoked: HashSet<GrantId>,
    pub(super) codes: HashMap<String, Code>,
    pub(super) refresh: HashMap<String, Refresh>,
    /// Queries of pushed authorization requests (RFC 9126); `None` once used.
    pub(super) pushed: Vec<Option<String>>,
}

#[derive(Clone)]
pub(super) struct Grant {
    pub(super) client: String,
    pub(super) user: String,
    pub(super) scope: Option<String>,
}

/// An authorization request that the user has agreed to.
pub(super) struct Consent {
    pub(super) client: String,
    pub(super) user: String,
    pub(super) scope: Option<String>,
    /// Verbatim; `None` if the request had none.
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
    pub(super) expires: Moment,
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
    /// Parses the parameters. `Err`: no verifier can match.
    pub(super) fn of(challenge: &str, method: Option<&str>) -> Result<Self, &'static str> {
        let unreserved =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        match method.unwrap_or("plain") {
            "S256" => match URL_SAFE_NO_PAD.decode(challenge) {
                Ok(digest) if digest.len() == 32 => Ok(Self::S256(challenge.to_owned())),
                _ => Err("code_challenge is not a SHA-256 digest in base64url"),
            },
            "plain"
                if (43..=128).contains(&challenge.len()) && challenge.bytes().all(unreserved) =>
            {
                Ok(Self::Plain(challenge.to_owned()))
            }
            "plain" => Err("code_challenge is not a valid code verifier"),
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

/// The maximum that RFC 6749 §4.1.2 recommends.
pub(super) const CODE_LIFETIME: Duration = Duration::from_secs(600);
