//! What all requests share.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::watch;

use super::admission::{Admission, Admitted, ArrivingBody};
use super::cpu_pool::CpuPool;
use super::rate_limit::RateLimits;
use crate::cache::{CacheError, CachedFeatures, FeatureCache, FeatureId, Flights};
use crate::config::Config;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::registry::Registry;

/// Where the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Models are being read and warmed up.
    Loading,
    /// Requests are answered.
    Ready,
    /// It has been told to stop.
    Draining,
}

/// The state could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system gives no threads.
    #[error("cannot start the threads that decode and match")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// Features cannot be kept where they are meant to be.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What all requests share; cloning shares it.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    config: Config,
    metrics: Metrics,
    phase: watch::Sender<Phase>,
    registry: OnceLock<Registry>,
    cpu: CpuPool,
    admission: Admission,
    rates: Option<RateLimits>,
    cache: Option<FeatureCache>,
    computations: Computations,
    preparations: Computations,
}

/// Features on their way, by what they are of.
pub(super) type Computations = Flights<FeatureId, Result<Arc<CachedFeatures>, Arc<ApiError>>>;

impl AppState {
    /// A server that has no models yet.
    ///
    /// # Errors
    /// If its threads or its cache cannot be started.
    ///
    /// # Panics
    /// Outside a runtime of tokio, if a Redis is to be used.
    pub fn new(config: Config) -> Result<Self, StateError> {
        let cpu = CpuPool::new(config.engine.threads)?;
        let metrics = Metrics::new();
        let admission = Admission::new(&config.limits, &metrics.budget);
        Ok(Self(Arc::new(Shared {
            rates: RateLimits::new(&config.rates),
            cache: FeatureCache::start(&config.cache, &metrics.cache)?,
            computations: Computations::default(),
            preparations: Computations::default(),
            config,
            metrics,
            phase: watch::Sender::new(Phase::Loading),
            registry: OnceLock::new(),
            cpu,
            admission,
        })))
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Where the server is in its life.
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// To wait for a phase.
    pub fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// The models are loaded: requests are answered from now on.
    pub fn become_ready(&self, registry: Registry) {
        // Only the loader calls this, once; a second registry would be dropped here.
        drop(self.0.registry.set(registry));
        self.0.phase.send_if_modified(|phase| {
            let was_loading = *phase == Phase::Loading;
            if was_loading {
                *phase = Phase::Ready;
            }
            was_loading
        });
    }

    /// The server has been told to stop.
    pub fn begin_draining(&self) {
        self.0.phase.send_replace(Phase::Draining);
    }

    /// The models.
    ///
    /// # Errors
    /// If they are still loading.
    pub fn registry(&self) -> Result<&Registry, ApiError> {
        self.0.registry.get().ok_or(ApiError::Loading)
    }

    /// The pool for work that would block the async threads.
    pub(super) fn cpu(&self) -> &CpuPool {
        &self.0.cpu
    }

    /// How often each client may ask for work, if that is limited.
    pub(super) fn client_rates(&self) -> Option<&RateLimits> {
        self.0.rates.as_ref()
    }

    /// Makes room for the body of a request, as it comes.
    pub(super) fn arriving_body(&self) -> ArrivingBody {
        self.0.admission.body()
    }

    /// Begins a request, which holds nothing yet.
    pub(super) fn admit(&self) -> Admitted {
        self.0.admission.begin()
    }

    /// Takes places for images that must be computed by `deadline`.
    ///
    /// # Errors
    /// If the models are still loading, or there is as much to do as can be done in time.
    pub(super) fn take_places(&self, admitted: &Admitted, images: usize, deadline: Instant) -> Result<(), ApiError> {
        let wait = self.registry()?.predicted_wait();
        admitted.take_places(images, wait, deadline.saturating_duration_since(Instant::now()))
    }

    /// What was computed before, if anything is kept.
    pub(super) fn cache(&self) -> Option<&FeatureCache> {
        self.0.cache.as_ref()
    }

    /// What is being computed, if anything will be kept.
    pub(super) fn computations(&self) -> &Computations {
        &self.0.computations
    }

    /// What is being brought into the form that matching and most replies use.
    pub(super) fn preparations(&self) -> &Computations {
        &self.0.preparations
    }
}
