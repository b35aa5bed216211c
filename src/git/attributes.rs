//! The attributes that `.gitattributes` give a path, read and resolved as git does.

use std::collections::HashMap;

use super::{pattern::Pattern, reading::Work};

/// The longest line that git reads, in bytes.
const LONGEST_LINE: usize = 2048;
const BLANKS: &[u8] = b" \t\r\n";
const MACRO: &[u8] = b"[attr]";

/// What an attribute is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// `name`
    True,
    /// `-name`
    False,
    /// `!name`
    Unset,
    /// `name=text`
    Text(Vec<u8>),
}

type States = Vec<(Vec<u8>, Value)>;

/// What one file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AttributeRules {
    lines: Vec<(Pattern, States)>,
    macros: HashMap<Vec<u8>, States>,
}

/// What the rules say of one path.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a>(HashMap<&'a [u8], &'a Value>);

/// A file with rules, and the path as seen from its folder.
pub(super) type Source<'a> = (&'a AttributeRules, &'a [u8]);

impl AttributeRules {
    /// Reads a file. Macros count only where `with_macros`: at the top of a repository.
    pub(super) fn parse(content: &[u8], with_macros: bool) -> Self {
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        let mut rules = Self::default();
        for line in content.split(|byte| *byte == b'\n') {
            let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
            rules.read(line, with_macros);
        }
        rules
    }

    /// Whether it says nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.macros.is_empty()
    }

    /// How many lines say something.
    pub(super) fn len(&self) -> usize {
        self.lines.len() + self.macros.len()
    }

    fn read(&mut self, line: &[u8], with_macros: bool) -> Option<()> {
        let text = skip_blanks(line);
        if matches!(text.first(), None | Some(b'#')) || line.len() >= LONGEST_LINE {
            return None;
        }
        let (name, rest) = match unquote(text) {
            Some((name, rest)) => (name, rest),
            None => (word(text).to_vec(), &text[word(text).len()..]),
        };
        let states = states(rest)?;
        if let Some(name) = name.strip_prefix(MACRO).filter(|name| !name.is_empty()) {
            let name = word(skip_blanks(name));
            if with_macros && is_name(name) {
                self.macros.insert(name.to_vec(), states);
            }
            return Some(());
        }
        let pattern = Pattern::new(&name);
        // Git does not take negative patterns here.
        if !pattern.is_negative {
            self.lines.push((pattern, states));
        }
        Some(())
    }
}

impl<'a> Attributes<'a> {
    /// Resolves the attributes of a file from all files that may speak of it, the strongest first.
    pub(super) fn of(sources: &[Source<'a>], work: &Work) -> Self {
        let mut found = Self::default();
        for (rules, path) in sources {
            for (_, states) in
                rules.lines.iter().rev().filter(|(line, _)| line.matches(path, false, work))
            {
                found.fill(states, sources, work);
            }
        }
        found
    }

    /// What an attribute is set to; `None`: nothing, or explicitly nothing.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name.as_bytes()).copied().filter(|value| **value != Value::Unset)
    }

    /// Sets what is not set yet, the last of a line first; a macro brings along what it stands for.
    fn fill(&mut self, states: &'a [(Vec<u8>, Value)], sources: &[Source<'a>], work: &Work) {
        let mut pending = vec![states.iter().rev()];
        while let Some(states) = pending.last_mut() {
            let Some((name, value)) = states.next() else {
                pending.pop();
                continue;
            };
            // Looking a name up costs more than comparing a letter.
            if !work.charge(8 + name.len()) {
                return;
            }
            if self.0.contains_key(name.as_slice()) {
                continue;
            }
            self.0.insert(name, value);
            if *value == Value::True {
                pending.extend(expansion(name, sources).map(|states| states.iter().rev()));
            }
        }
    }
}

/// What a macro stands for.
fn expansion<'a>(name: &[u8], sources: &[Source<'a>]) -> Option<&'a [(Vec<u8>, Value)]> {
    static BINARY: std::sync::LazyLock<States> = std::sync::LazyLock::new(|| {
        let off = |name: &str| (name.as_bytes().to_vec(), Value::False);
        vec![off("diff"), off("merge"), off("text")]
    });
    let own = sources.iter().find_map(|(rules, _)| rules.macros.get(name));
    own.map(Vec::as_slice).or_else(|| (name == b"binary").then_some(BINARY.as_slice()))
}

/// The states at the end of a line; `None`: one of them is none, and git drops the line.
fn states(text: &[u8]) -> Option<States> {
    let mut found = Vec::new();
    let mut rest = skip_blanks(text);
    while !rest.is_empty() {
        let state = word(rest);
        rest = skip_blanks(&rest[state.len()..]);
        let (name, given) = match state.iter().position(|byte| *byte == b'=') {
            Some(at) => (&state[..at], Some(&state[at + 1..])),
            None => (state, None),
        };
        let (name, value) = match (name.first(), given) {
            (Some(b'-'), _) => (&name[1..], Value::False),
            (Some(b'!'), _) => (&name[1..], Value::Unset),
            (_, Some(text)) => (name, Value::Text(text.to_vec())),
            (_, None) => (name, Value::True),
        };
        if !is_name(name) || name.starts_with(b"builtin_") {
            return None;
        }
        found.push((name.to_vec(), value));
    }
    Some(found)
}

fn is_name(name: &[u8]) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !name.is_empty() && name[0] != b'-' && name.iter().all(good)
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let at = text.iter().position(|byte| !BLANKS.contains(byte)).unwrap_or(text.len());
    &text[at..]
}

fn word(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| BLANKS.contains(byte)).unwrap_or(text.len());
    &text[..end]
}

/// Reads a name in quotes as C has them; answers what follows too.
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?.iter();
    let mut name = Vec::new();
    loop {
        match *rest.next()? {
            b'"' => return Some((name, rest.as_slice())),
            b'\\' => name.push(match *rest.next()? {
                b'a' => 7,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                same @ (b'\\' | b'"') => same,
                high @ b'0'..=b'3' => {
                    let digit = |byte: u8| matches!(byte, b'0'..=b'7').then(|| byte - b'0');
                    let (middle, low) = (digit(*rest.next()?)?, digit(*rest.next()?)?);
                    ((high - b'0') << 6) | (middle << 3) | low
                }
                _ => return None,
            }),
            other => name.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AttributeRules, Attributes, Value};
    use crate::git::reading::Work;

    fn resolved(rules: &str, path: &str, name: &str) -> Option<Value> {
        let rules = AttributeRules::parse(rules.as_bytes(), true);
        Attributes::of(&[(&rules, path.as_bytes())], &Work::unlimited()).get(name).cloned()
    }

    #[test]
    fn the_last_line_wins_and_macros_are_expanded() {
        let rules = "*.c text eol=lf\na.c -text\n*.png binary\n[attr]mine text=auto ident\n*.m mine\n\
                     b.m !text\n\"q\\040x\" text\n";
        let text = |path| resolved(rules, path, "text");
        assert_eq!(text("x/b.c"), Some(Value::True));
        assert_eq!(text("x/a.c"), Some(Value::False));
        assert_eq!(text("a.png"), Some(Value::False));
        assert_eq!(text("a.m"), Some(Value::Text(b"auto".to_vec())));
        assert_eq!(text("b.m"), None);
        assert_eq!(resolved(rules, "b.m", "ident"), Some(Value::True));
        assert_eq!(text("q x"), Some(Value::True));
    }

    #[test]
    fn lines_that_git_drops_say_nothing_and_circles_end() {
        for rules in ["!*.c text", "*.c -t,x", "*.c builtin_x text", "# *.c text"] {
            assert_eq!(resolved(rules, "a.c", "text"), None, "{rules}");
        }
        let circle = "[attr]a b\n[attr]b a text\n* a\n";
        assert_eq!(resolved(circle, "x", "text"), Some(Value::True));
        let chain: Vec<String> = (0..50_000).map(|i| format!("[attr]m{i} m{}", i + 1)).collect();
        let chain = chain.join("\n");
        assert_eq!(resolved(&format!("{chain}\n* m0\n"), "x", "m50000"), Some(Value::True));
    }
}
