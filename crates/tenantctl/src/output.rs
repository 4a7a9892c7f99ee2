//! Where words go: the answer to standard output, everything else to standard error.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::Global;

/// How to speak in this run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    /// One JSON document instead of tables.
    pub(crate) json: bool,
    /// Errors only, beside the answer.
    pub(crate) quiet: bool,
    /// A person may be watching standard error.
    pub(crate) terminal: bool,
    color: bool,
}

impl Out {
    pub(crate) fn new(global: &Global) -> Self {
        let terminal = io::stderr().is_terminal();
        // https://no-color.org: set and not empty.
        let unwanted = global.no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json: global.json,
            quiet: global.quiet,
            terminal,
            color: terminal && !unwanted,
        }
    }

    pub(crate) fn color(&self) -> bool {
        self.color
    }

    /// The answer for programs.
    pub(crate) fn document(&self, document: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(document)?;
        self.answer(&text)
    }

    /// The answer for people.
    pub(crate) fn answer(&self, text: &str) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", text.trim_end())?;
        stdout.flush()?;
        Ok(())
    }

    /// A word on what happens or what to do next; never the answer itself.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.tell(text);
        }
    }

    /// What must be read even with `--quiet`, such as a password that is shown once.
    pub(crate) fn tell(&self, text: &str) {
        // Without standard error there is no place left to report it.
        let _ = writeln!(io::stderr(), "{text}");
    }

    pub(crate) fn error(&self, message: &str) {
        let word = if self.color {
            "\u{1b}[1;31merror:\u{1b}[0m"
        } else {
            "error:"
        };
        self.tell(&format!("{word} {message}"));
    }
}

/// A table without lines, so that its columns can be cut and grepped.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table.add_rows(
        rows.into_iter()
            .map(|row| row.into_iter().map(|cell| printable(&cell)).collect::<Vec<_>>()),
    );
    trimmed(&table)
}

/// Names and values below each other.
pub(crate) fn pairs(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.add_rows(
        rows.into_iter()
            .map(|(name, value)| vec![name.to_owned(), printable(&value)]),
    );
    trimmed(&table)
}

fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// One cell is one line, and what a name holds never steers the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A length of time as people write it: `1d 12h`.
pub(crate) fn span(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let written: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if written.is_empty() {
        "0s".to_owned()
    } else {
        written.join(" ")
    }
}

/// A moment in UTC, to the second.
pub(crate) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

pub(crate) fn moment_or_dash(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), moment)
}

/// A size as people read it; binary units.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_lines_and_no_trailing_spaces() {
        let text = table(
            &["A", "LONG"],
            [
                vec!["x".into(), "1".into()],
                vec!["yy\u{1b}[2J\n".into(), String::new()],
            ],
        );
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            ["A        LONG", "x        1", "yy [2J"]
        );
    }

    #[test]
    fn sizes_read_well() {
        let sizes = [0, 1023, 1024, 1_572_864, 5 << 40].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 TiB"]);
    }
}
