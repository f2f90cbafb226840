//! The identity provider and the API: a [`MockIdp`] in a process of its own, so that only the client's
//! heap and tasks are counted.
//!
//! Its commands are lines on its standard input. It answers each with a line when it is done, and exits
//! when the input ends.

use std::{env, io, process::Stdio, time::Duration};

use bearer_auth::testing::{Answer, MockIdp};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::schedule::Fault;

/// The argument that makes this program the server.
pub(crate) const ARGUMENT: &str = "--serve";

/// The API accepts a token for this much longer than `expires_in` says, so that a token that is sent in
/// time does not arrive too late.
const BEYOND: Duration = Duration::from_millis(900);

/// The client's handle of the server process.
pub(crate) struct Server {
    pub(crate) token_url: String,
    pub(crate) api_url: String,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

/// The requests that have arrived, and the tokens issued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) token_requests: u64,
    pub(crate) api_requests: u64,
    pub(crate) unauthorized: u64,
    pub(crate) issued: u64,
}

impl Server {
    pub(crate) async fn start() -> io::Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let mut server = Self {
            token_url: String::new(),
            api_url: String::new(),
            input,
            output: BufReader::new(output).lines(),
            _process: process,
        };
        server.token_url = server.answer().await?;
        server.api_url = server.answer().await?;
        Ok(server)
    }

    pub(crate) async fn lifetime(&mut self, lifetime: Duration) -> io::Result<()> {
        self.send(&format!("lifetime {}", lifetime.as_secs())).await
    }

    /// Lets the token endpoint answer normally, after this delay.
    pub(crate) async fn well(&mut self, delay: Duration) -> io::Result<()> {
        self.send(&format!("well {}", delay.as_millis())).await
    }

    /// Takes the token endpoint down. The client's side implements [`Fault::Refused`].
    pub(crate) async fn down(&mut self, fault: Fault) -> io::Result<()> {
        let line = match fault {
            Fault::Refused => return Ok(()),
            Fault::Reset => "down reset".to_owned(),
            Fault::Closed => "down closed".to_owned(),
            Fault::Silence => "down silence".to_owned(),
            Fault::NotHttp => "down not-http".to_owned(),
            Fault::Error => "down 500".to_owned(),
            Fault::Unavailable => "down 503".to_owned(),
            Fault::RetryAfter(seconds) => format!("down retry-after {seconds}"),
        };
        self.send(&line).await
    }

    /// Sets how long the API takes.
    pub(crate) async fn api(&mut self, delay: Duration) -> io::Result<()> {
        self.send(&format!("api {}", delay.as_millis())).await
    }

    pub(crate) async fn revoke(&mut self, tokens: &[String]) -> io::Result<()> {
        self.send(&format!("revoke {}", tokens.join(" "))).await
    }

    pub(crate) async fn counts(&mut self) -> io::Result<Counts> {
        self.write("counts").await?;
        let answer = self.answer().await?;
        let counts: Vec<u64> = answer.split(' ').filter_map(|n| n.parse().ok()).collect();
        match counts[..] {
            [token_requests, api_requests, unauthorized, issued] => Ok(Counts {
                token_requests,
                api_requests,
                unauthorized,
                issued,
            }),
            _ => Err(io::Error::other(answer)),
        }
    }

    async fn send(&mut self, line: &str) -> io::Result<()> {
        self.write(line).await?;
        match self.answer().await?.as_str() {
            "done" => Ok(()),
            answer => Err(io::Error::other(format!("{line}: {answer}"))),
        }
    }

    async fn write(&mut self, line: &str) -> io::Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await
    }

    async fn answer(&mut self) -> io::Result<String> {
        let line = self.output.next_line().await?;
        line.ok_or_else(|| io::Error::other("the server process has ended"))
    }
}

/// Runs the server process.
pub(crate) async fn serve() -> io::Result<()> {
    let idp = MockIdp::start().await?;
    idp.always(well(0));
    println!("{}\n{}", idp.token_url(), idp.api_url());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["lifetime", seconds] => {
                idp.set_lifetime(Duration::from_secs(number(seconds)?) + BEYOND);
            }
            ["well", millis] => idp.always(well(number(millis)?)),
            ["down", "reset"] => idp.always(Answer::reset_before_reading()),
            ["down", "closed"] => idp.always(Answer::drop_connection()),
            ["down", "silence"] => idp.always(Answer::silence()),
            ["down", "not-http"] => idp.always(Answer::garbage()),
            ["down", "500"] => idp.always(closing(Answer::status(500))),
            ["down", "503"] => idp.always(closing(Answer::status(503))),
            ["down", "retry-after", seconds] => {
                idp.always(closing(Answer::unavailable(number(seconds)?)));
            }
            ["api", millis] => {
                let delay = Duration::from_millis(number(millis)?);
                idp.api_answers("/api/", Answer::ok().delay(delay));
            }
            ["revoke", ref tokens @ ..] => tokens.iter().for_each(|token| idp.revoke(token)),
            ["counts"] => {
                println!(
                    "{} {} {} {}",
                    idp.token_requests(),
                    idp.api_requests(),
                    idp.api_unauthorized(),
                    idp.tokens_issued(),
                );
                continue;
            }
            _ => return Err(io::Error::other(line)),
        }
        println!("done");
    }
    Ok(())
}

fn well(delay: u64) -> Answer {
    closing(Answer::ok().delay(Duration::from_millis(delay)))
}

/// Closes the connection after the answer, so that there is none at rest.
fn closing(answer: Answer) -> Answer {
    answer.header("Connection", "close")
}

fn number(word: &str) -> io::Result<u64> {
    word.parse().map_err(io::Error::other)
}
