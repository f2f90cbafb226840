//! The quickstart as a user runs it: its output and its exit code.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::{
    env::{self, consts::EXE_SUFFIX},
    net::TcpListener,
    process::{Command, Output},
};

use bearer_auth::testing::{Answer, MockIdp};

/// The output and exit code of the process.
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
    /// Asserts that it exited with 1, with all of these parts in its error.
    #[track_caller]
    fn fails_with(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in: {}", self.err);
        }
    }

    /// How many answers of the API it printed.
    fn answers(&self) -> usize {
        self.out.matches("GET ").count()
    }

    /// Counts the times in the output. Asserts that all are seconds with three decimals.
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
                "{word:?} has another format, in: {}",
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
                assert!(good, "{before:?} s has another format, in: {}", self.out);
                times += 1;
            }
        }
        times
    }
}

/// A URL where no server listens.
fn refusing_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}

#[tokio::test]
async fn demonstration_succeeds_with_all_times_in_one_format() {
    let ran = quickstart(&[]).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    // One for each line of the timeline, four within these lines, and the longest wait.
    let lines = ran.out.lines().take_while(|line| !line.is_empty()).count();
    assert!(lines > 5, "{}", ran.out);
    assert_eq!(ran.times(), lines + 5, "{}", ran.out);
}

#[tokio::test]
async fn real_api_gets_ten_requests() {
    let idp = MockIdp::start().await.unwrap();
    let ran = against(&idp.token_url(), &idp.api_url()).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert_eq!(ran.answers(), 10);
    assert_eq!(idp.api_requests(), 10);
    // Each of 11 lines has its time, and another: how long the request took, or how long the token lives.
    assert_eq!(ran.times(), 2 * 11, "{}", ran.out);
}

#[tokio::test]
async fn api_404_fails_after_one_request() {
    let idp = MockIdp::start().await.unwrap();
    idp.api_answers("/api/nowhere", Answer::status(404));
    let api = format!("{}nowhere", idp.api_url());
    let ran = against(&idp.token_url(), &api).await;
    ran.fails_with(&["404", &api, "hint: ", "--api"]);
    assert_eq!(idp.api_requests(), 1);
}

#[tokio::test]
async fn api_503_fails_after_ten_requests() {
    let idp = MockIdp::start().await.unwrap();
    idp.api_answers("/", Answer::status(503));
    let ran = against(&idp.token_url(), &idp.api_url()).await;
    ran.fails_with(&["503", &idp.api_url(), "hint: ", "--api"]);
    assert_eq!(ran.answers(), 10);
}

#[tokio::test]
async fn api_401_hints_at_scope() {
    let idp = MockIdp::start().await.unwrap();
    idp.api_answers("/", Answer::status(401));
    let ran = against(&idp.token_url(), &idp.api_url()).await;
    ran.fails_with(&["401", &idp.api_url(), "hint: ", "--scope"]);
}

#[tokio::test]
async fn unreachable_api_hints_at_api() {
    let idp = MockIdp::start().await.unwrap();
    let api = refusing_url();
    let ran = against(&idp.token_url(), &api).await;
    ran.fails_with(&[&api, "hint: ", "--api", "because: "]);
    assert_eq!(ran.answers(), 0);
}

#[tokio::test]
async fn token_url_404_hints_at_token_url() {
    let idp = MockIdp::start().await.unwrap();
    idp.always(Answer::status(404));
    let ran = against(&idp.token_url(), &idp.api_url()).await;
    ran.fails_with(&["404", &idp.token_url(), "hint: ", "--token-url"]);
    assert_eq!(idp.api_requests(), 0);
}

#[tokio::test]
async fn token_url_of_a_web_page_hints_at_token_url() {
    let idp = MockIdp::start().await.unwrap();
    idp.always(Answer::bytes(200, "text/html", "<h1>Log in</h1>"));
    let ran = against(&idp.token_url(), &idp.api_url()).await;
    ran.fails_with(&[&idp.token_url(), "hint: ", "--token-url", "because: "]);
}

#[tokio::test]
async fn unreachable_token_url_hints_at_token_url() {
    let idp = MockIdp::start().await.unwrap();
    let token_url = refusing_url();
    let ran = against(&token_url, &idp.api_url()).await;
    ran.fails_with(&[&token_url, "hint: ", "--token-url", "because: "]);
}

#[tokio::test]
async fn invalid_client_hints_at_client_id_and_secret() {
    let idp = MockIdp::start().await.unwrap();
    idp.always(Answer::oauth_error("invalid_client"));
    let ran = against(&idp.token_url(), &idp.api_url()).await;
    ran.fails_with(&[&idp.token_url(), "hint: ", "--client-id", "CLIENT_SECRET"]);
}
