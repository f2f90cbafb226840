//! A proxy between a process and Redis, which simulates network failures.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinHandle,
};

use super::Redis;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Passes,
    /// Every connection is closed at once.
    Closes,
    /// No answer comes back.
    IsSilent,
    /// The answers are of another protocol.
    TalksNonsense,
}

/// A proxy in front of Redis. Closed when dropped.
pub(crate) struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
    faults: Arc<Faults>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Faults {
    /// Which of the next answers to scripts are lost, together with their connections.
    lose: Mutex<VecDeque<bool>>,
    /// The number of scripts that pass before the next one waits for `release`.
    pass_before_hold: Mutex<Option<usize>>,
    is_holding: AtomicBool,
    gate: Notify,
    connections: AtomicU64,
    /// Connections up to this number are dead, and neither end was notified.
    dead: AtomicU64,
}

impl Proxy {
    pub(crate) async fn start(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, _) = watch::channel(Mode::Passes);
        let faults = Arc::<Faults>::default();
        let upstream = redis.port();
        let (modes, shared) = (mode.clone(), Arc::clone(&faults));
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = shared.connections.fetch_add(1, SeqCst) + 1;
                let (mode, faults) = (modes.subscribe(), Arc::clone(&shared));
                tokio::spawn(async move {
                    // A closed connection does not fail the test.
                    let _ = serve(client, upstream, number, mode, &faults).await;
                });
            }
        });
        Self {
            port,
            mode,
            faults,
            task,
        }
    }

    pub(crate) fn client(&self) -> redis::Client {
        redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).unwrap()
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Loses the answers to these of the next scripts, which run.
    pub(crate) fn lose_answers(&self, which: impl IntoIterator<Item = bool>) {
        *self.faults.lose.lock().unwrap() = which.into_iter().collect();
    }

    /// Whether all scripts of [`lose_answers`](Self::lose_answers) have come.
    pub(crate) fn has_lost_answers(&self) -> bool {
        self.faults.lose.lock().unwrap().is_empty()
    }

    /// Delays the script after the next `count`, until [`release`](Self::release).
    pub(crate) fn hold_after(&self, count: usize) {
        self.faults.is_holding.store(false, SeqCst);
        *self.faults.pass_before_hold.lock().unwrap() = Some(count);
    }

    pub(crate) fn is_holding(&self) -> bool {
        self.faults.is_holding.load(SeqCst)
    }

    pub(crate) fn release(&self) {
        self.faults.gate.notify_one();
    }

    pub(crate) fn connections(&self) -> u64 {
        self.faults.connections.load(SeqCst)
    }

    /// Simulates a power loss of the server: existing connections never get an answer. New connections
    /// work, as if a replacement had taken over.
    pub(crate) fn forget_connections(&self) {
        self.faults.dead.store(self.connections(), SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.mode.send_replace(Mode::Closes);
    }
}

impl Faults {
    async fn wait(&self) {
        let is_its_turn = {
            let mut passing = self.pass_before_hold.lock().unwrap();
            let is_its_turn = *passing == Some(0);
            *passing = passing.and_then(|count| count.checked_sub(1));
            is_its_turn
        };
        if is_its_turn {
            self.is_holding.store(true, SeqCst);
            self.gate.notified().await;
        }
    }
}

async fn serve(
    mut client: TcpStream,
    upstream: u16,
    number: u64,
    mut mode: watch::Receiver<Mode>,
    faults: &Faults,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).await?;
    let (mut question, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
    let mut is_script = false;
    loop {
        let now = *mode.borrow_and_update();
        if now == Mode::Closes {
            return Ok(());
        }
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return Ok(()) },
            read = client.read(&mut question) => {
                let read = &question[..read?];
                if read.is_empty() {
                    return Ok(());
                }
                match now {
                    _ if number <= faults.dead.load(SeqCst) => {}
                    Mode::Passes => {
                        if read.windows(4).any(|name| name == b"EVAL") {
                            is_script = true;
                            faults.wait().await;
                        }
                        server.write_all(read).await?;
                    }
                    Mode::TalksNonsense => client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await?,
                    Mode::Closes | Mode::IsSilent => {}
                }
            }
            read = server.read(&mut answer) => {
                let read = &answer[..read?];
                if read.is_empty() {
                    return Ok(());
                }
                if number <= faults.dead.load(SeqCst) || now == Mode::IsSilent {
                    continue;
                }
                if is_script && faults.lose.lock().unwrap().pop_front() == Some(true) {
                    return Ok(());
                }
                is_script = false;
                client.write_all(read).await?;
            }
        }
    }
}
