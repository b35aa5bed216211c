//! What `od`, `xxd`, `hexdump` and programs that print arrays make of bytes. Addresses, white space, commas and
//! characters beside the numbers are left out before needles are looked for (`condensed`), so that a needle is
//! the numbers alone.

use std::fmt::Write;

/// Fewest bytes that a needle of whole words stands for.
const MIN_BYTES: usize = 4;

/// A form, and how many characters beside it belong to the secret in part.
pub(super) type Dump = (String, usize);

/// All of them, but for plain hex.
pub(super) fn of(bytes: &[u8]) -> Vec<Dump> {
    let mut all: Vec<Dump> = [
        each(bytes, |out, byte| write!(out, "{byte:03o}")),
        each(bytes, |out, byte| write!(out, "{byte}")),
        each(bytes, |out, byte| write!(out, "{byte:08b}")),
        each(bytes, |out, byte| write!(out, "0x{byte:02x}")),
        each(bytes, |out, byte| write!(out, "0x{byte:02X}")),
        // `od -c`.
        each(bytes, |out, byte| match byte {
            0x80.. => write!(out, "{byte:03o}"),
            _ => write!(out, "{}", char::from(byte)),
        }),
    ]
    .map(|form| (form, 0))
    .into();
    // Signs between the bytes.
    for separator in [":", "-"] {
        for form in [
            each(bytes, |out, byte| write!(out, "{separator}{byte:02x}")),
            each(bytes, |out, byte| write!(out, "{separator}{byte:02X}")),
        ] {
            all.push((form[separator.len().min(form.len())..].to_owned(), 0));
        }
    }
    // Numbers of several bytes, the lowest first, wherever the secret begins in one.
    for (width, numbers) in [(2, Number::ALL), (4, &Number::ALL[..1]), (8, &Number::ALL[..1])] {
        for first in 0..width {
            let words = bytes.get(first..).unwrap_or_default().chunks_exact(width);
            if words.len() * width < MIN_BYTES {
                continue;
            }
            for number in numbers {
                let form = words.clone().fold(String::new(), |out, word| out + &number.of(word));
                all.push((
                    form,
                    if bytes.len() == words.len() * width { 0 } else { 2 * width.max(3) },
                ));
            }
        }
    }
    all
}

#[derive(Clone, Copy)]
enum Number {
    Hex,
    Octal,
    Decimal,
}

impl Number {
    const ALL: &[Self] = &[Self::Hex, Self::Octal, Self::Decimal];

    fn of(self, word: &[u8]) -> String {
        let value = word.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        match self {
            Self::Hex => format!("{value:0width$x}", width = 2 * word.len()),
            Self::Octal => format!("{value:06o}"),
            Self::Decimal => format!("{value}"),
        }
    }
}

fn each(bytes: &[u8], write: impl Fn(&mut String, u8) -> std::fmt::Result) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let written = write(&mut out, *byte);
        // Writing to a string does not fail.
        debug_assert!(written.is_ok());
        out
    })
}
