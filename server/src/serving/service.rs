//! Resources that all requests share: models, cache, CPU pool and admission.

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
    normalizations: Computations,
}

impl Service {
    /// Creates a service that has no models yet.
    ///
    /// # Errors
    /// If the operating system refuses to start threads.
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
            normalizations: Computations::default(),
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

    /// The models that are served now. A request calls this once, and keeps the result.
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

    /// Pool for work that would block the async threads.
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

    /// Takes slots for images that must be computed by `deadline`.
    ///
    /// # Errors
    /// If the models are still loading, there are no slots, or the images could not run in time.
    pub(crate) fn take_slots(&self, admitted: &Admitted, images: usize, deadline: Instant) -> Result<(), ServingError> {
        let wait = self.registry()?.predicted_wait();
        admitted.take_slots(images, wait, deadline.saturating_duration_since(Instant::now()))
    }

    /// The cache of features, if it is enabled.
    pub(super) fn cache(&self) -> Option<&FeatureCache> {
        self.0.cache.as_ref()
    }

    /// Running computations of features, which requests join if the cache is enabled.
    pub(super) fn computations(&self) -> &Computations {
        &self.0.computations
    }

    /// Running normalisations of cached features to [`MapsKind::Unit`](crate::cache::MapsKind::Unit).
    pub(super) fn normalizations(&self) -> &Computations {
        &self.0.normalizations
    }
}
