//! `cargo capture`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
