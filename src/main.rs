//! `walhalla`: the operator's program.

use std::process::ExitCode;
use walhalla::{cli, exit};

fn main() -> ExitCode {
    let arguments = match cli::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(refusal) => return cli::refuse(&refusal),
    };
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain(&error);
            ExitCode::from(exit::operator_status(&error))
        }
    }
}
