//! A token endpoint on loopback that counts its requests and answers with a delay.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::stacks;

/// How long each token request takes.
pub const DELAY: Duration = Duration::from_millis(50);
/// Token requests this close together belong to the same refresh.
const TOGETHER: Duration = Duration::from_millis(250);
const TOKEN_LENGTH: usize = 1_024;

/// A token endpoint that accepts any path, method and credentials.
#[derive(Clone, Debug)]
pub struct Endpoint {
    address: SocketAddr,
    lifetime: Duration,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    requests: usize,
    occasions: usize,
    last: Option<Instant>,
}

impl Endpoint {
    /// Starts an endpoint whose tokens live for `lifetime`. It runs as long as the runtime.
    pub async fn start(lifetime: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = Self {
            address: listener.local_addr()?,
            lifetime,
            log: Arc::default(),
        };
        let server = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(server.clone().serve(connection));
            }
        });
        Ok(endpoint)
    }

    /// `http://127.0.0.1:<port>`, without a slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> usize {
        self.log().requests
    }

    /// The number of refreshes: token requests close together count once.
    pub fn occasions(&self) -> usize {
        self.log().occasions
    }

    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Returns a token, for peers that get their tokens from a function. It takes as long and counts as
    /// much as over the socket.
    pub async fn token(&self) -> String {
        let number = self.note();
        tokio::time::sleep(DELAY).await;
        let number = format!("-{number}");
        stacks::token(TOKEN_LENGTH - number.len()) + &number
    }

    fn note(&self) -> usize {
        let mut log = self.log();
        let now = Instant::now();
        log.requests += 1;
        if log.last.is_none_or(|last| now - last > TOGETHER) {
            log.occasions += 1;
        }
        log.last = Some(now);
        log.requests
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("no thread panics with this lock")
    }

    async fn serve(self, connection: TcpStream) -> io::Result<()> {
        let mut connection = BufReader::new(connection);
        while read_request(&mut connection).await?.is_some() {
            let body = serde_json::json!({
                "access_token": self.token().await,
                "token_type": "Bearer",
                "expires_in": self.lifetime.as_secs(),
            })
            .to_string();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            connection.get_mut().write_all(answer.as_bytes()).await?;
        }
        Ok(())
    }
}

/// Reads a request to its end. `None` if there are no more.
async fn read_request(connection: &mut BufReader<TcpStream>) -> io::Result<Option<()>> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if connection.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await?;
    Ok(Some(()))
}
