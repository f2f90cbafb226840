//! Tests of the challenge parser.

use http::HeaderValue;
use proptest::prelude::*;

use super::{
    invariants::{LOOKS, of_any_header},
    *,
};
use crate::{fuzzing::tests::mutated, work_counter};

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
    work_counter::counted(|| parse(line))
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
    fn p229_any_line_is_read_in_linear_time_and_keeps_to_the_grammar(
        line in prop_oneof![any::<String>(), nasty()],
    ) {
        of_any_header(line.as_bytes());
    }

    #[test]
    fn any_header_is_read_without_panic(
        line in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        of_any_header(&line);
    }

    /// Valid lines, of which something was lost, added, moved or changed.
    #[test]
    fn p229_what_is_left_of_a_valid_line_keeps_to_the_grammar(
        line in mutated(prop::collection::vec(printed(), 1..4).prop_map(|printed| {
            let printed = printed.iter().map(|c| c.print("", ", "));
            printed.collect::<Vec<_>>().join(", ").into_bytes()
        })),
    ) {
        of_any_header(&line);
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
