//! The trainer as a process of its own, whose log the tests read line by line: they wait for an event and not for a
//! time to pass.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The program.
pub(crate) const TRAINER: &str = env!("CARGO_BIN_EXE_densecl-trainer");

/// Start of the log's message that a checkpoint has been written.
pub(crate) const CHECKPOINT: &str = ": checkpoint step=";

/// Longest time until a line or the end of a process, so that a test that would hang fails.
const DEADLINE: Duration = Duration::from_mins(5);

/// A process that is killed when it is dropped.
pub(crate) struct TrainerProcess {
    child: Child,
    /// Lines of standard error; the channel is closed when the process has ended.
    log: Receiver<String>,
    stdout: Option<JoinHandle<String>>,
    stderr: String,
}

/// What a process that has ended leaves.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl TrainerProcess {
    /// Starts the command with both outputs piped.
    pub(crate) fn start(command: &mut Command) -> Self {
        // The lines that tests wait for are of the default level.
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let (sender, log) = channel();
        thread::spawn(move || {
            for line in stderr.lines() {
                // The receiver is gone if the test has failed.
                if sender.send(line.expect("text")).is_err() {
                    break;
                }
            }
        });
        let mut stdout = child.stdout.take().expect("a pipe");
        let stdout = thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).expect("text");
            text
        });
        Self { child, log, stdout: Some(stdout), stderr: String::new() }
    }

    /// Waits for the next line of the log.
    ///
    /// # Panics
    /// If the process ends before, or the deadline has passed.
    pub(crate) fn next_line(&mut self) -> String {
        match self.log.recv_timeout(DEADLINE) {
            Ok(line) => {
                self.keep(&line);
                line
            }
            Err(error) => panic!("no further line ({error}): {}", self.stderr),
        }
    }

    /// Waits for a line of the log that contains `text`.
    ///
    /// # Panics
    /// As [`TrainerProcess::next_line`].
    pub(crate) fn wait_for_line(&mut self, text: &str) {
        while !self.next_line().contains(text) {}
    }

    /// Sends a signal, such as `-TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    /// Kills the process.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// If the deadline passes before.
    pub(crate) fn finish(mut self) -> Ended {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.keep(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the process has not ended: {}", self.stderr),
            }
        }
        let status = self.child.wait().expect("it ends");
        let stdout = self.stdout.take().expect("finished once").join().expect("text");
        Ended { status, stdout, stderr: std::mem::take(&mut self.stderr) }
    }

    fn keep(&mut self, line: &str) {
        self.stderr.push_str(line);
        self.stderr.push('\n');
    }
}

impl Drop for TrainerProcess {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
