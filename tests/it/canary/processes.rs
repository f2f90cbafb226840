//! Tests that need an environment of their own: a proxy with a password, a browser. The test binary
//! starts itself as `child`. The keyring is in `tests/e2e/keyring`.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use bearer_auth::{TokenCache, TokenRequest, TokenSource as _, endpoint::ReqwestClient};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::block_in_place,
};

use crate::support::{
    alone::alone,
    canary::{
        canaries::Secret::*,
        rig::{Tls, address, credentials, echo, idp, parameter, sign_in},
        watch::Watch,
    },
    http::closed_port,
    process::{Process, argument, role, say, wait},
};

/// Not a test: the entry point of the child processes.
#[tokio::test]
async fn child() {
    let Some(role) = role() else { return };
    match role.as_str() {
        "proxy" => ask_through_a_proxy().await,
        "browser" => open_a_browser().await,
        _ => panic!("{role}"),
    }
    say("done");
    wait();
}

async fn run(setup: String, role: &str, settings: &[(&str, &str)]) {
    let mut process = Process::start_after(module_path!(), &setup, role, settings);
    // The servers of this process keep running.
    assert!(block_in_place(|| process.says("done")), "{role} has failed");
    assert!(block_in_place(|| process.succeeds()), "{role} has failed");
}

async fn ask_through_a_proxy() {
    let watch = Watch::new().await;
    for _ in 0..argument("TIMES").parse().unwrap() {
        let http = ReqwestClient::new();
        let http = http
            .root_certificate_pem(argument("ROOT").as_bytes())
            .unwrap();
        let url = "https://idp.example/oauth2/v1/token";
        let source = credentials(url).http_client(http).build().unwrap();
        let good = argument("TOKENS") == "true";
        match source.fetch(TokenRequest::new()).await {
            Ok(response) => watch.debug(&response),
            Err(error) => watch.error(&error),
        }
        watch.debug(&source);
        let cache = TokenCache::builder(source).on_event(Watch::event).build();
        assert_eq!(cache.token().await.is_ok(), good);
        watch.debug(&cache);
    }
    watch.heard(&["log reqwest"]);
    watch.end();
}

/// A proxy that checks the password and sends this response to each connection. `None`: a tunnel.
async fn proxy(answer: Option<String>, server: std::net::SocketAddr) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let password = STANDARD.encode(format!("user:{}", Proxy.text()));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).await.is_ok() {
                head.extend(byte);
            }
            let head = String::from_utf8(head).unwrap();
            assert!(head.starts_with("CONNECT idp.example:443 "), "{head}");
            assert!(head.contains(&password), "{head}");
            let answer = answer.clone();
            tokio::spawn(async move {
                let first = answer.as_deref().unwrap_or("HTTP/1.1 200 OK\r\n\r\n");
                let _ = stream.write_all(first.as_bytes()).await;
                if answer.is_none() {
                    let mut behind = TcpStream::connect(server).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut behind).await;
                }
            });
        }
    });
    format!("http://user:{}@{at}", Proxy.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn p55_proxy_password_does_not_leak() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let tls = Tls::before(&watch, address(&idp.token_url()), b"h2", None).await;
    let there = address(&tls.at("http://x/").replace("localhost", "127.0.0.1"));
    let (closed, _port) = closed_port();
    let refused = closed.replace("://", &format!("://user:{}@", Proxy.text()));
    for (proxy, good) in [
        (proxy(None, there).await, true),
        (
            proxy(
                Some(format!("HTTP/1.1 407 No\r\nx: {}\r\n\r\n", Header.text())),
                there,
            )
            .await,
            false,
        ),
        (
            proxy(Some(format!("HTTP/1.1 200 OK\r\n\r\n{}", echo())), there).await,
            false,
        ),
        (proxy(Some(echo()), there).await, false),
        (refused, false),
    ] {
        let setup = format!(
            "unset NO_PROXY no_proxy ALL_PROXY all_proxy; \
             export HTTPS_PROXY='{proxy}' https_proxy='{proxy}'"
        );
        let good = good.to_string();
        let settings = [
            ("ROOT", tls.root.as_str()),
            ("TIMES", "1"),
            ("TOKENS", &good),
        ];
        run(setup, "proxy", &settings).await;
    }
    assert!(idp.token_requests() >= 2);
    watch.end();
}

async fn open_a_browser() {
    let watch = Watch::new().await;
    let idp = idp().await;
    let auth = sign_in(&idp).build().unwrap();
    let login = bearer_auth::Login::new()
        .state(State.text())
        .code_verifier(Verifier.text());
    let pending = auth.start_with(login).await.unwrap();
    bearer_auth::open_browser(pending.url());
    watch.debug(&pending);
    let shown = "log webbrowser";
    watch.end_but(&[(State, shown), (ClientId, shown), (Param, shown)]);
}

/// A known exposure, documented at `open_browser`: the browser gets the whole URL as an argument,
/// which other users of the machine can see, and the crate `webbrowser` logs it. The URL contains
/// state, challenge and parameters, but neither the verifier nor the client secret.
#[tokio::test(flavor = "multi_thread")]
async fn open_browser_exposes_only_the_url_of_the_login() {
    alone!();
    let home = tempfile::tempdir().unwrap();
    let (browser, opened) = (home.path().join("browser"), home.path().join("opened"));
    let made = Command::new("mkfifo").arg(&opened).status().unwrap();
    assert!(made.success());
    let script = format!("#!/bin/sh\nprintf %s \"$1\" > '{}'\n", opened.display());
    fs::write(&browser, script).unwrap();
    fs::set_permissions(&browser, fs::Permissions::from_mode(0o700)).unwrap();
    let setup = format!("export BROWSER='{}'", browser.display());
    run(setup, "browser", &[]).await;
    let url = block_in_place(|| fs::read_to_string(&opened)).unwrap();
    assert_eq!(parameter(&url, "state"), State.text());
    let watch = Watch::new().await;
    let found = watch.search(url.as_bytes());
    assert_eq!(found, [ClientId, State, Param].into());
    watch.end();
}
