//! The real binary as a process.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A server process. It is killed when this value is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: String,
    /// Its first lines on standard output, before it served.
    pub(crate) first_words: String,
    log: Arc<Mutex<String>>,
    /// Reads its log to the end.
    reader: Option<JoinHandle<()>>,
}

pub(crate) fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jackfield"));
    command.current_dir(directory).args(arguments).env_clear();
    command
}

pub(crate) fn run(directory: &Path, arguments: &[&str]) -> Output {
    command(directory, arguments).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

impl Process {
    pub(crate) fn start(directory: &Path, settings: &[&str]) -> Process {
        Self::start_in(directory, settings, &[])
    }

    /// As [`Process::start`], with variables in its environment.
    pub(crate) fn start_in(directory: &Path, settings: &[&str], variables: &[(&str, &str)]) -> Process {
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--set", "drain.delay=0s"];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let mut child = command(directory, &arguments);
        let child =
            child.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut log = String::new();
        let listening = loop {
            let line = lines.next().unwrap();
            log.extend([&line, "\n"]);
            if line.contains("\"message\":\"listening\"") {
                break line;
            }
        };
        let listening: serde_json::Value = serde_json::from_str(&listening).unwrap();
        let address = listening["address"].as_str().unwrap().to_owned();
        // A full pipe would block the server.
        let log = Arc::new(Mutex::new(log));
        let shared = Arc::clone(&log);
        let reader = std::thread::spawn(move || lines.for_each(|line| shared.lock().unwrap().extend([&line, "\n"])));
        let mut out = child.stdout.take().unwrap();
        let mut first_words = vec![0; usize::try_from(rustix::io::ioctl_fionread(&out).unwrap()).unwrap()];
        out.read_exact(&mut first_words).unwrap();
        Process { child, address, first_words: String::from_utf8(first_words).unwrap(), log, reader: Some(reader) }
    }

    /// Stops it, which must succeed, and returns its log.
    pub(crate) fn stop(mut self) -> String {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        self.reader.take().unwrap().join().unwrap();
        self.log()
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its CPU time so far, in ticks.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
