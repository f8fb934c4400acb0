//! Arguments and subcommands.

/// Runs the command line and answers with the exit code.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
