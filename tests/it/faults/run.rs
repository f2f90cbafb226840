//! Runs one cell of the matrix.

use std::{
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::faults::{
    cell::{Cell, Has, Next, Phase, Sees, Token, Waits},
    fault::Fault,
    rig::Rig,
};

const NANO: Duration = Duration::from_nanos(1);

/// Compares a fault's outcome with `promised`, and checks the pause that `promised` states.
pub(crate) async fn run(phase: Phase, fault: Fault, promised: &Cell) -> Result<(), String> {
    let rig = Rig::new(phase, fault).await;
    rig.begin().await;
    let (asked, requests) = (rig.line.sends(), rig.api.requests());
    rig.inject();
    let began = rig.elapsed();

    let mut caller = rig.request();
    let (sees, waits) = match caller
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(sees) => (sees, Waits::No),
        Poll::Pending => {
            let caller = tokio::spawn(caller);
            rig.pass_until(|| caller.is_finished()).await;
            let waited = Waits::For(rig.elapsed() - began);
            (caller.await.unwrap(), waited)
        }
    };
    let sent = rig.api.requests() - requests;
    rig.pass_until(|| !rig.cache.status().fetching).await;
    let found = Cell {
        sees,
        waits,
        sent,
        asks: rig.line.sends() - asked,
        next: promised.next,
        has: rig.has(),
    };
    if found != *promised {
        return Err(format!("{found}"));
    }

    match promised.next {
        Some(next) => retries_after_the_pause(&rig, next).await?,
        None => no_token_request_follows(&rig).await?,
    }
    recovers(&rig, promised).await?;
    rig.each_arrived_once()
}

/// Checks that no token request is sent during the pause, and the promised number after it.
async fn retries_after_the_pause(rig: &Rig, next: Next) -> Result<(), String> {
    let status = rig.cache.status();
    if status.last_error.is_some() && status.retry_after != Some(next.pause) {
        return Err(format!("the next attempt is in {:?}", status.retry_after));
    }
    let asked = rig.line.sends();
    let mut early = None;
    if let Some(almost) = next.pause.checked_sub(NANO) {
        rig.clock.advance(almost);
        let caller = tokio::spawn(rig.request());
        // This request is answered without the server, or waits for the end of the pause.
        rig.clock.settle().await;
        if rig.line.sends() != asked {
            return Err("a token request before the end of the pause".to_owned());
        }
        early = Some(caller);
        rig.clock.advance(NANO);
    }
    let caller = tokio::spawn(rig.request());
    let is_answered = || caller.is_finished() && early.as_ref().is_none_or(|c| c.is_finished());
    rig.pass_until(is_answered).await;
    rig.pass_until(|| !rig.cache.status().fetching).await;
    match rig.line.sends() - asked {
        asks if asks == next.asks => Ok(()),
        asks => Err(format!("{asks} token requests after the pause")),
    }
}

/// Checks that the cached token serves further requests.
async fn no_token_request_follows(rig: &Rig) -> Result<(), String> {
    let asked = rig.line.sends();
    for _ in 0..3 {
        let caller = tokio::spawn(rig.request());
        rig.pass_until(|| caller.is_finished()).await;
        rig.clock.settle().await;
    }
    match rig.line.sends() - asked {
        0 => Ok(()),
        asks => Err(format!("{asks} unnecessary token requests")),
    }
}

/// Checks that there is a new token after the fault and its pause.
async fn recovers(rig: &Rig, promised: &Cell) -> Result<(), String> {
    rig.recover();
    let pause = promised.next.map_or(Duration::ZERO, |next| next.pause);
    let retry_after = rig.cache.status().retry_after.unwrap_or_default();
    // After a second rejection the pause is two seconds.
    let pause = pause.max(retry_after).max(Duration::from_secs(2));
    rig.clock.advance(pause);
    let caller = tokio::spawn(rig.request());
    rig.pass_until(|| caller.is_finished()).await;
    rig.pass_until(|| !rig.cache.status().fetching).await;
    match rig.has() {
        Has::Good(Token::New) => {}
        other => return Err(format!("after the fault, the cache has {other}")),
    }
    let caller = tokio::spawn(rig.request());
    rig.pass_until(|| caller.is_finished()).await;
    let sees = caller.await.unwrap();
    if sees != Sees::Sent(Token::New) {
        return Err(format!("after the fault, a request gets {sees}"));
    }
    rig.another_process_continues_the_session().await;
    Ok(())
}
