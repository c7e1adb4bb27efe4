//! `walhalla-restore`: Postgres' `restore_command`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(walhalla::archive::fetch::run(std::env::args_os().skip(1)))
}
