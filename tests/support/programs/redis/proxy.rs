//! What is between a process and Redis, and fails as networks do.

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
    /// Nothing comes back.
    IsSilent,
    /// What comes back is of another protocol.
    TalksNonsense,
}

/// A port in front of Redis. Closed when dropped.
pub(crate) struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
    rest: Arc<Rest>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Rest {
    /// Which of the coming answers to scripts get lost, and their connections with them.
    lose: Mutex<VecDeque<bool>>,
    /// After so many further scripts the next one waits to be let on.
    holds: Mutex<Option<usize>>,
    is_held: AtomicBool,
    gate: Notify,
    connections: AtomicU64,
    /// Connections up to that one are dead, which nobody was told.
    dead: AtomicU64,
}

impl Proxy {
    pub(crate) async fn start(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, _) = watch::channel(Mode::Passes);
        let rest = Arc::<Rest>::default();
        let upstream = redis.port();
        let (modes, shared) = (mode.clone(), Arc::clone(&rest));
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = shared.connections.fetch_add(1, SeqCst) + 1;
                let (mode, rest) = (modes.subscribe(), Arc::clone(&shared));
                tokio::spawn(async move {
                    // That an end goes away is no failure of the test.
                    let _ = serve(client, upstream, number, mode, &rest).await;
                });
            }
        });
        Self {
            port,
            mode,
            rest,
            task,
        }
    }

    pub(crate) fn client(&self) -> redis::Client {
        redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).unwrap()
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Of the next scripts, those are run and nobody hears of it.
    pub(crate) fn lose_answers(&self, which: impl IntoIterator<Item = bool>) {
        *self.rest.lose.lock().unwrap() = which.into_iter().collect();
    }

    /// Whether all scripts have come that [`lose_answers`](Self::lose_answers) was about.
    pub(crate) fn has_lost_them(&self) -> bool {
        self.rest.lose.lock().unwrap().is_empty()
    }

    /// Holds the script after the next `count`, until it is [let on](Self::let_on).
    pub(crate) fn hold_after(&self, count: usize) {
        self.rest.is_held.store(false, SeqCst);
        *self.rest.holds.lock().unwrap() = Some(count);
    }

    pub(crate) fn holds(&self) -> bool {
        self.rest.is_held.load(SeqCst)
    }

    pub(crate) fn let_on(&self) {
        self.rest.gate.notify_one();
    }

    pub(crate) fn connections(&self) -> u64 {
        self.rest.connections.load(SeqCst)
    }

    /// As a machine that has lost its power: nothing comes back on what is connected, for ever; who
    /// connects anew reaches the one that has taken its place.
    pub(crate) fn forget_connections(&self) {
        self.rest.dead.store(self.connections(), SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.mode.send_replace(Mode::Closes);
    }
}

impl Rest {
    async fn wait(&self) {
        let is_its_turn = {
            let mut holds = self.holds.lock().unwrap();
            let is_its_turn = *holds == Some(0);
            *holds = holds.and_then(|count| count.checked_sub(1));
            is_its_turn
        };
        if is_its_turn {
            self.is_held.store(true, SeqCst);
            self.gate.notified().await;
        }
    }
}

async fn serve(
    mut client: TcpStream,
    upstream: u16,
    number: u64,
    mut mode: watch::Receiver<Mode>,
    rest: &Rest,
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
                    _ if number <= rest.dead.load(SeqCst) => {}
                    Mode::Passes => {
                        if read.windows(4).any(|name| name == b"EVAL") {
                            is_script = true;
                            rest.wait().await;
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
                if number <= rest.dead.load(SeqCst) || now == Mode::IsSilent {
                    continue;
                }
                if is_script && rest.lose.lock().unwrap().pop_front() == Some(true) {
                    return Ok(());
                }
                is_script = false;
                client.write_all(read).await?;
            }
        }
    }
}
