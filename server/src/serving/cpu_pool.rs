//! Where decoding, matching and encoding run, so that the async threads never block.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

/// A job did not come back with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JobError {
    #[error("a job on the CPU pool panicked")]
    Panicked,
}

/// A rayon pool that takes as many jobs at a time as it has threads; the rest wait their turn in
/// order, and leave the line when their caller goes.
#[derive(Clone)]
pub(crate) struct CpuPool {
    pool: Arc<rayon::ThreadPool>,
    turns: Arc<Semaphore>,
}

impl CpuPool {
    pub(crate) fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let name = |index| format!("cpu-{index}");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build()?;
        Ok(Self { pool: Arc::new(pool), turns: Arc::new(Semaphore::new(threads)) })
    }

    /// Runs `job` on the pool; rayon's parallel iterators inside it use the same threads.
    pub(crate) async fn run<T, F>(&self, job: F) -> Result<T, JobError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let turn = Arc::clone(&self.turns).acquire_owned().await.expect("the semaphore is never closed");
        let (reply, receiver) = oneshot::channel();
        self.pool.spawn_fifo(move || {
            // The turn ends with the job, not with the caller's patience.
            let _turn = turn;
            if !reply.is_closed() {
                let result = catch_unwind(AssertUnwindSafe(job));
                // A caller who has gone needs no answer.
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
    async fn a_panic_is_an_error_and_the_pool_goes_on() {
        let pool = CpuPool::new(1).unwrap();
        assert_eq!(pool.run(|| -> u8 { panic!("as intended") }).await, Err(JobError::Panicked));
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }
}
