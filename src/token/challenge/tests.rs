//! Tests of the challenge parser.

use http::HeaderValue;
use proptest::prelude::*;

use super::{
    invariants::{LOOKS, check_header},
    *,
};
use crate::{parser_testing::mutated, work_counter};

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
fn assert_parsed(line: &str, expected: &[Plain<'_>]) {
    assert_eq!(plain(&parse(line)), expected, "{line}");
}

fn headers<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(line).unwrap());
    }
    headers
}

/// Returns the challenges of `line`, and how many bytes were read for them.
fn counted(line: &str) -> (Vec<Challenge<'_>>, usize) {
    work_counter::counted(|| parse(line))
}

#[test]
fn p64_bearer_challenge_with_unknown_parameters_is_parsed() {
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
fn p221_parameter_names_are_case_insensitive_and_unique() {
    let challenges = parse(r#"Bearer ERROR="invalid_token""#);
    assert_eq!(challenges[0].param("error"), Some("invalid_token"));
    assert_eq!(challenges[0].param("eRRor"), Some("invalid_token"));

    for duplicates in [
        "error=a, error=b",
        "error=a, error=a",
        r#"error=a, ERROR="a""#,
        "error=a, realm=x, Error=b, scope=y",
        // A duplicate name counts even if its value is invalid.
        "error=a/b, error=invalid_token",
        "error=, error=invalid_token",
        "error=invalid_token, error=a/b",
        "error=invalid_token, error=a b",
        r#"error=invalid_token, error="a"#,
    ] {
        assert_parsed(&format!("Bearer {duplicates}"), &[]);
    }
    assert_parsed(
        "Basic realm=a, Bearer error=a, error=b, DPoP error=c",
        &[
            ("Basic", None, vec![("realm", "a")]),
            ("DPoP", None, vec![("error", "c")]),
        ],
    );
    // Names are unique per challenge, not per line.
    assert_parsed(
        "Bearer error=a, Bearer error=b",
        &[
            ("Bearer", None, vec![("error", "a")]),
            ("Bearer", None, vec![("error", "b")]),
        ],
    );
}

#[test]
fn p222_token_and_quoted_string_values_are_equal() {
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
        assert_parsed(&token, &[("Bearer", None, vec![(name, "x-1")])]);
    }
    assert_parsed(
        r#"Bearer realm="""#,
        &[("Bearer", None, vec![("realm", "")])],
    );
}

#[test]
fn p223_quoted_string_is_unescaped_and_contains_no_challenge() {
    assert_parsed(
        r#"Bearer error_description="say \"hi\", DPoP x=1""#,
        &[(
            "Bearer",
            None,
            vec![("error_description", r#"say "hi", DPoP x=1"#)],
        )],
    );
    assert_parsed(
        r#"Bearer a="\\", b="\a\é\\\"", c="DPoP error=\"x\"""#,
        &[(
            "Bearer",
            None,
            vec![("a", r"\"), ("b", r#"aé\""#), ("c", r#"DPoP error="x""#)],
        )],
    );
    assert_parsed(
        "Bearer a=\"\tTöken, ✓ = 1\", b=x",
        &[("Bearer", None, vec![("a", "\tTöken, ✓ = 1"), ("b", "x")])],
    );
    // A control character makes the value invalid; the quotes still quote.
    assert_parsed(
        "Bearer a=\"x\n, Foo b=c\", d=e",
        &[("Bearer", None, vec![("d", "e")])],
    );
    assert_parsed(
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
fn p224_whitespace_around_the_equals_sign_is_ignored() {
    for parameter in [
        r#"error = "invalid_token""#,
        r#"error ="invalid_token""#,
        r#"error= "invalid_token""#,
        "error\t=\t invalid_token\t",
        "error= invalid_token ",
    ] {
        let expected = ("error", "invalid_token");
        assert_parsed(
            &format!("Bearer {parameter}"),
            &[("Bearer", None, vec![expected])],
        );
        assert_parsed(
            &format!("Bearer a=b , {parameter}"),
            &[("Bearer", None, vec![("a", "b"), expected])],
        );
    }
}

#[test]
fn p225_several_challenges_in_one_line_are_parsed() {
    assert_parsed(
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
fn p226_challenges_of_several_lines_are_independent_of_their_order() {
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
fn p226_parameter_never_belongs_to_a_scheme_of_another_line() {
    let split = headers([&b"Bearer realm=x"[..], b"error=invalid_token", b"DPoP a=b"]);
    let read: Vec<_> = challenges(&split).collect();
    assert_eq!(
        plain(&read),
        [
            ("Bearer", None, vec![("realm", "x")]),
            ("DPoP", None, vec![("a", "b")])
        ]
    );
    // An open quote ends with its line, too.
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
fn p227_token68_and_schemes_without_parameters_are_parsed() {
    assert_parsed(
        "Negotiate YIIabc==, Bearer realm=x",
        &[
            ("Negotiate", Some("YIIabc=="), vec![]),
            ("Bearer", None, vec![("realm", "x")]),
        ],
    );
    assert_parsed(
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
    assert_parsed("Bearer", &[("Bearer", None, vec![])]);
    assert_parsed(" Bearer ", &[("Bearer", None, vec![])]);
    assert_parsed(
        "Bearer,DPoP",
        &[("Bearer", None, vec![]), ("DPoP", None, vec![])],
    );
    // A parameter that begins like a token68.
    assert_parsed("Foo a=b", &[("Foo", None, vec![("a", "b")])]);
    // A challenge never has both.
    assert_parsed(
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
        // `#auth-param` may begin with empty elements, too.
        "Bearer , , realm=x, error=invalid_token",
    ] {
        assert_parsed(line, std::slice::from_ref(&expected));
    }
    for empty in ["", " ", ",", " , ,\t, "] {
        assert_parsed(empty, &[]);
    }
}

#[test]
fn p229_invalid_element_hides_no_challenge() {
    assert_parsed(
        r#"Foo $$$, Bearer error="invalid_token""#,
        &[("Bearer", None, vec![("error", "invalid_token")])],
    );
    for invalid in [
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
        let line = format!(r#"{invalid}, Bearer error="invalid_token""#);
        let challenges = parse(&line);
        let bearer: Vec<_> = challenges.iter().filter(|c| c.is("Bearer")).collect();
        assert_eq!(bearer.len(), 1, "{line}");
        assert_eq!(bearer[0].param("error"), Some("invalid_token"), "{line}");

        let line = format!(r#"Bearer error="invalid_token", {invalid}"#);
        if !invalid.starts_with("Bearer") {
            assert_eq!(
                parse(&line)[0].param("error"),
                Some("invalid_token"),
                "{line}"
            );
        }
    }
}

#[test]
fn p229_parameters_after_an_invalid_element_are_ignored() {
    let bearer = ("Bearer", None, vec![("realm", "x")]);
    for invalid in [
        "@@@, error=invalid_token",
        "D(PoP algs=x, error=invalid_token",
        "DPoP: algs=x, error=invalid_token",
        "DPoP $$$, error=invalid_token",
        // A comma is missing before DPoP.
        "foo=bar DPoP algs=x, error=invalid_token",
        r#"foo="bar" DPoP algs=x, error=invalid_token"#,
    ] {
        assert_parsed(
            &format!("Bearer realm=x, {invalid}"),
            std::slice::from_ref(&bearer),
        );
    }
}

#[test]
fn p229_invalid_value_drops_only_its_parameter() {
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
        assert_parsed(
            &format!("Bearer {realm}, error=invalid_token"),
            std::slice::from_ref(&expected),
        );
        assert_parsed(
            &format!("Bearer error=invalid_token, {realm}"),
            std::slice::from_ref(&expected),
        );
    }
}

#[test]
fn p229_line_that_is_not_utf8_is_ignored() {
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

#[test]
fn p229_long_lines_are_parsed_in_linear_time() {
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
        let heads = [
            "",
            "Foo ",
            "Foo a",
            "Foo a=",
            "Foo a=\"",
            "Foo a=\"b\" ",
            "@",
        ];
        heads.map(|head| format!("{head}{tail}"))
    })
    .collect();
    // One challenge with many parameters, then many challenges with few.
    let different: String = (0..10_000).map(|n| format!(", p{n}=x")).collect();
    lines.push(format!("Bearer realm=x{different}"));
    lines.push(format!(
        "Bearer realm=x{different}{}",
        repeated(", Foo a=b")
    ));
    // Long names that differ only at the end.
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
    // A challenge after such a line is found.
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
fn p184_error_belongs_to_its_own_challenge() {
    let bearer = ("Bearer", None, vec![("error", "invalid_token")]);
    let dpop = ("DPoP", None, vec![("algs", "ES256")]);
    assert_parsed(
        r#"Bearer error="invalid_token", DPoP algs="ES256""#,
        &[bearer.clone(), dpop.clone()],
    );
    assert_parsed(
        r#"DPoP algs="ES256", Bearer error="invalid_token""#,
        &[dpop, bearer],
    );
    let challenges = parse(r#"Bearer, DPoP algs="ES256", error="invalid_token""#);
    assert_eq!(challenges[0].param("error"), None);
    assert_eq!(challenges[1].param("error"), Some("invalid_token"));
}

#[test]
fn c24_commas_without_spaces_are_parsed() {
    assert_parsed(
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
fn c24_line_without_a_challenge_is_ignored() {
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
        assert_parsed(line, &[]);
        // Challenges of other lines do not change.
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
fn unclosed_quote_extends_to_the_end_of_the_line() {
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
        assert_parsed(line, std::slice::from_ref(&bare));
    }
    assert_parsed(
        r#"Bearer realm=x, error="invalid_token, scope=y"#,
        &[("Bearer", None, vec![("realm", "x")])],
    );
    assert_parsed(r#"Foo ", Bearer error=invalid_token"#, &[]);
}

/// A challenge to format.
#[derive(Clone, Debug)]
struct Printed {
    scheme: String,
    token68: Option<String>,
    /// Name, value, whether to prefer a token, whether to escape every character.
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
        // The words of the grammar, then any quotable text.
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

/// Lines of the grammar's delimiters and words.
fn grammar_words() -> impl Strategy<Value = String> {
    r#"([ \t,="\\/@a$é]|Bearer |error|DPoP |x="y"|==){0,40}"#
}

proptest! {
    #[test]
    fn p229_any_line_satisfies_the_invariants(
        line in prop_oneof![any::<String>(), grammar_words()],
    ) {
        check_header(line.as_bytes());
    }

    #[test]
    fn any_bytes_satisfy_the_header_invariants(
        line in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        check_header(&line);
    }

    #[test]
    fn p229_mutated_valid_line_satisfies_the_invariants(
        line in mutated(prop::collection::vec(printed(), 1..4).prop_map(|printed| {
            let printed = printed.iter().map(|c| c.print("", ", "));
            printed.collect::<Vec<_>>().join(", ").into_bytes()
        })),
    ) {
        check_header(&line);
    }

    #[test]
    fn formatted_challenges_are_parsed_back(
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

    /// P229, for all invalid input without quotes.
    #[test]
    fn invalid_text_without_quotes_changes_no_other_challenge(
        invalid in prop_oneof![any::<String>(), grammar_words()],
    ) {
        let invalid = invalid.replace('"', "");
        let line = format!(r#"{invalid}, Bearer error="invalid_token""#);
        let challenges = parse(&line);
        let expected = ("Bearer", None, vec![("error", "invalid_token")]);
        prop_assert_eq!(plain(&challenges).pop(), Some(expected), "{}", line);
        prop_assert_eq!(&challenges[..challenges.len() - 1], parse(&invalid), "{}", line);
    }
}
