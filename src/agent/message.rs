//! One line of an agent's output as a message: read tolerantly, since the format belongs to somebody else.

use serde_json::Value;

/// The text under a key.
pub fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

/// The content blocks of a message.
pub fn blocks(value: &Value) -> impl Iterator<Item = &Value> {
    let content = value.get("message").and_then(|message| message.get("content"));
    content.and_then(Value::as_array).into_iter().flatten()
}

/// The call that started the helper whose message this is; none of a message of the agent itself.
pub fn parent(value: &Value) -> Option<&str> {
    text(value, "parent_tool_use_id")
}

/// Reads a line as a JSON object. Bytes that JSON forbids but programs print (invalid UTF-8, raw
/// control characters, half a surrogate pair) are replaced first if need be.
pub fn parse_object(line: &[u8]) -> Option<Value> {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let value: Value = serde_json::from_slice(line)
        .or_else(|_| serde_json::from_str(&mended(&String::from_utf8_lossy(line))))
        .ok()?;
    value.is_object().then_some(value)
}

/// The text with control characters and lone surrogates replaced.
fn mended(line: &str) -> String {
    let surrogate = |at: usize| {
        let digits = line.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok().filter(|unit| (0xd800..0xe000).contains(unit))
    };
    let mut out = String::with_capacity(line.len());
    let mut at = 0;
    while let Some(next) = line[at..].chars().next() {
        let width = match (next, surrogate(at)) {
            ('\\', Some(first)) => {
                let pair = first < 0xdc00 && surrogate(at + 6).is_some_and(|s| s >= 0xdc00);
                let width = if pair { 12 } else { 6 };
                out.push_str(if pair { &line[at..at + width] } else { "\\ufffd" });
                width
            }
            // The next character belongs to the escape, also when it is a backslash.
            ('\\', None) => {
                let escape = line[at + 1..].chars().next().map_or(1, |c| 1 + c.len_utf8());
                out.push_str(&line[at..at + escape]);
                escape
            }
            (c, _) => {
                out.push(if c.is_control() { ' ' } else { c });
                c.len_utf8()
            }
        };
        at += width;
    }
    out
}
