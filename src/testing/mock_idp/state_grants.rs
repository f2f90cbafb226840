//! Grants of logins, as the state keeps them.

use super::{grants::*, state::State};
use crate::clock::Moment;

impl State {
    /// A code for a consent.
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
            ends: now.after(LIFE_OF_CODES),
            used: false,
        };
        grants.codes.insert(name.clone(), code);
        name
    }

    /// RFC 6749 §4.1.3, RFC 7636 §4.6: `Err` is what makes it an `invalid_grant`.
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
        if self
            .grants
            .grants
            .get(grant)
            .is_none_or(|grant| grant.client != client)
        {
            return Err("the code was given to another client");
        }
        if known.used {
            self.end_grant(grant);
            return Err("the code was used before: what came of it is revoked");
        }
        // Whoever guesses at the rest has one guess.
        known.used = true;
        if known.redirect_uri.as_deref() != redirect_uri {
            return Err("redirect_uri is not that of the authorization request");
        }
        match (&known.challenge, verifier) {
            (Some(challenge), Some(verifier)) if challenge.fits(verifier) => {}
            (Some(_), Some(_)) => return Err("code_verifier does not fit the challenge"),
            (Some(_), None) => return Err("code_verifier is missing"),
            // RFC 9700 §2.1.1: a downgrade, where it is an attack.
            (None, Some(_)) => return Err("a code_verifier without a challenge"),
            (None, None) => {}
        }
        if now.reached(known.ends) {
            return Err("the code has ended");
        }
        self.entitled(grant, None)
    }

    /// RFC 6749 §6: `Err` is what makes it an `invalid_grant`.
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
        if self
            .grants
            .grants
            .get(grant)
            .is_none_or(|grant| grant.client != client)
        {
            return Err("the refresh token was given to another client");
        }
        if known.used {
            self.end_grant(grant);
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
            return Err("a scope that was not granted");
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

    fn end_grant(&mut self, grant: GrantId) {
        self.grants.revoked.insert(grant);
        let tokens = self.tokens.values_mut();
        for token in tokens.filter(|token| token.grant == Some(grant)) {
            token.revoked = true;
        }
    }

    /// Revokes a client's token; a refresh token ends the whole grant (RFC 7009 §2.1).
    pub(super) fn revoke(&mut self, client: &str, token: &str) {
        if let Some(grant) = self.grants.refresh.get(token).map(|known| known.grant) {
            let owner = self.grants.grants.get(grant);
            if owner.is_some_and(|owner| owner.client == client) {
                self.end_grant(grant);
            }
        } else if let Some(token) = self.tokens.get_mut(token) {
            token.revoked = true;
        }
    }

    /// A `request_uri` for an authorization request.
    pub(super) fn push(&mut self, query: String) -> String {
        self.grants.pushed.push(Some(query));
        format!("{REQUEST_URI}{}", self.grants.pushed.len())
    }

    /// The authorization request behind a `request_uri` that has not been used.
    pub(super) fn pushed(&mut self, uri: &str) -> Option<&mut Option<String>> {
        let number: usize = uri.strip_prefix(REQUEST_URI)?.parse().ok()?;
        let pushed = self.grants.pushed.get_mut(number.checked_sub(1)?)?;
        pushed.is_some().then_some(pushed)
    }

    /// Ends all grants there are.
    pub(super) fn end_grants(&mut self) {
        for grant in 0..self.grants.grants.len() {
            self.end_grant(grant);
        }
    }

    /// Who has signed in for a token.
    pub(super) fn user(&self, grant: GrantId) -> Option<&str> {
        self.grants
            .grants
            .get(grant)
            .map(|grant| grant.user.as_str())
    }
}
