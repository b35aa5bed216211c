//! Arguments are put in once, left to right, and never expanded again; a quoted issue stays quoted.
#![no_main]

use archon_awo_fuzz::workflow::prompts::{CommandFile, quote_untrusted};
use libfuzzer_sys::fuzz_target;

/// The same rule written in another way: by looking at each byte.
fn plain(template: &str, arguments: &[&str]) -> String {
    let all: Vec<&str> = arguments.iter().copied().filter(|text| !text.is_empty()).collect();
    let (mut out, mut at) = (String::new(), 0);
    while at < template.len() {
        let rest = &template[at..];
        let digit = rest.strip_prefix('$').and_then(|after| after.bytes().next());
        if rest.starts_with("$ARGUMENTS") {
            out.push_str(&all.join("\n\n"));
            at += "$ARGUMENTS".len();
        } else if let Some(digit @ b'1'..=b'9') = digit {
            out.push_str(arguments.get(usize::from(digit - b'1')).unwrap_or(&""));
            at += 2;
        } else {
            let c = rest.chars().next().expect("not at the end");
            out.push(c);
            at += c.len_utf8();
        }
    }
    out
}

fuzz_target!(|input: (&str, Vec<&str>)| {
    let (template, arguments) = input;
    let file = CommandFile::from(template.to_owned());
    assert_eq!(file.render(&arguments), plain(template, &arguments));

    let (title, body) = (template, arguments.first().copied().unwrap_or_default());
    let quoted = quote_untrusted(title, body);
    let fence = quoted.lines().find(|line| line.starts_with("````")).expect("a fence");
    let ticks = fence.len() - fence.trim_start_matches('`').len();
    let closing = quoted.lines().filter(|line| line.trim() == "`".repeat(ticks)).count();
    assert_eq!(closing, 1, "{quoted}");
    assert!(quoted.trim_end().ends_with(&"`".repeat(ticks)), "{quoted}");
});
