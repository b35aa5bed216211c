//! Takes what was asked for out of an agent's answer: without the words that lead to it, what is wrapped
//! around it, and what asks for more behind it.

use super::adverts::without_adverts;

/// How a sentence begins that only points to what follows it, in lower case. It is one when it ends as a
/// sentence does, which neither a subject nor a title does.
const POINTING: &[&str] = &[
    "here is",
    "here's",
    "here are",
    "sure",
    "certainly",
    "of course",
    "absolutely",
    "okay",
    "ok,",
    "ok.",
    "great",
    "perfect",
    "below is",
    "this is the",
    "the following",
    "as requested",
];
/// How a sentence begins in which an agent tells what it does or did.
const TALKING: &[&str] = &[
    "i'll ",
    "i will ",
    "i've ",
    "i have ",
    "i looked",
    "i reviewed",
    "i checked",
    "i can ",
    "i need ",
    "i now ",
    "i'm ",
    "let me ",
    "let's ",
    "now i",
    "now let",
    "now that",
    "looking at",
    "based on",
    "after reviewing",
    "after looking",
    "done.",
    "done!",
];
/// How a last paragraph begins that only asks what to do next.
const CLOSING: &[&str] = &[
    "let me know",
    "feel free",
    "would you like",
    "i hope this",
    "if you'd like",
    "if you would like",
    "want me to",
    "shall i",
];
/// Most things that are wrapped around each other; a bound for what an agent makes up.
const MOST_LAYERS: usize = 16;

/// Which sentences before the text are no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    /// Those that point to it alone: of a plan, "I'll change a.rs." is a part.
    Pointing,
    /// Those in which the agent tells of itself, too.
    Talking,
}

/// What was asked for, when that is the whole text: without introduction, fence, front matter, closing words
/// and advertising, however they are nested. Never empty unless the text is, or is advertising alone.
pub(super) fn unwrapped(text: &str, lead: Lead) -> String {
    take_out(text, lead).0
}

/// The same, with the lines of the front matter that was around it.
pub(super) fn take_out(text: &str, lead: Lead) -> (String, Option<String>) {
    let (mut text, mut fields) = (without_adverts(text).trim().to_owned(), None);
    for _ in 0..MOST_LAYERS {
        let inner = without_closing(without_introduction(&text, lead));
        let inner = inside_fence(inner).unwrap_or(inner);
        let (found, inner) = front_matter(inner);
        let inner = without_adverts(inner).trim().to_owned();
        if inner.len() >= text.len() || !has_words(&inner) {
            break;
        }
        fields = found.map(str::to_owned).or(fields);
        text = inner;
    }
    (text, fields)
}

/// Whether a text is nothing but a sentence that leads to something.
pub(super) fn only_leads(text: &str) -> bool {
    let text = text.trim();
    !text.contains('\n') && is_introduction(text, Lead::Talking)
}

/// A block of `key: value` lines between `---` at the beginning of a text, and the text behind it.
fn front_matter(text: &str) -> (Option<&str>, &str) {
    let whole = (None, text);
    let Some(inside) = text.trim_start().strip_prefix("---\n") else { return whole };
    let Some((fields, rest)) = inside.split_once("\n---\n") else { return whole };
    let is_field = |line: &str| {
        let key = line.split_once(':').map(|(key, _)| key);
        let named = key.is_some_and(|key| {
            !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
        });
        named || line.starts_with([' ', '-', '#']) || line.is_empty()
    };
    if !has_words(fields) || !fields.lines().all(is_field) || !has_words(rest) {
        return whole;
    }
    (Some(fields), rest)
}

/// The value of a field of front matter.
pub(super) fn field<'a>(fields: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = fields.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value.trim().trim_matches(['"', '\''])).filter(|value| !value.is_empty())
}

/// The text behind the lines that only lead to it; the whole text when nothing would be left.
fn without_introduction(text: &str, lead: Lead) -> &str {
    let mut rest = text.trim_start();
    while let Some((line, behind)) = rest.split_once('\n') {
        if !is_introduction(line, lead) || !has_words(behind) {
            break;
        }
        rest = behind.trim_start();
    }
    rest
}

/// The text before a last paragraph that only asks what to do next.
fn without_closing(text: &str) -> &str {
    let text = text.trim_end();
    let Some((before, last)) = text.rsplit_once("\n\n") else { return text };
    let lower = plain(last);
    let closes = CLOSING.iter().any(|words| lower.starts_with(words)) && !last.contains('\n');
    if closes && has_words(before) { before.trim_end() } else { text }
}

/// `Here is the commit message:`, `Sure!`, `I'll look at the diff first.`
fn is_introduction(line: &str, lead: Lead) -> bool {
    let bare = line.trim().trim_matches(['*', '_', '#', ' ']);
    if !bare.ends_with(['.', ':', '!', '…']) {
        return false;
    }
    let lower = plain(bare);
    let begins = |table: &[&str]| table.iter().any(|words| lower.starts_with(words));
    begins(POINTING) || lead == Lead::Talking && begins(TALKING)
}

fn plain(text: &str) -> String {
    text.trim().to_lowercase().replace('\u{2019}', "'")
}

/// What is inside of a fence around the whole text.
fn inside_fence(text: &str) -> Option<&str> {
    let text = text.trim();
    let (open, rest) = text.split_once('\n')?;
    let fence = fence_of(open)?;
    let inside = rest.strip_suffix(fence)?.strip_suffix('\n')?;
    // Inside of it others may open and close; one that closes first is its own end.
    let mut is_open = false;
    for line in inside.lines().filter(|line| line.starts_with(fence)) {
        let closes = line.trim_end() == fence;
        if closes != is_open {
            return None;
        }
        is_open = !is_open;
    }
    (!is_open && has_words(inside)).then_some(inside)
}

/// The marks with which a line opens a block of code.
fn fence_of(line: &str) -> Option<&str> {
    let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let fence = &line[..line.len() - line.trim_start_matches(mark).len()];
    (fence.len() >= 3).then_some(fence)
}

fn has_words(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

#[cfg(test)]
mod tests;
