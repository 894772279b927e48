//! The rung through the server's router, without a socket.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use densecl_server::http::{AppState, router};
use tower::ServiceExt;

use crate::Task;
use crate::report::Sample;

pub(crate) struct InProcess(AppState);

impl InProcess {
    pub(crate) fn new(state: AppState) -> Self {
        Self(state)
    }

    /// Runs `clients` that each send a request, wait for its reply, and send the next.
    pub(crate) fn run(&self, task: &Task, clients: usize, time: Duration) -> anyhow::Result<Sample> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let router = router(self.0.clone());
        let (next, latencies) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let begun = Instant::now();
        runtime.block_on(async {
            let mut running = tokio::task::JoinSet::new();
            for _ in 0..clients {
                let (router, task) = (router.clone(), task.clone());
                let (next, latencies) = (Arc::clone(&next), Arc::clone(&latencies));
                running.spawn(async move {
                    while begun.elapsed() < time {
                        let start = Instant::now();
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let request = Request::post(task.path_and_query())
                            .header(header::CONTENT_TYPE, "image/jpeg")
                            .body(Body::from(task.inputs.file(index).clone()))?;
                        let response = router.clone().oneshot(request).await?;
                        let status = response.status();
                        to_bytes(response.into_body(), usize::MAX).await?;
                        ensure!(status == StatusCode::OK, "the router answered {status}");
                        latencies.lock().unwrap_or_else(PoisonError::into_inner).push(start.elapsed());
                    }
                    Ok(())
                });
            }
            while let Some(ended) = running.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        })?;
        let latencies = std::mem::take(&mut *latencies.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Sample::new(latencies.len(), begun.elapsed(), latencies))
    }
}
