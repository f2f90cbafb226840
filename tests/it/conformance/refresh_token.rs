//! Sessions: refresh tokens (RFC 6749 §6), their rotation (RFC 9700 §4.14), and a store that several
//! processes share.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use bearer_auth::{
    AccessToken, AuthorizationCode, AuthorizationCodeBuilder, BoxError, Error, ErrorKind,
    OAuthErrorCode, Session, TokenCache, TokenRequest, TokenSource as _,
    store::{BusyStore, LockedSession, MemoryStore, StoreOperation, StoredSession, TokenStore},
    testing::{Answer, ManualClock, MockIdp, RefreshTokens},
};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{
    rig::*,
    sign_in::{idp, public, signed_in},
};

/// The session of a signed-in user, with its cache.
struct SignedIn {
    rig: Rig,
    auth: AuthorizationCode,
    session: Session,
}

async fn signed() -> SignedIn {
    signed_with(|auth| auth).await
}

async fn signed_with(
    configure: impl FnOnce(AuthorizationCodeBuilder) -> AuthorizationCodeBuilder,
) -> SignedIn {
    let clock = ManualClock::new();
    let builder = MockIdp::builder().clock(clock.clone()).client("app", "");
    let idp = builder.start().await.unwrap();
    // All sessions of this client share the store, as processes share a file.
    let auth = configure(public(&idp).store(MemoryStore::new()));
    let auth = auth.build().unwrap();
    let session = signed_in(&auth).await;
    let cache = TokenCache::builder(session.clone());
    let cache = cache.clock(clock.clone()).build();
    let rig = rig_of(clock, idp, cache);
    SignedIn { rig, auth, session }
}

impl SignedIn {
    /// Returns the cache of another process with the same store.
    fn elsewhere(&self) -> TokenCache {
        let cache = TokenCache::builder(self.auth.session());
        cache.clock(self.rig.clock.clone()).build()
    }

    /// Returns the refresh tokens that were sent.
    fn refreshes(&self) -> Vec<String> {
        let forms = self.rig.idp.token_log().into_iter().map(|sent| sent.form());
        forms
            .filter(|form| value(form, "grant_type") == Some("refresh_token"))
            .map(|form| value(&form, "refresh_token").unwrap().to_owned())
            .collect()
    }

    /// Calls `refresh` of the cache, and advances the clock over the pauses between retries.
    async fn refresh(&self) -> Result<AccessToken, Error> {
        let cache = self.rig.cache.clone();
        let task = tokio::spawn(async move { cache.refresh().await });
        self.rig.pass_pauses(task).await
    }

    async fn end_token(&self) {
        self.rig.clock.advance(3600 * SECOND);
    }
}

#[tokio::test]
async fn p20_p52_p53_expired_token_is_refreshed_with_the_refresh_token() {
    let signed = signed_with(|auth| auth.scope("a b").token_param("x", "y")).await;
    let rig = &signed.rig;
    assert_eq!(rig.get("orders").await.status(), 200);
    assert_eq!(rig.idp.token_requests(), 1, "the login's own token serves");
    for round in 1..=3 {
        signed.end_token().await;
        assert_eq!(rig.get("orders").await.status(), 200);
        assert_eq!(rig.idp.token_requests(), 1 + round);
    }
    assert_eq!(signed.refreshes(), ["refresh-1", "refresh-2", "refresh-3"]);
    assert_eq!(rig.idp.api_unauthorized(), 0);
    let sent = rig.idp.token_log().pop().unwrap();
    let mut names: Vec<_> = sent.form().into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["client_id", "grant_type", "refresh_token"]);
    assert_eq!(sent.header("authorization"), None);
}

#[tokio::test]
async fn p17_refresh_request_is_authenticated() {
    let idp = idp().await;
    let auth = super::sign_in::confidential(&idp).build().unwrap();
    let session = signed_in(&auth).await;
    super::sign_in::refresh(&session).await.unwrap();
    let log = idp.token_log();
    assert_eq!(log.len(), 2);
    for sent in log {
        assert_eq!(credentials(&sent), "client-id:client-secret");
        assert_eq!(value(&sent.form(), "client_id"), None);
    }
}

#[tokio::test]
async fn p53_c5_response_without_a_refresh_token_keeps_the_old_one() {
    let signed = signed().await;
    signed.rig.cache.token().await.unwrap();
    signed.rig.idp.set_refresh_tokens(RefreshTokens::Kept);
    for _ in 0..3 {
        signed.end_token().await;
        signed.rig.cache.token().await.unwrap();
    }
    assert_eq!(signed.refreshes(), ["refresh-1"; 3]);
}

#[tokio::test]
async fn p49_c22_rejected_refresh_token_ends_the_session_in_all_processes() {
    let signed = signed().await;
    let elsewhere = signed.elsewhere();
    let (here, idp) = (&signed.rig.cache, &signed.rig.idp);
    let token = here.token().await.unwrap();
    elsewhere.token().await.unwrap();
    signed.end_token().await;
    idp.sign_out_all_users();
    let error = here.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert!(!error.is_retryable());
    let cause = std::error::Error::source(&error).unwrap();
    let cause: &bearer_auth::Error = cause.downcast_ref().unwrap();
    let code = cause.oauth_error().unwrap().code();
    assert_eq!(*code, OAuthErrorCode::InvalidGrant);
    kind(&error, "refresh-");
    assert_eq!(idp.token_requests(), 2);
    // No further token request: not after this cache's pause, not from another cache or process.
    for _ in 0..3 {
        signed.rig.clock.advance(3600 * SECOND);
        for cache in [here, &elsewhere] {
            let error = cache.token().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SignInRequired);
        }
        let mut request = TokenRequest::new();
        request.previous = Some(token.clone());
        let error = signed.auth.session().fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignInRequired);
    }
    assert_eq!(idp.token_requests(), 2);
    // Until the user signs in again, in any process.
    signed_in(&signed.auth).await;
    signed.rig.clock.advance(3600 * SECOND);
    here.token().await.unwrap();
}

#[tokio::test]
async fn p57_temporary_failures_do_not_end_the_session() {
    let signed = signed().await;
    let rig = &signed.rig;
    rig.cache.token().await.unwrap();
    for answer in [
        Answer::unavailable(0),
        Answer::status(500),
        Answer::oauth_error("invalid_client"),
        Answer::oauth_error("temporarily_unavailable"),
    ] {
        // More attempts than are allowed after a lost response.
        for _ in 0..4 {
            let before = rig.idp.token_requests();
            rig.idp.always(answer.clone());
            let error = signed.refresh().await.unwrap_err();
            assert_ne!(error.kind(), ErrorKind::SignInRequired, "{error}");
            assert!(rig.idp.token_requests() > before);
            rig.clock.advance(600 * SECOND);
        }
        rig.idp.recover();
        signed.refresh().await.unwrap();
    }
    let refreshes = signed.refreshes();
    assert_eq!(refreshes.last().unwrap(), "refresh-4");
}

#[tokio::test]
async fn c22_refresh_token_is_sent_once_more_after_a_lost_response() {
    let signed = signed().await;
    let rig = &signed.rig;
    rig.cache.token().await.unwrap();
    rig.idp.then(Answer::drop_connection());
    assert_eq!(
        signed.refresh().await.unwrap_err().kind(),
        ErrorKind::Transport
    );
    rig.clock.advance(60 * SECOND);
    signed.refresh().await.unwrap();
    assert_eq!(signed.refreshes(), ["refresh-1"; 2]);
    // But not a third time, even after other responses: the server may have used it.
    rig.idp.always(Answer::drop_connection());
    assert!(signed.refresh().await.is_err());
    rig.clock.advance(60 * SECOND);
    rig.idp.always(Answer::unavailable(0));
    assert!(signed.refresh().await.is_err());
    rig.idp.always(Answer::drop_connection());
    for _ in 0..3 {
        rig.clock.advance(600 * SECOND);
        let _ = signed.refresh().await.unwrap_err();
    }
    let lost = signed
        .refreshes()
        .into_iter()
        .filter(|sent| sent == "refresh-2");
    // Two without a response, and three with a 503.
    assert_eq!(lost.count(), 2 + 3);
    let error = signed.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
}

#[tokio::test]
async fn p49_bare_400_requires_sign_in_and_keeps_the_refresh_token() {
    let signed = signed().await;
    let rig = &signed.rig;
    rig.cache.token().await.unwrap();
    signed.end_token().await;
    rig.idp.then(Answer::status(400));
    let error = rig.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert!(rig.cache.status().needs_sign_in());
    // The 400 may have come from a proxy: the refresh token is still stored.
    signed.refresh().await.unwrap();
    assert_eq!(signed.refreshes(), ["refresh-1"; 2]);
    // Other statuses do not end the session.
    for status in [401, 403, 404] {
        rig.idp.then(Answer::status(status));
        let error = signed.refresh().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Status);
    }
}

#[tokio::test]
async fn c22_lost_responses_are_counted_across_processes() {
    let signed = signed().await;
    let [one, two, three] = [(); 3].map(|()| signed.elsewhere());
    for process in [&one, &two, &three] {
        process.token().await.unwrap();
    }
    signed.rig.idp.always(Answer::drop_connection());
    for process in [&one, &two] {
        let error = process.refresh().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transport);
    }
    signed.rig.idp.recover();
    let error = three.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert_eq!(signed.refreshes(), ["refresh-1"; 2]);
}

#[tokio::test]
async fn c22_unreadable_response_counts_as_lost() {
    let no_type_of_ours = json!({"access_token": "t", "token_type": "mac", "refresh_token": "r"});
    for answer in [
        Answer::garbage(),
        Answer::truncated(),
        Answer::json(200, no_type_of_ours),
    ] {
        let signed = signed().await;
        let rig = &signed.rig;
        rig.cache.token().await.unwrap();
        rig.idp.always(answer);
        for _ in 0..4 {
            assert!(signed.refresh().await.is_err());
            rig.clock.advance(600 * SECOND);
        }
        assert_eq!(signed.refreshes(), ["refresh-1"; 2]);
        let error = signed.refresh().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignInRequired);
    }
}

#[tokio::test]
async fn p54_c16_cancelled_callers_do_not_lose_the_new_refresh_token() {
    let signed = signed().await;
    let rig = &signed.rig;
    rig.cache.token().await.unwrap();
    signed.end_token().await;
    let hold = rig.idp.hold();
    let callers: Vec<_> = (0..10).map(|_| rig.spawn_token()).collect();
    rig.idp.token_requests_reach(2).await;
    for caller in &callers {
        caller.abort();
    }
    // The session outlives its callers.
    let source = signed.session.clone();
    for caller in callers {
        assert!(caller.await.is_err());
    }
    hold.release();
    // The next caller gets the token of that request.
    let response = source.fetch(TokenRequest::new()).await.unwrap();
    drop(response);
    signed.elsewhere().token().await.unwrap();
    assert_eq!(signed.refreshes(), ["refresh-1"]);
}

#[tokio::test]
async fn p54_dropped_fetch_continues() {
    let signed = signed().await;
    let token = signed.rig.cache.token().await.unwrap();
    let mut request = TokenRequest::new();
    request.previous = Some(token);
    let hold = signed.rig.idp.hold();
    let session = signed.session.clone();
    let asked = request.clone();
    let fetch = tokio::spawn(async move { session.fetch(asked).await });
    signed.rig.idp.token_requests_reach(2).await;
    fetch.abort();
    assert!(fetch.await.is_err());
    hold.release();
    signed.session.fetch(request).await.unwrap();
    assert_eq!(signed.refreshes(), ["refresh-1"]);
}

#[tokio::test]
async fn p54_p206_c11_processes_with_a_shared_store_send_one_refresh() {
    let signed = signed().await;
    let (one, other) = (signed.elsewhere(), signed.elsewhere());
    one.token().await.unwrap();
    other.token().await.unwrap();
    assert_eq!(signed.rig.idp.token_requests(), 1);
    let mut known = "token-1".to_owned();
    for round in 2..6 {
        signed.end_token().await;
        let hold = signed.rig.idp.hold();
        let spawn = |cache: &TokenCache| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.token().await.unwrap() })
        };
        let (first, second) = (spawn(&one), spawn(&other));
        signed.rig.idp.token_requests_reach(round).await;
        signed.rig.clock.settle().await;
        hold.release();
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!(first.expose_secret(), second.expose_secret());
        assert_ne!(first.expose_secret(), known);
        known = first.expose_secret().to_owned();
        assert_eq!(signed.rig.idp.token_requests(), round);
    }
    assert_eq!(signed.refreshes().len(), 4);
}

#[tokio::test]
async fn c11_sessions_of_two_users_are_separate() {
    let idp = idp().await;
    // A web application: one client, no store, several users.
    let auth = public(&idp).build().unwrap();
    let (alice, bob) = (signed_in(&auth).await, signed_in(&auth).await);
    let (alice, bob) = (TokenCache::new(alice), TokenCache::new(bob));
    assert_eq!(alice.token().await.unwrap().expose_secret(), "token-1");
    assert_eq!(bob.token().await.unwrap().expose_secret(), "token-2");
    alice.refresh().await.unwrap();
    bob.refresh().await.unwrap();
    let sent: Vec<_> = idp
        .token_log()
        .iter()
        .skip(2)
        .map(|sent| sent.form())
        .collect();
    assert_eq!(value(&sent[0], "refresh_token"), Some("refresh-1"));
    assert_eq!(value(&sent[1], "refresh_token"), Some("refresh-2"));
    // A session without a login has no token.
    let error = auth.session().fetch(TokenRequest::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
}

#[tokio::test]
async fn s2_1_p233_response_403_causes_no_token_request() {
    let signed = signed().await;
    signed
        .rig
        .idp
        .api_answers("/api/forbidden", Answer::status(403));
    for _ in 0..3 {
        assert_eq!(signed.rig.get("forbidden").await.status(), 403);
    }
    assert_eq!(signed.rig.idp.token_requests(), 1);
    // A 401 costs one token request.
    signed.rig.idp.revoke_all();
    assert_eq!(signed.rig.get("orders").await.status(), 200);
    assert_eq!(signed.refreshes(), ["refresh-1"]);
}

/// A store that records its operations, and fails on request.
#[derive(Clone, Default)]
struct RecordingStore(Arc<Recording>);

#[derive(Default)]
struct Recording {
    store: MemoryStore,
    log: Mutex<Vec<String>>,
    fails: Mutex<Vec<StoreOperation>>,
    /// Whether the caller still waits for the access token.
    waits: AtomicBool,
}

struct RecordingLocked {
    recording: Arc<Recording>,
    locked: <MemoryStore as TokenStore>::Locked,
}

impl RecordingStore {
    fn record(&self, what: &str) {
        self.0.log.lock().unwrap().push(what.to_owned());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.log.lock().unwrap())
    }

    fn fail(&self, operations: &[StoreOperation]) {
        *self.0.fails.lock().unwrap() = operations.to_vec();
    }

    fn check(&self, operation: StoreOperation) -> Result<(), BoxError> {
        match self.0.fails.lock().unwrap().contains(&operation) {
            true => Err("the disk has failed".into()),
            false => Ok(()),
        }
    }
}

impl TokenStore for RecordingStore {
    type Locked = RecordingLocked;

    async fn lock(&self) -> Result<RecordingLocked, BoxError> {
        self.check(StoreOperation::Lock)?;
        let locked = self.0.store.lock().await?;
        self.record("lock");
        let recording = Arc::clone(&self.0);
        Ok(RecordingLocked { recording, locked })
    }
}

impl LockedSession for RecordingLocked {
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        let recording_store = RecordingStore(Arc::clone(&self.recording));
        recording_store.check(StoreOperation::Load)?;
        recording_store.record("load");
        self.locked.load().await
    }

    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        let recording_store = RecordingStore(Arc::clone(&self.recording));
        recording_store.check(StoreOperation::Save)?;
        let token = session.and_then(StoredSession::refresh_token);
        let token = token.map_or("none", |token| token.expose_secret());
        let early = match self.recording.waits.load(Ordering::SeqCst) {
            true => "",
            false => ", too late",
        };
        recording_store.record(&format!("save {token}{early}"));
        self.locked.save(session).await
    }
}

impl Drop for RecordingLocked {
    fn drop(&mut self) {
        RecordingStore(Arc::clone(&self.recording)).record("unlock");
    }
}

/// Returns a session in a recording store, the store, and the reported errors.
async fn recording_store() -> (SignedIn, RecordingStore, Arc<Mutex<Vec<StoreOperation>>>) {
    let (store, reported) = (RecordingStore::default(), Arc::new(Mutex::new(Vec::new())));
    let (given, report) = (store.clone(), Arc::clone(&reported));
    let signed = signed_with(|auth| {
        auth.store(given).on_store_error(move |error| {
            assert_eq!(error.cause.to_string(), "the disk has failed");
            report.lock().unwrap().push(error.operation);
        })
    })
    .await;
    (signed, store, reported)
}

#[tokio::test]
async fn p53_c22_refresh_token_is_stored_before_the_access_token_is_used() {
    let (signed, store, reported) = recording_store().await;
    assert_eq!(store.take(), ["lock", "save refresh-1, too late", "unlock"]);
    signed.rig.cache.token().await.unwrap();
    assert_eq!(store.take(), ["lock", "load", "unlock"]);
    for (sent, next) in [("refresh-1", "refresh-2"), ("refresh-2", "refresh-3")] {
        signed.end_token().await;
        store.0.waits.store(true, Ordering::SeqCst);
        signed.rig.cache.token().await.unwrap();
        store.0.waits.store(false, Ordering::SeqCst);
        // One lock around all operations.
        let (sent, saved) = (format!("save {sent}"), format!("save {next}"));
        // The first save marks the refresh token as sent.
        let expected = ["lock", "load", sent.as_str(), saved.as_str(), "unlock"];
        assert_eq!(store.take(), expected);
    }
    assert!(reported.lock().unwrap().is_empty());
}

#[tokio::test]
async fn c22_session_continues_while_the_store_fails() {
    use StoreOperation::{Load, Lock, Save};
    for fails in [
        &[Lock][..],
        &[Load],
        &[Save],
        &[Load, Save],
        &[Lock, Load, Save],
    ] {
        let (signed, store, reported) = recording_store().await;
        signed.rig.cache.token().await.unwrap();
        assert!(reported.lock().unwrap().is_empty());
        store.fail(fails);
        for _ in 0..3 {
            signed.end_token().await;
            signed.rig.cache.token().await.unwrap();
            assert_eq!(signed.rig.get("orders").await.status(), 200);
        }
        let operations = std::mem::take(&mut *reported.lock().unwrap());
        assert!(
            !operations.is_empty() && operations.iter().all(|operation| fails.contains(operation))
        );
        assert_eq!(signed.refreshes(), ["refresh-1", "refresh-2", "refresh-3"]);
        // When the store works again, the newest session is saved.
        store.fail(&[]);
        signed.end_token().await;
        signed.rig.cache.token().await.unwrap();
        signed.elsewhere().token().await.unwrap();
        assert_eq!(signed.refreshes().len(), 4);
        assert!(
            store
                .take()
                .contains(&"save refresh-5, too late".to_owned())
        );
        assert!(reported.lock().unwrap().is_empty());
    }
}

/// A store whose lock another process may have.
#[derive(Clone)]
struct ContendedStore {
    store: MemoryStore,
    is_locked: Arc<AtomicBool>,
}

impl TokenStore for ContendedStore {
    type Locked = <MemoryStore as TokenStore>::Locked;

    async fn lock(&self) -> Result<Self::Locked, BoxError> {
        if self.is_locked.load(Ordering::SeqCst) {
            return Err(BusyStore::new("another process has the lock").into());
        }
        self.store.lock().await
    }
}

#[tokio::test]
async fn p206_no_refresh_is_sent_while_another_process_has_the_lock() {
    let store = ContendedStore {
        store: MemoryStore::new(),
        is_locked: Arc::default(),
    };
    let signed = signed_with(|auth| auth.store(store.clone())).await;
    signed.rig.cache.token().await.unwrap();
    store.is_locked.store(true, Ordering::SeqCst);
    signed.end_token().await;
    let error = signed.rig.cache.token().await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(signed.refreshes().is_empty());
    store.is_locked.store(false, Ordering::SeqCst);
    signed.rig.clock.advance(60 * SECOND);
    signed.rig.cache.token().await.unwrap();
    assert_eq!(signed.refreshes(), ["refresh-1"]);
}

#[tokio::test]
async fn c22_newer_session_in_the_store_wins_over_an_unanswered_refresh() {
    for answer in [Answer::drop_connection(), Answer::unavailable(0)] {
        let (signed, store, _) = recording_store().await;
        signed.rig.cache.token().await.unwrap();
        let elsewhere = signed.elsewhere();
        elsewhere.token().await.unwrap();
        store.fail(&[StoreOperation::Save]);
        signed.rig.idp.always(answer);
        signed.refresh().await.unwrap_err();
        signed.rig.idp.recover();
        store.fail(&[]);
        let sent = signed.refreshes().len();
        let token = elsewhere.refresh().await.unwrap();
        signed.rig.clock.advance(600 * SECOND);
        let here = signed.refresh().await.unwrap();
        assert_eq!(here.expose_secret(), token.expose_secret());
        assert_eq!(signed.refreshes().len(), sent + 1);
    }
}

#[tokio::test]
async fn c22_failing_store_does_not_allow_a_third_send() {
    let (signed, store, _) = recording_store().await;
    signed.rig.cache.token().await.unwrap();
    store.fail(&[StoreOperation::Save]);
    signed.rig.idp.always(Answer::drop_connection());
    for _ in 0..4 {
        signed.refresh().await.unwrap_err();
        signed.rig.clock.advance(600 * SECOND);
    }
    assert_eq!(signed.refreshes(), ["refresh-1"; 2]);
    // Nor after the store works again.
    store.fail(&[]);
    let error = signed.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
}

#[tokio::test]
async fn c22_response_to_another_process_resets_the_count_of_lost_responses() {
    let signed = signed().await;
    let elsewhere = signed.elsewhere();
    for cache in [&signed.rig.cache, &elsewhere] {
        cache.token().await.unwrap();
    }
    let idp = &signed.rig.idp;
    idp.set_refresh_tokens(RefreshTokens::Kept);
    idp.then(Answer::drop_connection());
    signed.refresh().await.unwrap_err();
    elsewhere.refresh().await.unwrap();
    signed.rig.clock.advance(600 * SECOND);
    signed.refresh().await.unwrap();
    // The count starts again, for this cache too.
    idp.always(Answer::drop_connection());
    for kind in [
        ErrorKind::Transport,
        ErrorKind::Transport,
        ErrorKind::SignInRequired,
    ] {
        signed.rig.clock.advance(600 * SECOND);
        let error = signed.refresh().await.unwrap_err();
        assert_eq!(error.kind(), kind);
    }
    assert_eq!(signed.refreshes(), ["refresh-1"; 4]);
}

#[tokio::test]
async fn c22_unsaved_session_is_saved_at_the_next_fetch() {
    let (signed, store, _) = recording_store().await;
    signed.rig.cache.token().await.unwrap();
    store.fail(&[StoreOperation::Save]);
    signed.refresh().await.unwrap();
    store.fail(&[]);
    store.take();
    // Another cache of the same session, which needs no token request.
    let other = TokenCache::builder(signed.session.clone());
    other
        .clock(signed.rig.clock.clone())
        .build()
        .token()
        .await
        .unwrap();
    assert_eq!(signed.refreshes(), ["refresh-1"]);
    let expected = ["lock", "load", "save refresh-2, too late", "unlock"];
    assert_eq!(store.take(), expected);
}

#[tokio::test]
async fn c22_unsaved_session_does_not_overwrite_a_newer_login() {
    let (signed, store, _) = recording_store().await;
    signed.rig.cache.token().await.unwrap();
    store.fail(&[StoreOperation::Save]);
    for _ in 0..2 {
        signed.end_token().await;
        signed.rig.cache.token().await.unwrap();
    }
    store.fail(&[]);
    // The user signs in again, in another process.
    signed_in(&signed.auth).await;
    store.take();
    signed.end_token().await;
    signed.rig.cache.token().await.unwrap();
    // The cache uses the new login's access token.
    assert_eq!(signed.refreshes(), ["refresh-1", "refresh-2"]);
    signed.end_token().await;
    signed.rig.cache.token().await.unwrap();
    assert_eq!(signed.refreshes(), ["refresh-1", "refresh-2", "refresh-4"]);
    let saves = ["save refresh-4, too late", "save refresh-5, too late"];
    let took = store.take();
    let took = took.iter().filter(|what| what.starts_with("save"));
    assert_eq!(took.collect::<Vec<_>>(), saves);
}

#[tokio::test]
async fn c22_unsaved_session_does_not_overwrite_a_newer_token_without_rotation() {
    let (signed, store, _) = recording_store().await;
    signed.rig.idp.set_refresh_tokens(RefreshTokens::Kept);
    let elsewhere = signed.elsewhere();
    for cache in [&signed.rig.cache, &elsewhere] {
        cache.token().await.unwrap();
    }
    store.fail(&[StoreOperation::Save]);
    signed.refresh().await.unwrap();
    store.fail(&[]);
    let newer = elsewhere.refresh().await.unwrap();
    signed.end_token().await;
    let here = signed.rig.cache.token().await.unwrap();
    assert_eq!(here.expose_secret(), newer.expose_secret());
    assert_eq!(signed.refreshes(), ["refresh-1"; 2]);
}

#[tokio::test]
async fn c22_unsaved_session_does_not_undo_a_logout() {
    let (signed, store, _) = recording_store().await;
    signed.rig.cache.token().await.unwrap();
    store.fail(&[StoreOperation::Save]);
    signed.refresh().await.unwrap();
    store.fail(&[]);
    // The user signs out in another process.
    signed.auth.session().logout().await.unwrap();
    store.take();
    signed.end_token().await;
    let error = signed.rig.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert_eq!(signed.refreshes(), ["refresh-1"]);
    assert_eq!(store.take(), ["lock", "load", "unlock"]);
}

#[tokio::test]
async fn c22_unsaved_session_survives_the_rejection_of_its_old_refresh_token() {
    let (signed, store, _) = recording_store().await;
    signed.rig.cache.token().await.unwrap();
    store.fail(&[StoreOperation::Save]);
    signed.refresh().await.unwrap();
    store.fail(&[]);
    // Another process sends the old refresh token, because the store does not have the new one.
    let elsewhere = signed.elsewhere();
    elsewhere.token().await.unwrap();
    signed.rig.idp.then(Answer::oauth_error("invalid_grant"));
    let error = elsewhere.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    signed.end_token().await;
    signed.rig.cache.token().await.unwrap();
    let sent = ["refresh-1", "refresh-1", "refresh-2"];
    assert_eq!(signed.refreshes(), sent);
}

#[tokio::test]
async fn c22_unreadable_store_is_a_retryable_error() {
    for operation in [StoreOperation::Lock, StoreOperation::Load] {
        let (signed, store, reported) = recording_store().await;
        store.fail(&[operation]);
        // A new process, without a cached token.
        let elsewhere = signed.elsewhere();
        let error = elsewhere.token().await.unwrap_err();
        assert_ne!(error.kind(), ErrorKind::SignInRequired);
        assert!(error.is_retryable());
        assert_eq!(*reported.lock().unwrap(), [operation]);
        store.fail(&[]);
        signed.rig.clock.advance(60 * SECOND);
        elsewhere.token().await.unwrap();
        assert_eq!(signed.rig.idp.token_requests(), 1);
    }
}

#[tokio::test]
async fn p49_session_without_a_refresh_token_ends_with_its_token() {
    let clock = ManualClock::new();
    let builder = MockIdp::builder().clock(clock.clone()).client("app", "");
    let idp = builder.start().await.unwrap();
    idp.set_refresh_tokens(RefreshTokens::Absent);
    let auth = public(&idp).build().unwrap();
    let session = signed_in(&auth).await;
    let cache = TokenCache::builder(session).clock(clock.clone()).build();
    let rig = rig_of(clock, idp, cache);
    for _ in 0..60 {
        assert_eq!(rig.get("orders").await.status(), 200);
        rig.clock.advance(60 * SECOND - NANO);
        rig.landed().await;
    }
    rig.clock.advance(60 * NANO);
    let error = rig.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert!(!error.is_retryable());
    assert_eq!(rig.idp.token_requests(), 1);
}

#[tokio::test]
async fn p55_session_shows_no_secret() {
    let (signed, store, _) = recording_store().await;
    signed.rig.cache.token().await.unwrap();
    signed.refresh().await.unwrap();
    let mut locked = store.lock().await.unwrap();
    let session = locked.load().await.unwrap().unwrap();
    let json = session.to_json().unwrap();
    let again = StoredSession::from_json(json.expose_secret()).unwrap();
    let shown = format!(
        "{:?} {session:?} {session:#?} {json:?} {again:?} {:?} {:?} {:?}",
        signed.session, signed.rig.cache, signed.rig.idp, store.0.store,
    );
    for secret in ["refresh-", "token-", "code-1"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    assert_eq!(again.refresh_token().unwrap().expose_secret(), "refresh-2");
    let damaged = json.expose_secret().replace("refresh", "canary\u{1}");
    for damaged in [&damaged, "", "{}", "canary", "{\"version\":2}"] {
        let error = StoredSession::from_json(damaged).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}

#[tokio::test]
async fn c22_new_login_replaces_the_session() {
    let signed = signed().await;
    signed.rig.cache.token().await.unwrap();
    // Another login with the same store.
    let again = TokenCache::new(signed_in(&signed.auth).await);
    assert_eq!(again.token().await.unwrap().expose_secret(), "token-2");
    again.refresh().await.unwrap();
    assert_eq!(signed.refreshes(), ["refresh-2"]);
}
