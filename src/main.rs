//! The binary; everything is in the library.

fn main() -> std::process::ExitCode {
    perses_sidecar::command::main()
}
