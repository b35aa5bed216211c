//! What commands print on standard output, for people or as JSON, safe for a terminal.

use std::{
    io::{self, Write},
    time::Duration,
};

use chrono::{DateTime, Utc};
use console::style;
use serde::Serialize;

/// Standard output of a command.
#[derive(Debug)]
pub struct Output {
    json: bool,
    stdout: io::Stdout,
}

impl Output {
    /// For people, or as JSON.
    pub fn new(json: bool) -> Self {
        Self { json, stdout: io::stdout() }
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// One line of text.
    pub fn line(&self, text: impl AsRef<str>) -> io::Result<()> {
        let mut stdout = self.stdout.lock();
        writeln!(stdout, "{}", text.as_ref())?;
        stdout.flush()
    }

    /// Bytes as they are.
    pub fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = self.stdout.lock();
        stdout.write_all(bytes)?;
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
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
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
        assert_eq!(first_line("\n  two words \n more", 5), "two …");
    }

    #[test]
    fn durations_are_short() {
        let texts: Vec<String> = [0.42, 12.0, 185.0, 7800.0, -1.0, f64::NAN].map(seconds).into();
        assert_eq!(texts, ["0.4s", "12s", "3m 05s", "2h 10m", "0.0s", "0.0s"]);
    }
}
