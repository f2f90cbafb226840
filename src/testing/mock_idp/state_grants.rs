//! [`State`]'s methods for codes, refresh tokens and their grants.

use super::{grants::*, state::State};
use crate::clock::Moment;

/// Returns whether a grant was given to `client`.
fn is_of(grants: &[Grant], grant: GrantId, client: &str) -> bool {
    grants
        .get(grant)
        .is_some_and(|grant| grant.client == client)
}

impl State {
    /// Issues a code for a consent.
    pub(super) fn consent(&mut self, consent: Consent, now: Moment) -> String {
        let grants = &mut self.grants;
        let grant = grants.grants.len();
        grants.grants.push(Grant {
            client: consent.client,
            user: consent.user,
            scope: consent.scope,
        });
        let name = format!("code-{}", grants.codes.len() + 1);
        let code = Code {
            grant,
            redirect_uri: consent.redirect_uri,
            challenge: consent.challenge,
            expires: now.after(CODE_LIFETIME),
            used: false,
        };
        grants.codes.insert(name.clone(), code);
        name
    }

    /// Redeems a code (RFC 6749 §4.1.3, RFC 7636 §4.6). `Err` describes an `invalid_grant`.
    pub(super) fn redeem(
        &mut self,
        client: &str,
        code: &str,
        redirect_uri: Option<&str>,
        verifier: Option<&str>,
        now: Moment,
    ) -> Result<Entitled, &'static str> {
        let known = self.grants.codes.get_mut(code).ok_or("no such code")?;
        let grant = known.grant;
        if !is_of(&self.grants.grants, grant, client) {
            return Err("the code was issued to another client");
        }
        if known.used {
            self.revoke_grant(grant);
            return Err("the code was used before: its tokens are revoked");
        }
        // An attacker has one guess at the redirect URI and the verifier.
        known.used = true;
        if known.redirect_uri.as_deref() != redirect_uri {
            return Err("redirect_uri differs from the authorization request's");
        }
        match (&known.challenge, verifier) {
            (Some(challenge), Some(verifier)) if challenge.fits(verifier) => {}
            (Some(_), Some(_)) => return Err("code_verifier does not match code_challenge"),
            (Some(_), None) => return Err("code_verifier is missing"),
            // RFC 9700 §2.1.1: rejects a PKCE downgrade.
            (None, Some(_)) => return Err("code_verifier without code_challenge"),
            (None, None) => {}
        }
        if now.reached(known.expires) {
            return Err("the code has expired");
        }
        self.entitled(grant, None)
    }

    /// Uses a refresh token (RFC 6749 §6). `Err` describes an `invalid_grant`.
    pub(super) fn refresh(
        &mut self,
        client: &str,
        token: &str,
        scope: Option<&str>,
    ) -> Result<Entitled, &'static str> {
        let rotated = self.grants.refresh_tokens == RefreshTokens::Rotated;
        let known = self
            .grants
            .refresh
            .get_mut(token)
            .ok_or("no such refresh token")?;
        let grant = known.grant;
        if !is_of(&self.grants.grants, grant, client) {
            return Err("the refresh token was issued to another client");
        }
        if known.used {
            self.revoke_grant(grant);
            return Err("the refresh token was used before: the grant is revoked");
        }
        let entitled = self.entitled(grant, scope)?;
        if rotated && let Some(known) = self.grants.refresh.get_mut(token) {
            known.used = true;
        }
        Ok(entitled)
    }

    fn entitled(&mut self, grant: GrantId, scope: Option<&str>) -> Result<Entitled, &'static str> {
        if self.grants.revoked.contains(&grant) {
            return Err("the grant is revoked");
        }
        let granted = self
            .grants
            .grants
            .get(grant)
            .and_then(|grant| grant.scope.clone());
        let has = |granted: &str, scope: &str| granted.split(' ').any(|known| known == scope);
        if let Some(scope) = scope
            && !scope.split(' ').all(|scope| {
                granted
                    .as_deref()
                    .is_some_and(|granted| has(granted, scope))
            })
        {
            return Err("scope exceeds the granted scope");
        }
        let is_first = !self
            .grants
            .refresh
            .values()
            .any(|known| known.grant == grant);
        let refresh_token = match self.grants.refresh_tokens {
            RefreshTokens::Rotated => true,
            RefreshTokens::Kept => is_first,
            RefreshTokens::Absent => false,
        }
        .then(|| self.padded(format!("refresh-{}", self.grants.refresh.len() + 1)));
        if let Some(token) = &refresh_token {
            let used = false;
            self.grants
                .refresh
                .insert(token.clone(), Refresh { grant, used });
        }
        Ok(Entitled {
            grant,
            scope: scope.map(str::to_owned).or(granted),
            refresh_token,
        })
    }

    fn revoke_grant(&mut self, grant: GrantId) {
        self.grants.revoked.insert(grant);
        let tokens = self.tokens.values_mut();
        for token in tokens.filter(|token| token.grant == Some(grant)) {
            token.revoked = true;
        }
    }

    /// Revokes a client's token. A refresh token revokes the whole grant (RFC 7009 §2.1).
    pub(super) fn revoke(&mut self, client: &str, token: &str) {
        if let Some(grant) = self.grants.refresh.get(token).map(|known| known.grant) {
            let owner = self.grants.grants.get(grant);
            if owner.is_some_and(|owner| owner.client == client) {
                self.revoke_grant(grant);
            }
        } else if let Some(token) = self.tokens.get_mut(token) {
            token.revoked = true;
        }
    }

    /// Stores an authorization request, and returns its `request_uri`.
    pub(super) fn push(&mut self, query: String) -> String {
        self.grants.pushed.push(Some(query));
        format!("{REQUEST_URI}{}", self.grants.pushed.len())
    }

    /// Returns the authorization request of an unused `request_uri`.
    pub(super) fn pushed(&mut self, uri: &str) -> Option<&mut Option<String>> {
        let number: usize = uri.strip_prefix(REQUEST_URI)?.parse().ok()?;
        let pushed = self.grants.pushed.get_mut(number.checked_sub(1)?)?;
        pushed.is_some().then_some(pushed)
    }

    pub(super) fn revoke_all_grants(&mut self) {
        for grant in 0..self.grants.grants.len() {
            self.revoke_grant(grant);
        }
    }

    /// Returns the user of a grant.
    pub(super) fn user(&self, grant: GrantId) -> Option<&str> {
        self.grants
            .grants
            .get(grant)
            .map(|grant| grant.user.as_str())
    }
}
