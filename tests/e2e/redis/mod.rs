//! Many processes, one Redis, one token. Here each "process" is a cache with connections of its own;
//! those that die are processes (`processes.rs`), and those that meet a real authorization
//! server are in `../oidc_provider/fleet.rs`.
//!
//! What was taken away to see it fail, by where it is, and what then went red:
//!
//! - `TAKE`: the holder (most of `access`), the generation that was seen (`who_looked_too_early`),
//!   the time in the generation (`who_is_late`), or that it grows nevertheless (`a_clock_of_redis`);
//!   a lease without an end counts (`a_lease_without_an_end`, `nor_is_it_of_a_session`); it is taken
//!   from whoever has it, and not from the one who is given (`who_takes_a_lease_from_one`).
//! - `TAKE` and `WRITE`: what no clock says, or is no number, is a generation
//!   (`an_absurd_generation`, `nor_is_it_one`).
//! - `RENEW`: all of it (`a_lease_is_prolonged`), its owner (`nobody_prolongs`). `RELEASE`: its
//!   owner (`who_is_late`); when a lease is dropped (`who_goes`, `that_it_is_sent`), when nobody
//!   knows whether it was taken (`a_lease_that_nobody_knows_of`, `so_it_is_…`), after a failed write
//!   (`what_cannot_be_written`; also if the caller waits for it).
//! - `WRITE`: the generation (`who_is_late`, `a_late_answer`), that it can be run twice
//!   (`an_answer_of_redis`), the lease before a refresh token is sent (`a_lease_that_is_lost`), the
//!   end of a token, and of the end of a session (`who_comes_later`, `who_signs_out`); it ends so
//!   long after it was written (`what_is_written_late`), or after its generation
//!   (`an_absurd_generation`), or at a time that overflows (`for_ever`), or sooner by how long the
//!   server took (`what_is_shared`).
//! - Pauses of no length, or a look after each (`who_waits`); without chance (a test of the unit).
//! - A connection that nobody answered is kept (`a_connection_that_nobody_answers`); no second try
//!   on a new one (`a_connection_that_is_closed`).
//! - Sessions: an error of the lock, of reading, or of writing that it is about to be sent lets it
//!   be sent from memory (`without_redis`, `what_cannot_be_read`, `a_lease_that_is_lost`); what came
//!   is written once (`an_answer_of_redis`, `what_came_for_a_refresh_token`); what is newer is not
//!   read, or a late refusal counts (`a_late_answer`, `a_late_refusal`); what was not sent is
//!   counted (`what_was_not_sent`), or stays so (`what_was_written_unheard`), or is taken back
//!   without the lease (`a_lease_that_is_lost`); that it is about to be sent is tried once
//!   (`that_it_is_about_to_be_sent`); damage is an outage (`what_is_no_session`).
//! - What is not written (`unsaved`): a logout does not count (`undoes_no_logout`), or a refusal does
//!   (`it_outlives`); what came late is dropped (`what_comes_late`); nothing is written in the
//!   background (`gets_there_by_itself`, `nor_does_it_replace`, `what_came_for_a_refresh_token`), or
//!   without the lease, or who asked waits for ten seconds (`gets_there_by_itself`). No pause after
//!   an answer that is lost, or one after each error (`what_was_sent_in_vain`). A sign-in waits
//!   (`who_signs_in`).
//! - Tokens: one's own or an older one is taken (`who_has_an_older_token`, `what_is_older`), no
//!   Redis is an error (all of `broken`), who waits asks (most of `access`), a failure stops nobody,
//!   or all (`a_failure_of_the_server`, `what_is_wrong_with_one`), what is left of its life, or its
//!   age if it has no end (`who_comes_later`), whoever asks by hand hears of a failure,
//!   or asks alone (`who_asks_by_hand`); who waits does so for ever, or asks alone after that, or does
//!   not wait for the next one (`a_lease_that_nobody_gives_back`).
//! - Sessions that were sent, or began, while Redis was away: nobody is waited for
//!   (`who_was_out_of_reach`), what is later does not count, what is in hand does not serve
//!   (`who_signs_in_without_redis`), what was refused is kept (`a_sign_in_that_was_overtaken`).
//! - Values open in other places (`what_is_moved`); keys without lengths, counts or kinds, or
//!   without any one of their parts (`keys`).
//! - Nobody chooses a provider of cryptography (`providers.rs`).

mod access;
mod broken;
mod foreign;
mod herd;
mod late;
mod outage;
mod processes;
mod providers;
mod sealed;
mod session;
mod topology;
mod unsaved;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bearer_auth::{
    ClientCredentials, TokenCache,
    redis::{RedisClient, SharedRedis, SharedSource},
    store::{SealingKey, StoreOperation},
    testing::MockIdp,
};

use self::outage::{Outage, Tempered};
use crate::{
    harness::Test,
    programs::redis::{Redis, until},
    support::tokens::secret,
};

pub(crate) fn tests() -> Vec<Test> {
    [
        access::tests(),
        broken::tests(),
        foreign::tests(),
        herd::tests(),
        late::tests(),
        processes::tests(),
        providers::tests(),
        sealed::tests(),
        session::tests(),
        topology::tests(),
        unsaved::tests(),
    ]
    .concat()
}

/// What goes wrong with Redis, as it is told.
type Told = Arc<Mutex<Vec<StoreOperation>>>;

fn key() -> SealingKey {
    SealingKey::new([7; 32])
}

/// Patient, so that a busy machine is no outage.
fn store(redis: &Redis) -> SharedRedis {
    patient(redis.client())
}

fn store_at(url: &str) -> SharedRedis {
    patient(redis::Client::open(url).unwrap())
}

fn patient(client: impl Into<RedisClient>) -> SharedRedis {
    SharedRedis::sealed(client, key()).timeout(Duration::from_secs(10))
}

fn source(idp: &MockIdp) -> ClientCredentials {
    ClientCredentials::builder(idp.token_url(), "client-id", "client-secret")
        .scope("orders:read")
        .build()
        .unwrap()
}

/// A process of the fleet.
fn process(idp: &MockIdp, store: SharedRedis) -> TokenCache {
    told_process(idp, store).0
}

fn told_process(idp: &MockIdp, store: SharedRedis) -> (TokenCache, Told) {
    let told = Told::default();
    let cache = TokenCache::new(telling(idp, store, &told));
    (cache, told)
}

fn telling(idp: &MockIdp, store: SharedRedis, told: &Told) -> SharedSource<ClientCredentials> {
    let tells = Arc::clone(told);
    let shared = shared(idp, store);
    shared.on_store_error(move |error| tells.lock().unwrap().push(error.operation))
}

fn shared(idp: &MockIdp, store: SharedRedis) -> SharedSource<ClientCredentials> {
    let source = source(idp);
    let key = source.token_key();
    SharedSource::new(source, store, key)
}

/// Who has the lease, and for how many milliseconds.
async fn lease(redis: &Redis) -> Option<(String, u64)> {
    let keys = redis.keys().await;
    let lease = keys.iter().find(|key| key.ends_with(":lease"))?;
    let owner: Option<String> = redis.ask(&["GET", lease]).await;
    let left: i64 = redis.ask(&["PTTL", lease]).await;
    Some((owner?, u64::try_from(left).ok()?))
}

/// As if it had run out.
async fn end_lease(redis: &Redis) {
    let keys = redis.keys().await;
    let lease = keys.iter().find(|key| key.ends_with(":lease"));
    let ended: u64 = redis.ask(&["DEL", lease.unwrap()]).await;
    assert_eq!(ended, 1);
}

/// As if all had run out, if there are any.
async fn end_leases(redis: &Redis) {
    for key in redis.keys().await {
        if key.ends_with(":lease") {
            redis.ask::<u64>(&["DEL", &key]).await;
        }
    }
}

/// Those who gave them back have been heard.
async fn leases_are_free(redis: &Redis) {
    until("all leases are given back", async || {
        let keys = redis.keys().await;
        keys.iter().all(|key| !key.ends_with(":lease"))
    })
    .await;
}
