//! [`Challenge`]: a parser for the challenges of `WWW-Authenticate`.
//!
//! The grammar is that of RFC 9110, §11.2, §11.3 and §11.6.1:
//!
//! ```text
//! WWW-Authenticate = #challenge
//! challenge        = auth-scheme [ 1*SP ( token68 / #auth-param ) ]
//! auth-param       = token BWS "=" BWS ( token / quoted-string )
//! ```
//!
//! Commas separate challenges as well as parameters, so a line is parsed as one list. The text after the
//! first word decides what an element is: `word =` is a parameter of the previous challenge. A single
//! `word`, or a `word` followed by whitespace and more text, is a scheme. A comma within quotes is data.
//!
//! # Invariants
//!
//! - A parameter belongs to the nearest scheme before it in the same field line. Without a scheme, or
//!   after an invalid element, it is ignored. Lines are independent of each other and of their order.
//! - In a returned challenge, every parameter name is unique, and names and values follow the grammar,
//!   unescaped. Case is kept; [`Challenge::is`] and [`Challenge::param`] ignore it.
//! - Any input is parsed without a panic and in linear time. The cursor only moves forward. The one
//!   look-ahead (for the padding of a token68) runs once per element and stays within it. Duplicates are
//!   found by hashing. Tests count the bytes that are read.
//!
//! # Recovery
//!
//! The header is untrusted input, and its challenges decide whether a token is dropped. Therefore an
//! invalid element must not hide another challenge of the line, or add parameters to it:
//!
//! | Invalid input | Result |
//! |---|---|
//! | An element that is neither parameter nor scheme (`@@@`) | The previous challenge ends and stays as it is. Parameters up to the next scheme are ignored. |
//! | A scheme followed by neither a token68 nor a parameter (`Foo $$$`, prose) | There is no challenge. Parameters up to the next scheme are ignored. |
//! | A parameter with an invalid value (`realm=https://a`, `realm=`) | The parameter is ignored, and the challenge continues. |
//! | The same with whitespace (`realm=a b`, `realm="a" Foo b=c`) | The parameter is ignored, and the challenge ends, as a comma before a scheme may be missing. |
//! | A duplicate parameter | The challenge is dropped with all its parameters; the others stay. |
//! | Parameters after a token68 | The token68 stays, and the parameters are ignored. |
//! | An unclosed quote | The quoted text extends to the end of the line, and its parameter is ignored. |
//! | A field line that is not UTF-8 | The line is ignored. |
//!
//! Quotes also quote within invalid elements. The parser cannot tell a stray quote from an opening one,
//! and finding a challenge in quoted text would be the worse mistake.

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
    /// In the order of the line. Only a value with an escape is owned.
    params: Vec<(&'a str, Cow<'a, str>)>,
}

impl Challenge<'_> {
    /// Whether this is a challenge of `scheme`, ignoring case.
    pub(crate) fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// Returns the value of the parameter `name`, ignoring the name's case.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_ref())
    }
}

/// Returns the challenges of all field lines, in order. Lines that are not UTF-8 are ignored.
pub(crate) fn challenges<'a>(headers: &'a HeaderMap) -> impl Iterator<Item = Challenge<'a>> + 'a {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        // `HeaderValue::to_str` accepts ASCII only, and descriptions are UTF-8.
        .filter_map(|line| std::str::from_utf8(line.as_bytes()).ok())
        .flat_map(parse)
}

/// Parses the challenges of one field line, in order.
pub(crate) fn parse(line: &str) -> Vec<Challenge<'_>> {
    let mut cursor = Cursor { line, at: 0 };
    let mut list = List::default();
    loop {
        // Elements may be empty.
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
                    Argument::Invalid => list.discard(),
                }
            }
            _ => {
                cursor.rest_of_element();
                list.close();
            }
        }
    }
}

/// The text after `name =`.
enum Value<'a> {
    Valid(Cow<'a, str>),
    /// An invalid value. The challenge continues.
    Invalid,
    /// An invalid value that may contain a scheme. The challenge ends.
    MaybeScheme,
}

/// The text after `scheme SP` in the same element.
enum Argument<'a> {
    Token68(&'a str),
    Parameter(&'a str, Value<'a>),
    Invalid,
}

/// The remaining text of an element.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Nothing, or whitespace.
    Nothing,
    /// Text without whitespace before or in it.
    Adjacent,
    /// Text after whitespace.
    Spaced,
}

/// The parsed challenges, and the open one, which parameters belong to.
#[derive(Default)]
struct List<'a> {
    done: Vec<Challenge<'a>>,
    open: Option<Open<'a>>,
}

struct Open<'a> {
    challenge: Challenge<'a>,
    /// The names so far, including those of invalid values. A set, as a challenge may have ten thousand
    /// parameters. Each challenge has a new one, as clearing a large set costs its capacity.
    names: HashSet<Name<'a>>,
    has_duplicate: bool,
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
            has_duplicate: false,
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
            // `realm=` alone is a token68. Followed by parameters, it is one without a value, as some
            // templates leave it.
            match token68.strip_suffix('=') {
                Some(first) if is_token(first) => {
                    open.challenge.token68 = None;
                    open.names.insert(Name(first));
                }
                _ => return self.close(),
            }
        }
        open.has_duplicate |= !open.names.insert(Name(name));
        match value {
            Value::Valid(value) => open.challenge.params.push((name, value)),
            Value::Invalid => {}
            Value::MaybeScheme => self.close(),
        }
    }

    /// Ends the open challenge: further parameters are ignored.
    fn close(&mut self) {
        if let Some(open) = self.open.take()
            && !open.has_duplicate
        {
            self.done.push(open.challenge);
        }
    }

    /// As [`close`](Self::close), but drops the open challenge.
    fn discard(&mut self) {
        self.open = None;
    }

    fn finish(mut self) -> Vec<Challenge<'a>> {
        self.close();
        self.done
    }
}

/// A position in the line, which only moves forward. Slices begin and end next to ASCII, as every
/// delimiter of the grammar is ASCII: so they are cut at character boundaries.
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

    /// Returns the text from `start` to here. `get` avoids a panic if a boundary were wrong.
    fn since(&self, start: usize) -> &'a str {
        let piece = self.line.get(start..self.at);
        debug_assert!(piece.is_some(), "slices are cut at character boundaries");
        piece.unwrap_or_default()
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(&wanted) {
            self.bump();
        }
        self.since(start)
    }

    /// Skips whitespace. Returns whether there was any.
    fn skip_space(&mut self) -> bool {
        !self.take(is_space).is_empty()
    }

    /// Parses the text after `scheme SP` to the end of the element.
    fn argument(&mut self) -> Argument<'a> {
        let start = self.at;
        // The characters of a token, and of a token68 without its padding.
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
        Argument::Invalid
    }

    /// Returns where the padding of a token68 ends; `None` if more text follows in the element. Does not
    /// move the cursor, because `a=` is a token68 and `a=b` a parameter.
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

    /// Parses from the `=` of a parameter to the end of the element.
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
            (_, Rest::Spaced) => Value::MaybeScheme,
            (Some(value), Rest::Nothing) => Value::Valid(value),
            _ => Value::Invalid,
        }
    }

    /// Parses from the opening quote to the closing one, or to the end of the line. Returns `None` if it
    /// is not closed or contains a control character.
    fn quoted_string(&mut self) -> Option<Cow<'a, str>> {
        self.bump();
        let mut start = self.at;
        let mut unescaped: Option<String> = None;
        let mut valid = true;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    unescaped
                        .get_or_insert_default()
                        .push_str(self.since(start));
                    self.bump();
                    // The next slice starts with the escaped character.
                    start = self.at;
                    valid &= is_text(self.peek()?);
                }
                byte => valid &= is_text(byte),
            }
            self.bump();
        }
        let last = self.since(start);
        self.bump();
        valid.then(|| match unescaped {
            Some(mut value) => {
                value.push_str(last);
                Cow::Owned(value)
            }
            None => Cow::Borrowed(last),
        })
    }

    /// Skips to the comma after this element, or to the end of the line.
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
                    rest = if spaced { Rest::Spaced } else { Rest::Adjacent };
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

/// The name of a parameter, compared without case.
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

/// `qdtext` and `quoted-pair` of RFC 9110, §5.6.4, without the quote and the backslash.
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
