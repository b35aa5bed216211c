//! Hands a token to git: git starts this binary and asks, the binary reads the token from a pipe.
//!
//! The worker writes the token into a pipe whose other end git inherits, and names this binary as
//! `GIT_ASKPASS`. Git passes the prompt as the only argument, so the role is recognised by
//! [`DESCRIPTOR`] in the environment.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    process::ExitCode,
};

use secrecy::{ExposeSecret, SecretString};

/// Environment variable that holds the number of the descriptor with the token.
pub const DESCRIPTOR: &str = "AWO_ASKPASS_FD";
/// Environment variable that holds the host the token is for, with its port.
pub const HOST: &str = "AWO_ASKPASS_HOST";
/// Environment variable that holds the user name that goes with the token.
pub const USER: &str = "AWO_ASKPASS_USER";

/// What a pipe always holds, in bytes, even for a user with many pipes (see pipe(7)).
const PIPE: usize = 4096;
/// How often one git command may ask: once is usual, a redirect or a retry asks again.
const ANSWERS: usize = 8;

/// Answers git when it started this process to ask for a password; `None` when it did not.
///
/// Call it first in `main`.
#[expect(clippy::disallowed_methods, reason = "git fixes how this role is started")]
pub fn answer_if_asked() -> Option<ExitCode> {
    let descriptor = std::env::var(DESCRIPTOR).ok()?;
    let host = std::env::var(HOST).unwrap_or_default();
    let user = std::env::var(USER).unwrap_or_default();
    let prompt = std::env::args().nth(1).unwrap_or_default();
    let answer = answer_askpass(&prompt, &user, &host, &descriptor, &mut io::stdout().lock());
    Some(if answer.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the answer to `prompt`. A prompt for another host or user than these gets none: a redirect
/// must not carry the token away.
///
/// Prompts are compared as a whole and never taken apart: a redirect chooses the user name that git
/// repeats in them, and may put quotes, slashes and the name of our host into it.
pub fn answer_askpass(
    prompt: &str,
    user: &str,
    host: &str,
    descriptor: &str,
    output: &mut impl Write,
) -> io::Result<()> {
    if prompt == format!("Username for 'https://{host}': ") {
        return writeln!(output, "{user}");
    }
    // Since 2.48, and in the security updates of older ones, git encodes the user name in its question.
    let expected = [user.to_owned(), encoded(user)];
    if !expected.iter().any(|user| prompt == format!("Password for 'https://{user}@{host}': ")) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "asked for another host"));
    }
    let number: u32 = descriptor.parse().map_err(io::Error::other)?;
    let token = line(&mut File::open(format!("/proc/self/fd/{number}"))?)?;
    output.write_all(&token)?;
    output.write_all(b"\n")?;
    output.flush()
}

/// Percent-encodes what git encodes in a user name: everything but RFC 3986's unreserved characters.
fn encoded(user: &str) -> String {
    let mut text = String::new();
    for byte in user.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Reads one line byte by byte, so that the next one stays in the pipe for the next question.
fn line(pipe: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < PIPE {
        if pipe.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if byte[0] == b'\n' {
            return Ok(line);
        }
        line.push(byte[0]);
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// A pipe that holds `token` a few times; its writing end is closed, so nothing waits on it.
pub(super) fn pipe(token: &SecretString) -> io::Result<OwnedFd> {
    let token = token.expose_secret();
    if token.is_empty() || token.len() >= PIPE || token.contains(['\n', '\r', '\0']) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the token is empty, has more than one line, or is longer than 4095 bytes",
        ));
    }
    let (reader, mut writer) = io::pipe()?;
    let answer = format!("{token}\n");
    for _ in 0..ANSWERS.min(PIPE / answer.len()) {
        writer.write_all(answer.as_bytes())?;
    }
    Ok(OwnedFd::from(reader))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::{answer_askpass, pipe};

    const USER: &str = "x-access-token";

    #[test]
    fn every_question_of_one_command_is_answered() {
        let pipe = pipe(&"hunter2-token".into()).unwrap();
        let descriptor = pipe.as_raw_fd().to_string();
        let ask = |prompt: &str, user: &str| {
            let mut output = Vec::new();
            answer_askpass(prompt, user, "h.example:8443", &descriptor, &mut output).unwrap();
            String::from_utf8(output).unwrap()
        };
        for _ in 0..7 {
            let prompt = "Password for 'https://x-access-token@h.example:8443': ";
            assert_eq!(ask(prompt, USER), "hunter2-token\n");
        }
        let prompt = "Password for 'https://me%40firm.example@h.example:8443': ";
        assert_eq!(ask(prompt, "me@firm.example"), "hunter2-token\n");
        let prompt = "Username for 'https://h.example:8443': ";
        assert_eq!(ask(prompt, "me@firm.example"), "me@firm.example\n");
    }

    #[test]
    fn another_host_gets_no_token() {
        let pipe = pipe(&"hunter2-token".into()).unwrap();
        let descriptor = pipe.as_raw_fd().to_string();
        for prompt in [
            "Password for 'https://x-access-token@evil.example': ",
            "Password for 'https://x-access-token@h.example.evil.example': ",
            "Password for 'https://x-access-token@h.example:8443': ",
            "Password for 'http://x-access-token@h.example': ",
            "Password for 'https://h.example@evil.example': ",
            "Password for 'https://x-access-token@h.example@evil.example': ",
            // The user name of a redirect, as git repeats it.
            "Password for 'https://x-access-token@h.example'@evil.example': ",
            "Password for 'https://x-access-token@h.example': '@evil.example': ",
            "Password for 'https://x-access-token@h.example/@evil.example': ",
            "Password for 'https://evil.example/h.example': ",
            "Password for 'https://somebody@h.example': ",
            "Username for 'https://evil.example': ",
            "Password: ",
            "",
        ] {
            let mut output = Vec::new();
            let answer = answer_askpass(prompt, USER, "h.example", &descriptor, &mut output);
            assert!(answer.is_err() && output.is_empty(), "{prompt:?} was answered");
        }
    }

    #[test]
    fn tokens_that_cannot_be_one_line_are_refused() {
        for bad in [String::new(), "a\nb".to_owned(), "x".repeat(5000)] {
            assert!(pipe(&bad.into()).is_err());
        }
    }
}
