//! `jackfield-faulty`: the server with a planted fault, for the harnesses.

fn main() -> std::process::ExitCode {
    jackfield_testkit::fault::main()
}
