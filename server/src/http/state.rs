//! State that all requests share.

use std::sync::Arc;

use tokio::sync::watch;

use densecl_inference::registry::ModelLoader;

use crate::api_keys::{ApiKeys, KeyFileError};
use crate::cache::{CacheError, FeatureCache};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::rate_limits::RateLimits;
use crate::serving::Service;
use crate::spans::{ExportError, SpanExport};

/// Phase of the server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Models are being read and warmed up.
    Loading,
    /// Requests are answered.
    Ready,
    /// The server was told to stop; requests that have begun are finished.
    Draining,
}

/// The state could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system refused to start threads.
    #[error("cannot start the threads that decode and match")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The file of API keys cannot be used.
    #[error(transparent)]
    ApiKeys(#[from] KeyFileError),
    /// Traces cannot be exported.
    #[error(transparent)]
    Traces(#[from] ExportError),
    /// The cache of features cannot be set up.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// State that all requests share; clones refer to the same state.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    config: Config,
    metrics: Metrics,
    phase: watch::Sender<Phase>,
    service: Service,
    rates: Option<RateLimits>,
    api_keys: Option<ApiKeys>,
    spans: Option<SpanExport>,
}

impl AppState {
    /// Creates the state of a server that has no models yet.
    ///
    /// # Errors
    /// If threads or the cache cannot be started, or the settings of keys and traces cannot be used.
    ///
    /// # Panics
    /// If it is called outside a tokio runtime and a Redis is configured.
    pub fn new(config: Config) -> Result<Self, StateError> {
        let metrics = Metrics::new();
        let cache = FeatureCache::start(&config.cache, &metrics.cache)?;
        Ok(Self(Arc::new(Shared {
            rates: RateLimits::new(&config.rates),
            api_keys: config.api_keys.as_deref().map(ApiKeys::open).transpose()?,
            spans: config.traces.as_ref().map(SpanExport::start).transpose()?,
            service: Service::new(config.limits, config.engine.threads, cache, &metrics.budget)?,
            config,
            metrics,
            phase: watch::Sender::new(Phase::Loading),
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

    /// The current phase.
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Subscribes to changes of the phase.
    pub fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// Sets the loaded models; requests are answered from now on.
    pub fn become_ready(&self, models: ModelLoader) {
        self.0.service.set_models(models);
        self.0.phase.send_if_modified(|phase| {
            let was_loading = *phase == Phase::Loading;
            if was_loading {
                *phase = Phase::Ready;
            }
            was_loading
        });
    }

    /// Enters [`Phase::Draining`].
    pub fn begin_draining(&self) {
        self.0.phase.send_replace(Phase::Draining);
    }

    /// The use cases.
    pub(crate) fn service(&self) -> &Service {
        &self.0.service
    }

    /// Rate limits of the clients, if there are any.
    pub(super) fn client_rates(&self) -> Option<&RateLimits> {
        self.0.rates.as_ref()
    }

    /// API keys, if requests need one.
    pub(super) fn api_keys(&self) -> Option<&ApiKeys> {
        self.0.api_keys.as_ref()
    }

    /// Reads the file of API keys again, if there is one. If it cannot be used, the old keys stay and the reason is
    /// logged. Blocks.
    pub fn reload_api_keys(&self) {
        let Some(keys) = self.api_keys() else { return };
        match keys.reload() {
            Ok(gone) => {
                for name in &gone {
                    self.metrics().keys.remove(name);
                }
                tracing::info!(keys = keys.count(), gone = gone.len(), "read the API keys again");
            }
            Err(error) => tracing::error!(error = error_chain(&error), "the old API keys stay"),
        }
    }

    /// Export of spans, if a collector is configured.
    pub(super) fn span_export(&self) -> Option<&SpanExport> {
        self.0.spans.as_ref()
    }

    /// Sends the spans that have not been sent yet. Blocks while they are sent.
    pub fn flush_traces(&self) {
        if let Some(export) = self.span_export() {
            export.shut_down();
        }
    }
}

/// The messages of an error and its sources, separated by colons.
fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
