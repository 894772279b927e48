//! Standard output and the log.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use densecl_server::cli::LogFormat;
use tracing_subscriber::EnvFilter;

/// Writes to standard output. A reader that closes the pipe early is not an error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    write_output(format!("{text}\n").as_bytes())
}

/// Writes a result to `file`, or to standard output without one.
pub(super) fn write_result(bytes: &[u8], is_text: bool, file: Option<&Path>) -> anyhow::Result<()> {
    if let Some(file) = file {
        return fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()));
    }
    ensure!(
        is_text || !io::stdout().is_terminal(),
        "the result is not text: name a file with --out, or redirect standard output"
    );
    write_output(bytes)
}

fn write_output(bytes: &[u8]) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Starts the log on standard error: from `level` upwards, unless `DENSECL_LOG` is set and not empty.
pub(super) fn start_log(format: LogFormat, level: &str) {
    // ONNX Runtime logs its own life cycle; only its warnings are useful by default.
    let default = || EnvFilter::new(format!("{level},ort=warn"));
    let directives = std::env::var("DENSECL_LOG").ok().filter(|directives| !directives.is_empty());
    let (filter, wrong) = match directives.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (default(), Some(error)),
        None => (default(), None),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
    }
    if let Some(error) = wrong {
        tracing::warn!(%error, "DENSECL_LOG is not a filter and is ignored: use a level, such as debug, or TARGET=LEVEL,…");
    }
}
