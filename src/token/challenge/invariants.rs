//! What holds of a field line, whoever wrote it.

use super::*;
use crate::work_counter::counted;

/// How often a byte is looked at, at most: by the cursor, by the look ahead for padding, by
/// the check of a word, and by hashing a name, which is repeated as the set grows. Short lines
/// pay most, since between two pieces the same byte is asked several questions.
pub(super) const LOOKS: usize = 6;

/// Of any field value.
pub(crate) fn of_any_header(line: &[u8]) {
    let Ok(text) = std::str::from_utf8(line) else {
        return among_others(line, &[]);
    };
    let (read, looks) = counted(|| parse(text));
    assert!(looks <= LOOKS * (line.len() + 1), "{looks}: {text:?}");
    read.iter().for_each(of_any_challenge);
    // No more than there was.
    let handed: usize = read.iter().map(size).sum();
    assert!(handed <= line.len(), "{handed}: {text:?}");
    let printed = print(&read);
    assert_eq!(parse(&printed), read, "{text:?}, printed as {printed:?}");
    among_others(line, &read);
    // Quotes may reach to the end. Otherwise nothing is hidden behind it, nothing changes before, and
    // what is behind garbage is nobody's.
    if !text.contains('"') {
        let line = format!(r#"{text}, Bearer error="invalid_token""#);
        let mut behind = parse(&line);
        let last = behind.pop();
        assert!(last.is_some_and(|last| {
            last.is("Bearer")
                && last.params.len() == 1
                && last.param("ERROR") == Some("invalid_token")
        }));
        assert_eq!(behind, read, "{text:?}");
        assert_eq!(parse(&format!("{text}, @, error=x")), read, "{text:?}");
    }
}

fn of_any_challenge(challenge: &Challenge<'_>) {
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

/// Lines do not touch each other, and one that is not UTF-8 is absent.
fn among_others(line: &[u8], read: &[Challenge<'_>]) {
    let Ok(line) = http::HeaderValue::from_bytes(line) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.append(WWW_AUTHENTICATE, http::HeaderValue::from_static("A b=c"));
    headers.append(WWW_AUTHENTICATE, line);
    headers.append(WWW_AUTHENTICATE, http::HeaderValue::from_static("D e=f"));
    let all: Vec<_> = challenges(&headers).collect();
    let expected = [&parse("A b=c")[..], read, &parse("D e=f")].concat();
    assert_eq!(all, expected);
}

/// As a server writes them, in one line: all values in quotes.
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
