//! `serve`: until told to stop.

use anyhow::Context;
use densecl_server::app::Application;
use densecl_server::cli::ServeArgs;
use densecl_server::http::AppState;
use tokio::signal::unix::{SignalKind, signal};

use super::output::start_log;

/// Threads that serve connections; they only pass bytes on.
const MAX_ASYNC_THREADS: usize = 8;

pub(crate) fn serve(arguments: ServeArgs) -> anyhow::Result<()> {
    start_log(arguments.log_format, "info");
    let config = arguments.into_config();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.engine.threads.clamp(1, MAX_ASYNC_THREADS))
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        // Before anything else, so that a signal during loading is not lost.
        let stop = stop_signal()?;
        let application = Application::bind(config).await?;
        let state = application.state().clone();
        reload_on_hangup(state.clone())?;
        let ended = application.run_until(stop).await;
        tokio::task::spawn_blocking(move || state.flush_traces()).await.context("flushing the traces panicked")?;
        Ok(ended?)
    })
}

/// Reads what can change while the server runs again at SIGHUP.
fn reload_on_hangup(state: AppState) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let state = state.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || state.reload_api_keys()).await {
                tracing::error!(%error, "reading the API keys panicked");
            }
        }
    });
    Ok(())
}

/// Resolves at SIGTERM or SIGINT. A second one ends the process at once.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "told to stop");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("told to stop twice: requests under way are lost");
            std::process::exit(1);
        });
    })
}
