//! `glewlwyd`, an authorization server in C, as a child process: with a temporary database, an OpenID
//! Connect plugin, one user, and the clients that a test registers.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use http::header;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::find;

/// The database schema of Debian's package, with the administrator `admin` / `password`.
const TABLES: &str = "/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3";
const MODULES: &str = "/usr/lib/glewlwyd";
/// The limit of waiting for a log line.
const PATIENCE: Duration = Duration::from_secs(60);
/// The key that signs its tokens.
pub(crate) const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A running server. Killed when dropped.
pub(crate) struct Glewlwyd {
    origin: String,
    http: Client,
    admin: User,
    child: Child,
    /// The server is killed when this pipe closes, also when this process is killed.
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: Vec<String>,
    _directory: TempDir,
}

/// A signed-in user: the session cookie.
pub(crate) struct User(String);

impl Glewlwyd {
    /// Starts a server on a loopback address that no other test uses.
    pub(crate) async fn start(ip: &str) -> Self {
        let port = {
            let listener = TcpListener::bind((ip, 0)).expect("an address of loopback");
            listener.local_addr().expect("its port").port()
        };
        let origin = format!("http://{ip}:{port}");
        let directory = tempfile::tempdir().expect("a directory");
        let database = directory.path().join("glewlwyd.db");
        let filled = Command::new("sqlite3")
            .arg(&database)
            .stdin(File::open(TABLES).expect("the tables"))
            .status();
        assert!(filled.expect("sqlite3, a dependency").success());
        let config = directory.path().join("glewlwyd.conf");
        fs::write(&config, configuration(ip, port, &database)).expect("a file");

        let mut child = Command::new("sh")
            .args([
                "-c",
                "\"$@\" 2>&1 & cat; kill -9 $!; wait",
                "sh",
                "glewlwyd",
            ])
            .arg(format!("--config-file={}", config.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut server = Self {
            origin,
            http: Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .expect("a client"),
            admin: User(String::new()),
            stdin: child.stdin.take(),
            child,
            lines,
            log: Vec::new(),
            _directory: directory,
        };
        server.log_until("Glewlwyd started on port");
        // It logs this shortly before it opens the port.
        let is_open = async {
            while TcpStream::connect((ip, port)).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        let opened = tokio::time::timeout(PATIENCE, is_open).await;
        opened.expect("the port is opened");
        server.admin = server.sign_in("admin", "password").await;
        server.set_up().await;
        server
    }

    /// Adds the user `ada`, scopes, and the OAuth plugin.
    async fn set_up(&self) {
        for name in ["orders", "introspect"] {
            let scope = json!({ "name": name, "display_name": name, "password_required": false });
            self.administer("scope", &scope).await;
        }
        let ada = json!({ "username": "ada", "password": "lovelace", "scope": ["orders"] });
        self.administer("user", &ada).await;
        let plugin = json!({
            "module": "oidc",
            "name": "oidc",
            "display_name": "OpenID Connect",
            "parameters": {
                "iss": self.issuer(),
                "oauth-as-iss-id": true,
                "subject-type": "public",
                "jwt-type": "sha",
                "jwt-key-size": "256",
                "key": KEY,
                "access-token-duration": 3600,
                "refresh-token-duration": 86400,
                "code-duration": 600,
                "refresh-token-rolling": true,
                "refresh-token-one-use": "always",
                "allow-non-oidc": true,
                "auth-type-code-enabled": true,
                "auth-type-client-enabled": true,
                "auth-type-refresh-enabled": true,
                "pkce-allowed": true,
                "pkce-required": true,
                "introspection-revocation-allowed": true,
                "introspection-revocation-auth-scope": ["introspect"],
            },
        });
        self.administer("mod/plugin", &plugin).await;
    }

    /// Registers a client for the client credentials grant.
    pub(crate) async fn add_service(&self, id: &str, secret: &str, scope: &str) {
        self.add_client(&json!({
            "client_id": id,
            "password": secret,
            "confidential": true,
            "scope": [scope],
            "authorization_type": ["client_credentials"],
            "token_endpoint_auth_method": ["client_secret_basic", "client_secret_post"],
        }))
        .await;
    }

    pub(crate) async fn add_client(&self, client: &Value) {
        self.administer("client", client).await;
    }

    async fn administer(&self, what: &str, thing: &Value) {
        let request = self.http.post(format!("{}/api/{what}/", self.origin));
        self.send(request, Some(&self.admin), thing).await;
    }

    /// Signs a user in, like the login page.
    pub(crate) async fn sign_in(&self, name: &str, password: &str) -> User {
        let request = self.http.post(format!("{}/api/auth", self.origin));
        let credentials = json!({ "username": name, "password": password });
        let response = self.send(request, None, &credentials).await;
        let cookie = response.headers()[header::SET_COOKIE].to_str();
        let cookie = cookie.expect("a cookie").split(';').next();
        User(cookie.expect("a value").to_owned())
    }

    /// Grants a scope to a client, like the consent page.
    pub(crate) async fn grant(&self, user: &User, client_id: &str, scope: &str) {
        let url = format!("{}/api/auth/grant/{client_id}", self.origin);
        let grant = json!({ "scope": scope });
        self.send(self.http.put(url), Some(user), &grant).await;
    }

    /// Requests the authorization endpoint, and returns the redirect's target.
    pub(crate) async fn authorize(&self, user: &User, login_url: &str) -> String {
        // The server's pages add this when they return to the endpoint.
        let url = format!("{login_url}&g_continue");
        let request = self.http.get(url).header(header::COOKIE, &user.0);
        let response = request.send().await.expect("an answer");
        let location = response.headers()[header::LOCATION].to_str();
        location.expect("a URL").to_owned()
    }

    async fn send(
        &self,
        request: RequestBuilder,
        user: Option<&User>,
        body: &Value,
    ) -> reqwest::Response {
        let mut request = request
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.to_string());
        if let Some(User(cookie)) = user {
            request = request.header(header::COOKIE, cookie);
        }
        let response = request.send().await.expect("an answer of glewlwyd");
        assert_eq!(response.status(), 200, "{}: {body}", response.url());
        response
    }

    /// Returns the next log lines, up to one that contains `text`.
    pub(crate) fn log_until(&mut self, text: &str) -> Vec<String> {
        let mut read = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    read.push(line.clone());
                    self.log.push(line);
                }
                Err(_) => panic!("no log line of glewlwyd contains {text:?}"),
            }
            if read.last().is_some_and(|line| line.contains(text)) {
                return read;
            }
        }
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.origin
    }

    /// A URL of the OpenID Connect plugin.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/api/oidc/{path}", self.origin)
    }
}

impl Drop for Glewlwyd {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
        if thread::panicking() {
            self.log.extend(self.lines.iter());
            eprintln!("--- log of glewlwyd:\n{}\n---", self.log.join("\n"));
        }
    }
}

pub(crate) fn missing() -> Option<String> {
    let installed = find(&["glewlwyd"]).is_some()
        && find(&["sqlite3"]).is_some()
        && Path::new(TABLES).is_file()
        && Path::new(MODULES).is_dir();
    let reason = "Debian's package is not installed: `apt-get install glewlwyd dbconfig-sqlite3`";
    (!installed).then(|| reason.to_owned())
}

fn configuration(ip: &str, port: u16, database: &Path) -> String {
    let database = database.display();
    format!(
        r#"
bind_address = "{ip}"
port = {port}
external_url = "http://{ip}:{port}"
api_prefix = "api"
login_url = "login.html"
cookie_domain = "{ip}"
cookie_secure = 0
session_key = "session"
session_expiration = 3600
admin_scope = "g_admin"
profile_scope = "g_profile"
hash_algorithm = "SHA512"
log_mode = "console"
log_level = "DEBUG"
user_module_path = "{MODULES}/user"
user_middleware_module_path = "{MODULES}/user_middleware"
user_auth_scheme_module_path = "{MODULES}/scheme"
client_module_path = "{MODULES}/client"
plugin_module_path = "{MODULES}/plugin"
database = {{ type = "sqlite3" path = "{database}" }};
"#
    )
}
