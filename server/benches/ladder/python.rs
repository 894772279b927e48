//! The rung in Python: the work of `direct` by `OpenCV` and onnxruntime, in a process that is kept between
//! measurements.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::Task;
use crate::report::Sample;

/// Python process that reads a number of seconds per line, and answers with images per second.
pub(crate) struct PythonLoop {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _pictures: tempfile::TempDir,
}

impl PythonLoop {
    pub(crate) fn start(python: &Path, task: &Task) -> anyhow::Result<Self> {
        let pictures = tempfile::tempdir()?;
        for (index, file) in task.inputs.files().iter().enumerate() {
            std::fs::write(pictures.path().join(format!("{index:03}.jpg")), file)?;
        }
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/ladder/python_loop.py");
        let mut process = Command::new(python)
            .arg(script)
            .args(["--pictures".as_ref(), pictures.path().as_os_str()])
            .args(["--model".as_ref(), task.model.path().as_os_str()])
            .args(["--layer", &task.layers.names().join("+"), "--side", &task.side_px.to_string()])
            .args(["--threads", &task.config.engine.threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start Python")?;
        let input = process.stdin.take().context("a pipe")?;
        let output = BufReader::new(process.stdout.take().context("a pipe")?);
        Ok(Self { process, input, output, _pictures: pictures })
    }

    pub(crate) fn run(&mut self, time: Duration) -> anyhow::Result<Sample> {
        writeln!(self.input, "{}", time.as_secs_f64())?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the Python program ended early");
        Ok(Sample::from_speed(line.trim().parse()?))
    }
}

impl Drop for PythonLoop {
    fn drop(&mut self) {
        // Fails if the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
