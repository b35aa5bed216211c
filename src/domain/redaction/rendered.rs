//! A text as the page of a forge shows it: without comments and marks of HTML, and with its entities read.

/// Named entities of characters that secrets are made of, and of such that are not seen.
const ENTITIES: &[(&str, &str)] = &[
    ("amp", "&"),
    ("lt", "<"),
    ("gt", ">"),
    ("quot", "\""),
    ("apos", "'"),
    ("lowbar", "_"),
    ("UnderBar", "_"),
    ("hyphen", "-"),
    ("dash", "-"),
    ("period", "."),
    ("sol", "/"),
    ("bsol", "\\"),
    ("plus", "+"),
    ("equals", "="),
    ("colon", ":"),
    ("semi", ";"),
    ("comma", ","),
    ("excl", "!"),
    ("quest", "?"),
    ("num", "#"),
    ("dollar", "$"),
    ("percnt", "%"),
    ("ast", "*"),
    ("midast", "*"),
    ("commat", "@"),
    ("lpar", "("),
    ("rpar", ")"),
    ("lsqb", "["),
    ("lbrack", "["),
    ("rsqb", "]"),
    ("rbrack", "]"),
    ("lcub", "{"),
    ("lbrace", "{"),
    ("rcub", "}"),
    ("rbrace", "}"),
    ("verbar", "|"),
    ("vert", "|"),
    ("VerticalLine", "|"),
    ("grave", "`"),
    ("Hat", "^"),
    ("Tab", ""),
    ("NewLine", ""),
    ("nbsp", ""),
    ("shy", ""),
    ("zwj", ""),
    ("zwnj", ""),
    ("lrm", ""),
    ("rlm", ""),
    ("ZeroWidthSpace", ""),
    ("NoBreak", ""),
    ("ApplyFunction", ""),
    ("InvisibleTimes", ""),
    ("InvisibleComma", ""),
];
/// Longest entity, in bytes; a number may have zeros in front.
const LONGEST: usize = 40;

/// The text as it is read; without the signs of Markdown too when `plain`.
pub(super) fn rendered(text: &str, plain: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '<' => markup(rest),
            '&' => entity(rest, &mut out),
            '*' | '`' | '~' if plain => 1,
            _ => 0,
        };
        if length == 0 {
            out.push(c);
        }
        rest = &rest[length.max(c.len_utf8())..];
    }
    out
}

/// The length of a comment or a mark at the beginning of a text; a comment without an end reaches to the end.
fn markup(text: &str) -> usize {
    if let Some(comment) = text.strip_prefix("<!--") {
        return comment.find("-->").map_or(text.len(), |end| end + 7);
    }
    let opens = |c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?');
    if !text[1..].starts_with(opens) {
        return 0;
    }
    text.find('>').map_or(0, |end| end + 1)
}

/// Reads an entity at the beginning of a text; answers its length.
fn entity(text: &str, out: &mut String) -> usize {
    let ends = |c: char| !c.is_ascii_alphanumeric() && c != '#';
    let end = text[1..].find(ends).map_or(text.len(), |at| at + 1).min(LONGEST);
    let name = &text[1..end];
    let length = end + usize::from(text[end..].starts_with(';'));
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        let Some(c) = code.ok().and_then(char::from_u32) else { return 0 };
        out.push(c);
        return length;
    }
    match ENTITIES.iter().find(|(known, _)| *known == name) {
        Some((_, meaning)) => {
            out.push_str(meaning);
            length
        }
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::rendered;
    use crate::domain::Redactor;

    const SECRET: &str = "Kq7/wLd93+ZxNv_0TtRbY";

    #[test]
    fn a_text_is_read_as_a_page_shows_it() {
        for (text, seen) in [
            ("a<!-- b -->c<!-- d", "ac"),
            ("<b>a</b> &lt;b&gt; &#65;&#x42;&#0000067; &unknown; &", "a <b> ABC &unknown; &"),
            ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
            ("gh&#95;&lowbar;&ZeroWidthSpace;x", "gh__x"),
        ] {
            assert_eq!(rendered(text, false), seen, "{text}");
        }
        assert_eq!(rendered("**a**`b`", true), "ab");
    }

    #[test]
    fn a_secret_that_a_page_would_show_is_taken_out_and_other_pages_stay() {
        let redactor = Redactor::new([SECRET.to_owned().into()]);
        let each = |write: &dyn Fn(char) -> String| SECRET.chars().map(write).collect::<String>();
        for hidden in [
            each(&|c| format!("{c}<!-- x -->")),
            each(&|c| format!("<b>{c}</b>")),
            each(&|c| format!("&#{};", u32::from(c))),
            each(&|c| format!("&#x{:X};", u32::from(c))),
            each(&|c| format!("{c}&ZeroWidthSpace;")),
            each(&|c| format!("**{c}**")),
            SECRET.replace('_', "&lowbar;<wbr>"),
            format!("<!-- {SECRET} -->"),
        ] {
            let shown = redactor.page(&format!("before {hidden} after"));
            assert_eq!(
                rendered(&shown, true).replace("[redacted]", ""),
                "before  after",
                "{hidden}"
            );
        }
        let page = "<!-- keep --> a <b>page</b> &amp; **more**";
        assert_eq!(redactor.page(page), page);
    }
}
