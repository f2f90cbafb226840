//! The npm package `oidc-provider` as a child process: see `tests/e2e/oidc_provider/server/server.mjs`.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use http::{StatusCode, header};
use serde_json::{Value, json};
use url::Url;

use super::{missing_from_npm, npm_package};

/// How long the child may take to open its ports.
const START: Duration = Duration::from_secs(60);
/// The number of polls, and the pause between them, for something that takes time.
const TRIES: usize = 55;
const PAUSE: Duration = Duration::from_millis(100);

/// A running oidc-provider and its protected API. Killed when dropped.
pub(crate) struct OidcProvider {
    issuer: String,
    api: String,
    control: reqwest::Client,
    child: Child,
    /// Reads stderr, which is printed if the test fails.
    stderr: Option<JoinHandle<String>>,
}

/// The server's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) token_requests: u64,
    pub(crate) token_requests_failed: u64,
    pub(crate) api_ok: u64,
    pub(crate) api_401: u64,
}

impl OidcProvider {
    /// Starts with the clients of `server.mjs`, and a token lifetime of a minute.
    pub(crate) fn start() -> Self {
        Self::start_with(json!({}))
    }

    /// Starts with a configuration (see `server.mjs`).
    pub(crate) fn start_with(config: Value) -> Self {
        let mut child = Command::new("node")
            .arg("server.mjs")
            .current_dir(npm_package())
            // Not as an argument, which all users of the machine can see.
            .env("OIDC_TEST_CONFIG", config.to_string())
            // The server exits when this pipe closes, also when this process is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`node`");
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let client = match config["tls"]["cert"].as_str() {
            Some(pem) => client
                .tls_certs_only([reqwest::Certificate::from_pem(pem.as_bytes())
                    .expect("the server's certificate")]),
            None => client,
        };
        let stdout = child.stdout.take().expect("a pipe");
        let stderr = child.stderr.take().expect("a pipe");
        let mut provider = Self {
            issuer: String::new(),
            api: String::new(),
            control: client.build().expect("a client"),
            child,
            stderr: Some(thread::spawn(move || read_all(stderr))),
        };
        let line = first_line(stdout).expect("server.mjs did not start: see its stderr below");
        let ports = parse(line);
        let port = |name: &str| ports[name].as_str().expect("a URL").to_owned();
        provider.issuer = port("issuer");
        provider.api = port("api");
        provider
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(crate) fn token_url(&self) -> String {
        format!("{}/token", self.issuer)
    }

    pub(crate) fn api_url(&self) -> String {
        format!("{}/", self.api)
    }

    /// The protected resource.
    pub(crate) fn resource(&self) -> String {
        format!("{}/resource", self.api)
    }

    pub(crate) async fn stats(&self) -> Stats {
        let url = format!("{}/control/stats", self.api);
        let stats = parse(self.send(self.control.get(url)).await);
        let count = |name: &str| stats[name].as_u64().expect("a count");
        Stats {
            token_requests: count("token_requests"),
            token_requests_failed: count("token_requests_failed"),
            api_ok: count("api_ok"),
            api_401: count("api_401"),
        }
    }

    /// Revokes all tokens, and returns their number.
    pub(crate) async fn revoke_all(&self) -> Value {
        let url = format!("{}/control/revoke-all", self.api);
        let answer = parse(self.send(self.control.post(url)).await);
        answer["revoked"].clone()
    }

    /// Introspects a token (RFC 7662) as the client `basic-client`.
    pub(crate) async fn introspect(&self, token: &str) -> Value {
        let url = format!("{}/token/introspection", self.issuer);
        let request = self
            .control
            .post(url)
            .basic_auth("basic-client", Some("basic-secret"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("token={token}"));
        parse(self.send(request).await)
    }

    /// The status of an API request with this token, without the layer.
    pub(crate) async fn status_with(&self, token: &str) -> u16 {
        let request = self.control.get(self.resource()).bearer_auth(token);
        let response = request.send().await.expect("an answer of the API");
        response.status().as_u16()
    }

    /// Signs in like a browser, through the forms of oidc-provider's development mode. Returns the
    /// callback URL.
    pub(crate) async fn sign_in(&self, login: &str) -> String {
        let mut cookies = BTreeMap::new();
        let mut url: Url = login.parse().expect("the URL of a login");
        let mut forms = ["prompt=login&login=me&password=mine", "prompt=consent"].into_iter();
        while url.path() != "/callback" {
            let request = if url.path().starts_with("/interaction/") {
                let form = forms.next().expect("only two pages");
                let request = self.control.post(url.clone()).body(form);
                request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            } else {
                self.control.get(url.clone())
            };
            let jar: Vec<_> = cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let request = request.header(header::COOKIE, jar.join("; "));
            let response = request.send().await.expect("an answer of the harness");
            assert_eq!(response.status(), StatusCode::SEE_OTHER, "{}", url.path());
            for cookie in response.headers().get_all(header::SET_COOKIE) {
                let cookie = cookie.to_str().expect("a cookie");
                let cookie = cookie.split(';').next().unwrap_or_default();
                let (name, value) = cookie.split_once('=').expect("a cookie");
                cookies.insert(name.to_owned(), value.to_owned());
            }
            let location = response.headers()[header::LOCATION].to_str();
            url = url.join(location.expect("a URL")).expect("a URL");
        }
        url.into()
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Bytes {
        let response = request.send().await.expect("an answer of the harness");
        assert_eq!(response.status(), 200, "{}", response.url());
        response.bytes().await.expect("the whole answer")
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let stderr = self.stderr.take().and_then(|reader| reader.join().ok());
            let stderr = stderr.unwrap_or_default();
            eprintln!("--- stderr of oidc-provider:\n{stderr}---");
        }
    }
}

/// Polls until the answer is `Some`, a bounded number of times (about 6 s).
///
/// Only for the lifetime of a token on the server's clock, which a test cannot control.
pub(crate) async fn poll<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..TRIES {
        if let Some(answer) = ask().await {
            return answer;
        }
        #[allow(clippy::disallowed_methods, reason = "real time, see above")]
        tokio::time::sleep(PAUSE).await;
    }
    panic!("{what}: not within {TRIES} polls");
}

/// The client for user sign-in, without a redirect URI.
#[cfg(any(feature = "login", feature = "reqwest", feature = "seal"))]
pub(crate) fn native_client(issuer: &str) -> bearer_auth::AuthorizationCodeBuilder {
    let [authorization_url, token_url] = ["auth", "token"].map(|path| format!("{issuer}/{path}"));
    bearer_auth::AuthorizationCode::builder(authorization_url, token_url, "native-client")
        .issuer_always_sent(issuer)
        .scope("openid offline_access")
        .param("prompt", "consent")
}

pub(crate) fn parse(body: impl AsRef<[u8]>) -> Value {
    serde_json::from_slice(body.as_ref()).expect("JSON of the harness")
}

pub(crate) fn missing() -> Option<String> {
    missing_from_npm("oidc-provider")
}

fn first_line(stdout: impl Read + Send + 'static) -> Option<String> {
    let (sender, line) = mpsc::channel();
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        if stdout.read_line(&mut line).is_ok_and(|read| read > 0) {
            let _ = sender.send(line);
        }
        // The child writes nothing else; keep the pipe open until it exits.
        let _ = stdout.read_line(&mut String::new());
    });
    line.recv_timeout(START).ok()
}

fn read_all(mut stderr: impl Read) -> String {
    let mut text = Vec::new();
    let _ = stderr.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}
