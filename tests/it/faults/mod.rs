//! What happens when something goes wrong, fault by fault and phase by phase: `docs/faults.md`.
//!
//! The [matrix] is what is promised, and each of its cells is [run] on real sockets, with a clock
//! that stands still. `cargo test --all-features --test it faults -- --nocapture` prints it, and with
//! `UPDATE_DOCS=1` writes it into the page.

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

/// Every fault that can happen in a phase; one line for each that is not as promised.
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
            // Nothing here waits, but a resolver that cannot be reached.
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
async fn a_fault_while_there_is_no_token_yet_is_told_to_callers_and_passes() {
    check(Phase::First).await;
}

#[tokio::test]
async fn a_fault_ahead_of_the_end_is_noticed_by_nobody() {
    check(Phase::Ahead).await;
}

#[tokio::test]
async fn a_fault_when_the_token_is_over_is_told_to_callers_and_passes() {
    check(Phase::Over).await;
}

#[tokio::test]
async fn a_fault_after_a_401_costs_nobody_a_token() {
    check(Phase::After401).await;
}

#[tokio::test]
async fn a_fault_before_a_request_is_sent_again_gives_the_caller_its_401() {
    check(Phase::Resend).await;
}
