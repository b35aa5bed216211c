//! `working-tree-encoding`: files that are UTF-8 in a commit and something else in a checkout.

use encoding_rs::{
    BIG5, EUC_JP, Encoding, GBK, KOI8_U, MACINTOSH, SHIFT_JIS, UTF_8, WINDOWS_1252, X_USER_DEFINED,
};

use super::attributes::{Attributes, Value};

/// How a file is written in the checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkingEncoding {
    /// Units of 2 or 4 bytes.
    Utf { bytes: usize, order: Order },
    /// ISO-8859-1, which the web takes for something else.
    Latin1,
    /// ASCII.
    Ascii,
    /// One that the web reads like Windows, and git like the standards of Japan.
    Japanese(&'static Encoding),
    /// Any other that is known.
    Other(&'static Encoding),
    /// One that is not: only an empty file has it.
    Unknown,
}

/// Which byte of a unit comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The most significant one, and no mark says so.
    Big,
    /// The least significant one, and no mark says so.
    Little,
    /// A mark at the beginning says which.
    Marked,
    /// A mark may say which; without one it is little.
    MarkedOrLittle,
}

/// Reads the attribute; `None`: the file is UTF-8 in the checkout too.
///
/// # Errors
/// A sentence's end: why this is no encoding.
pub(super) fn of(attributes: &Attributes<'_>) -> Result<Option<WorkingEncoding>, String> {
    let name = match attributes.get("working-tree-encoding") {
        None | Some(Value::False | Value::Unset) => return Ok(None),
        Some(Value::True) => return Err("working-tree-encoding names no encoding".to_owned()),
        Some(Value::Text(name)) if name.is_empty() => return Ok(None),
        Some(Value::Text(name)) => String::from_utf8_lossy(name).to_ascii_uppercase(),
    };
    let utf = |bytes, order| Ok(Some(WorkingEncoding::Utf { bytes, order }));
    if let Some(form) = name.strip_prefix("UTF") {
        match form.strip_prefix('-').unwrap_or(form) {
            "8" => return Ok(None),
            "16" => return utf(2, Order::Marked),
            "16BE" => return utf(2, Order::Big),
            "16LE" => return utf(2, Order::Little),
            "16LE-BOM" => return utf(2, Order::MarkedOrLittle),
            "32" => return utf(4, Order::Marked),
            "32BE" => return utf(4, Order::Big),
            "32LE" => return utf(4, Order::Little),
            _ => {}
        }
    }
    Ok(Some(match name.as_str() {
        "ISO-8859-1" | "ISO8859-1" | "ISO_8859-1" | "LATIN1" | "LATIN-1" | "L1" => {
            WorkingEncoding::Latin1
        }
        "ASCII" | "US-ASCII" => WorkingEncoding::Ascii,
        name => {
            // The web's names and those of most systems differ in a few marks.
            let windows = name.strip_prefix("CP125").map(|rest| format!("windows-125{rest}"));
            let label = match name {
                "CP932" => "windows-31j",
                "CP936" => "gbk",
                other => windows.as_deref().unwrap_or(other),
            };
            let known = Encoding::for_label_no_replacement(label.as_bytes());
            // Their tables differ from those of iconv, which git uses, in more than a few letters.
            let odd = [UTF_8, X_USER_DEFINED, KOI8_U, MACINTOSH, BIG5];
            let known = known.filter(|known| {
                !odd.contains(known) && (*known != GBK || matches!(name, "GBK" | "CP936"))
            });
            let is_japanese = |known| {
                known == EUC_JP || known == SHIFT_JIS && !matches!(name, "CP932" | "WINDOWS-31J")
            };
            match known {
                // The web reads other names of ISO-8859-1 like this.
                Some(known) if known == WINDOWS_1252 && !label.contains("1252") => {
                    WorkingEncoding::Latin1
                }
                Some(known) if is_japanese(known) => WorkingEncoding::Japanese(known),
                Some(known) => WorkingEncoding::Other(known),
                None => WorkingEncoding::Unknown,
            }
        }
    }))
}

impl WorkingEncoding {
    /// The content as a commit has it.
    ///
    /// # Errors
    /// A sentence's end: why it cannot be.
    pub(super) fn decode(self, content: &[u8]) -> Result<Vec<u8>, String> {
        let invalid = || "its content is not in that encoding".to_owned();
        let text = match self {
            Self::Utf { bytes, order } => return decode_utf(content, bytes, order),
            Self::Latin1 => content.iter().map(|byte| char::from(*byte)).collect(),
            Self::Ascii if content.is_ascii() => return Ok(content.to_vec()),
            Self::Ascii => return Err(invalid()),
            Self::Unknown => return Err("it is no encoding we know".to_owned()),
            Self::Other(encoding) => decode_exactly(content, encoding).ok_or_else(invalid)?,
            Self::Japanese(encoding) => {
                let text = decode_exactly(content, encoding).ok_or_else(invalid)?;
                text.chars().map(|letter| standard(letter, encoding)).collect()
            }
        };
        Ok(text.into_bytes())
    }
}

/// What is read must be what was written, to the last byte, and no letter may be one that only the web knows.
fn decode_exactly(content: &[u8], encoding: &'static Encoding) -> Option<String> {
    let text = encoding.decode_without_bom_handling_and_without_replacement(content)?;
    let (back, used, lossy) = encoding.encode(&text);
    let has_own = encoding.name().starts_with("ISO");
    let is_odd =
        |c| matches!(c, '\u{e000}'..='\u{f8ff}') || !has_own && matches!(c, '\u{80}'..='\u{9f}');
    let is_exact = !lossy && used == encoding && *back == *content && !text.contains(is_odd);
    is_exact.then(|| text.into_owned())
}

/// The letters in which the tables of the web and of iconv differ.
fn standard(letter: char, encoding: &'static Encoding) -> char {
    match letter {
        '\\' if encoding == SHIFT_JIS => '¥',
        '~' if encoding == SHIFT_JIS => '‾',
        '～' => '〜',
        '∥' => '‖',
        '－' => '−',
        '￠' => '¢',
        '￡' => '£',
        '￢' => '¬',
        same => same,
    }
}

fn decode_utf(content: &[u8], bytes: usize, order: Order) -> Result<Vec<u8>, String> {
    let (big, little): (&[u8], &[u8]) = match bytes {
        2 => (&[0xfe, 0xff], &[0xff, 0xfe]),
        _ => (&[0, 0, 0xfe, 0xff], &[0xff, 0xfe, 0, 0]),
    };
    let mark = if content.starts_with(big) {
        Some(true)
    } else {
        content.starts_with(little).then_some(false)
    };
    let is_big = match (order, mark) {
        (Order::Marked, None) => {
            return Err("it must begin with a byte order mark and does not".to_owned());
        }
        (Order::Big | Order::Little, Some(_)) => {
            return Err("it begins with a byte order mark and must not".to_owned());
        }
        (Order::Marked | Order::MarkedOrLittle, Some(is_big)) => is_big,
        (Order::Big, None) => true,
        (Order::Little | Order::MarkedOrLittle, None) => false,
    };
    let body = if mark.is_some() { &content[bytes..] } else { content };
    let units = body.chunks_exact(bytes);
    let invalid = || "its content is not in that encoding".to_owned();
    if !units.remainder().is_empty() {
        return Err(invalid());
    }
    let units = units.map(|unit| {
        let add = |sum: u32, byte: &u8| (sum << 8) | u32::from(*byte);
        if is_big { unit.iter().fold(0, add) } else { unit.iter().rev().fold(0, add) }
    });
    let text: Option<String> = if bytes == 2 {
        let units = units.map(|unit| u16::try_from(unit).unwrap_or_default());
        char::decode_utf16(units).collect::<Result<_, _>>().ok()
    } else {
        units.map(char::from_u32).collect()
    };
    text.map(String::into_bytes).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::{Order, WorkingEncoding};

    #[test]
    fn units_are_read_in_either_order_and_nothing_is_guessed() {
        let utf = |bytes, order| WorkingEncoding::Utf { bytes, order };
        let expected = Ok("hé".as_bytes().to_vec());
        assert_eq!(utf(2, Order::Marked).decode(b"\xfe\xff\0h\0\xe9"), expected);
        assert_eq!(utf(2, Order::Marked).decode(b"\xff\xfeh\0\xe9\0"), expected);
        assert_eq!(utf(2, Order::Big).decode(b"\0h\0\xe9"), expected);
        assert_eq!(utf(4, Order::Little).decode(b"h\0\0\0\xe9\0\0\0"), expected);
        assert_eq!(WorkingEncoding::Latin1.decode(b"h\xe9"), expected);
        for (encoding, content) in [
            (utf(2, Order::Marked), &b"h\0"[..]),
            (utf(2, Order::Little), b"\xff\xfeh\0"),
            (utf(2, Order::Big), b"\0h\0"),
            (utf(2, Order::Big), b"\xd8\0\0h"),
            (utf(4, Order::Big), b"\0\x11\0\0"),
            (WorkingEncoding::Ascii, b"\xe9"),
            (WorkingEncoding::Japanese(encoding_rs::SHIFT_JIS), b"\x81"),
        ] {
            assert!(encoding.decode(content).is_err(), "{encoding:?} {content:?}");
        }
    }
}
