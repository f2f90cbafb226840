//! Prints the allocations per request, a line for each entry. A program of its own, since the counting
//! allocator would slow the other measurements down.

use allocation_counter::measure;
use peers::{
    BoxError, install_crypto,
    peers::{FLOOR, Start, all, kube_client},
};
use tokio::runtime::Runtime;

const REQUESTS: u64 = 1_000;

fn main() -> Result<(), BoxError> {
    if kube_client::was_the_plugin()? {
        return Ok(());
    }
    install_crypto()?;
    let runtime = Runtime::new()?;
    let floor = of(FLOOR, &runtime)?;
    for entry in all() {
        let floor = match entry.without {
            Some(without) => of(without, &runtime)?,
            None => floor,
        };
        println!("{}", of(entry.start, &runtime)? - floor);
    }
    Ok(())
}

fn of(start: Start, runtime: &Runtime) -> Result<f64, BoxError> {
    let peer = runtime.block_on(start.with_a_token())?;
    // Not in `block_on`, where tokio's cooperative budget would interrupt the work.
    let _runtime = runtime.enter();
    let mut work = peer.worker();
    work(1);
    let count = measure(|| work(REQUESTS)).count_total;
    Ok(count as f64 / REQUESTS as f64)
}
