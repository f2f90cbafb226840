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

/// Counts what is read of the line, for the tests that hold it against the length of the line.
#[inline]
fn looked_at(bytes: usize) {
    #[cfg(test)]
    tests::LOOKED_AT.set(tests::LOOKED_AT.get() + bytes);
    #[cfg(not(test))]
    let _ = bytes;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    thread_local! {
        pub(super) static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
    }

    /// A challenge as plain data: scheme, token68, parameters.
    type Plain<'a> = (&'a str, Option<&'a str>, Vec<(&'a str, &'a str)>);

    fn plain<'c>(challenges: &'c [Challenge<'_>]) -> Vec<Plain<'c>> {
        challenges
            .iter()
            .map(|c| {
                let params = c
                    .params
                    .iter()
                    .map(|(name, value)| (*name, value.as_ref()))
                    .collect();
                (c.scheme, c.token68, params)
            })
            .collect()
    }

    #[track_caller]
    fn reads(line: &str, expected: &[Plain<'_>]) {
        assert_eq!(plain(&parse(line)), expected, "{line}");
    }

    fn headers<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(line).unwrap());
        }
        headers
    }

    /// The challenges of `line`, and how many bytes were looked at for them.
    fn counted(line: &str) -> (Vec<Challenge<'_>>, usize) {
        LOOKED_AT.set(0);
        let challenges = parse(line);
        (challenges, LOOKED_AT.get())
    }

    #[test]
    fn p64_bearer_is_read_and_unknown_parameters_do_not_matter() {
        let line = r#"Bearer realm="example", error="invalid_token", error_description="The access token expired", foo=bar"#;
        let challenges = parse(line);
        assert_eq!(challenges.len(), 1);
        let bearer = &challenges[0];
        assert!(bearer.is("Bearer"));
        assert!(!bearer.is("Bear") && !bearer.is("Bearers") && !bearer.is("DPoP"));
        assert_eq!(bearer.param("realm"), Some("example"));
        assert_eq!(bearer.param("error"), Some("invalid_token"));
        assert_eq!(
            bearer.param("error_description"),
            Some("The access token expired")
        );
        assert_eq!(bearer.param("foo"), Some("bar"));
        assert_eq!(bearer.param("scope"), None);
    }

    #[test]
    fn p220_schemes_are_case_insensitive() {
        for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
            let line = format!(r#"{scheme} error="invalid_token""#);
            let challenges = parse(&line);
            assert!(
                challenges[0].is("Bearer") && challenges[0].is("bearer"),
                "{line}"
            );
            assert_eq!(
                challenges[0].param("error"),
                Some("invalid_token"),
                "{line}"
            );
        }
    }

    #[test]
    fn p221_parameter_names_are_case_insensitive_and_once() {
        let challenges = parse(r#"Bearer ERROR="invalid_token""#);
        assert_eq!(challenges[0].param("error"), Some("invalid_token"));
        assert_eq!(challenges[0].param("eRRor"), Some("invalid_token"));

        for twice in [
            "error=a, error=b",
            "error=a, error=a",
            r#"error=a, ERROR="a""#,
            "error=a, realm=x, Error=b, scope=y",
            // A name counts even if its value is unreadable, wherever that is.
            "error=a/b, error=invalid_token",
            "error=, error=invalid_token",
            "error=invalid_token, error=a/b",
            "error=invalid_token, error=a b",
            r#"error=invalid_token, error="a"#,
        ] {
            reads(&format!("Bearer {twice}"), &[]);
        }
        reads(
            "Basic realm=a, Bearer error=a, error=b, DPoP error=c",
            &[
                ("Basic", None, vec![("realm", "a")]),
                ("DPoP", None, vec![("error", "c")]),
            ],
        );
        // Once per challenge, not once per line.
        reads(
            "Bearer error=a, Bearer error=b",
            &[
                ("Bearer", None, vec![("error", "a")]),
                ("Bearer", None, vec![("error", "b")]),
            ],
        );
    }

    #[test]
    fn p222_tokens_and_quoted_strings_are_equal() {
        for name in [
            "realm",
            "error",
            "error_description",
            "scope",
            "error_uri",
            "foo",
        ] {
            let (token, quoted) = (
                format!("Bearer {name}=x-1"),
                format!(r#"Bearer {name}="x-1""#),
            );
            assert_eq!(parse(&token), parse(&quoted));
            reads(&token, &[("Bearer", None, vec![(name, "x-1")])]);
        }
        reads(
            r#"Bearer realm="""#,
            &[("Bearer", None, vec![("realm", "")])],
        );
    }

    #[test]
    fn p223_quoted_strings_are_unescaped_and_are_data() {
        reads(
            r#"Bearer error_description="say \"hi\", DPoP x=1""#,
            &[(
                "Bearer",
                None,
                vec![("error_description", r#"say "hi", DPoP x=1"#)],
            )],
        );
        reads(
            r#"Bearer a="\\", b="\a\é\\\"", c="DPoP error=\"x\"""#,
            &[(
                "Bearer",
                None,
                vec![("a", r"\"), ("b", r#"aé\""#), ("c", r#"DPoP error="x""#)],
            )],
        );
        reads(
            "Bearer a=\"\tTöken, ✓ = 1\", b=x",
            &[("Bearer", None, vec![("a", "\tTöken, ✓ = 1"), ("b", "x")])],
        );
        // Control characters are in no quoted-string; the quotes still hold.
        reads(
            "Bearer a=\"x\n, Foo b=c\", d=e",
            &[("Bearer", None, vec![("d", "e")])],
        );
        reads(
            "Bearer a=\"x\\\u{7f}\", d=e",
            &[("Bearer", None, vec![("d", "e")])],
        );
    }

    #[test]
    fn p223_only_values_with_escapes_are_copied() {
        let challenges = parse(r#"Bearer a=x, b="x, y", c="\x""#);
        let borrowed = |at: usize| matches!(challenges[0].params[at].1, Cow::Borrowed(_));
        assert!(borrowed(0) && borrowed(1) && !borrowed(2));
    }

    #[test]
    fn p224_whitespace_around_the_equals_sign() {
        for parameter in [
            r#"error = "invalid_token""#,
            r#"error ="invalid_token""#,
            r#"error= "invalid_token""#,
            "error\t=\t invalid_token\t",
            "error= invalid_token ",
        ] {
            let expected = ("error", "invalid_token");
            reads(
                &format!("Bearer {parameter}"),
                &[("Bearer", None, vec![expected])],
            );
            reads(
                &format!("Bearer a=b , {parameter}"),
                &[("Bearer", None, vec![("a", "b"), expected])],
            );
        }
    }

    #[test]
    fn p225_several_challenges_in_a_line() {
        reads(
            r#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#,
            &[
                ("Basic", None, vec![("realm", "simple")]),
                (
                    "Newauth",
                    None,
                    vec![
                        ("realm", "apps"),
                        ("type", "1"),
                        ("title", r#"Login to "apps""#),
                    ],
                ),
            ],
        );
    }

    #[test]
    fn p226_several_lines_in_any_order() {
        let lines: [&[u8]; 3] = [
            b"Basic realm=x",
            br#"Bearer error="invalid_token", scope=s"#,
            b"Negotiate, DPoP a=b",
        ];
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let headers = headers(order.map(|at| lines[at]));
            let read: Vec<_> = challenges(&headers).collect();
            let expected: Vec<_> = order
                .iter()
                .flat_map(|at| parse(std::str::from_utf8(lines[*at]).unwrap()))
                .collect();
            assert_eq!(read, expected);
            assert_eq!(read.len(), 4);
            let bearer = read.iter().find(|c| c.is("Bearer")).unwrap();
            assert_eq!(bearer.param("error"), Some("invalid_token"));
        }
        assert_eq!(challenges(&HeaderMap::new()).count(), 0);
    }

    #[test]
    fn p226_nothing_is_carried_over_to_the_next_line() {
        let split = headers([&b"Bearer realm=x"[..], b"error=invalid_token", b"DPoP a=b"]);
        let read: Vec<_> = challenges(&split).collect();
        assert_eq!(
            plain(&read),
            [
                ("Bearer", None, vec![("realm", "x")]),
                ("DPoP", None, vec![("a", "b")])
            ]
        );
        // Nor an open quote.
        let open = headers([
            &br#"Basic realm="x"#[..],
            br#"Bearer error="invalid_token""#,
        ]);
        let read: Vec<_> = challenges(&open).collect();
        assert_eq!(
            plain(&read),
            [
                ("Basic", None, vec![]),
                ("Bearer", None, vec![("error", "invalid_token")])
            ]
        );
    }

    #[test]
    fn p227_token68_and_lone_schemes() {
        reads(
            "Negotiate YIIabc==, Bearer realm=x",
            &[
                ("Negotiate", Some("YIIabc=="), vec![]),
                ("Bearer", None, vec![("realm", "x")]),
            ],
        );
        reads(
            r#"Bearer, DPoP algs="ES256 PS256""#,
            &[
                ("Bearer", None, vec![]),
                ("DPoP", None, vec![("algs", "ES256 PS256")]),
            ],
        );
        for token68 in ["a", "a=", "a==", "a======", "aB3-._~+/", "/=", "a/b=="] {
            for (before, after) in [("", ""), ("", " "), ("  ", "\t,"), ("", ",Bearer")] {
                let line = format!("Foo {before}{token68}{after}");
                assert_eq!(
                    plain(&parse(&line))[0],
                    ("Foo", Some(token68), vec![]),
                    "{line}"
                );
            }
        }
        reads("Bearer", &[("Bearer", None, vec![])]);
        reads(" Bearer ", &[("Bearer", None, vec![])]);
        reads(
            "Bearer,DPoP",
            &[("Bearer", None, vec![]), ("DPoP", None, vec![])],
        );
        // A parameter, although it begins like a token68.
        reads("Foo a=b", &[("Foo", None, vec![("a", "b")])]);
        // Never both.
        reads(
            "Foo abc==, error=x, Bar",
            &[("Foo", Some("abc=="), vec![]), ("Bar", None, vec![])],
        );
    }

    #[test]
    fn p228_empty_elements_are_skipped() {
        let expected = (
            "Bearer",
            None,
            vec![("realm", "x"), ("error", "invalid_token")],
        );
        for line in [
            r#", Bearer realm="x",, error="invalid_token" ,"#,
            r#",,,Bearer realm="x",error="invalid_token",,,"#,
            " \t, ,Bearer\trealm=x , \t, error=invalid_token\t,\t",
            // `#auth-param` may begin with empty elements as well.
            "Bearer , , realm=x, error=invalid_token",
        ] {
            reads(line, std::slice::from_ref(&expected));
        }
        for nothing in ["", " ", ",", " , ,\t, "] {
            reads(nothing, &[]);
        }
    }

    #[test]
    fn p229_garbage_hides_no_challenge() {
        reads(
            r#"Foo $$$, Bearer error="invalid_token""#,
            &[("Bearer", None, vec![("error", "invalid_token")])],
        );
        for garbage in [
            "Foo $$$",
            "Foo @",
            "@",
            "@@@ Bearer realm=x",
            "Foo bar baz",
            "Foo a=b c",
            "Foo a==b",
            "Foo =",
            "Foo = =",
            "=",
            "==",
            "= =x",
            "/",
            "Foo/",
            "Foo: a=b",
            r"\",
            r#""""#,
            r#"OAuth "Facebook Platform" "invalid_token" "Error, DPoP error=x""#,
            r#"Foo a="b"c"#,
            "ünïcode",
            "Foo ✓",
            "\u{0}\n\r\u{7f}",
            "Bearer error=a, error=b",
        ] {
            let line = format!(r#"{garbage}, Bearer error="invalid_token""#);
            let challenges = parse(&line);
            let bearer: Vec<_> = challenges.iter().filter(|c| c.is("Bearer")).collect();
            assert_eq!(bearer.len(), 1, "{line}");
            assert_eq!(bearer[0].param("error"), Some("invalid_token"), "{line}");

            let line = format!(r#"Bearer error="invalid_token", {garbage}"#);
            if !garbage.starts_with("Bearer") {
                assert_eq!(
                    parse(&line)[0].param("error"),
                    Some("invalid_token"),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn p229_garbage_lends_its_parameters_to_nobody() {
        let bearer = ("Bearer", None, vec![("realm", "x")]);
        for garbage in [
            "@@@, error=invalid_token",
            "D(PoP algs=x, error=invalid_token",
            "DPoP: algs=x, error=invalid_token",
            "DPoP $$$, error=invalid_token",
            // A comma was lost before DPoP.
            "foo=bar DPoP algs=x, error=invalid_token",
            r#"foo="bar" DPoP algs=x, error=invalid_token"#,
        ] {
            reads(
                &format!("Bearer realm=x, {garbage}"),
                std::slice::from_ref(&bearer),
            );
        }
    }

    #[test]
    fn p229_an_unreadable_value_costs_its_parameter_alone() {
        let expected = ("Bearer", None, vec![("error", "invalid_token")]);
        for realm in [
            "realm=https://example.com/a?b=c",
            "realm=",
            "realm = ",
            "realm==x",
            "realm=ü",
            r#"realm="x"y"#,
            r#"realm="x"",""#,
            r#"realm=x"y, error=z""#,
        ] {
            reads(
                &format!("Bearer {realm}, error=invalid_token"),
                std::slice::from_ref(&expected),
            );
            reads(
                &format!("Bearer error=invalid_token, {realm}"),
                std::slice::from_ref(&expected),
            );
        }
    }

    #[test]
    fn p229_a_line_that_is_not_utf_8_is_absent() {
        let lines = headers([
            &b"Bearer error=\"invalid_token\", error_description=\"\xff\""[..],
            "DPoP error_description=\"ungültig\"".as_bytes(),
        ]);
        let read: Vec<_> = challenges(&lines).collect();
        assert_eq!(
            plain(&read),
            [("DPoP", None, vec![("error_description", "ungültig")])]
        );
    }

    /// How often a byte is looked at, at most: by the cursor, by the look ahead for padding, by
    /// the check of a word, and by hashing a name, which is repeated as the set grows. Short lines
    /// pay most, since between two pieces the same byte is asked several questions.
    const LOOKS: usize = 6;

    #[test]
    fn p229_long_lines_are_read_in_linear_time() {
        const LONG: usize = 100_000;
        let repeated = |piece: &str| piece.repeat(LONG / piece.len());
        let mut lines: Vec<String> = [
            ",",
            " ",
            "=",
            "\"",
            "\\",
            "a",
            "/",
            "é",
            ", ",
            "a,",
            "a ",
            "a=",
            "a,b ",
            "a b,",
            "a=b,",
            "a \"",
            "a=\"",
            "a=\",",
            "a=\"\\",
            "\\\"",
            "\"\\",
            "\"\",",
            "a a=",
            "a a= ",
            "a a=,",
            "a a==,",
            "a =",
            "a/",
            "a a/b,",
            "Foo $$$, ",
            "Bearer error=a, error=b, ",
        ]
        .into_iter()
        .flat_map(|piece| {
            let tail = repeated(piece);
            let behind = [
                "",
                "Foo ",
                "Foo a",
                "Foo a=",
                "Foo a=\"",
                "Foo a=\"b\" ",
                "@",
            ];
            behind.map(|head| format!("{head}{tail}"))
        })
        .collect();
        // One challenge of many different parameters, and then many of few.
        let different: String = (0..10_000).map(|n| format!(", p{n}=x")).collect();
        lines.push(format!("Bearer realm=x{different}"));
        lines.push(format!(
            "Bearer realm=x{different}{}",
            repeated(", Foo a=b")
        ));
        // Names that are long, and equal but for the end.
        let name = "n".repeat(1_000);
        let long: String = (0..100).map(|n| format!(", {name}{n}=x")).collect();
        lines.push(format!("Bearer realm=x{long}"));

        for line in &lines {
            let (_, looks) = counted(line);
            let head = line.get(..20).unwrap_or_default();
            assert!(
                looks <= LOOKS * (line.len() + 1),
                "{looks} of {}: {head}",
                line.len()
            );
        }
        // And the challenge we know is found behind all of it.
        let line = format!(
            r#"{}, Bearer error="invalid_token""#,
            lines[lines.len() - 2]
        );
        let (challenges, looks) = counted(&line);
        assert!(looks <= LOOKS * line.len());
        assert_eq!(challenges.len(), 2 + LONG / ", Foo a=b".len());
        assert_eq!(challenges[0].param("p9999"), Some("x"));
        assert_eq!(
            challenges.last().unwrap().param("error"),
            Some("invalid_token")
        );
    }

    #[test]
    fn p184_an_error_is_that_of_its_own_challenge() {
        let bearer = ("Bearer", None, vec![("error", "invalid_token")]);
        let dpop = ("DPoP", None, vec![("algs", "ES256")]);
        reads(
            r#"Bearer error="invalid_token", DPoP algs="ES256""#,
            &[bearer.clone(), dpop.clone()],
        );
        reads(
            r#"DPoP algs="ES256", Bearer error="invalid_token""#,
            &[dpop, bearer],
        );
        let challenges = parse(r#"Bearer, DPoP algs="ES256", error="invalid_token""#);
        assert_eq!(challenges[0].param("error"), None);
        assert_eq!(challenges[1].param("error"), Some("invalid_token"));
    }

    #[test]
    fn c24_no_space_behind_commas() {
        reads(
            r#"Basic realm="a,b=c",Bearer error="invalid_token",scope="x,y",Negotiate abc=,DPoP a=b"#,
            &[
                ("Basic", None, vec![("realm", "a,b=c")]),
                (
                    "Bearer",
                    None,
                    vec![("error", "invalid_token"), ("scope", "x,y")],
                ),
                ("Negotiate", Some("abc="), vec![]),
                ("DPoP", None, vec![("a", "b")]),
            ],
        );
    }

    #[test]
    fn c24_a_line_that_is_no_challenge() {
        for line in [
            "error=invalid_request,error_description=fehlt",
            "error=invalid_request,error_description=Kein gültiges Token",
            "error=invalid_request,error_description=Kein gültiger Bearer, Bearer ungültig, error=x",
            r#"error="invalid_token", error_description="Bearer error=\"invalid_token\"""#,
            "ungültig, error=invalid_token",
            "Bearer: error=invalid_token",
            r#""Bearer" error=invalid_token"#,
            r#""Bearer error=invalid_token""#,
            "Bearer token has expired, error=invalid_token",
            "Bearer=x, error=invalid_token",
            "Bearer/, error=invalid_token",
            "Bearer/x error=invalid_token",
            "Bearer a/b=c, error=invalid_token",
        ] {
            reads(line, &[]);
            // Neither to a challenge of another line.
            let lines = headers([&b"Bearer realm=x"[..], line.as_bytes(), b"DPoP a=b"]);
            let read: Vec<_> = challenges(&lines).collect();
            assert_eq!(
                plain(&read),
                [
                    ("Bearer", None, vec![("realm", "x")]),
                    ("DPoP", None, vec![("a", "b")])
                ]
            );
        }
    }

    #[test]
    fn unterminated_quotes_reach_to_the_end_of_the_line() {
        let bare = ("Bearer", None, vec![]);
        for line in [
            r#"Bearer error=""#,
            r#"Bearer error="invalid_token"#,
            r#"Bearer error="invalid_token\"#,
            r#"Bearer error="invalid_token\""#,
            r#"Bearer error="invalid_token, DPoP algs="ES256""#,
            r#"Bearer error="invalid_token, DPoP algs=ES256, error=x"#,
            r#"Bearer realm="x, error="invalid_token", scope="y""#,
            "Bearer error=\"é",
            "Bearer error=\"\\é",
        ] {
            reads(line, std::slice::from_ref(&bare));
        }
        reads(
            r#"Bearer realm=x, error="invalid_token, scope=y"#,
            &[("Bearer", None, vec![("realm", "x")])],
        );
        reads(r#"Foo ", Bearer error=invalid_token"#, &[]);
    }

    /// A challenge to be printed, and how.
    #[derive(Clone, Debug)]
    struct Printed {
        scheme: String,
        token68: Option<String>,
        /// Name, value, whether to print a token where possible, whether to escape needlessly.
        params: Vec<(String, String, bool, bool)>,
    }

    impl Printed {
        fn print(&self, space: &str, comma: &str) -> String {
            let mut line = self.scheme.clone();
            if let Some(token68) = &self.token68 {
                return line + " " + token68;
            }
            for (at, (name, value, token, escape)) in self.params.iter().enumerate() {
                line += if at == 0 { " " } else { comma };
                line += &format!("{name}{space}={space}");
                if *token && !value.is_empty() && value.bytes().all(is_tchar) {
                    line += value;
                    continue;
                }
                line.push('"');
                for char in value.chars() {
                    if *escape || matches!(char, '"' | '\\') {
                        line.push('\\');
                    }
                    line.push(char);
                }
                line.push('"');
            }
            line
        }

        fn plain(&self) -> Plain<'_> {
            let params = self
                .params
                .iter()
                .map(|(name, value, ..)| (&**name, &**value))
                .collect();
            (&self.scheme, self.token68.as_deref(), params)
        }
    }

    const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}";

    fn printed() -> impl Strategy<Value = Printed> {
        let value = prop_oneof![
            TOKEN,
            // What the grammar itself is made of, and then anything that may be quoted.
            r#"([",=\\ \t]|Bearer|error|é){0,8}"#,
            r"[\t -~\u{80}-\u{10ffff}]{0,16}",
        ];
        let params = prop::collection::vec((TOKEN, value, any::<bool>(), any::<bool>()), 0..6)
            .prop_map(|mut params| {
                let mut names = HashSet::new();
                params.retain(|(name, ..)| names.insert(name.to_ascii_lowercase()));
                (None, params)
            });
        let token68 = "[A-Za-z0-9._~+/-]{1,8}={0,3}".prop_map(|token68| (Some(token68), vec![]));
        (TOKEN, prop_oneof![3 => params, 1 => token68]).prop_map(|(scheme, (token68, params))| {
            Printed {
                scheme,
                token68,
                params,
            }
        })
    }

    /// Lines of the characters and words that matter.
    fn nasty() -> impl Strategy<Value = String> {
        r#"([ \t,="\\/@a$é]|Bearer |error|DPoP |x="y"|==){0,40}"#
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic_in_linear_time(
            line in prop_oneof![any::<String>(), nasty()],
        ) {
            let (challenges, looks) = counted(&line);
            prop_assert!(looks <= LOOKS * (line.len() + 1), "{} of {}", looks, line.len());
            for challenge in &challenges {
                prop_assert!(is_token(challenge.scheme));
                prop_assert!(challenge.token68.is_none() || challenge.params.is_empty());
                let mut names = HashSet::new();
                for (name, _) in &challenge.params {
                    prop_assert!(is_token(name) && names.insert(name.to_ascii_lowercase()));
                }
            }
        }

        #[test]
        fn any_header_is_read_without_panic(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
        ) {
            let mut headers = HeaderMap::new();
            for line in lines {
                if let Ok(line) = HeaderValue::from_bytes(&line) {
                    headers.append(WWW_AUTHENTICATE, line);
                }
            }
            challenges(&headers).for_each(drop);
        }

        #[test]
        fn what_is_printed_is_read_back(
            printed in prop::collection::vec(printed(), 0..5),
            space in "[ \t]{0,2}",
            comma in "[ \t]{0,2},[ \t,]{0,3}",
        ) {
            let lines: Vec<_> = printed.iter().map(|c| c.print(&space, &comma)).collect();
            let line = lines.join(&comma);
            let expected: Vec<_> = printed.iter().map(Printed::plain).collect();
            let read = parse(&line);
            prop_assert_eq!(plain(&read), expected, "{}", line);
        }

        /// P229, for all garbage but quotes.
        #[test]
        fn garbage_without_quotes_hides_nothing_and_adds_nothing(
            garbage in prop_oneof![any::<String>(), nasty()],
        ) {
            let garbage = garbage.replace('"', "");
            let line = format!(r#"{garbage}, Bearer error="invalid_token""#);
            let challenges = parse(&line);
            let expected = ("Bearer", None, vec![("error", "invalid_token")]);
            prop_assert_eq!(plain(&challenges).pop(), Some(expected), "{}", line);
            prop_assert_eq!(&challenges[..challenges.len() - 1], parse(&garbage), "{}", line);
        }
    }
}
