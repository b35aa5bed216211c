//! What tools print of a secret, however it lies in their lines and however the stream is cut: nothing of it is
//! left, and what is no secret stays as it is.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::{in_chunks, redactor};

/// What stands around a secret: no secret here has it.
const FILLER: u8 = b'z';
const MARK: &str = "[redacted]";

#[derive(Debug, Clone, Copy)]
enum Form {
    Xxd {
        group: usize,
    },
    HexdumpC,
    Bytes,
    /// Little-endian numbers: bytes of one, in hex or octal.
    Words(usize),
    OctalWords,
    OctalBytes,
    Characters,
    Plain,
    Base64 {
        columns: usize,
    },
    Utf16Le,
    Utf16Be,
    Coloured,
    Titled,
    Invisible,
    Array,
    Initialiser,
}

const FORMS: [Form; 21] = [
    Form::Xxd { group: 2 },
    Form::Xxd { group: 1 },
    Form::Xxd { group: 8 },
    Form::HexdumpC,
    Form::Bytes,
    Form::Words(2),
    Form::Words(4),
    Form::Words(8),
    Form::OctalWords,
    Form::OctalBytes,
    Form::Characters,
    Form::Plain,
    Form::Base64 { columns: 76 },
    Form::Base64 { columns: 5 },
    Form::Utf16Le,
    Form::Utf16Be,
    Form::Coloured,
    Form::Titled,
    Form::Invisible,
    Form::Array,
    Form::Initialiser,
];

fn lines(bytes: &[u8], address: usize, line: impl Fn(&[u8]) -> String) -> String {
    bytes.chunks(16).enumerate().fold(String::new(), |mut out, (number, bytes)| {
        writeln!(out, "{:0address$x}{}", number * 16, line(bytes)).unwrap();
        out
    })
}

fn letters(text: &str, write: impl Fn(char) -> String) -> String {
    text.chars().map(write).collect()
}

fn each(bytes: &[u8], write: impl Fn(u8) -> String) -> String {
    bytes.iter().map(|byte| write(*byte)).collect()
}

fn seen(bytes: &[u8]) -> String {
    each(bytes, |byte| {
        if byte.is_ascii_graphic() || byte == b' ' { byte as char } else { '.' }.into()
    })
}

fn print(bytes: &[u8], form: Form) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words = |width: usize| {
        move |bytes: &[u8]| {
            bytes.chunks(width).fold(String::new(), |mut out, word| {
                let value =
                    word.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
                write!(out, " {value:0digits$x}", digits = 2 * width).unwrap();
                out
            })
        }
    };
    match form {
        Form::Xxd { group } => lines(bytes, 8, |bytes| {
            let groups: Vec<String> = bytes
                .chunks(group)
                .map(|group| each(group, |byte| format!("{byte:02x}")))
                .collect();
            format!(": {:<47}  {}", groups.join(" "), seen(bytes))
        }),
        Form::HexdumpC => lines(bytes, 8, |bytes| {
            let half = |bytes: &[u8]| each(bytes, |byte| format!(" {byte:02x}"));
            let (one, two) = bytes.split_at(bytes.len().min(8));
            format!(" {:<49}  |{}|", format!("{} {}", half(one), half(two)), seen(bytes))
        }),
        Form::Bytes => lines(bytes, 7, |bytes| each(bytes, |byte| format!(" {byte:02x}"))),
        Form::Words(width) => lines(bytes, 7, words(width)),
        Form::OctalWords => lines(bytes, 7, |bytes| {
            bytes.chunks(2).fold(String::new(), |mut out, word| {
                let high = word.get(1).copied().unwrap_or_default();
                write!(out, " {:06o}", u16::from_le_bytes([word[0], high])).unwrap();
                out
            })
        }),
        Form::OctalBytes => lines(bytes, 7, |bytes| each(bytes, |byte| format!(" {byte:03o}"))),
        Form::Characters => {
            lines(bytes, 7, |bytes| each(bytes, |byte| format!("   {}", char::from(byte))))
        }
        Form::Plain => text.into_owned(),
        Form::Base64 { columns } => {
            let encoded = STANDARD.encode(bytes);
            let rows: Vec<_> = encoded.as_bytes().chunks(columns).collect();
            String::from_utf8(rows.join(&b'\n')).unwrap()
        }
        Form::Utf16Le => text.chars().flat_map(|c| [c, '\0']).collect(),
        Form::Utf16Be => text.chars().flat_map(|c| ['\0', c]).collect(),
        Form::Coloured => letters(&text, |c| format!("\u{1b}[38;5;9m{c}\u{1b}[0m")),
        Form::Titled => letters(&text, |c| format!("{c}\u{1b}]0;title\u{7}\u{9b}1m")),
        Form::Invisible => letters(&text, |c| format!("{c}\u{200b}\u{202e}\u{8}")),
        Form::Array => each(bytes, |byte| format!("{byte}, ")),
        Form::Initialiser => each(bytes, |byte| format!("0x{byte:02x}, ")),
    }
}

/// The characters in which the secret alone could be told, of what is printed beside a filler.
fn is_left(form: Form, output: &str) -> Option<String> {
    let output = output.replace(MARK, " ");
    let groups = || {
        output.lines().flat_map(|line| {
            // Neither the address nor what is beside the numbers.
            let line = line.split("  |").next().unwrap_or_default();
            let line = match line.split_once(": ") {
                Some((_, groups)) => groups.split("  ").next().unwrap_or_default(),
                None => line,
            };
            line.split_whitespace().filter(|group| !(group.starts_with("0000") && group.len() > 6))
        })
    };
    let pairs = |group: &str| {
        let mut pairs = group.as_bytes().chunks(2);
        pairs.any(|pair| !matches!(pair, b"7a" | b"00"))
    };
    let left = |bad: &dyn Fn(&str) -> bool| groups().find(|group| bad(group)).map(str::to_owned);
    match form {
        Form::Xxd { .. } | Form::HexdumpC | Form::Bytes | Form::Words(_) => left(&pairs),
        Form::OctalWords => left(&|group| !matches!(group, "075172" | "000172" | "075000")),
        Form::OctalBytes => left(&|group| group != "172"),
        Form::Characters => left(&|group| group != "z"),
        Form::Array => left(&|group| !matches!(group, "122," | ",")),
        Form::Initialiser => left(&|group| !matches!(group, "0x7a," | "," | "0x7a")),
        Form::Utf16Le | Form::Utf16Be | Form::Plain => {
            output.chars().find(|c| !"z\0 ".contains(*c)).map(String::from)
        }
        Form::Coloured | Form::Titled | Form::Invisible => {
            let output = output.replace("title", "");
            output.chars().find(char::is_ascii_uppercase).map(String::from)
        }
        Form::Base64 { .. } => {
            // Beside the filler only characters that also hold some bits of it.
            let odd = output.chars().filter(|c| !"enp6= \n".contains(*c)).count();
            (odd > 6).then(|| output.clone())
        }
    }
}

fn in_json(text: &str, times: usize) -> String {
    (0..times).fold(text.to_owned(), |text, _| serde_json::Value::from(text).to_string())
}

/// The text that a program reads out of JSON after the redactor.
fn out_of_json(text: &str, times: usize) -> String {
    (0..times).fold(text.to_owned(), |text, _| serde_json::from_str(&text).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn nothing_is_left_of_what_a_tool_prints(
        secret in "[A-Y0-9_/+=.&<%$-]{16,44}K7Q",
        form in 0..FORMS.len(),
        before in 0..40usize,
        after in 0..20usize,
        escaped in 0..3usize,
        sizes in prop::collection::vec(1..50usize, 1..9),
    ) {
        let form = FORMS[form];
        let mut bytes = vec![FILLER; before];
        bytes.extend_from_slice(secret.as_bytes());
        bytes.extend(vec![FILLER; after]);
        let text = in_json(&print(&bytes, form), escaped);
        let redactor = redactor(&[&secret]);
        let whole = redactor.text(&text);
        prop_assert!(whole.contains(MARK), "{:?}: {}", form, text);
        let cut = in_chunks(&redactor, text.as_bytes(), &sizes, false);
        for output in [&whole, &cut] {
            let left = is_left(form, &out_of_json(output, escaped));
            prop_assert_eq!(left, None, "{:?} of {}: {}", form, text, output);
        }
    }

    #[test]
    fn what_is_no_secret_stays_as_it_is(
        parts in prop::collection::vec(prop_oneof![
            "[a-z ,.\\n\\t\"]{0,30}",
            "[\\\\nurtbx0-9{}\"]{0,20}",
            "(0[0-9a-f]{6,8}:?( [0-9a-f]{2,8}){1,9}  [|>]?[a-z.]{0,16}[|]?\\n){1,3}",
            "\u{1b}[\\[\\]PX(][0-9;]{0,9}[mK\u{7}]?",
            "[\u{80}-\u{a0}\u{200b}-\u{202f}\u{2060}\u{feff}\u{e0001}é中]{0,9}",
            "([0-9]{1,4}\\t[a-z]{0,9}\\n){1,3}",
            ".{0,20}",
        ], 0..12),
        sizes in prop::collection::vec(1..30usize, 1..9),
        pausing in any::<bool>(),
    ) {
        let text = parts.concat();
        let redactor = redactor(&["Kq7/wLd93+ZxNv0TtRbY", "0123-Pass\"wörd%41 9"]);
        prop_assert_eq!(&redactor.text(&text), &text);
        prop_assert_eq!(in_chunks(&redactor, text.as_bytes(), &sizes, pausing), text);
    }
}

#[test]
fn a_dump_is_cut_out_with_the_characters_beside_it() {
    let redactor = redactor(&["Kq7/wLd93+ZxNv0TtRbY-41"]);
    let text = "\
        00000000: 6162 204b 7137 2f77 4c64 3933 2b5a 784e  ab Kq7/wLd93+ZxN\n\
        00000010: 7630 5474 5262 592d 3431 2063 640a       v0TtRbY-41 cd.\n\
        00000020: 6566                                     ef\n";
    let clean = "00000000: 6162[redacted]\n00000020: 6566                                     ef\n";
    assert_eq!(redactor.text(text), clean);
    assert!(redactor.finds_secret(text.as_bytes()));
}

#[test]
fn the_same_bytes_in_a_second_line_go_too() {
    let redactor = redactor(&["Kq7/wLd93+ZxNv0TtRbY-41"]);
    let text = "\
0000000  4b  71  37  2f  77  4c  64  39  33  2b  5a  78  4e  76  30  54
          K   q   7   /   w   L   d   9   3   +   Z   x   N   v   0   T
0000020  74  52  62  59  2d  34  31  0a
          t   R   b   Y   -   4   1  \\n
0000030
";
    for text in [text.to_owned(), in_json(text, 1)] {
        let clean = redactor.text(&text);
        assert!(!clean.contains("4b") && !clean.contains("R   b"), "{clean}");
        assert!(clean.contains("0000030"), "{clean}");
    }
}

#[test]
fn a_gap_without_end_is_not_held_back() {
    let redactor = redactor(&["Kq7/wLd93+ZxNv0TtRbY"]);
    let mut stream = redactor.stream();
    assert_eq!(stream.push(b"Kq7/wLd93+"), b"");
    let mut given = stream.push(&b" ".repeat(100)).len();
    assert_eq!(given, 0, "what comes next may be the rest");
    for _ in 0..100 {
        given += stream.push(&b" ".repeat(100)).len();
    }
    assert!(given > 9000, "{given} bytes came out");
}
