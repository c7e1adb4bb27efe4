//! `walhalla-archive`: Postgres' `archive_command`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(walhalla::archive::push::run(std::env::args_os().skip(1)))
}
