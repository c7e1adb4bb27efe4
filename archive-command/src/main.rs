//! `walhalla-archive`: Postgres' `archive_command`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::FAILURE
}
