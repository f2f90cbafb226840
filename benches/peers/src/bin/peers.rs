//! Measures, prints the table, and writes it and the chart to the folder of `Cargo.toml`.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use peers::{
    BoxError, chart, facts, install_crypto, load,
    peers::{Entry, FLOOR, NOOP, Start, all, kube_client},
    table::{self, Row},
    time::{self, Contender, Figures, SETUPS},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

fn main() -> Result<(), BoxError> {
    if kube_client::was_the_plugin()? {
        return Ok(());
    }
    offline()?;
    open_files()?;
    install_crypto()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let entries = all();
    let rows = {
        // This thread polls some futures itself, which needs the runtime.
        let _runtime = runtime.enter();
        measure(&runtime, &entries)?
    };
    let table = table::table(&facts::circumstances()?, &rows)?;
    println!("{table}");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::write(here.join("RESULTS.md"), table)?;
    fs::write(here.join("results.svg"), chart::chart(&rows)?)?;
    Ok(())
}

fn measure(runtime: &tokio::runtime::Runtime, entries: &[Entry]) -> Result<Vec<Row>, BoxError> {
    eprintln!("allocations …");
    let allocations = allocations(entries.len())?;

    let started = |start: Start| runtime.block_on(start.with_a_token());
    let mut ratios = vec![Figures::default(); entries.len()];
    let mut scaling = ratios.clone();
    for setup in 1..=SETUPS {
        eprintln!("time per request, alone and on two threads: {setup} of {SETUPS} …");
        let (floor, noop) = (started(FLOOR)?, started(NOOP)?);
        let contenders = entries
            .iter()
            .map(|entry| {
                Ok(Contender {
                    peer: started(entry.start)?,
                    without: entry.without.map(started).transpose()?,
                })
            })
            .collect::<Result<Vec<_>, BoxError>>()?;
        let measured = time::ratios(&*floor, &contenders);
        for (figures, figure) in ratios.iter_mut().zip(measured) {
            figures.0.push(figure);
        }
        let measured = time::scaling(&*noop, &contenders);
        for (figures, figure) in scaling.iter_mut().zip(measured) {
            figures.0.extend(figure);
        }
    }
    let mut rows = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let name = entry.name()?;
        eprintln!("a thousand callers, and a stream: {name} …");
        rows.push(Row {
            name,
            what: entry.what,
            ratio: ratios[at].median(),
            allocations: allocations[at],
            scaling: scaling[at].clone(),
            crowd: runtime.block_on(load::crowd(entry))?,
            lifetime: entry.lifetime,
            stream: runtime.block_on(load::stream(entry))?,
            less: entry.less,
        });
    }
    Ok(rows)
}

/// Runs the program `allocations` of this package.
fn allocations(count: usize) -> Result<Vec<f64>, BoxError> {
    let cargo = env::var_os("CARGO").ok_or("start this with `cargo run`")?;
    let mut command = Command::new(cargo);
    command
        .args(["run", "--quiet", "--release", "--bin", "allocations"])
        .args(["--manifest-path", MANIFEST])
        .stderr(Stdio::inherit());
    // `cargo run` has set these variables. Their change would rebuild ring.
    for (name, _) in env::vars() {
        if name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_PKG_") {
            command.env_remove(name);
        }
    }
    let output = command.output()?;
    let output = String::from_utf8(output.stdout)?;
    let allocations: Vec<f64> = output.lines().map(str::parse).collect::<Result<_, _>>()?;
    if allocations.len() != count {
        return Err("the program `allocations` failed".into());
    }
    Ok(allocations)
}

/// Checks that no proxy is set: some peers' clients would not reach the loopback.
fn offline() -> Result<(), BoxError> {
    for name in ["http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"] {
        if env::var_os(name).is_some() {
            return Err(format!("unset {name}: the servers are on loopback").into());
        }
    }
    Ok(())
}

/// Raises the limit of open files: a thousand callers may have a thousand connections, with both ends in
/// this process.
fn open_files() -> Result<(), BoxError> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )?;
    Ok(())
}
