//! Hands a token to git: git starts this binary and asks, the binary reads the token from a pipe.
//!
//! The worker writes the token into a pipe whose other end git inherits, and names this binary as
//! `GIT_ASKPASS`. Git passes the prompt as the only argument, so the role is recognised by
//! [`DESCRIPTOR`] in the environment.

use std::{
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
/// The user name that goes with a token.
pub const USER: &str = "x-access-token";

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
    let prompt = std::env::args().nth(1).unwrap_or_default();
    let answer = answer_askpass(&prompt, &host, &descriptor, &mut io::stdout().lock());
    Some(if answer.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the answer to `prompt`. A prompt for another host than `host` gets none: a redirect must
/// not carry the token away.
pub fn answer_askpass(
    prompt: &str,
    host: &str,
    descriptor: &str,
    output: &mut impl Write,
) -> io::Result<()> {
    if prompt.starts_with("Username") {
        return writeln!(output, "{USER}");
    }
    // Git writes: Password for 'https://x-access-token@host:port':
    let asked_for = prompt.split_once("://").and_then(|(_, rest)| rest.split(['\'', '/']).next());
    let asked_for = asked_for.map(|authority| {
        authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_ascii_lowercase()
    });
    if asked_for.as_deref() != Some(host) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "asked for another host"));
    }
    let number: u32 = descriptor.parse().map_err(io::Error::other)?;
    let token = line(&mut File::open(format!("/proc/self/fd/{number}"))?)?;
    output.write_all(&token)?;
    output.write_all(b"\n")?;
    output.flush()
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

    #[test]
    fn every_question_of_one_command_is_answered() {
        let pipe = pipe(&"hunter2-token".into()).unwrap();
        let descriptor = pipe.as_raw_fd().to_string();
        for _ in 0..8 {
            let mut output = Vec::new();
            let prompt = "Password for 'https://x-access-token@h.example:8443': ";
            answer_askpass(prompt, "h.example:8443", &descriptor, &mut output).unwrap();
            assert_eq!(output, b"hunter2-token\n");
        }
    }

    #[test]
    fn another_host_gets_no_token() {
        let pipe = pipe(&"hunter2-token".into()).unwrap();
        let descriptor = pipe.as_raw_fd().to_string();
        for prompt in [
            "Password for 'https://x-access-token@evil.example': ",
            "Password for 'https://h.example@evil.example': ",
            "Password for 'https://evil.example/h.example': ",
            "Password: ",
            "",
        ] {
            let mut output = Vec::new();
            let answer = answer_askpass(prompt, "h.example", &descriptor, &mut output);
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
