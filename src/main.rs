//! `walhalla`: the operator's program.

use std::process::ExitCode;
use walhalla::{cli, exit};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let arguments = match cli::parse(words.iter().cloned()) {
        Ok(arguments) => arguments,
        Err(refusal) => return cli::refuse(&refusal, &words),
    };
    match cli::run(arguments) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            cli::complain(&error);
            ExitCode::from(exit::operator_status(&error))
        }
    }
}
