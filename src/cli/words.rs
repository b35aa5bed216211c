//! Words for an agent, from an argument or from standard input.

use std::io::Read;

use crate::exit::CommandError;

/// The longest, in bytes: they go into a prompt as a whole.
const LONGEST: u64 = 256 * 1024;

/// Reads what `argument` says, or standard input for `-`. Errors call it `name`.
pub(super) async fn read(argument: String, name: &str) -> anyhow::Result<String> {
    let refuse = |reason: &str| Err(CommandError::Usage(format!("{name} {reason}")).into());
    let text = if argument == "-" {
        let bytes = tokio::task::spawn_blocking(standard_input).await??;
        let Ok(text) = String::from_utf8(bytes) else { return refuse("is not text in UTF-8") };
        text
    } else {
        argument
    };
    if text.trim().is_empty() {
        return refuse("is empty: expected what the agent should do, in words");
    }
    if text.len() as u64 > LONGEST {
        return refuse("is longer than 256 KiB: expected a shorter one, with details in files");
    }
    if text.contains('\0') {
        return refuse("contains a NUL character: remove it");
    }
    Ok(text)
}

fn standard_input() -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells that there is more.
    std::io::stdin().lock().take(LONGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
