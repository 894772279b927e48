//! Thread pool for decoding, matching and encoding, so that the async threads never block.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

/// A job that ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JobError {
    #[error("a job on the CPU pool panicked")]
    Panicked,
}

/// A rayon pool that runs at most as many jobs at a time as it has threads. Other jobs wait in order, and leave the
/// queue when their caller is dropped.
#[derive(Clone)]
pub(crate) struct CpuPool {
    pool: Arc<rayon::ThreadPool>,
    permits: Arc<Semaphore>,
}

impl CpuPool {
    pub(crate) fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let name = |index| format!("cpu-{index}");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build()?;
        Ok(Self { pool: Arc::new(pool), permits: Arc::new(Semaphore::new(threads)) })
    }

    /// Runs `job` on the pool; rayon's parallel iterators inside it use the same threads.
    pub(crate) async fn run<T, F>(&self, job: F) -> Result<T, JobError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let (reply, receiver) = oneshot::channel();
        self.pool.spawn_fifo(move || {
            // Released when the job ends, not when its caller is dropped.
            let _permit = permit;
            if !reply.is_closed() {
                let result = catch_unwind(AssertUnwindSafe(job));
                // Fails if the caller was dropped.
                let _ = reply.send(result.map_err(|_| JobError::Panicked));
            }
        });
        receiver.await.unwrap_or(Err(JobError::Panicked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pool_survives_a_panic() {
        let pool = CpuPool::new(1).unwrap();
        assert_eq!(pool.run(|| -> u8 { panic!("as intended") }).await, Err(JobError::Panicked));
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }
}
