//! What a request costs: alone in time, and on two threads at once in processor time.

use crate::{
    driving::AnyPeer,
    rounds::{Work, at_once, interleaved, median},
};

const ROUNDS: usize = 1_500;
const REQUESTS_A_ROUND: u64 = 500;
const PAIRS: usize = 25;
const REQUESTS_A_THREAD: u64 = 20_000;

/// A peer, and what it is like without a token, if that is not the floor.
pub struct Contender {
    pub peer: Box<dyn AnyPeer>,
    pub without: Option<Box<dyn AnyPeer>>,
}

/// The time of each as a ratio to that of the floor.
///
/// Of one with requests of its own kind: the floor and what the token adds there.
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

/// How much of the speed of one thread each of two has, as a share of what the service that does
/// nothing keeps: 1 where threads do not hinder each other.
pub fn scaling(noop: &dyn AnyPeer, contenders: &[Contender]) -> Vec<f64> {
    let kept = |peer: &dyn AnyPeer| {
        let workers = |threads| (0..threads).map(|_| peer.worker()).collect();
        let alone = at_once(REQUESTS_A_THREAD, workers(1));
        alone / at_once(REQUESTS_A_THREAD, workers(2))
    };
    let mut shares = vec![Vec::with_capacity(PAIRS); contenders.len()];
    for _ in 0..PAIRS {
        for (shares, contender) in shares.iter_mut().zip(contenders) {
            shares.push(kept(&*contender.peer) / kept(noop));
        }
    }
    shares.iter().map(|shares| median(shares)).collect()
}
