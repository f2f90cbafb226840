//! A session goes on: refresh tokens (RFC 6749 §6), their rotation (RFC 9700 §4.14), and the store
//! that processes share.

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

/// Somebody who has signed in, and a program that goes on in their name.
struct Signed {
    rig: Rig,
    auth: AuthorizationCode,
    session: Session,
}

async fn signed() -> Signed {
    signed_with(|auth| auth).await
}

async fn signed_with(
    configure: impl FnOnce(AuthorizationCodeBuilder) -> AuthorizationCodeBuilder,
) -> Signed {
    let clock = ManualClock::new();
    let builder = MockIdp::builder().clock(clock.clone()).client("app", "");
    let idp = builder.start().await.unwrap();
    // Shared by what is made of it, as a file would be.
    let auth = configure(public(&idp).store(MemoryStore::new()));
    let auth = auth.build().unwrap();
    let session = signed_in(&auth).await;
    let cache = TokenCache::builder(session.clone());
    let cache = cache.clock(clock.clone()).build();
    let rig = rig_of(clock, idp, cache);
    Signed { rig, auth, session }
}

impl Signed {
    /// The cache of another process that shares the store.
    fn elsewhere(&self) -> TokenCache {
        let cache = TokenCache::builder(self.auth.session());
        cache.clock(self.rig.clock.clone()).build()
    }

    /// The refresh tokens that were sent.
    fn refreshes(&self) -> Vec<String> {
        let forms = self.rig.idp.token_log().into_iter().map(|sent| sent.form());
        forms
            .filter(|form| value(form, "grant_type") == Some("refresh_token"))
            .map(|form| value(&form, "refresh_token").unwrap().to_owned())
            .collect()
    }

    /// As the cache's own `refresh`, while the pauses between its attempts pass.
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
async fn p20_p52_p53_a_session_goes_on_when_its_token_ends() {
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
async fn p17_an_exchange_is_authenticated() {
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
async fn p53_c5_without_a_new_refresh_token_the_old_one_stays() {
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
async fn p49_c22_a_session_that_is_over_is_over_for_everybody() {
    let signed = signed().await;
    let elsewhere = signed.elsewhere();
    let (here, idp) = (&signed.rig.cache, &signed.rig.idp);
    let token = here.token().await.unwrap();
    elsewhere.token().await.unwrap();
    signed.end_token().await;
    idp.sign_everybody_out();
    let error = here.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert!(!error.is_retryable());
    let cause = std::error::Error::source(&error).unwrap();
    let cause: &bearer_auth::Error = cause.downcast_ref().unwrap();
    let code = cause.oauth_error().unwrap().code();
    assert_eq!(*code, OAuthErrorCode::InvalidGrant);
    kind(&error, "refresh-");
    assert_eq!(idp.token_requests(), 2);
    // Nobody asks again: not this cache after its rest, not another, not a process that starts now.
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
    // Until somebody signs in again, in whichever process.
    signed_in(&signed.auth).await;
    signed.rig.clock.advance(3600 * SECOND);
    here.token().await.unwrap();
}

#[tokio::test]
async fn p57_what_is_refused_or_down_for_now_does_not_end_a_session() {
    let signed = signed().await;
    let rig = &signed.rig;
    rig.cache.token().await.unwrap();
    for answer in [
        Answer::unavailable(0),
        Answer::status(500),
        Answer::oauth_error("invalid_client"),
        Answer::oauth_error("temporarily_unavailable"),
    ] {
        // More often than an answer may be lost.
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
async fn c22_a_refresh_token_whose_answer_was_lost_is_sent_once_more() {
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
    // And no more often, whatever is in between: it may have been used.
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
    // Two that got no answer, and the three attempts that got a 503.
    assert_eq!(lost.count(), 2 + 3);
    let error = signed.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
}

#[tokio::test]
async fn p49_a_bare_400_asks_for_a_login_and_forgets_nothing() {
    let signed = signed().await;
    let rig = &signed.rig;
    rig.cache.token().await.unwrap();
    signed.end_token().await;
    rig.idp.then(Answer::status(400));
    let error = rig.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert!(rig.cache.status().needs_sign_in());
    // It was a proxy that did not like something.
    signed.refresh().await.unwrap();
    assert_eq!(signed.refreshes(), ["refresh-1"; 2]);
    // Another status says nothing about the session.
    for status in [401, 403, 404] {
        rig.idp.then(Answer::status(status));
        let error = signed.refresh().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Status);
    }
}

#[tokio::test]
async fn c22_so_it_is_whichever_process_has_sent_it() {
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
async fn c22_an_answer_that_cannot_be_read_is_as_good_as_lost() {
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
async fn p54_c16_callers_who_go_lose_nothing() {
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
    // The cache goes, too, and with it the flight.
    let source = signed.session.clone();
    for caller in callers {
        assert!(caller.await.is_err());
    }
    hold.release();
    // Whoever comes next finds what the exchange has brought.
    let response = source.fetch(TokenRequest::new()).await.unwrap();
    drop(response);
    signed.elsewhere().token().await.unwrap();
    assert_eq!(signed.refreshes(), ["refresh-1"]);
}

#[tokio::test]
async fn p54_a_fetch_that_is_dropped_goes_on() {
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
async fn p54_p206_c11_processes_that_share_a_store_make_one_exchange() {
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
async fn c11_people_are_not_confused() {
    let idp = idp().await;
    // A web application: one client, no store, many people.
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
    // And nobody is signed in who has not.
    let error = auth.session().fetch(TokenRequest::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
}

#[tokio::test]
async fn s2_1_p233_a_403_of_the_api_costs_no_token_request() {
    let signed = signed().await;
    signed
        .rig
        .idp
        .api_answers("/api/forbidden", Answer::status(403));
    for _ in 0..3 {
        assert_eq!(signed.rig.get("forbidden").await.status(), 403);
    }
    assert_eq!(signed.rig.idp.token_requests(), 1);
    // A 401 costs one exchange.
    signed.rig.idp.revoke_all();
    assert_eq!(signed.rig.get("orders").await.status(), 200);
    assert_eq!(signed.refreshes(), ["refresh-1"]);
}

/// A store that notes what is done with it, and fails when it is told to.
#[derive(Clone, Default)]
struct Noting(Arc<Noted>);

#[derive(Default)]
struct Noted {
    store: MemoryStore,
    log: Mutex<Vec<String>>,
    fails: Mutex<Vec<StoreOperation>>,
    /// The access token has not been handed out yet.
    waits: AtomicBool,
}

struct NotingLocked {
    noted: Arc<Noted>,
    locked: <MemoryStore as TokenStore>::Locked,
}

impl Noting {
    fn note(&self, what: &str) {
        self.0.log.lock().unwrap().push(what.to_owned());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.log.lock().unwrap())
    }

    fn fail(&self, operations: &[StoreOperation]) {
        *self.0.fails.lock().unwrap() = operations.to_vec();
    }

    fn judge(&self, operation: StoreOperation) -> Result<(), BoxError> {
        match self.0.fails.lock().unwrap().contains(&operation) {
            true => Err("the disk is on fire".into()),
            false => Ok(()),
        }
    }
}

impl TokenStore for Noting {
    type Locked = NotingLocked;

    async fn lock(&self) -> Result<NotingLocked, BoxError> {
        self.judge(StoreOperation::Lock)?;
        let locked = self.0.store.lock().await?;
        self.note("lock");
        let noted = Arc::clone(&self.0);
        Ok(NotingLocked { noted, locked })
    }
}

impl LockedSession for NotingLocked {
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        let noting = Noting(Arc::clone(&self.noted));
        noting.judge(StoreOperation::Load)?;
        noting.note("load");
        self.locked.load().await
    }

    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        let noting = Noting(Arc::clone(&self.noted));
        noting.judge(StoreOperation::Save)?;
        let token = session.and_then(StoredSession::refresh_token);
        let token = token.map_or("none", |token| token.expose_secret());
        let early = match self.noted.waits.load(Ordering::SeqCst) {
            true => "",
            false => ", too late",
        };
        noting.note(&format!("save {token}{early}"));
        self.locked.save(session).await
    }
}

impl Drop for NotingLocked {
    fn drop(&mut self) {
        Noting(Arc::clone(&self.noted)).note("unlock");
    }
}

/// And those who are told about failures.
async fn noting() -> (Signed, Noting, Arc<Mutex<Vec<StoreOperation>>>) {
    let (store, told) = (Noting::default(), Arc::new(Mutex::new(Vec::new())));
    let (given, tell) = (store.clone(), Arc::clone(&told));
    let signed = signed_with(|auth| {
        auth.store(given).on_store_error(move |error| {
            assert_eq!(error.cause.to_string(), "the disk is on fire");
            tell.lock().unwrap().push(error.operation);
        })
    })
    .await;
    (signed, store, told)
}

#[tokio::test]
async fn p53_c22_the_next_refresh_token_is_written_before_the_access_token_is_used() {
    let (signed, store, told) = noting().await;
    assert_eq!(store.take(), ["lock", "save refresh-1, too late", "unlock"]);
    signed.rig.cache.token().await.unwrap();
    assert_eq!(store.take(), ["lock", "load", "unlock"]);
    for (sent, next) in [("refresh-1", "refresh-2"), ("refresh-2", "refresh-3")] {
        signed.end_token().await;
        store.0.waits.store(true, Ordering::SeqCst);
        signed.rig.cache.token().await.unwrap();
        store.0.waits.store(false, Ordering::SeqCst);
        // One lock around all of it.
        let (sent, saved) = (format!("save {sent}"), format!("save {next}"));
        // First, that it is on its way.
        let expected = ["lock", "load", sent.as_str(), saved.as_str(), "unlock"];
        assert_eq!(store.take(), expected);
    }
    assert!(told.lock().unwrap().is_empty());
}

#[tokio::test]
async fn c22_a_store_that_fails_takes_nothing_down() {
    use StoreOperation::{Load, Lock, Save};
    for fails in [
        &[Lock][..],
        &[Load],
        &[Save],
        &[Load, Save],
        &[Lock, Load, Save],
    ] {
        let (signed, store, told) = noting().await;
        signed.rig.cache.token().await.unwrap();
        assert!(told.lock().unwrap().is_empty());
        store.fail(fails);
        for _ in 0..3 {
            signed.end_token().await;
            signed.rig.cache.token().await.unwrap();
            assert_eq!(signed.rig.get("orders").await.status(), 200);
        }
        let said = std::mem::take(&mut *told.lock().unwrap());
        assert!(!said.is_empty() && said.iter().all(|said| fails.contains(said)));
        assert_eq!(signed.refreshes(), ["refresh-1", "refresh-2", "refresh-3"]);
        // It is back: what was not written is.
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
        assert!(told.lock().unwrap().is_empty());
    }
}

/// A store whose lock somebody else may have.
#[derive(Clone)]
struct Shared {
    store: MemoryStore,
    is_taken: Arc<AtomicBool>,
}

impl TokenStore for Shared {
    type Locked = <MemoryStore as TokenStore>::Locked;

    async fn lock(&self) -> Result<Self::Locked, BoxError> {
        if self.is_taken.load(Ordering::SeqCst) {
            return Err(BusyStore::new("somebody has it").into());
        }
        self.store.lock().await
    }
}

#[tokio::test]
async fn p206_while_somebody_has_the_lock_nothing_is_sent() {
    let store = Shared {
        store: MemoryStore::new(),
        is_taken: Arc::default(),
    };
    let signed = signed_with(|auth| auth.store(store.clone())).await;
    signed.rig.cache.token().await.unwrap();
    store.is_taken.store(true, Ordering::SeqCst);
    signed.end_token().await;
    let error = signed.rig.cache.token().await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(signed.refreshes().is_empty());
    store.is_taken.store(false, Ordering::SeqCst);
    signed.rig.clock.advance(60 * SECOND);
    signed.rig.cache.token().await.unwrap();
    assert_eq!(signed.refreshes(), ["refresh-1"]);
}

#[tokio::test]
async fn c22_what_was_only_sent_is_not_newer_than_the_store() {
    for answer in [Answer::drop_connection(), Answer::unavailable(0)] {
        let (signed, store, _) = noting().await;
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
async fn c22_a_store_that_takes_nothing_does_not_make_it_be_sent_more_often() {
    let (signed, store, _) = noting().await;
    signed.rig.cache.token().await.unwrap();
    store.fail(&[StoreOperation::Save]);
    signed.rig.idp.always(Answer::drop_connection());
    for _ in 0..4 {
        signed.refresh().await.unwrap_err();
        signed.rig.clock.advance(600 * SECOND);
    }
    assert_eq!(signed.refreshes(), ["refresh-1"; 2]);
    // Nor, once it takes something, by another process.
    store.fail(&[]);
    let error = signed.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
}

#[tokio::test]
async fn c22_an_answer_to_another_process_shows_that_it_was_not_used() {
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
    // It begins anew, here too.
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
async fn c22_what_the_store_did_not_take_is_written_with_the_next_question() {
    let (signed, store, _) = noting().await;
    signed.rig.cache.token().await.unwrap();
    store.fail(&[StoreOperation::Save]);
    signed.refresh().await.unwrap();
    store.fail(&[]);
    store.take();
    // Another cache of the same session, which needs no exchange.
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
async fn c22_what_the_store_did_not_take_replaces_nothing_newer() {
    let (signed, store, _) = noting().await;
    signed.rig.cache.token().await.unwrap();
    store.fail(&[StoreOperation::Save]);
    for _ in 0..2 {
        signed.end_token().await;
        signed.rig.cache.token().await.unwrap();
    }
    store.fail(&[]);
    // Somebody signs in anew, somewhere else.
    signed_in(&signed.auth).await;
    store.take();
    signed.end_token().await;
    signed.rig.cache.token().await.unwrap();
    // Its access token.
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
async fn c22_so_it_is_with_refresh_tokens_that_stay() {
    let (signed, store, _) = noting().await;
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
async fn c22_what_the_store_did_not_take_undoes_no_logout() {
    let (signed, store, _) = noting().await;
    signed.rig.cache.token().await.unwrap();
    store.fail(&[StoreOperation::Save]);
    signed.refresh().await.unwrap();
    store.fail(&[]);
    // In another process.
    signed.auth.session().logout().await.unwrap();
    store.take();
    signed.end_token().await;
    let error = signed.rig.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert_eq!(signed.refreshes(), ["refresh-1"]);
    assert_eq!(store.take(), ["lock", "load", "unlock"]);
}

#[tokio::test]
async fn c22_what_the_store_did_not_take_outlives_that_its_predecessor_is_refused() {
    let (signed, store, _) = noting().await;
    signed.rig.cache.token().await.unwrap();
    store.fail(&[StoreOperation::Save]);
    signed.refresh().await.unwrap();
    store.fail(&[]);
    // Another process can know no better than to send it again.
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
async fn c22_a_store_that_cannot_be_read_is_no_reason_to_sign_in_again() {
    for operation in [StoreOperation::Lock, StoreOperation::Load] {
        let (signed, store, told) = noting().await;
        store.fail(&[operation]);
        // A process that has just started, and knows nothing yet.
        let elsewhere = signed.elsewhere();
        let error = elsewhere.token().await.unwrap_err();
        assert_ne!(error.kind(), ErrorKind::SignInRequired);
        assert!(error.is_retryable());
        assert_eq!(*told.lock().unwrap(), [operation]);
        store.fail(&[]);
        signed.rig.clock.advance(60 * SECOND);
        elsewhere.token().await.unwrap();
        assert_eq!(signed.rig.idp.token_requests(), 1);
    }
}

#[tokio::test]
async fn p49_without_a_refresh_token_a_session_lasts_as_long_as_its_token() {
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
async fn p55_a_session_shows_no_secret() {
    let (signed, store, _) = noting().await;
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
async fn c22_a_session_begins_anew_with_each_login() {
    let signed = signed().await;
    signed.rig.cache.token().await.unwrap();
    // Another person, or the same, in the same place.
    let again = TokenCache::new(signed_in(&signed.auth).await);
    assert_eq!(again.token().await.unwrap().expose_secret(), "token-2");
    again.refresh().await.unwrap();
    assert_eq!(signed.refreshes(), ["refresh-2"]);
}
