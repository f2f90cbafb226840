//! The cost of a request: its time on one thread, and its CPU time on two threads at once.

use std::time::Instant;

use crate::{
    driving::AnyPeer,
    rounds::{Work, at_once, interleaved, median},
};

const ROUNDS: usize = 300;
const REQUESTS_A_ROUND: u64 = 500;
const PAIRS: usize = 5;
const ATTEMPTS: usize = 20;
const REQUESTS_A_THREAD: u64 = 20_000;

/// How often everything is set up again, since the layout in memory makes a difference.
pub const SETUPS: usize = 5;

/// A figure of each setup.
#[derive(Clone, Default)]
pub struct Figures(pub Vec<f64>);

impl Figures {
    pub fn median(&self) -> f64 {
        median(&self.0)
    }

    pub fn lowest(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn highest(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }
}

/// A peer, and the same without a token, if that is not the floor.
pub struct Contender {
    pub peer: Box<dyn AnyPeer>,
    pub without: Option<Box<dyn AnyPeer>>,
}

/// Returns the time of each contender as a ratio to that of the floor.
///
/// For a contender with requests of its own kind: the floor plus what the token adds there.
pub fn ratios(floor: &dyn AnyPeer, contenders: &[Contender]) -> Vec<f64> {
    let mut works: Vec<Work<'static>> = vec![floor.worker()];
    for contender in contenders {
        works.push(contender.peer.worker());
        if let Some(without) = &contender.without {
            works.push(without.worker());
        }
    }
    let mut figures = interleaved(ROUNDS, REQUESTS_A_ROUND, &mut works).into_iter();
    let floor = figures.next().expect("the floor is the first");
    contenders
        .iter()
        .map(|contender| {
            let mut next = || figures.next().expect("a row for each work");
            let with = next();
            let ratios: Vec<f64> = match contender.without.as_ref().map(|_| next()) {
                None => with.iter().zip(&floor).map(|(w, f)| w / f).collect(),
                Some(without) => with
                    .iter()
                    .zip(&without)
                    .zip(&floor)
                    .map(|((with, without), floor)| (floor + with - without) / floor)
                    .collect(),
            };
            median(&ratios)
        })
        .collect()
}

/// Returns the speed of each of two threads relative to one, as a share of the same for the service that
/// does nothing: 1 if the threads do not slow each other down. `None` if the two threads rarely had a
/// processor each.
pub fn scaling(noop: &dyn AnyPeer, contenders: &[Contender]) -> Vec<Option<f64>> {
    let share = |contender: &Contender| {
        let mut shares = Vec::new();
        for _ in 0..ATTEMPTS {
            // If the measurements before and after ran on two processors, so did the one between.
            let before = kept_side_by_side(noop);
            let peer = kept(&*contender.peer);
            if let (Some(noop), Some(_)) = (before, kept_side_by_side(noop)) {
                shares.push(peer / noop);
            }
            if shares.len() == PAIRS {
                break;
            }
        }
        (!shares.is_empty()).then(|| median(&shares))
    };
    contenders.iter().map(share).collect()
}

fn kept(peer: &dyn AnyPeer) -> f64 {
    cpu(peer, 1) / cpu(peer, 2)
}

/// Like `kept`. `None` if a thread had to wait for a processor.
fn kept_side_by_side(noop: &dyn AnyPeer) -> Option<f64> {
    let alone = cpu(noop, 1);
    let start = Instant::now();
    let both = cpu(noop, 2);
    let time = start.elapsed().as_nanos() as f64;
    // An eighth more for the warm-up.
    let least = both * REQUESTS_A_THREAD as f64 * 1.125;
    (time < least * 1.25).then_some(alone / both)
}

fn cpu(peer: &dyn AnyPeer, threads: usize) -> f64 {
    let workers = (0..threads).map(|_| peer.worker()).collect();
    at_once(REQUESTS_A_THREAD, workers)
}
