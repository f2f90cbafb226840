//! Pages of the authorization endpoint, for browsers.

use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY},
};

use super::answer::Reply;
use crate::content_policy::content_policy;

/// The page that asks for a user name. Its form posts to the page's own URL.
pub(super) fn sign_in(client: &str, scope: Option<&str>, hint: &str) -> Reply {
    let (client, hint) = (escape(client), escape(hint));
    let wants = match scope {
        Some(scope) => format!("<b>{client}</b> asks for <code>{}</code>.", escape(scope)),
        None => format!("<b>{client}</b> asks to act in your name."),
    };
    let page = format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Sign in</title>
<style>
body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 22rem; margin: 15vh auto; padding: 0 1rem }}
p {{ overflow-wrap: anywhere }}
label, input {{ display: block; width: 100%; box-sizing: border-box }}
input, button {{ font: inherit; padding: .4rem .6rem }}
button {{ margin: 1rem .5rem 0 0 }}
</style>
<h1>Sign in</h1>
<p>{wants}</p>
<form method="post">
<label for="user">Your name</label>
<input id="user" name="user" value="{hint}" autocomplete="username" required autofocus>
<button name="decision" value="sign-in">Sign in</button>
<button name="decision" value="refuse" formnovalidate>Refuse</button>
</form>
</html>
"#
    );
    html(StatusCode::OK, page)
}

/// A plain-text message for the user.
pub(super) fn text(status: StatusCode, message: &str) -> Reply {
    Reply::new(status)
        .with(CONTENT_TYPE, TEXT)
        .with(CACHE_CONTROL, NO_STORE)
        .body(format!("{message}\n"))
}

fn html(status: StatusCode, page: String) -> Reply {
    let policy = content_policy(&page).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    Reply::new(status)
        .with(
            CONTENT_TYPE,
            HeaderValue::from_static("text/html;charset=UTF-8"),
        )
        .with(CACHE_CONTROL, NO_STORE)
        // The page's URL contains `state`.
        .with(REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
        .with(CONTENT_SECURITY_POLICY, policy)
        .with(NO_SNIFF, HeaderValue::from_static("nosniff"))
        .body(page)
}

/// Escapes for HTML text and for attributes in double quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            other => escaped.push(other),
        }
    }
    escaped
}

pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain;charset=UTF-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_SNIFF: HeaderName = http::header::X_CONTENT_TYPE_OPTIONS;
