//! What goes to the terminal, and how: numbers a person reads, tables, progress.

use std::io::Write;

/// One line to stdout. A reader that went away (`| head`) is no reason to fail.
pub(super) fn line(text: &str) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Text to stdout as it is.
pub(super) fn text(text: &str) {
    drop(std::io::stdout().lock().write_all(text.as_bytes()));
}

/// One line to stderr.
pub(super) fn note(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// A value as JSON, with a line break at its end.
pub(super) fn json(value: &impl serde::Serialize) -> crate::error::Result<()> {
    use crate::error::{Error, ErrorKind};
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::new(ErrorKind::Bug, "cannot write JSON").because(error))?;
    line(&text);
    Ok(())
}

/// Bytes as a person reads them: `1.4 GiB`.
pub(super) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// A table with a heading, no frame: columns two blanks apart.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    use comfy_table::{Table, presets};
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heading.to_vec());
    for row in rows {
        table.add_row(row.clone());
    }
    let trimmed: Vec<String> = table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
    trimmed.join("\n")
}

/// A progress line on stderr; nothing where there is no terminal.
pub(super) fn progress(total: Option<u64>) -> indicatif::ProgressBar {
    use indicatif::{ProgressBar, ProgressStyle};
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    let template = match total {
        Some(_) => "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left",
        None => "{spinner} {binary_bytes} {binary_bytes_per_sec} {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_and_tables() {
        assert_eq!(super::bytes(1536), "1.50 KiB");
        let table = super::table(&["A", "B"], &[vec!["1".into(), "2".into()], vec!["333".into(), "4".into()]]);
        assert_eq!(table, " A    B\n 1    2\n 333  4");
    }
}
