//! What all requests share to do their work.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use densecl_inference::registry::{ModelLoader, Registry};

use super::admission::{Admission, Admitted, BodyMemory};
use super::cpu_pool::CpuPool;
use super::error::ServingError;
use crate::cache::{CachedFeatures, FeatureCache, FeatureId, SingleFlight};
use crate::config::RequestLimits;
use crate::metrics::BudgetMetrics;

/// Computations under way, by the features that they compute.
pub(super) type Computations = SingleFlight<FeatureId, Result<Arc<CachedFeatures>, Arc<ServingError>>>;

/// Models, cache, CPU pool and admission; cloning shares them.
#[derive(Clone)]
pub(crate) struct Service(Arc<Shared>);

struct Shared {
    limits: RequestLimits,
    models: OnceLock<ModelLoader>,
    cpu: CpuPool,
    admission: Admission,
    cache: Option<FeatureCache>,
    computations: Computations,
    preparations: Computations,
}

impl Service {
    /// A service that has no models yet.
    ///
    /// # Errors
    /// If the operating system gives no threads.
    pub(crate) fn new(
        limits: RequestLimits,
        threads: usize,
        cache: Option<FeatureCache>,
        metrics: &BudgetMetrics,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        Ok(Self(Arc::new(Shared {
            admission: Admission::new(&limits, metrics),
            limits,
            models: OnceLock::new(),
            cpu: CpuPool::new(threads)?,
            cache,
            computations: Computations::default(),
            preparations: Computations::default(),
        })))
    }

    /// Sets the models, once, at the end of loading.
    pub(crate) fn set_models(&self, models: ModelLoader) {
        // A second loader would be dropped here.
        drop(self.0.models.set(models));
    }

    /// The limits of requests.
    pub(crate) fn limits(&self) -> &RequestLimits {
        &self.0.limits
    }

    /// The models as they are served now. A request asks once, and keeps what it found.
    ///
    /// # Errors
    /// [`ServingError::Loading`] while they are loading.
    pub(crate) fn registry(&self) -> Result<Arc<Registry>, ServingError> {
        self.models().map(ModelLoader::current)
    }

    /// The loader, which changes the models while they are served.
    ///
    /// # Errors
    /// [`ServingError::Loading`] while they are loading.
    pub(crate) fn models(&self) -> Result<&ModelLoader, ServingError> {
        self.0.models.get().ok_or(ServingError::Loading)
    }

    /// The pool for work that would block the async threads.
    pub(crate) fn cpu(&self) -> &CpuPool {
        &self.0.cpu
    }

    /// Memory for the body of one request, taken as the body arrives.
    pub(crate) fn body_memory(&self) -> BodyMemory {
        self.0.admission.body()
    }

    /// Begins a request, which holds nothing yet.
    pub(crate) fn admit(&self) -> Admitted {
        self.0.admission.begin()
    }

    /// Takes places for images that must be computed by `deadline`.
    ///
    /// # Errors
    /// If the models are still loading, or there is as much to do as can be done in time.
    pub(crate) fn take_places(
        &self,
        admitted: &Admitted,
        images: usize,
        deadline: Instant,
    ) -> Result<(), ServingError> {
        let wait = self.registry()?.predicted_wait();
        admitted.take_places(images, wait, deadline.saturating_duration_since(Instant::now()))
    }

    /// Features that were computed before, if any are kept.
    pub(super) fn cache(&self) -> Option<&FeatureCache> {
        self.0.cache.as_ref()
    }

    /// Computations of features, if any will be kept.
    pub(super) fn computations(&self) -> &Computations {
        &self.0.computations
    }

    /// Computations that bring kept features into the form that matching and most replies use.
    pub(super) fn preparations(&self) -> &Computations {
        &self.0.preparations
    }
}
