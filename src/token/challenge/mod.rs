//! What a server answers to a request it does not let in: the challenges of `WWW-Authenticate`.
//!
//! A reader of the grammar of RFC 9110, §11.2, §11.3 and §11.6.1:
//!
//! ```text
//! WWW-Authenticate = #challenge
//! challenge        = auth-scheme [ 1*SP ( token68 / #auth-param ) ]
//! auth-param       = token BWS "=" BWS ( token / quoted-string )
//! ```
//!
//! Commas separate the challenges of a line as well as the parameters of a challenge, so a line is
//! read as one list. What an element is shows behind its first word: `word =` is a parameter of
//! the challenge before it, a lone `word` is a scheme, and so is a `word` with something behind
//! whitespace. A comma within quotes is data.
//!
//! # Invariants
//!
//! - A parameter belongs to the nearest scheme before it in the same field line, and to nothing if
//!   there is none or if something unreadable stands in between. Nothing is carried from one line
//!   to the next, therefore the order of the lines does not matter.
//! - A challenge that is handed out has every parameter once, and its names and values are what
//!   the grammar says, unescaped. Case is kept; [`Challenge::is`] and [`Challenge::param`] ignore
//!   it.
//! - Any input is read without a panic and in linear time: the cursor only moves forward, the one
//!   look ahead (for the padding of a token68) happens once in an element and does not leave it,
//!   and duplicates are found by hashing. Tests count the bytes that are looked at.
//!
//! # Recovery
//!
//! The header is input from outside, and what is read from it decides about dropping a token. So
//! garbage must neither hide a challenge elsewhere in the line, nor lend its parameters to one:
//!
//! | Garbage | What becomes of it |
//! |---|---|
//! | An element that is no parameter and no scheme (`@@@`) | It ends the challenge before it, which keeps what it has. Parameters up to the next scheme are nobody's. |
//! | A scheme with neither a token68 nor a parameter behind it (`Foo $$$`, prose) | It is no challenge; parameters up to the next scheme are nobody's. |
//! | A parameter with an unreadable value (`realm=https://a`, `realm=`) | That parameter is absent, the rest of the challenge is read. |
//! | The same with whitespace in it (`realm=a b`, `realm="a" Foo b=c`) | As above, but it ends the challenge too: a scheme may have lost its comma there. |
//! | A parameter twice | The challenge is dropped with all its parameters, its neighbours stay. |
//! | Parameters behind a token68 | The token68 stays, the parameters are nobody's. |
//! | A quote that is not closed | It reaches to the end of the line; its parameter is absent. |
//! | A field line that is not UTF-8 | It is absent. |
//!
//! Quotes count within garbage too. That a quote went astray cannot be told from commas that are
//! data, and reading a challenge out of somebody's quoted text is the worse mistake of the two.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

use crate::work_counter::looked_at;

/// One challenge of a `WWW-Authenticate` field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge<'a> {
    scheme: &'a str,
    /// Never together with `params`.
    token68: Option<&'a str>,
    /// In the order of the line. A value is owned only if it had an escape in it.
    params: Vec<(&'a str, Cow<'a, str>)>,
}

impl Challenge<'_> {
    /// Whether this is a challenge of `scheme`, in any case.
    pub(crate) fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The value of the parameter `name`, in any case of the name.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_ref())
    }
}

/// The challenges of all field lines, in order. A line that is not UTF-8 is treated as absent.
pub(crate) fn challenges<'a>(headers: &'a HeaderMap) -> impl Iterator<Item = Challenge<'a>> + 'a {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        // Not `HeaderValue::to_str`, which is for ASCII: descriptions are written in UTF-8.
        .filter_map(|line| std::str::from_utf8(line.as_bytes()).ok())
        .flat_map(parse)
}

/// The challenges of one field line, in order.
pub(crate) fn parse(line: &str) -> Vec<Challenge<'_>> {
    let mut cursor = Cursor { line, at: 0 };
    let mut list = List::default();
    loop {
        // Between elements; elements may be empty.
        cursor.take(|byte| is_space(byte) || byte == b',');
        if cursor.peek().is_none() {
            return list.finish();
        }
        let word = cursor.take(is_tchar);
        let spaced = cursor.skip_space();
        match cursor.peek() {
            Some(b'=') if !word.is_empty() => {
                let value = cursor.value();
                list.parameter(word, value);
            }
            None | Some(b',') if !word.is_empty() => list.open(word),
            Some(_) if spaced && !word.is_empty() => {
                list.open(word);
                match cursor.argument() {
                    Argument::Token68(token68) => list.token68(token68),
                    Argument::Parameter(name, value) => list.parameter(name, value),
                    Argument::Neither => list.discard(),
                }
            }
            _ => {
                cursor.rest_of_element();
                list.close();
            }
        }
    }
}

/// What stands behind `name =`.
enum Value<'a> {
    Read(Cow<'a, str>),
    /// No value of the grammar, and nothing but the value is in doubt.
    Unreadable,
    /// No value of the grammar, and a scheme may be hidden in it.
    Astray,
}

/// What stands behind `scheme SP` in the same element.
enum Argument<'a> {
    Token68(&'a str),
    Parameter(&'a str, Value<'a>),
    Neither,
}

/// What was left of an element.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Whitespace at most.
    Nothing,
    /// Something, and no whitespace before or in it.
    Glued,
    /// Something behind whitespace.
    Spaced,
}

/// The challenges that were read, and the one that takes parameters.
#[derive(Default)]
struct List<'a> {
    done: Vec<Challenge<'a>>,
    open: Option<Open<'a>>,
}

struct Open<'a> {
    challenge: Challenge<'a>,
    /// The names so far, with those of unreadable values. A set, since a line may be one challenge
    /// of ten thousand parameters. Each challenge has its own: clearing a set that once was large
    /// costs its capacity each time.
    names: HashSet<Name<'a>>,
    malformed: bool,
}

impl<'a> List<'a> {
    fn open(&mut self, scheme: &'a str) {
        self.close();
        self.open = Some(Open {
            challenge: Challenge {
                scheme,
                token68: None,
                params: Vec::new(),
            },
            names: HashSet::new(),
            malformed: false,
        });
    }

    fn token68(&mut self, token68: &'a str) {
        if let Some(open) = &mut self.open {
            open.challenge.token68 = Some(token68);
        }
    }

    fn parameter(&mut self, name: &'a str, value: Value<'a>) {
        let Some(open) = &mut self.open else { return };
        if let Some(token68) = open.challenge.token68 {
            // `realm=` alone is a token68 by the grammar. With parameters behind it, it was one
            // that some template left empty.
            match token68.strip_suffix('=') {
                Some(first) if is_token(first) => {
                    open.challenge.token68 = None;
                    open.names.insert(Name(first));
                }
                _ => return self.close(),
            }
        }
        open.malformed |= !open.names.insert(Name(name));
        match value {
            Value::Read(value) => open.challenge.params.push((name, value)),
            Value::Unreadable => {}
            Value::Astray => self.close(),
        }
    }

    /// Parameters are nobody's from here on.
    fn close(&mut self) {
        if let Some(open) = self.open.take()
            && !open.malformed
        {
            self.done.push(open.challenge);
        }
    }

    /// As [`close`](Self::close), and what was open is no challenge.
    fn discard(&mut self) {
        self.open = None;
    }

    fn finish(mut self) -> Vec<Challenge<'a>> {
        self.close();
        self.done
    }
}

/// A position in the line that only moves forward. It stops next to ASCII or at the end, whenever
/// a piece is cut out: every delimiter of the grammar is ASCII, and no byte of a longer character
/// is.
struct Cursor<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.peek_at(self.at)
    }

    fn peek_at(&self, at: usize) -> Option<u8> {
        looked_at(1);
        self.line.as_bytes().get(at).copied()
    }

    fn bump(&mut self) {
        self.at += 1;
    }

    /// The piece from `start` to here. `get`, so that a mistake about boundaries would cost a
    /// value and not a panic.
    fn since(&self, start: usize) -> &'a str {
        let piece = self.line.get(start..self.at);
        debug_assert!(
            piece.is_some(),
            "a piece is cut out at boundaries of characters"
        );
        piece.unwrap_or_default()
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(&wanted) {
            self.bump();
        }
        self.since(start)
    }

    /// Whether there was any.
    fn skip_space(&mut self) -> bool {
        !self.take(is_space).is_empty()
    }

    /// From behind `scheme SP` to the end of the element.
    fn argument(&mut self) -> Argument<'a> {
        let start = self.at;
        // All that is in a token or in a token68 before its padding.
        let word = self.take(|byte| is_tchar(byte) || byte == b'/');
        if is_token68(word)
            && let Some(end) = self.padding()
        {
            self.at = end;
            let token68 = self.since(start);
            self.rest_of_element();
            return Argument::Token68(token68);
        }
        self.skip_space();
        if self.peek() == Some(b'=') && is_token(word) {
            return Argument::Parameter(word, self.value());
        }
        self.rest_of_element();
        Argument::Neither
    }

    /// Where the padding of a token68 ends, if nothing stands behind it in the element. Looked up
    /// before the cursor moves, because `a=` is a token68 and `a=b` a parameter.
    fn padding(&self) -> Option<usize> {
        let mut end = self.at;
        while self.peek_at(end) == Some(b'=') {
            end += 1;
        }
        let mut next = end;
        while self.peek_at(next).is_some_and(is_space) {
            next += 1;
        }
        matches!(self.peek_at(next), None | Some(b',')).then_some(end)
    }

    /// From the `=` of a parameter to the end of the element.
    fn value(&mut self) -> Value<'a> {
        self.bump();
        self.skip_space();
        let value = if self.peek() == Some(b'"') {
            self.quoted_string()
        } else {
            Some(self.take(is_tchar))
                .filter(|token| !token.is_empty())
                .map(Cow::Borrowed)
        };
        match (value, self.rest_of_element()) {
            (_, Rest::Spaced) => Value::Astray,
            (Some(value), Rest::Nothing) => Value::Read(value),
            _ => Value::Unreadable,
        }
    }

    /// From the opening quote to behind the closing one, or to the end of the line. `None` if it
    /// is not closed or has a control character in it.
    fn quoted_string(&mut self) -> Option<Cow<'a, str>> {
        self.bump();
        let mut start = self.at;
        let mut unescaped: Option<String> = None;
        let mut legal = true;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    unescaped
                        .get_or_insert_default()
                        .push_str(self.since(start));
                    self.bump();
                    // The escaped character opens the next piece, whatever it is.
                    start = self.at;
                    legal &= is_text(self.peek()?);
                }
                byte => legal &= is_text(byte),
            }
            self.bump();
        }
        let last = self.since(start);
        self.bump();
        legal.then(|| match unescaped {
            Some(mut value) => {
                value.push_str(last);
                Cow::Owned(value)
            }
            None => Cow::Borrowed(last),
        })
    }

    /// Skips to the comma behind this element, or to the end of the line.
    fn rest_of_element(&mut self) -> Rest {
        let mut rest = Rest::Nothing;
        let mut spaced = false;
        loop {
            match self.peek() {
                None | Some(b',') => return rest,
                Some(byte) if is_space(byte) => {
                    spaced = true;
                    self.bump();
                }
                Some(byte) => {
                    rest = if spaced { Rest::Spaced } else { Rest::Glued };
                    if byte == b'"' {
                        self.quoted_string();
                    } else {
                        self.bump();
                    }
                }
            }
        }
    }
}

/// The name of a parameter, for which case does not matter.
struct Name<'a>(&'a str);

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Self) -> bool {
        looked_at(self.0.len().min(other.0.len()));
        self.0.eq_ignore_ascii_case(other.0)
    }
}

impl Eq for Name<'_> {}

impl Hash for Name<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        looked_at(self.0.len());
        for byte in self.0.bytes() {
            state.write_u8(byte.to_ascii_lowercase());
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// `tchar` of RFC 9110, §5.6.2.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `qdtext` and what may be escaped, RFC 9110, §5.6.4, but for the quote and the backslash.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

fn is_token(word: &str) -> bool {
    looked_at(word.len());
    !word.is_empty() && word.bytes().all(is_tchar)
}

/// A `token68` of RFC 9110, §11.2, without its padding.
fn is_token68(word: &str) -> bool {
    looked_at(word.len());
    !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
#[cfg(test)]
mod tests;
