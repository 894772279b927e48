//! What all requests share.

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
    /// The file of API keys cannot be used.
    #[error(transparent)]
    ApiKeys(#[from] KeyFileError),
    /// Traces cannot be exported.
    #[error(transparent)]
    Traces(#[from] ExportError),
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
    service: Service,
    rates: Option<RateLimits>,
    api_keys: Option<ApiKeys>,
    spans: Option<SpanExport>,
}

impl AppState {
    /// A server that has no models yet.
    ///
    /// # Errors
    /// If its threads or its cache cannot be started, or what it is told of keys and traces cannot be used.
    ///
    /// # Panics
    /// Outside a runtime of tokio, if a Redis is to be used.
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

    /// Where the server is in its life.
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// To wait for a phase.
    pub fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// The models are loaded: requests are answered from now on.
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

    /// The server has been told to stop.
    pub fn begin_draining(&self) {
        self.0.phase.send_replace(Phase::Draining);
    }

    /// The use cases.
    pub(crate) fn service(&self) -> &Service {
        &self.0.service
    }

    /// How often each client may ask for work, if that is limited.
    pub(super) fn client_rates(&self) -> Option<&RateLimits> {
        self.0.rates.as_ref()
    }

    /// Who may ask, if not everyone.
    pub(super) fn api_keys(&self) -> Option<&ApiKeys> {
        self.0.api_keys.as_ref()
    }

    /// Reads the file of API keys again, if there is one. If it cannot be used the old keys stay,
    /// and the log says why. This blocks.
    pub fn reload_api_keys(&self) {
        let Some(keys) = self.api_keys() else { return };
        match keys.reload() {
            Ok(gone) => {
                for name in &gone {
                    self.metrics().keys.remove(name);
                }
                tracing::info!(keys = keys.count(), gone = gone.len(), "read the API keys again");
            }
            Err(error) => tracing::error!(error = describe(&error), "the old API keys stay"),
        }
    }

    /// The way to a collector of traces, if there is one.
    pub(super) fn span_export(&self) -> Option<&SpanExport> {
        self.0.spans.as_ref()
    }

    /// Sends the traces that have not been sent yet. This blocks, but not for long.
    pub fn flush_traces(&self) {
        if let Some(export) = self.span_export() {
            export.shut_down();
        }
    }
}

/// An error with what caused it.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
