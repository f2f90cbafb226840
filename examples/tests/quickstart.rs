//! The quickstart as its users run it: what it prints, and what it exits with.

#![allow(clippy::unwrap_used, reason = "whatever fails here fails the test")]

use std::{
    env::{self, consts::EXE_SUFFIX},
    net::TcpListener,
    process::{Command, Output},
};

use bearer_auth::testing::{Answer, MockIdp};

/// What the process printed, and whether it exited with 0.
struct Ran {
    out: String,
    err: String,
    code: Option<i32>,
}

/// Runs the quickstart. `cargo test` has built it, unless it was given a target such as `--test`.
async fn quickstart(arguments: &[&str]) -> Ran {
    let mut program = env::current_exe().unwrap();
    program.pop();
    program.pop();
    program.push(format!("examples/quickstart{EXE_SUFFIX}"));
    assert!(
        program.exists(),
        "{program:?} is not built: cargo build --example quickstart"
    );
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("CLIENT_SECRET", "client-secret")
        .env("NO_PROXY", "127.0.0.1")
        .env_remove("RUST_LOG");
    let ran = tokio::task::spawn_blocking(move || command.output());
    let Output {
        status,
        stdout,
        stderr,
    } = ran.await.unwrap().unwrap();
    Ran {
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
        code: status.code(),
    }
}

async fn against(token_url: &str, api: &str) -> Ran {
    let arguments = [
        "--token-url",
        token_url,
        "--client-id",
        "client-id",
        "--api",
        api,
    ];
    quickstart(&arguments).await
}

impl Ran {
    /// It exited with 1, and its error has all of these.
    #[track_caller]
    fn fails_with(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in: {}", self.err);
        }
    }

    /// The answers of the API that it printed.
    fn answers(&self) -> usize {
        self.out.matches("GET ").count()
    }

    /// How many times it printed; all of them are seconds with three decimals.
    #[track_caller]
    fn times(&self) -> usize {
        let words: Vec<_> = self.out.split_whitespace().collect();
        let words = words
            .iter()
            .map(|word| word.trim_end_matches([',', ';', ')']));
        let words: Vec<_> = words.collect();
        let mut times = 0;
        for (at, word) in words.iter().enumerate() {
            let number = word.trim_end_matches(char::is_alphabetic);
            let unit = &word[number.len()..];
            assert!(
                number.parse::<f64>().is_err() || !["s", "ms", "µs", "ns"].contains(&unit),
                "{word:?} has another form, in: {}",
                self.out
            );
            assert!(!["ms", "µs", "ns"].contains(word), "{}", self.out);
            if *word == "s" {
                let before = at.checked_sub(1).map(|before| words[before]);
                let decimals = before.and_then(|number| number.split_once('.'));
                let good = decimals.is_some_and(|(whole, decimals)| {
                    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
                    !whole.is_empty() && digits(whole) && decimals.len() == 3 && digits(decimals)
                });
                assert!(good, "{before:?} s has another form, in: {}", self.out);
                times += 1;
            }
        }
        times
    }
}

/// An address of this machine where no server listens.
fn refused() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}

#[tokio::test]
async fn the_demonstration_succeeds_and_its_times_have_one_form() {
    let ran = quickstart(&[]).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    // Each line of the timeline, three that are said in it, and the longest wait.
    let lines = ran.out.lines().take_while(|line| !line.is_empty()).count();
    assert!(lines > 5, "{}", ran.out);
    assert_eq!(ran.times(), lines + 5, "{}", ran.out);
}

#[tokio::test]
async fn a_real_server_gets_ten_requests() {
    let idp = MockIdp::start().await.unwrap();
    let ran = against(&idp.token_url(), &idp.api_url()).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert_eq!(ran.answers(), 10);
    assert_eq!(idp.api_requests(), 10);
    // When, and how long it took; and how long the token is good.
    assert_eq!(ran.times(), 2 * 11, "{}", ran.out);
}

#[tokio::test]
async fn an_api_that_is_not_there_is_said_once() {
    let idp = MockIdp::start().await.unwrap();
    idp.api_answers("/api/nowhere", Answer::status(404));
    let api = format!("{}nowhere", idp.api_url());
    let ran = against(&idp.token_url(), &api).await;
    ran.fails_with(&["404", &api, "hint: ", "--api"]);
    assert_eq!(idp.api_requests(), 1);
}

#[tokio::test]
async fn an_api_that_is_down_is_asked_ten_times() {
    let idp = MockIdp::start().await.unwrap();
    idp.api_answers("/", Answer::status(503));
    let ran = against(&idp.token_url(), &idp.api_url()).await;
    ran.fails_with(&["503", &idp.api_url(), "hint: ", "--api"]);
    assert_eq!(ran.answers(), 10);
}

#[tokio::test]
async fn an_api_that_does_not_accept_the_token_is_said() {
    let idp = MockIdp::start().await.unwrap();
    idp.api_answers("/", Answer::status(401));
    let ran = against(&idp.token_url(), &idp.api_url()).await;
    ran.fails_with(&["401", &idp.api_url(), "hint: ", "--scope"]);
}

#[tokio::test]
async fn an_api_without_a_server_is_said() {
    let idp = MockIdp::start().await.unwrap();
    let api = refused();
    let ran = against(&idp.token_url(), &api).await;
    ran.fails_with(&[&api, "hint: ", "--api", "because: "]);
    assert_eq!(ran.answers(), 0);
}

#[tokio::test]
async fn a_token_url_that_is_not_there_is_said() {
    let idp = MockIdp::start().await.unwrap();
    idp.always(Answer::status(404));
    let ran = against(&idp.token_url(), &idp.api_url()).await;
    ran.fails_with(&["404", &idp.token_url(), "hint: ", "--token-url"]);
    assert_eq!(idp.api_requests(), 0);
}

#[tokio::test]
async fn a_token_url_that_is_a_page_is_said() {
    let idp = MockIdp::start().await.unwrap();
    idp.always(Answer::bytes(200, "text/html", "<h1>Log in</h1>"));
    let ran = against(&idp.token_url(), &idp.api_url()).await;
    ran.fails_with(&[&idp.token_url(), "hint: ", "--token-url", "because: "]);
}

#[tokio::test]
async fn a_token_url_without_a_server_is_said() {
    let idp = MockIdp::start().await.unwrap();
    let token_url = refused();
    let ran = against(&token_url, &idp.api_url()).await;
    ran.fails_with(&[&token_url, "hint: ", "--token-url", "because: "]);
}

#[tokio::test]
async fn a_wrong_client_is_said() {
    let idp = MockIdp::start().await.unwrap();
    idp.always(Answer::oauth_error("invalid_client"));
    let ran = against(&idp.token_url(), &idp.api_url()).await;
    ran.fails_with(&[&idp.token_url(), "hint: ", "--client-id", "CLIENT_SECRET"]);
}
