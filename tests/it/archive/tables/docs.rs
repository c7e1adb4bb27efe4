//! The tables as `docs/exit-codes.md` shows them. A test holds the two together; with `WALHALLA_WRITE_DOCS` set it writes the
//! document instead.

use super::{fetch, push, rows};
use crate::support::checkout;

#[test]
#[ignore = "not all rows of the tables are settled yet"]
fn the_documentation_has_the_tables() {
    let path = checkout().join("docs/exit-codes.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let mut written = document.clone();
    for (name, table) in [("walhalla-archive", archive()), ("walhalla-restore", restore())] {
        let (begin, end) = (format!("<!-- table: {name} -->\n"), format!("<!-- end of table: {name} -->"));
        let from = written.find(&begin).unwrap_or_else(|| panic!("docs/exit-codes.md lacks {begin}")) + begin.len();
        let to = written.find(&end).unwrap_or_else(|| panic!("docs/exit-codes.md lacks {end}"));
        written.replace_range(from..to, &table);
    }
    if std::env::var_os("WALHALLA_WRITE_DOCS").is_some() {
        std::fs::write(path, written).unwrap();
        return;
    }
    let differs = written.lines().zip(document.lines()).find(|(now, then)| now != then);
    assert!(
        written == document,
        "docs/exit-codes.md is out of date, first at {differs:?}: \
         WALHALLA_WRITE_DOCS=1 cargo test --test it archive::tables::docs"
    );
}

/// `walhalla-archive`: a row for each fault at each stage.
fn archive() -> String {
    let mut table = format!(
        "{} cells.\n\n| where | what goes wrong | running | stopping | the next call |\n|---|---|---|---|---|\n",
        push::cells().len()
    );
    for row in rows(push::TABLE) {
        table += &format!("| {} |\n", row.join(" | "));
    }
    table
}

/// `walhalla-restore`: a row for each fault, and for what the archive and the server have.
fn restore() -> String {
    let modes = fetch::MODES.map(|(name, ..)| name).join(" | ");
    let mut table = format!(
        "{} cells.\n\n| what goes wrong | asked for | the file is | {modes} |\n|{}\n",
        fetch::cells().len(),
        "---|".repeat(3 + fetch::MODES.len())
    );
    for row in rows(fetch::TABLE) {
        let [fault, kinds, states, statuses] = &row[..] else { panic!("{row:?}") };
        let statuses = match statuses.as_str() {
            "as none" => vec!["as none"; fetch::MODES.len()].join(" | "),
            _ => statuses.replace(' ', " | "),
        };
        table += &format!("| {fault} | {kinds} | {states} | {statuses} |\n");
    }
    table
}
