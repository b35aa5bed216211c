//! No form of a secret comes out, however the bytes are cut, in a stream and over JSON deltas.
#![no_main]

use arbitrary::Arbitrary;
use archon_awo_fuzz::{agent::json_lines::JsonLines, domain::Redactor};
use base64::{Engine, engine::general_purpose::STANDARD};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

#[derive(Arbitrary, Debug)]
struct Input {
    secrets: Vec<String>,
    parts: Vec<Part>,
    cuts: Vec<u8>,
    pausing: bool,
}

#[derive(Arbitrary, Debug)]
enum Part {
    Text(String),
    Raw(u8),
    Base64(u8, u8),
    Json(u8),
    Begun(u8, u8),
    Vendor(u8),
    /// Which secret, how it is shown, and what stands before it.
    Shown(u8, Shown, u8),
}

#[derive(Arbitrary, Debug)]
enum Shown {
    Coloured,
    Wide,
    Lines(u8),
    Hex { group: u8, beside: bool },
    Words,
    Octal,
}

const VENDORS: [&str; 4] = [
    "ghp_A1b2C3d4E5f6G7h8J9k0A1b2C3d4E5f6G7h8",
    "sk-ant-api03-A1b2C3d4E5f6G7h8J9k0",
    "AKIAIOSFODNN7EXAMPL2",
    "PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\n-----END",
];

/// Secrets that are searched for, and that no mark can complete.
fn usable(secret: &String) -> bool {
    secret.len() >= 8
        && secret.len() < 200
        && secret.trim() == secret
        && !secret.contains(['[', ']', '\n', '\r'])
        && !"[redacted]".contains(secret.as_str())
}

fn write(parts: &[Part], secrets: &[String]) -> String {
    let secret = |at: &u8| secrets[usize::from(*at) % secrets.len()].as_str();
    let mut text = String::new();
    for part in parts.iter().take(64) {
        match part {
            Part::Text(plain) => text.push_str(plain),
            Part::Raw(at) => text.push_str(secret(at)),
            Part::Base64(at, before) => {
                let before = "user:".repeat(usize::from(before % 4));
                text.push_str(&STANDARD.encode(format!("{before}{}", secret(at))));
            }
            Part::Json(at) => text.push_str(&json!(secret(at)).to_string()),
            Part::Begun(at, length) => {
                let end = secret(at).floor_char_boundary(usize::from(*length));
                text.push_str(&secret(at)[..end]);
            }
            Part::Shown(at, how, before) => {
                let mut bytes = vec![b'z'; usize::from(before % 40)];
                bytes.extend_from_slice(secret(at).as_bytes());
                text.push('\n');
                text.push_str(&shown(&bytes, how));
            }
            Part::Vendor(at) => text.push_str(VENDORS[usize::from(*at) % VENDORS.len()]),
        }
    }
    text
}

/// What tools make of bytes.
fn shown(bytes: &[u8], how: &Shown) -> String {
    let lossy = || String::from_utf8_lossy(bytes).into_owned();
    let lines = |beside: bool, write: &dyn Fn(&[u8]) -> String| {
        let line = |(number, bytes): (usize, &[u8])| {
            let dots = |b: &u8| if b.is_ascii_graphic() { char::from(*b) } else { '.' };
            let seen: String = bytes.iter().map(dots).collect();
            let seen = if beside { format!("  |{seen}|") } else { String::new() };
            format!("{:07x}{}{seen}\n", number * 16, write(bytes))
        };
        bytes.chunks(16).enumerate().map(line).collect::<String>()
    };
    match how {
        Shown::Coloured => lossy().chars().map(|c| format!("{c}\u{1b}[0;3m\u{200b}")).collect(),
        Shown::Wide => lossy().chars().flat_map(|c| [c, '\0']).collect(),
        Shown::Lines(width) => {
            let encoded = STANDARD.encode(bytes);
            let rows: Vec<_> = encoded.as_bytes().chunks(usize::from(width % 80) + 4).collect();
            String::from_utf8_lossy(&rows.join(&b'\n')).into_owned()
        }
        Shown::Hex { group, beside } => lines(*beside, &|bytes| {
            let groups = bytes.chunks(usize::from(group % 4) + 1);
            let hex = |group: &[u8]| group.iter().map(|b| format!("{b:02x}")).collect::<String>();
            groups.map(|group| format!(" {}", hex(group))).collect()
        }),
        Shown::Words => lines(false, &|bytes| {
            let word = |word: &[u8]| {
                u16::from_le_bytes([word[0], word.get(1).copied().unwrap_or_default()])
            };
            bytes.chunks(2).map(|two| format!(" {:04x}", word(two))).collect()
        }),
        Shown::Octal => {
            lines(false, &|bytes| bytes.iter().map(|byte| format!(" {byte:03o}")).collect())
        }
    }
}

fn assert_clean(output: &str, secrets: &[String]) {
    for secret in secrets {
        assert!(!output.contains(secret.as_str()), "{secret:?} is in {output:?}");
        let encoded = STANDARD.encode(secret);
        assert!(!output.contains(&encoded), "{encoded:?} is in {output:?}");
    }
    for token in VENDORS {
        assert!(!output.contains(token), "{token:?} is in {output:?}");
    }
}

fn pieces<'a>(text: &'a str, cuts: &[u8]) -> Vec<&'a str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    for cut in cuts {
        let end = rest.floor_char_boundary(usize::from(*cut).min(rest.len()));
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
    pieces.push(rest);
    pieces
}

fn joined_deltas(redactor: &Redactor, pieces: &[&str]) -> String {
    let mut filter = JsonLines::new(redactor.clone());
    let mut out = Vec::new();
    for piece in pieces {
        let line = json!({ "type": "content_block_delta", "index": 1,
            "delta": { "type": "text_delta", "text": piece } });
        out.extend(filter.push(format!("{line}\n").as_bytes()));
    }
    out.extend(filter.finish());
    let out = String::from_utf8(out).expect("JSON is UTF-8");
    let text = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("a line is JSON");
        value["delta"]["text"].as_str().expect("a delta has text").to_owned()
    };
    out.lines().map(text).collect()
}

fuzz_target!(|input: Input| {
    let secrets: Vec<String> =
        input.secrets.iter().filter(|s| usable(s)).take(4).cloned().collect();
    if secrets.is_empty() {
        return;
    }
    let text = write(&input.parts, &secrets);
    let redactor = Redactor::new(secrets.iter().map(|secret| secret.clone().into()));
    let whole = redactor.text(&text);
    assert_clean(&whole, &secrets);
    if !text.contains("[redacted]") {
        assert_eq!(redactor.text(&whole), whole, "cleaning twice changes nothing more");
    }
    let pieces = pieces(&text, &input.cuts);
    let mut stream = redactor.stream();
    let mut out = Vec::new();
    for piece in &pieces {
        out.extend(stream.push(piece.as_bytes()));
        if input.pausing {
            out.extend(stream.pause());
        }
    }
    out.extend(stream.finish());
    let out = String::from_utf8(out).expect("UTF-8 in, UTF-8 out");
    if input.pausing {
        assert_clean(&out, &secrets);
    } else {
        assert_eq!(out, whole);
    }
    let joined = joined_deltas(&redactor, &pieces);
    assert_clean(&joined, &secrets);
});
