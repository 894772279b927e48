//! Open loop: requests at random times, independent of the replies to earlier ones. Measures overload.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::Task;
use crate::http::{Client, HttpServer};
use crate::report::{percentile, resident_bytes};

/// Offered load: rate and duration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered {
    pub(crate) per_second: f64,
    pub(crate) time: Duration,
}

/// Result of one offered load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OpenSample {
    pub(crate) offered_per_second: f64,
    pub(crate) answered_per_second: f64,
    pub(crate) refused_per_second: f64,
    pub(crate) failed: usize,
    pub(crate) answered_p50_ms: f64,
    pub(crate) answered_p99_ms: f64,
    pub(crate) refused_p50_ms: f64,
    pub(crate) refused_p99_ms: f64,
    /// Resident memory of the process before the measurement.
    pub(crate) resident_before_bytes: u64,
    /// Largest resident memory during the measurement.
    pub(crate) resident_most_bytes: u64,
}

/// Outcome of one request, and the time from when it was due.
struct Outcome {
    status: Option<StatusCode>,
    latency: Duration,
    ended: Instant,
}

/// Sends requests with exponentially distributed times between them.
pub(crate) fn run(server: &HttpServer, task: &Task, offered: Offered) -> anyhow::Result<OpenSample> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let address = server.address();
    let idle: Arc<Mutex<Vec<Client>>> = Arc::default();
    let resident_before_bytes = resident_bytes();
    let mut resident_most_bytes = resident_before_bytes;
    let begun = Instant::now();
    let outcomes: Vec<Outcome> = runtime.block_on(async {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut running = tokio::task::JoinSet::new();
        let mut due = begun;
        for index in 0.. {
            due += Duration::from_secs_f64(-random.random::<f64>().max(1e-12).ln() / offered.per_second);
            if due.duration_since(begun) > offered.time {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
            if index % 16 == 0 {
                resident_most_bytes = resident_most_bytes.max(resident_bytes());
            }
            let (task, idle) = (task.clone(), Arc::clone(&idle));
            running.spawn(async move {
                let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let asked = async {
                    let mut client = match kept {
                        Some(client) if client.is_usable() => client,
                        _ => Client::connect(address).await?,
                    };
                    let status = client.ask(&task, index).await?;
                    idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
                    anyhow::Ok(status)
                };
                let status = asked.await.ok();
                Outcome { status, latency: due.elapsed(), ended: Instant::now() }
            });
        }
        running.join_all().await
    });
    // Rates include the time until the last reply, as replies arrive after the last request was sent.
    let last = outcomes.iter().map(|outcome| outcome.ended).max().unwrap_or(begun);
    let seconds = last.duration_since(begun).as_secs_f64();
    let latencies = |status: StatusCode| -> Vec<Duration> {
        outcomes.iter().filter(|outcome| outcome.status == Some(status)).map(|outcome| outcome.latency).collect()
    };
    let (answered, refused) = (latencies(StatusCode::OK), latencies(StatusCode::SERVICE_UNAVAILABLE));
    Ok(OpenSample {
        offered_per_second: outcomes.len() as f64 / offered.time.as_secs_f64(),
        answered_per_second: answered.len() as f64 / seconds,
        refused_per_second: refused.len() as f64 / seconds,
        failed: outcomes.len() - answered.len() - refused.len(),
        answered_p50_ms: percentile(&answered, 0.5),
        answered_p99_ms: percentile(&answered, 0.99),
        refused_p50_ms: percentile(&refused, 0.5),
        refused_p99_ms: percentile(&refused, 0.99),
        resident_before_bytes,
        resident_most_bytes,
    })
}
