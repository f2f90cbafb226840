//! The tower layer `ConfigExt::auth_layer`, with tokens from a credential plugin (a program that runs for
//! each token) and from a file.

use std::{
    env,
    io::{Read as _, Write as _},
    net::TcpStream,
    task::{Context, Poll},
};

use http::{Request, Response};
use jiff::{Timestamp, ToSpan as _};
use kube_client::{
    Config,
    client::ConfigExt as _,
    config::{AuthInfo, ExecConfig, ExecInteractiveMode},
};
use tower_layer::Layer as _;
use tower_service::Service;

use super::{Entry, seconds, start};
use crate::{
    BoxError,
    driving::{Answer, Peer, Tower},
    endpoint::Endpoint,
    stacks::{API, Body},
};

/// The argument that makes this program the credential plugin. The address of the endpoint follows.
const PLUGIN: &str = "credential-plugin";

pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        package: Some("kube-client"),
        what: "`auth_layer`, credential plugin",
        start: start!(start),
        without: None,
        lifetime: seconds(62),
        run: seconds(7),
        less: "For Kubernetes. All requests take one lock, one after the other (a token file, as \
               inside a cluster, has a read-write lock), and wait for the plugin from 60 s before \
               expiry. If it fails, each request runs it again, and fails although the token is \
               valid. Dropping the caller that waits for the plugin loses its token. No 401 \
               handling. No check of the token's destination: the client around it has one host. \
               Wall clock only",
    }]
}

/// `Noop`, with the error type that this layer requires of the service below.
#[derive(Clone, Copy)]
struct Inner;

impl Service<Request<Body>> for Inner {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Answer<BoxError>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Answer::to(request)
    }
}

async fn start(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    let command = env::current_exe()?.into_os_string().into_string();
    let command = command.map_err(|path| format!("not Unicode: {path:?}"))?;
    let mut exec: ExecConfig = serde_json::from_value(serde_json::json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": command,
        "args": [PLUGIN, endpoint.url()],
    }))?;
    exec.interactive_mode = Some(ExecInteractiveMode::Never);
    let mut config = Config::new(API.parse()?);
    config.auth_info = AuthInfo {
        exec: Some(exec),
        ..AuthInfo::default()
    };
    // Runs the plugin for the first time, and waits for it.
    let layer = tokio::task::spawn_blocking(move || config.auth_layer()).await??;
    let layer = layer.ok_or("no authentication configured")?;
    Ok(Tower(layer.layer(Inner)))
}

/// Runs the credential plugin, if this program was started as such. Returns whether it was.
pub fn was_the_plugin() -> Result<bool, BoxError> {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() != Some(PLUGIN) {
        return Ok(false);
    }
    let url = arguments.next().ok_or("no address")?;
    let address = url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address)?;
    write!(connection, "GET /token HTTP/1.1\r\nhost: {address}\r\n\r\n")?;
    connection.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    let token: serde_json::Value = serde_json::from_str(body)?;
    let lifetime = token["expires_in"].as_i64().ok_or("no lifetime")?;
    let expires = Timestamp::now().checked_add(lifetime.seconds())?;
    let credential = serde_json::json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {
            "token": token["access_token"],
            "expirationTimestamp": expires.to_string(),
        },
    });
    println!("{credential}");
    Ok(true)
}
