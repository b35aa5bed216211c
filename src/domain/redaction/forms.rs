//! The forms in which a secret may be printed: raw, base64, hex, percent-encoded, inside JSON, inside
//! XML, quoted for a shell, in UTF-16, in dumps, and each line of one that has several.

use std::{collections::BTreeMap, fmt::Write as _};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};

use super::{MIN_LENGTH, dumps, is_weak_secret};

/// Shortest secret that is taken for one when it stands in a file of a repository, in bytes. A
/// shorter one (`postgres`) may be an ordinary word there.
const MIN_STRONG: usize = 16;
/// Names that stand before a token in basic authentication.
const USERS: [&str; 4] = ["x-access-token", "oauth2", "git", "token"];
/// Where programs break base64: MIME and PEM.
const COLUMNS: [usize; 2] = [76, 64];

/// Each form, and what is known of it.
pub(super) type Forms = BTreeMap<Vec<u8>, About>;

/// What a form means.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct About {
    /// It betrays a secret that cannot be an ordinary word.
    pub(super) strong: bool,
    /// So many characters beside it belong to the secret in part.
    pub(super) margin: usize,
}

impl About {
    pub(super) fn merge(&mut self, other: Self) {
        self.strong |= other.strong;
        self.margin = self.margin.max(other.margin);
    }
}

/// Adds the forms of `secret` and of each of its lines.
pub(super) fn add(secret: &str, forms: &mut Forms) {
    let secret = secret.trim();
    add_one(secret, forms);
    // A key of several lines also shows up line by line.
    let lines = secret.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    for line in lines.filter(|line| *line != secret) {
        add_one(line, forms);
    }
}

fn add_one(secret: &str, forms: &mut Forms) {
    if is_weak_secret(secret) {
        return;
    }
    let strong = is_strong(secret);
    let mut add_bytes = |form: Vec<u8>, margin: usize| {
        if form.len() >= MIN_LENGTH {
            forms.entry(form).or_default().merge(About { strong, margin });
        }
    };
    wide(secret, &mut add_bytes);
    let mut add = |form: String| add_bytes(form.into_bytes(), 0);
    add(secret.to_owned());
    encoded(secret, &mut add);
    for upper in [true, false] {
        add(percent(secret, upper));
        add(hex_of(secret.as_bytes(), upper));
    }
    in_json(secret, &mut add);
    quoted(secret, &mut add);
    for (form, margin) in dumps::of(secret.as_bytes()) {
        add_bytes(form.into_bytes(), margin);
    }
}

/// In UTF-16, as it is and encoded. Of ASCII the bytes between the first and the last letter are the same in
/// both orders.
fn wide(secret: &str, add: &mut impl FnMut(Vec<u8>, usize)) {
    let units = || secret.encode_utf16();
    for bytes in [
        units().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(),
        units().flat_map(u16::to_be_bytes).collect(),
    ] {
        for shift in 0..3 {
            add(inside(&STANDARD, &bytes, shift).into_bytes(), 0);
        }
        let letters = bytes.strip_suffix(&[0]).or_else(|| bytes.strip_prefix(&[0]));
        let letters = letters.unwrap_or(&bytes);
        for upper in [true, false] {
            add(hex_of(letters, upper).into_bytes(), 0);
        }
        add(bytes, 0);
    }
    // As `od` and `hexdump` show them, on machines of either order.
    for swap in [false, true] {
        let units = || units().map(|unit| if swap { unit.swap_bytes() } else { unit });
        let octal = |unit: u16| format!("{unit:06o}");
        add(units().map(octal).collect::<String>().into_bytes(), 0);
        add(units().map(|unit| unit.to_string()).collect::<String>().into_bytes(), 0);
    }
}

/// Long, and with letters and digits: no word and no sentence.
fn is_strong(secret: &str) -> bool {
    secret.len() >= MIN_STRONG
        && secret.bytes().any(|byte| byte.is_ascii_digit())
        && secret.bytes().any(|byte| byte.is_ascii_alphabetic())
}

fn encoded(secret: &str, add: &mut impl FnMut(String)) {
    let users = USERS.iter().map(|user| format!("{user}:{secret}"));
    let wholes: Vec<String> =
        [secret.to_owned(), format!("{secret}\n")].into_iter().chain(users).collect();
    for whole in &wholes {
        for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            let text = engine.encode(whole);
            for columns in COLUMNS.into_iter().filter(|columns| text.len() > *columns) {
                for line in text.as_bytes().chunks(columns) {
                    add(String::from_utf8_lossy(line).into_owned());
                }
            }
            add(percent(&text, true));
            add(percent(&text, false));
            add(text.replace('/', "\\/"));
            add(text);
        }
    }
    for shift in 0..3 {
        for engine in [&STANDARD, &URL_SAFE] {
            let text = inside(engine, secret.as_bytes(), shift);
            add(text.replace('/', "\\/"));
            add(text);
        }
    }
}

/// The base64 characters that depend on `secret` alone when `shift` bytes (modulo 3) precede it.
fn inside(engine: &impl Engine, secret: &[u8], shift: usize) -> String {
    let mut padded = vec![0; shift];
    padded.extend_from_slice(secret);
    let first = (shift * 8).div_ceil(6);
    let end = padded.len() * 8 / 6;
    engine.encode(&padded)[first..end].to_owned()
}

fn hex(byte: u8, upper: bool) -> String {
    if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }
}

fn hex_of(bytes: &[u8], upper: bool) -> String {
    bytes.iter().fold(String::new(), |out, byte| out + &hex(*byte, upper))
}

fn percent(text: &str, upper: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                out.push('%');
                out.push_str(&hex(byte, upper));
            }
        }
    }
    out
}

fn in_json(secret: &str, add: &mut impl FnMut(String)) {
    let json = |text: &str| {
        let quoted = serde_json::Value::from(text).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let once = json(secret);
    add(json(&once));
    add(once.replace('/', "\\/"));
    for upper in [true, false] {
        // Every character, all but letters and digits, and what is special in a web page.
        add(unicode_escaped(secret, upper, |_| true));
        add(unicode_escaped(secret, upper, |c| !c.is_ascii_alphanumeric()));
        let special = |c: char| matches!(c, '<' | '>' | '&' | '\'' | '+' | '=') || !c.is_ascii();
        add(unicode_escaped(&once, upper, special));
        add(unicode_escaped(&once, upper, |c| !c.is_ascii()));
    }
    add(once);
}

fn unicode_escaped(text: &str, upper: bool, escape: impl Fn(char) -> bool) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if !escape(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let written =
                if upper { write!(out, "\\u{unit:04X}") } else { write!(out, "\\u{unit:04x}") };
            // Writing to a string does not fail.
            debug_assert!(written.is_ok());
        }
    }
    out
}

/// As shells and XML write it inside quotes, or without them.
fn quoted(secret: &str, add: &mut impl FnMut(String)) {
    let escaped = |special: &dyn Fn(char) -> bool| {
        secret.chars().fold(String::new(), |mut out, c| {
            if special(c) {
                out.push('\\');
            }
            out.push(c);
            out
        })
    };
    add(secret.replace('\'', r"'\''"));
    add(secret.replace('\'', r#"'"'"'"#));
    add(escaped(&|c| matches!(c, '"' | '$' | '`' | '\\')));
    add(escaped(&|c| matches!(c, '"' | '$' | '`' | '\\' | '!')));
    add(escaped(&|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"_./:=@%+,-".contains(c)));
    add(escaped(&|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"_./:@%+-".contains(c)));
    let ansi = escaped(&|c| matches!(c, '\'' | '\\'));
    add(ansi.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r"));
    let xml = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    add(xml.replace('"', "&quot;").replace('\'', "&#39;"));
    add(xml.replace('"', "&quot;").replace('\'', "&apos;"));
    add(xml);
}
