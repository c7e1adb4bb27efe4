//! `walhalla`: the operator's program.

use std::process::ExitCode;
use walhalla::cli::{self, Ending};
use walhalla::exit;

fn main() -> ExitCode {
    let arguments = match cli::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(refusal) => return cli::refuse(&refusal),
    };
    match cli::run(arguments) {
        Ok(Ending::Well) => ExitCode::SUCCESS,
        Ok(Ending::Damaged) => ExitCode::from(exit::OPERATOR_DAMAGED),
        Err(error) => {
            cli::complain(&error);
            ExitCode::from(exit::operator_status(&error))
        }
    }
}
