//! The invariants of parsed challenges, checked for any field line.

use super::*;
use crate::work_counter::counted;

/// The maximum number of reads per byte: by the cursor, by the look-ahead for padding, by the check of a
/// word, and by hashing a name, which repeats as the set grows. Short lines need most, as the cursor
/// peeks at a delimiter several times.
pub(super) const LOOKS: usize = 6;

/// Checks any field value.
pub(crate) fn check_header(line: &[u8]) {
    let Ok(text) = std::str::from_utf8(line) else {
        return check_among_other_lines(line, &[]);
    };
    let (parsed, looks) = counted(|| parse(text));
    assert!(looks <= LOOKS * (line.len() + 1), "{looks}: {text:?}");
    parsed.iter().for_each(check_challenge);
    // The challenges are not longer than the line.
    let total: usize = parsed.iter().map(size).sum();
    assert!(total <= line.len(), "{total}: {text:?}");
    let printed = print(&parsed);
    assert_eq!(parse(&printed), parsed, "{text:?}, printed as {printed:?}");
    check_among_other_lines(line, &parsed);
    // Without quotes, a challenge after the line is found, the challenges of the line do not change, and
    // parameters after an invalid element are ignored.
    if !text.contains('"') {
        let line = format!(r#"{text}, Bearer error="invalid_token""#);
        let mut challenges = parse(&line);
        let last = challenges.pop();
        assert!(last.is_some_and(|last| {
            last.is("Bearer")
                && last.params.len() == 1
                && last.param("ERROR") == Some("invalid_token")
        }));
        assert_eq!(challenges, parsed, "{text:?}");
        assert_eq!(parse(&format!("{text}, @, error=x")), parsed, "{text:?}");
    }
}

fn check_challenge(challenge: &Challenge<'_>) {
    assert!(is_token(challenge.scheme));
    assert!(challenge.is(&challenge.scheme.to_ascii_uppercase()));
    if let Some(token68) = challenge.token68 {
        assert!(challenge.params.is_empty());
        assert!(is_token68(token68.trim_end_matches('=')), "{token68:?}");
    }
    let mut names = HashSet::new();
    for (name, value) in &challenge.params {
        assert!(is_token(name) && names.insert(name.to_ascii_lowercase()));
        assert!(value.bytes().all(is_text), "{value:?}");
        assert_eq!(challenge.param(&name.to_ascii_uppercase()), Some(&**value));
    }
}

fn size(challenge: &Challenge<'_>) -> usize {
    let params = challenge.params.iter();
    let params: usize = params.map(|(name, value)| name.len() + value.len()).sum();
    challenge.scheme.len() + challenge.token68.map_or(0, str::len) + params
}

/// Checks that other lines do not change the result, and that a line that is not UTF-8 is ignored.
fn check_among_other_lines(line: &[u8], parsed: &[Challenge<'_>]) {
    let Ok(line) = http::HeaderValue::from_bytes(line) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.append(WWW_AUTHENTICATE, http::HeaderValue::from_static("A b=c"));
    headers.append(WWW_AUTHENTICATE, line);
    headers.append(WWW_AUTHENTICATE, http::HeaderValue::from_static("D e=f"));
    let all: Vec<_> = challenges(&headers).collect();
    let expected = [&parse("A b=c")[..], parsed, &parse("D e=f")].concat();
    assert_eq!(all, expected);
}

/// Formats challenges as one line, with all values in quotes.
fn print(challenges: &[Challenge<'_>]) -> String {
    let printed = challenges.iter().map(|challenge| {
        let params = challenge.params.iter().map(|(name, value)| {
            let value = value.replace('\\', r"\\").replace('"', r#"\""#);
            format!(r#"{name}="{value}""#)
        });
        let params = params.collect::<Vec<_>>().join(", ");
        let rest = challenge.token68.unwrap_or(&params);
        format!("{} {rest}", challenge.scheme)
    });
    printed.collect::<Vec<_>>().join(", ")
}
