//! The secrets, and a search that finds them in every encoding.
//!
//! The search looks for all pieces of [`PIECE`] bytes of a secret, so it also finds half a secret. It
//! reads a text as is, and decodes it: percent and form encoding, Base64 of both alphabets at every
//! alignment, hexadecimal, escapes of `Debug` and of JSON, lists of bytes or characters. It decodes
//! the results again, up to [`DEPTH`] times. For example, it finds form-encoded credentials inside
//! Base64 (`Authorization: Basic`) in the `Debug` of a byte vector.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
};

use sha2::{Digest as _, Sha256};

/// The shortest piece of a secret that counts.
pub(crate) const PIECE: usize = 8;
/// The maximum number of nested encodings.
const DEPTH: usize = 3;

/// The kinds of secrets. The [client id](Secret::ClientId) is not a secret (RFC 6749 §2.2), but it may
/// show only in the `Debug` of configurations, where it identifies them. Scopes, audiences, cache
/// names, file paths, hosts and ports are not secrets.
#[allow(clippy::enum_variant_names, reason = "the names of the RFCs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Secret {
    ClientId,
    ClientSecret,
    AccessToken,
    /// The token that replaces `AccessToken`.
    SecondAccessToken,
    Session,
    SecondRefreshToken,
    IdToken,
    Verifier,
    Code,
    State,
    /// The private part of a key.
    PrivateKey,
    /// A signed JWT: a client assertion or an assertion grant.
    Assertion,
    /// `https://user:password@host/`.
    Userinfo,
    SealingKey,
    /// A further parameter of a token request.
    Param,
    /// A further header of a token request.
    Header,
    /// A claim of an assertion.
    Claim,
    /// A cookie of the server.
    Cookie,
    /// The query of a URL: some servers expect a key there.
    Query,
    /// The password of a proxy.
    Proxy,
    /// Personal data of the user, such as a login hint.
    Hint,
}

impl Secret {
    pub(crate) const FIXED: [Self; 19] = [
        Self::ClientId,
        Self::ClientSecret,
        Self::AccessToken,
        Self::SecondAccessToken,
        Self::Session,
        Self::SecondRefreshToken,
        Self::IdToken,
        Self::Verifier,
        Self::Code,
        Self::State,
        Self::Userinfo,
        Self::SealingKey,
        Self::Param,
        Self::Header,
        Self::Claim,
        Self::Cookie,
        Self::Query,
        Self::Proxy,
        Self::Hint,
    ];

    /// The secret's text, the same in every run: letters and digits, and characters that need encoding
    /// where such a secret may contain them.
    pub(crate) fn text(self) -> String {
        let (one, other) = match self {
            // 32 bytes.
            Self::SealingKey => ("-._~", ""),
            Self::Verifier | Self::Userinfo | Self::Proxy | Self::Query => ("-._~", "~._-"),
            Self::ClientSecret | Self::Param | Self::Claim | Self::Hint => ("+\"/%", "\\: \u{e9}"),
            // Valid in a header.
            _ => ("+\"/%", "\\=&~"),
        };
        let digest = Sha256::digest(format!("canary {self:?}"));
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let text: String = digest
            .iter()
            .map(|byte| char::from(letters[usize::from(*byte) % letters.len()]))
            .collect();
        let padding = match self {
            // At least 43 characters.
            Self::Verifier => &text[..16],
            _ => "",
        };
        let [first, middle, last] = [&text[..12], &text[12..16], &text[16..28]];
        format!("{first}{one}{middle}{other}{last}{padding}")
    }
}

/// A secret that was found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) secret: Secret,
    /// Its encodings, the outermost first.
    pub(crate) shape: String,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({})", self.secret, self.shape)
    }
}

/// The secrets to search for.
pub(crate) struct Canaries {
    pieces: HashMap<u64, Secret>,
    /// Whether a piece may have this hash. Avoids most lookups in the slower map.
    maybe: Vec<bool>,
}

impl Canaries {
    pub(crate) fn new() -> Self {
        let mut canaries = Self {
            pieces: HashMap::new(),
            maybe: vec![false; 1 << 16],
        };
        for secret in Secret::FIXED {
            canaries.add(secret, secret.text().as_bytes());
        }
        canaries
    }

    /// Adds a secret that is created while the test runs.
    pub(crate) fn add(&mut self, secret: Secret, value: &[u8]) {
        assert!(value.len() >= 2 * PIECE, "{secret:?} is too short");
        for piece in value.windows(PIECE) {
            let piece = piece.iter().fold(0, append);
            self.maybe[hash(piece)] = true;
            self.pieces.insert(piece, secret);
        }
    }

    /// Finds the secrets in a text, in any encoding.
    pub(crate) fn search(&self, text: &[u8]) -> BTreeSet<Found> {
        let mut found = BTreeSet::new();
        let mut seen = HashSet::new();
        let mut views = vec![(text.to_vec(), Vec::<&str>::new())];
        while let Some((view, undone)) = views.pop() {
            for secret in self.raw(&view) {
                let shape = match undone.is_empty() {
                    true => "plain".to_owned(),
                    false => undone.join(", "),
                };
                found.insert(Found { secret, shape });
            }
            if undone.len() == DEPTH {
                continue;
            }
            for (shape, view) in undo(&view) {
                if seen.insert(view.clone()) {
                    let undone = [&undone[..], &[shape]].concat();
                    views.push((view, undone));
                }
            }
        }
        found
    }

    fn raw(&self, text: &[u8]) -> BTreeSet<Secret> {
        let mut found = BTreeSet::new();
        let mut piece = 0;
        for (at, byte) in text.iter().enumerate() {
            piece = append(piece, byte);
            if at + 1 >= PIECE && self.maybe[hash(piece)] {
                found.extend(self.pieces.get(&piece));
            }
        }
        found
    }
}

/// In lower case: header names, for example, lose their case.
fn append(piece: u64, byte: &u8) -> u64 {
    (piece << 8) | u64::from(byte.to_ascii_lowercase())
}

fn hash(piece: u64) -> usize {
    usize::from((piece.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16)
}

/// Decodes each encoding that occurs in the text.
fn undo(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut views = Vec::new();
    if text.contains(&b'%') {
        views.push(("percent", percent(text)));
    }
    if text.contains(&b'+') {
        let spaces: Vec<u8> = text
            .iter()
            .map(|b| if *b == b'+' { b' ' } else { *b })
            .collect();
        views.push(("form", percent(&spaces)));
    }
    if text.contains(&b'\\') {
        views.push(("escapes", unescape(text)));
    }
    let runs = runs(text, 11, |b| {
        b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_')
    });
    for from in 0..4 {
        let decoded = join(
            runs.iter()
                .map(|run| base64(run.get(from..).unwrap_or_default())),
        );
        if !decoded.is_empty() {
            views.push(("base64", decoded));
        }
    }
    let runs = self::runs(text, 2 * PIECE, |b| b.is_ascii_hexdigit());
    for from in 0..2 {
        let decoded = join(runs.iter().map(|run| hex(&run[from..])));
        if !decoded.is_empty() {
            views.push(("hex", decoded));
        }
    }
    for (shape, item) in [
        ("list of bytes", decimal as fn(&[u8]) -> Option<u8>),
        ("list of hex bytes", hexadecimal),
        ("list of characters", character),
    ] {
        let list = list(text, item);
        if list.len() >= PIECE {
            views.push((shape, list));
        }
    }
    views
}

fn runs(text: &[u8], shortest: usize, of: impl Fn(u8) -> bool) -> Vec<&[u8]> {
    let runs = text.split(|byte| !of(*byte));
    runs.filter(|run| run.len() >= shortest).collect()
}

fn join(parts: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    parts.join(&b'\n')
}

fn percent(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let byte = match (first, behind) {
            (b'%', [high, low, ..]) => nibble(*high).zip(nibble(*low)),
            _ => None,
        };
        (rest, _) = match byte {
            Some((high, low)) => (&behind[2..], decoded.push(high << 4 | low)),
            None => (behind, decoded.push(*first)),
        };
    }
    decoded
}

/// `\"`, `\\`, `\/`, `\n`, `\x41`, `\u0041`, `\u{41}`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        let (b'\\', Some((kind, after))) = (first, behind.split_first()) else {
            plain.push(*first);
            continue;
        };
        let (digits, length) = match (kind, after) {
            (b'x', [high, low, ..]) => (vec![*high, *low], 2),
            (b'u', [b'{', digits @ ..]) => {
                let digits: Vec<u8> = digits.iter().take_while(|b| **b != b'}').copied().collect();
                let length = digits.len() + 2;
                (digits, length)
            }
            (b'u', digits) => (digits.iter().take(4).copied().collect(), 4),
            _ => (Vec::new(), 0),
        };
        let number = digits.iter().try_fold(0_u32, |sum, digit| {
            Some(sum.checked_mul(16)? + u32::from(nibble(*digit)?))
        });
        match number.filter(|_| !digits.is_empty()) {
            Some(number) => {
                match (kind, u8::try_from(number), char::from_u32(number)) {
                    (b'x', Ok(byte), _) => plain.push(byte),
                    (_, _, Some(char)) => plain.extend(char.to_string().bytes()),
                    _ => {}
                }
                rest = after.get(length..).unwrap_or_default();
            }
            None => {
                plain.push(match kind {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    other => *other,
                });
                rest = after;
            }
        }
    }
    plain
}

/// Decodes a run of Base64 characters, ignoring an incomplete end.
fn base64(run: &[u8]) -> Vec<u8> {
    let (mut decoded, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in run {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            _ => 63,
        };
        bits = (bits << 6 | u32::from(value)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count) as u8);
        }
    }
    decoded
}

fn hex(run: &[u8]) -> Vec<u8> {
    let pairs = run.chunks_exact(2);
    let byte = |pair: &[u8]| Some(nibble(pair[0])? << 4 | nibble(pair[1])?);
    pairs.filter_map(byte).collect()
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// Decodes the items between commas, blanks, brackets and colons. Skips other words, so several lists
/// count as one.
fn list(text: &[u8], item: fn(&[u8]) -> Option<u8>) -> Vec<u8> {
    let between = |b: &u8| matches!(b, b',' | b' ' | b'\n' | b'[' | b']' | b':' | b'(' | b')');
    let items = text.split(between).filter(|item| !item.is_empty());
    items.filter_map(item).collect()
}

fn decimal(item: &[u8]) -> Option<u8> {
    let digits = item.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(item).ok().filter(|_| digits)?;
    text.parse().ok()
}

fn hexadecimal(item: &[u8]) -> Option<u8> {
    let digits = item.strip_prefix(b"0x").unwrap_or(item);
    match digits {
        [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
        _ => None,
    }
}

fn character(item: &[u8]) -> Option<u8> {
    match item {
        [b'\'', char, b'\''] => Some(*char),
        [b'\'', b'\\', char, b'\''] => Some(*char),
        _ => None,
    }
}
