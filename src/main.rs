//! The `tallyfs` program: everything is in the library.

#[global_allocator]
static MEMORY: tallyfs::sys::allocator::Buffers = tallyfs::sys::allocator::Buffers;

fn main() -> std::process::ExitCode {
    tallyfs::cli::main()
}
