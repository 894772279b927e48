//! Request to stop: the first SIGTERM or SIGINT asks for a checkpoint, the second one ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit status after a second signal.
const SECOND_SIGNAL_STATUS: i32 = 130;

/// Set when the run is to write a checkpoint and return.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Set by SIGTERM and SIGINT; when it is set already, they end the process.
    ///
    /// # Errors
    /// If the system refuses handlers.
    pub fn on_signals() -> Result<Self> {
        let stop = Self::default();
        for signal in [SIGTERM, SIGINT] {
            flag::register_conditional_shutdown(signal, SECOND_SIGNAL_STATUS, Arc::clone(&stop.0))
                .and_then(|_| flag::register(signal, Arc::clone(&stop.0)))
                .with_context(|| format!("cannot handle signal {signal}"))?;
        }
        Ok(stop)
    }

    /// Requests the stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns `true` if the stop was requested.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
