//! Which secrets are weak: they may be ordinary words, so that taking them out of texts would rewrite
//! what people wrote.
//!
//! The rule follows what NIST SP 800-63B (section 5.1.1.2) has checkers refuse: less than eight
//! characters, words of a dictionary, repeated or sequential characters, names of the service, and what
//! is made of these by a few digits or signs.

use super::MIN_LENGTH;

/// A run of letters below this length may be a word of any language.
const LONGEST_UNKNOWN_WORD: usize = 11;
/// Most runs of letters, and most digits, of a word with decoration, such as `my-secret-pw-2026`.
const MOST_RUNS: usize = 4;
const MOST_DIGITS: usize = 4;
/// A secret of digits alone is a number up to this length: a date, an account.
const LONGEST_NUMBER: usize = 15;
/// So many consonants in a row stand in no word.
const TOO_MANY_CONSONANTS: usize = 5;

/// Words that longer passwords are put together from: defaults of databases and tools, ours among them,
/// and the common words of leaked passwords.
const WORDS: &str = "access account admin administrator agent all and api app application archive archon auth \
    authentication authorization awo backend backup bot build cache change claude client cloud \
    cluster code common company config configuration connection container continuous cred \
    credential data database db default demo deploy deployment dev developer development docker \
    dummy elastic enterprise environment example fake file for frontend git github gitlab \
    grafana guest hello home host in infrastructure integration internal invalid is it key \
    kubernetes let live local localhost log login machine maria master me mongo monitoring my \
    mysql network new no none not observability of open operator oracle order orders \
    organization owner pass passphrase passwd password people placeholder please postgres \
    postgresql pre preproduction private prod production project public pw pwd qa queue rabbit \
    random read registry release replication repository role root sample sandbox secret secure \
    security server service session simple some stage staging storage strong sup supabase super \
    superuser support sys system team temp temporary test testing the this to token top user \
    username value very web welcome with work worker world write you your";
/// Common passwords whose letters are replaced by signs and digits.
const DISGUISED: &[&str] = &[
    "p@ssw0rd",
    "passw0rd",
    "pa55w0rd",
    "pa$$word",
    "p@ssword",
    "p4ssw0rd",
    "adm1n123",
    "s3cr3t123",
];

/// Whether a secret is too weak to be searched for: short, a word, a number, or such with decoration.
pub fn is_weak_secret(secret: &str) -> bool {
    let secret = secret.trim();
    let lower = secret.to_lowercase();
    if secret.len() < MIN_LENGTH || repeats(&lower) || DISGUISED.contains(&lower.as_str()) {
        return true;
    }
    let digits = secret.chars().filter(char::is_ascii_digit).count();
    let runs: Vec<&str> = letters(secret).collect();
    if runs.is_empty() {
        return digits == secret.chars().count() && digits <= LONGEST_NUMBER;
    }
    let signs = secret.chars().filter(|c| !c.is_alphanumeric()).count();
    // A few signs between words and behind them, and no more.
    runs.len() <= MOST_RUNS
        && digits <= MOST_DIGITS
        && signs <= runs.len()
        && runs.iter().all(|run| is_word(run))
}

/// One character, or a few, again and again.
fn repeats(text: &str) -> bool {
    let first: Vec<char> = text.chars().take(3).collect();
    (1..=first.len()).any(|width| {
        text.chars().zip(first[..width].iter().cycle()).all(|(found, expected)| found == *expected)
    })
}

fn letters(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphabetic()).filter(|run| !run.is_empty())
}

/// Whether a run of letters is put together from known words, or is short and reads like a word.
fn is_word(run: &str) -> bool {
    let lower = run.to_lowercase();
    let length = run.chars().count();
    let one_case =
        run == lower || run == run.to_uppercase() || run.chars().skip(1).all(char::is_lowercase);
    is_made_of_words(&lower) || (length <= LONGEST_UNKNOWN_WORD && one_case && is_speakable(&lower))
}

fn is_speakable(lower: &str) -> bool {
    let is_vowel = |c: char| matches!(c, 'a' | 'e' | 'i' | 'o' | 'u' | 'y') || !c.is_ascii();
    let crowded = lower.split(is_vowel).any(|part| part.chars().count() >= TOO_MANY_CONSONANTS);
    lower.chars().any(is_vowel) && !crowded
}

fn is_made_of_words(lower: &str) -> bool {
    // Whether a beginning of this length is made of words.
    let mut reached = vec![false; lower.len() + 1];
    reached[0] = true;
    for start in 0..lower.len() {
        if reached[start] {
            let rest = lower.get(start..).unwrap_or_default();
            for word in WORDS.split(' ').filter(|word| rest.starts_with(*word)) {
                reached[start + word.len()] = true;
            }
        }
    }
    reached[lower.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::is_weak_secret;

    #[test]
    fn words_numbers_and_their_decoration_are_weak() {
        for secret in [
            "",
            "short",
            "postgres",
            "password",
            "production",
            "Password1!",
            "postgres123",
            "changeme",
            "my-secret-pw",
            "admin2026",
            "supersecretpassword",
            "PRODUCTION",
            "letmein2024",
            "kennwort",
            "postgresql-production-2024",
            "12345678",
            "20261127",
            "aaaaaaaaaaaa",
            "abcabcabcabc",
            "1234abcd",
            "P@ssw0rd",
            "archon-awo",
            "работа-пароль",
            "your_api_key",
        ] {
            assert!(is_weak_secret(secret), "{secret:?} is strong");
        }
    }

    #[test]
    fn what_no_person_writes_by_chance_is_strong() {
        for secret in [
            "x7Kp2mQ9",
            "ghp_0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f",
            "sk-fake-key-of-the-test",
            "hq7-staple-Zw",
            "qzxvjkwpyh",
            "tMwQbPxZ",
            "9f86d081884c7d65",
            "4111111111111111",
            "550e8400-e29b-41d4-a716-446655440000",
            "correct horse battery staple of five",
            "wjqhzkxvbnmtrplk",
            "!§$%&/()=?",
        ] {
            assert!(!is_weak_secret(secret), "{secret:?} is weak");
        }
    }

    proptest! {
        #[test]
        fn generated_tokens_are_strong(token in "[A-Za-z0-9]{20,40}", hex in "[0-9a-f]{32}") {
            prop_assert!(!is_weak_secret(&token), "{}", token);
            prop_assert!(!is_weak_secret(&hex), "{}", hex);
        }

        #[test]
        fn any_text_is_judged(secret in "\\PC{0,60}") {
            let _ = is_weak_secret(&secret);
        }
    }
}
