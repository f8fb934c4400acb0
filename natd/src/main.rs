//! The natd command.

fn main() -> std::process::ExitCode {
    natd::cli::main()
}
