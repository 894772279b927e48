//! `serve`: runs the server until a signal stops it.

use anyhow::Context;
use densecl_server::app::{self, Application};
use densecl_server::cli::ServeArgs;
use tokio::signal::unix::{SignalKind, signal};

use super::output::start_log;

/// Most threads of the async runtime. They transfer bytes; other threads compute.
const MAX_ASYNC_THREADS: usize = 8;

pub(crate) fn serve(arguments: ServeArgs) -> anyhow::Result<()> {
    start_log(arguments.log_format, "info");
    let config = arguments.into_config();
    if std::env::var_os("DENSECL_API_KEYS").is_some_and(|file| file.is_empty()) && config.api_keys.is_none() {
        tracing::warn!("DENSECL_API_KEYS is set and empty, which counts as unset: requests need no key");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.engine.threads.clamp(1, MAX_ASYNC_THREADS))
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        // First, so that a signal during loading is not lost.
        let stop = stop_signal()?;
        let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let application = Application::bind(config).await?;
        let state = application.state().clone();
        let reloading = tokio::spawn({
            let state = state.clone();
            async move {
                // One reload at a time; signals during a reload cause one more.
                while hangup.recv().await.is_some() {
                    tracing::info!(signal = "SIGHUP", "reloading");
                    app::reload(&state).await;
                }
            }
        });
        let ended = application.run_until(stop).await;
        reloading.abort();
        tokio::task::spawn_blocking(move || state.flush_traces()).await.context("flushing the traces panicked")?;
        Ok(ended?)
    })
}

/// Resolves at SIGTERM or SIGINT. A second signal ends the process at once.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("a second signal: running requests are cancelled");
            std::process::exit(1);
        });
    })
}
