//! The time of a request with a cached token, as a multiple of a request without a layer, and of one
//! with a fixed header.

mod support;

use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, SamplingMode, criterion_group, criterion_main};
use tower_layer::Layer as _;

use support::{
    ratio::Ratio,
    rounds::Work,
    stacks::{Noop, floor, layer, ours, work, work_with_a_copy},
};

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(Ratio)
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(1_500))
        // The same code differs by as much with another layout of the build.
        .noise_threshold(0.1);
    targets = once, again
}
criterion_main!(benches);

/// Without resending.
fn once(criterion: &mut Criterion<Ratio>) {
    let mut group = criterion.benchmark_group("resending off");
    for (headers, token) in SHAPES {
        let mut against = |name, floor| {
            let ours = work(ours(token), headers);
            compare(&mut group, name, (headers, token), ours, floor);
        };
        against("a fixed header", work(floor(token), headers));
        against("no layer", work(Noop, headers));
    }
}

/// With resending: the floors copy each request, too.
fn again(criterion: &mut Criterion<Ratio>) {
    let mut group = criterion.benchmark_group("resending on");
    for (headers, token) in SHAPES {
        let mut against = |name, floor| {
            let ours = work(layer(token).layer(Noop), headers);
            compare(&mut group, name, (headers, token), ours, floor);
        };
        against(
            "a fixed header and a copy",
            work_with_a_copy(floor(token), headers),
        );
        against("no layer and a copy", work_with_a_copy(Noop, headers));
    }
}

/// The number of headers, and the length of the token.
const SHAPES: [(usize, usize); 4] = [(0, 64), (0, 1_024), (4, 64), (4, 1_024)];

fn compare(
    group: &mut BenchmarkGroup<'_, Ratio>,
    name: &str,
    (headers, token): (usize, usize),
    ours: Work<'static>,
    floor: Work<'static>,
) {
    let name = format!("over {name}, {headers} headers, token of {token} B");
    let mut ratio = Ratio::of(ours, floor);
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(name, |bencher| bencher.iter_custom(&mut ratio));
}
