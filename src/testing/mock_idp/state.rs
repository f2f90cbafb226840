//! The state that the servers and the test share.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch};

use super::{
    Answer, Dialect, Recorded,
    answer::{Disconnect, Kind},
    grants::{GrantId, Grants},
    port::Port,
};
use crate::clock::{Clock, Moment, Sleep};

/// The configuration, which does not change while the servers run.
#[derive(Clone, Default)]
pub(super) struct Config {
    /// Ids and secrets.
    pub(super) clients: Vec<(String, String)>,
    pub(super) clock: Clock,
    pub(super) dialect: Dialect,
    pub(super) allow_get: bool,
    /// In addition to `client_credentials`.
    pub(super) grants: Vec<String>,
    /// Allowed redirect URIs. Empty: all are allowed.
    pub(super) redirect_uris: Vec<String>,
    pub(super) sign_in_page: bool,
    pub(super) issuer_path: String,
}

impl Config {
    pub(super) fn is_allowed(&self, grant_type: &str) -> bool {
        self.grants.iter().any(|known| known == grant_type)
    }
}

pub(super) struct Shared {
    pub(super) config: Config,
    /// `http://127.0.0.1:<port>`, of the authorization server.
    pub(super) base: String,
    state: Mutex<State>,
    token_requests: watch::Sender<usize>,
    api_requests: watch::Sender<usize>,
    authorization_requests: watch::Sender<usize>,
}

pub(super) struct State {
    pub(super) lifetime: Duration,
    pub(super) expires_in: ExpiresIn,
    pub(super) token_size: usize,
    pub(super) repeat: bool,
    pub(super) tokens: HashMap<String, Token>,
    /// The keys of `tokens`, in order.
    pub(super) issued: Vec<String>,
    /// The newest token for each [`Grant::key`](super::token_endpoint::Grant::key).
    pub(super) newest: HashMap<String, String>,
    pub(super) queued: VecDeque<Answer>,
    pub(super) always: Option<Answer>,
    /// One for each `Hold`; those of dropped `Hold`s stay until the next `closed_gates`.
    pub(super) gates: Vec<watch::Receiver<()>>,
    /// By prefix, the longest first.
    pub(super) api_answers: Vec<(String, Answer)>,
    pub(super) api_unauthorized: usize,
    pub(super) grants: Grants,
    /// The error for every sign-in.
    pub(super) sign_in_error: Option<String>,
    pub(super) iss: Option<String>,
    /// Overrides of metadata members.
    pub(super) metadata: HashMap<String, serde_json::Value>,
    token_log: VecDeque<Arc<Recorded>>,
    api_log: VecDeque<Arc<Recorded>>,
    authorization_log: VecDeque<Arc<Recorded>>,
}

pub(super) enum ExpiresIn {
    /// The real lifetime.
    Lifetime,
    Verbatim(String),
    Absent,
}

pub(super) struct Token {
    pub(super) expires: Moment,
    pub(super) revoked: bool,
    /// The sign-in that it was issued for.
    pub(super) grant: Option<GrantId>,
}

/// What a request waits for, and its answer.
pub(super) struct Turn {
    pub(super) answer: Answer,
    pub(super) gates: Vec<watch::Receiver<()>>,
    pub(super) delay: Option<Sleep>,
}

impl Shared {
    pub(super) fn new(mut config: Config, address: SocketAddr) -> Self {
        if config.clients.is_empty() {
            let client = ("client-id".to_owned(), "client-secret".to_owned());
            config.clients.push(client);
        }
        Self {
            config,
            base: format!("http://{address}"),
            state: Mutex::new(State {
                lifetime: Duration::from_secs(3600),
                expires_in: ExpiresIn::Lifetime,
                token_size: 0,
                repeat: false,
                tokens: HashMap::new(),
                issued: Vec::new(),
                newest: HashMap::new(),
                queued: VecDeque::new(),
                always: None,
                gates: Vec::new(),
                api_answers: Vec::new(),
                api_unauthorized: 0,
                grants: Grants::default(),
                sign_in_error: None,
                iss: None,
                metadata: HashMap::new(),
                token_log: VecDeque::new(),
                api_log: VecDeque::new(),
                authorization_log: VecDeque::new(),
            }),
            token_requests: watch::Sender::new(0),
            api_requests: watch::Sender::new(0),
            authorization_requests: watch::Sender::new(0),
        }
    }

    pub(super) fn issuer(&self) -> String {
        format!("{}{}", self.base, self.config.issuer_path)
    }

    /// The guard must not live across an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs and counts a request, and decides its answer.
    pub(super) fn arrive(&self, port: Port, request: &Arc<Recorded>) -> Turn {
        let turn = {
            let mut state = self.lock();
            state.log(port, request.clone());
            let (answer, gates) = match port {
                Port::Token => (state.next_answer(), state.closed_gates().to_vec()),
                Port::Api => (state.api_answer(request.path()), Vec::new()),
                Port::Browser => (Answer::ok(), Vec::new()),
            };
            Turn {
                delay: self.delay(&answer),
                answer,
                gates,
            }
        };
        // Last: a test that waits for the count finds the log, the gates and the delay in place.
        self.count(port).send_modify(|count| *count += 1);
        turn
    }

    /// Takes a scripted reset, if it is next, before the token request has been read.
    pub(super) fn arrive_unread(&self) -> Option<Turn> {
        let turn = {
            let mut state = self.lock();
            let next = state.queued.front().or(state.always.as_ref())?;
            if !matches!(next.kind, Kind::Disconnect(Disconnect::Reset))
                || !state.closed_gates().is_empty()
            {
                return None;
            }
            let answer = state.next_answer();
            Turn {
                delay: self.delay(&answer),
                answer,
                gates: Vec::new(),
            }
        };
        self.count(Port::Token).send_modify(|count| *count += 1);
        Some(turn)
    }

    pub(super) fn requests(&self, port: Port) -> usize {
        *self.count(port).borrow()
    }

    pub(super) async fn requests_reach(&self, port: Port, count: usize) {
        let mut arrived = self.count(port).subscribe();
        // Cannot fail: `self` owns the sender.
        let _ = arrived.wait_for(|arrived| *arrived >= count).await;
    }

    pub(super) fn log(&self, port: Port) -> Vec<Recorded> {
        // The copies are made outside the lock.
        let log: Vec<_> = match port {
            Port::Token => self.lock().token_log.iter().cloned().collect(),
            Port::Api => self.lock().api_log.iter().cloned().collect(),
            Port::Browser => self.lock().authorization_log.iter().cloned().collect(),
        };
        log.iter().map(|request| Recorded::clone(request)).collect()
    }

    fn count(&self, port: Port) -> &watch::Sender<usize> {
        match port {
            Port::Token => &self.token_requests,
            Port::Api => &self.api_requests,
            Port::Browser => &self.authorization_requests,
        }
    }

    /// The delay starts now, not at the first poll.
    fn delay(&self, answer: &Answer) -> Option<Sleep> {
        let clock = &self.config.clock;
        (!answer.delay.is_zero()).then(|| clock.pause(answer.delay, &Handle::current()))
    }
}

impl State {
    fn log(&mut self, port: Port, request: Arc<Recorded>) {
        let log = match port {
            Port::Token => &mut self.token_log,
            Port::Api => &mut self.api_log,
            Port::Browser => &mut self.authorization_log,
        };
        if log.len() == LOG_LIMIT {
            log.pop_front();
        }
        log.push_back(request);
    }

    /// Pads a token's name to the configured [size](super::MockIdp::set_token_size).
    pub(super) fn padded(&self, mut name: String) -> String {
        // Not with `format!`, whose padding is limited to 65,535.
        name += &".".repeat(self.token_size.saturating_sub(name.len()));
        name
    }

    fn next_answer(&mut self) -> Answer {
        self.queued
            .pop_front()
            .or_else(|| self.always.clone())
            .unwrap_or_else(Answer::ok)
    }

    fn closed_gates(&mut self) -> &[watch::Receiver<()>] {
        self.gates.retain(|gate| gate.has_changed().is_ok());
        &self.gates
    }

    fn api_answer(&self, path: &str) -> Answer {
        self.api_answers
            .iter()
            .find(|(prefix, _)| path.starts_with(prefix))
            .map_or_else(Answer::ok, |(_, answer)| answer.clone())
    }
}

impl Token {
    pub(super) fn is_valid(&self, now: Moment) -> bool {
        !self.revoked && !now.reached(self.expires)
    }
}

/// Limits memory in benchmarks. The docs of the logs repeat the number.
const LOG_LIMIT: usize = 65_536;
