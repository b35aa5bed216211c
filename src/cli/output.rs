//! What commands print on standard output, for people or as JSON, safe for a terminal.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use chrono::{DateTime, Utc};
use console::style;
use serde::Serialize;

use crate::domain::{Redactor, for_json, for_terminal, is_invisible};

/// Standard output of a command.
#[derive(Debug)]
pub struct Output {
    json: bool,
    stdout: io::Stdout,
    redactor: Redactor,
}

impl Output {
    /// For people, or as JSON.
    pub fn new(json: bool) -> Self {
        Self { json, stdout: io::stdout(), redactor: Redactor::default() }
    }

    /// The same, without the secrets that `redactor` knows in anything that is printed.
    #[must_use]
    pub fn without(self, redactor: Redactor) -> Self {
        Self { redactor, ..self }
    }

    /// What takes secrets out of texts that are shortened before they are printed.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// One line of text, with no other control in it than our colours.
    pub fn line(&self, text: impl AsRef<str>) -> io::Result<()> {
        let text = self.redactor.text(text.as_ref());
        let text = if self.json {
            for_json(&text)
        } else {
            for_terminal(&text, console::colors_enabled())
        };
        let mut stdout = self.stdout.lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()
    }

    /// Bytes as they are; on a terminal with its controls written out.
    pub fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let shown = self
            .stdout
            .is_terminal()
            .then(|| for_terminal(&self.redactor.text(&String::from_utf8_lossy(bytes)), false));
        let mut stdout = self.stdout.lock();
        stdout.write_all(shown.as_deref().map_or(bytes, str::as_bytes))?;
        stdout.flush()
    }

    /// A document, indented.
    pub fn document(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string_pretty(value)?)?;
        Ok(())
    }

    /// A document on one line.
    pub fn json_line(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string(value)?)?;
        Ok(())
    }

    /// Rows under headings, columns as wide as needed. The last column is not padded.
    pub fn table(&self, headings: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| console::measure_text_width(cell)).max();
            widest.unwrap_or_default().max(headings[column].len())
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        let pad = |cells: Vec<String>| {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(&widths) {
                let missing = width.saturating_sub(console::measure_text_width(cell));
                line.push_str(cell);
                line.push_str(&" ".repeat(missing + 2));
            }
            line.trim_end().to_owned()
        };
        let headings = headings.iter().map(|text| style(text).dim().to_string()).collect();
        self.line(pad(headings))?;
        rows.iter().try_for_each(|row| self.line(pad(row.clone())))
    }
}

/// The text without what a terminal would obey: escape sequences of an agent's output must not
/// move the cursor or set the title of whoever reads it.
pub fn plain(text: &str) -> String {
    let text = console::strip_ansi_codes(text);
    let unseen = |c: char| c.is_control() || is_invisible(c);
    text.chars().filter(|c| !unseen(*c) || matches!(c, '\n' | '\t')).collect()
}

/// A line on standard error, with no control in it.
pub fn tell(text: &str) {
    eprintln!("{}", for_terminal(text, false));
}

/// The first line of a text, at most `width` columns.
pub fn first_line(text: &str, width: usize) -> String {
    let text = plain(text);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    console::truncate_str(line.trim(), width, "…").into_owned()
}

/// A status word in its colour; plain where there are no colours.
pub fn status(word: &str) -> String {
    let styled = style(word);
    match word {
        "completed" | "succeeded" | "ok" => styled.green(),
        "failed" | "crashed" => styled.red(),
        "running" => styled.cyan(),
        "cancelled" | "interrupted" | "retried" => styled.yellow(),
        _ => styled,
    }
    .to_string()
}

/// A time as people read it, in UTC.
pub fn time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Seconds as people read them: `0.4s`, `12s`, `3m 05s`, `2h 10m`.
pub fn seconds(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let whole = duration.as_secs();
    match whole {
        0..=9 => format!("{:.1}s", duration.as_secs_f64()),
        10..=59 => format!("{whole}s"),
        60..=3599 => format!("{}m {:02}s", whole / 60, whole % 60),
        _ => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::{first_line, plain, seconds};

    #[test]
    fn text_of_an_agent_cannot_drive_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mred\u{1b}]0;title\u{7}\r\u{8}b\nc"), "aredb\nc");
        assert_eq!(plain("a\u{9b}2J\u{202e}b\u{200b}\u{e0041}c"), "abc");
        assert_eq!(first_line("\n  two words \n more", 5), "two …");
    }

    #[test]
    fn durations_are_short() {
        let texts: Vec<String> = [0.42, 12.0, 185.0, 7800.0, -1.0, f64::NAN].map(seconds).into();
        assert_eq!(texts, ["0.4s", "12s", "3m 05s", "2h 10m", "0.0s", "0.0s"]);
    }
}
