//! Every fault in every phase: `docs/faults.md`.
//!
//! The [matrix] is the expected behavior. Each of its cells [runs](run) on real sockets, with a manual
//! clock. `cargo test --all-features --test it faults -- --nocapture` prints it; with
//! `UPDATE_DOCS=1`, it also writes the page.

mod api;
mod cell;
mod fault;
mod matrix;
mod network;
mod page;
mod rig;
mod run;
mod store;

use std::time::Duration;

use crate::faults::{cell::Phase, matrix::rows};

/// Runs every fault of a phase, and reports each unexpected outcome in one line.
async fn check(phase: Phase) {
    let mut cells = 0;
    let mut red = Vec::new();
    'cells: for row in rows() {
        let Some(promised) = row.cells[phase as usize] else {
            continue;
        };
        for fault in row.faults {
            cells += 1;
            let cell = run::run(phase, fault, &promised);
            // Only an unreachable DNS resolver takes real time.
            let found = tokio::time::timeout(Duration::from_secs(100), cell).await;
            let hangs = found.is_err();
            if let Err(found) = found.unwrap_or_else(|_| Err("a deadlock".to_owned())) {
                red.push(format!(
                    "{fault:?}\n  promised: {promised}\n  found:    {found}"
                ));
            }
            if hangs {
                break 'cells;
            }
        }
    }
    println!("{}: {cells} cells, {} red", phase.title(), red.len());
    assert!(red.is_empty(), "{phase:?}:\n{}", red.join("\n"));
    assert!(cells > 50, "only {cells}");
}

#[tokio::test]
async fn fault_without_a_token_is_an_error_until_it_ends() {
    check(Phase::First).await;
}

#[tokio::test]
async fn fault_in_the_refresh_window_leaves_the_cached_token_in_use() {
    check(Phase::RefreshWindow).await;
}

#[tokio::test]
async fn fault_with_an_expired_token_is_an_error_until_it_ends() {
    check(Phase::Expired).await;
}

#[tokio::test]
async fn fault_after_a_401_keeps_the_cached_token() {
    check(Phase::After401).await;
}

#[tokio::test]
async fn fault_before_a_resend_returns_the_401() {
    check(Phase::Resend).await;
}
