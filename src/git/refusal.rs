//! What a remote says when it refuses a push, and those of its lines that a person needs.

/// The most of an answer that is kept, in bytes: more than a hundred findings of a scanner take.
const ANSWER: usize = 16 << 10;
/// The most of it that goes into a sentence, in bytes.
const SENTENCE: usize = 1200;
/// The most of one line, in bytes.
const LINE: usize = 300;

/// Beginnings of lines that tell nothing of this push.
const NOISE: &[&str] = &[
    "trace:",
    "resolving deltas:",
    "processing changes:",
    "resolve the following violations",
    "learn how to",
    "locations:",
    "commit:",
    "see https://gh.io/lfs",
    "https://docs.github.com/",
];
/// Words of lines that stay when not all can: rule, place, and where it can be allowed.
const TELLING: &[&str] = &["gh0", "path:", "file ", "unblock", "http", "rule", "gitlab:", "line "];

/// A refusal in the words of the remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Why, in git's own words.
    pub(super) reason: String,
    /// The lines that matter, on one line; empty when the remote said nothing.
    pub(super) told: String,
    /// All that was said, cut in its middle when it is long.
    pub(super) answer: String,
}

impl Refusal {
    /// Reads what git printed: the line about the branch, and its standard error.
    pub(super) fn read(line: &str, stderr: &str) -> Self {
        let reason = line.rsplit('\t').next().unwrap_or(line).trim().to_owned();
        let said = stderr.split(['\n', '\r']);
        let all: Vec<&str> =
            said.clone().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let remote = said.filter_map(|line| line.strip_prefix("remote:"));
        let mut lines: Vec<&str> = remote.filter_map(telling).collect();
        lines.dedup();
        Self { reason, told: shortened(&lines).join("; "), answer: bounded(&all.join("\n")) }
    }
}

/// The part of a line that says something; `None` for decoration and general advice.
fn telling(line: &str) -> Option<&str> {
    let decoration = |c: char| c.is_whitespace() || matches!(c, '—' | '-' | '=' | '*' | '#' | '_');
    let line = line.trim_matches(decoration);
    let line = line.strip_prefix("(?)").unwrap_or(line).trim_start();
    let line = line.strip_prefix("error:").unwrap_or(line).trim_start();
    let lower = line.to_lowercase();
    let noise = NOISE.iter().any(|words| lower.starts_with(words));
    (!noise && lower.contains(|c: char| c.is_alphanumeric())).then(|| start(line, LINE))
}

/// As many lines as fit in a sentence, in their order, the telling ones before the others.
fn shortened<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let is_telling = |line: &str| {
        let lower = line.to_lowercase();
        TELLING.iter().any(|words| lower.contains(words))
    };
    let (first, rest): (Vec<_>, Vec<_>) =
        lines.iter().enumerate().partition(|(_, line)| is_telling(line));
    let (mut chosen, mut room) = (Vec::new(), SENTENCE);
    for (place, line) in first.into_iter().chain(rest) {
        if line.len() <= room {
            room -= line.len();
            chosen.push((place, *line));
        }
    }
    chosen.sort_unstable_by_key(|(place, _)| *place);
    chosen.into_iter().map(|(_, line)| line).collect()
}

fn bounded(text: &str) -> String {
    if text.len() <= ANSWER {
        return text.to_owned();
    }
    let (head, rest) = (start(text, ANSWER / 2), text.len() - ANSWER / 2);
    let tail = (rest..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    format!("{head}\n[{} bytes are left out]\n{}", tail - head.len(), &text[tail..])
}

/// At most so many bytes from the start of a text.
fn start(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ANSWER, Refusal, SENTENCE};

    const LINE: &str = "!\tabc:refs/heads/x\t[remote rejected] (pre-receive hook declined)";

    #[test]
    fn rule_path_and_address_are_kept_and_decoration_is_not() {
        let stderr = "remote: error: GH013: Repository rule violations found for refs/heads/x.        \n\
            remote: \nremote: - GITHUB PUSH PROTECTION\nremote:   ————————————\n\
            remote:     Resolve the following violations before pushing again\n\
            remote:     - Push cannot contain secrets\n\
            remote:      (?) Learn how to resolve a blocked push\n\
            remote:      https://docs.github.com/code-security/x\n\
            remote:       —— GitHub Personal Access Token ————\n\
            remote:        locations:\nremote:          - commit: 8728dbe\n\
            remote:            path: README.md:4\n\
            remote:        (?) To push, remove secret from commit(s) or follow this URL to allow the secret.\n\
            remote:        https://github.com/a/b/security/secret-scanning/unblock-secret/2AB\n\
            error: failed to push some refs to 'https://h/a/b'\n";
        let refusal = Refusal::read(LINE, stderr);
        assert_eq!(refusal.reason, "[remote rejected] (pre-receive hook declined)");
        assert_eq!(
            refusal.told,
            "GH013: Repository rule violations found for refs/heads/x.; GITHUB PUSH PROTECTION; \
             Push cannot contain secrets; GitHub Personal Access Token; path: README.md:4; To push, remove \
             secret from commit(s) or follow this URL to allow the secret.; \
             https://github.com/a/b/security/secret-scanning/unblock-secret/2AB"
        );
        assert!(refusal.answer.contains("Learn how") && refusal.answer.contains("failed to push"));
    }

    #[test]
    fn a_long_answer_keeps_the_lines_that_tell_the_place() {
        let chatter = "remote: please read the handbook of this company with care\n".repeat(9);
        let many: Vec<String> =
            (0..900).map(|n| format!("remote: note {n} of the checker")).collect();
        let stderr = format!("{chatter}{}\nremote: File big.bin is 123 MB\n", many.join("\n"));
        let refusal = Refusal::read(LINE, &stderr);
        assert!(refusal.told.ends_with("; File big.bin is 123 MB"), "{}", refusal.told);
        assert!(refusal.answer.len() < ANSWER + 100 && refusal.answer.contains("are left out"));
        assert!(refusal.answer.ends_with("File big.bin is 123 MB"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_answer_is_too_long_or_too_odd(stderr in "(remote: [^\\n]{0,400}\\n){0,60}", line in ".*") {
            let refusal = Refusal::read(&line, &stderr);
            prop_assert!(refusal.told.len() <= 3 * SENTENCE);
            prop_assert!(refusal.answer.len() <= ANSWER + 100);
        }
    }
}
