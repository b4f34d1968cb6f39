//! The `tallyfs` program: everything is in the library.

fn main() -> std::process::ExitCode {
    tallyfs::cli::main()
}
