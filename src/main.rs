fn main() -> std::process::ExitCode {
    tallyfs::cli::main()
}
