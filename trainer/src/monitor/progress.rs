//! Progress of a run: a bar on a terminal, else lines in the log.

use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle as BarStyle};
use tracing_subscriber::fmt::MakeWriter;

use super::metrics::Metrics;

/// All bars of the process.
///
/// The only global of this crate: the process has one terminal, and the log, which is set up first,
/// must not overwrite bars that are drawn later.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Display of the progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressStyle {
    /// A bar on standard error that is drawn over again.
    Bar,
    /// A line in the log for every report.
    Lines,
}

impl ProgressStyle {
    /// A bar where standard error is a terminal.
    pub fn detect() -> Self {
        if io::stderr().is_terminal() { Self::Bar } else { Self::Lines }
    }
}

/// Writer of the log: standard error, above the bar if there is one.
///
/// For `tracing_subscriber::fmt().with_writer(LogWriter)`. A bar is taken off the screen while a
/// line is written and drawn again below it.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write_all(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// Progress of one run.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    seen: (u64, Instant),
}

impl Progress {
    /// For a run of `total` steps of which `taken` have been taken.
    pub(super) fn start(taken: u64, total: u64, style: ProgressStyle) -> Self {
        let bar = (style == ProgressStyle::Bar).then(|| {
            let bar = ProgressBar::new(total).with_position(taken).with_style(bar_style());
            let bar = BARS.add(bar);
            // Reports may be a minute apart; the clock is redrawn in between.
            bar.enable_steady_tick(Duration::from_secs(1));
            bar.reset_eta();
            bar
        });
        Self { bar, total, seen: (taken, Instant::now()) }
    }

    /// Shows a report.
    pub(super) fn show(&mut self, metrics: &Metrics) {
        let (before, since) = std::mem::replace(&mut self.seen, (metrics.step, Instant::now()));
        let Some(bar) = &self.bar else {
            let left = self.total.saturating_sub(metrics.step) as f64;
            let steps = metrics.step.saturating_sub(before).max(1) as f64;
            return log(metrics, self.total, since.elapsed().mul_f64(left / steps));
        };
        bar.set_position(metrics.step);
        bar.set_message(summary(metrics));
        if metrics.step >= self.total {
            // The bar is cleared at the end; this line stays.
            log(metrics, self.total, Duration::ZERO);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar_style() -> BarStyle {
    BarStyle::with_template("{bar:12.cyan/blue} {pos}/{len} {wide_msg} {elapsed} < {eta}")
        .expect("the template is a constant")
        .progress_chars("━╸─")
}

/// Summary for a bar on 80 columns: loss, dense top-1, speed, and the share of time spent waiting for
/// images.
fn summary(metrics: &Metrics) -> String {
    let dense = metrics.dense_top1.map_or_else(String::new, |top1| format!("  dense {top1:.1}%"));
    let Metrics { loss, pairs_per_second, data_wait, .. } = metrics;
    format!("loss {loss:.4}{dense}  {pairs_per_second:.1} pairs/s  wait {data_wait:.0}%")
}

fn log(metrics: &Metrics, total: u64, remaining: Duration) {
    let optional = |number: Option<f64>, digits: usize| {
        number.map_or_else(|| "none".to_owned(), |number| format!("{number:.digits$}"))
    };
    tracing::info!(
        step = metrics.step,
        of = total,
        loss = format_args!("{:.4}", metrics.loss),
        global = format_args!("{:.4}", metrics.loss_global),
        dense = %optional(metrics.loss_dense, 4),
        global_top1_percent = format_args!("{:.1}", metrics.global_top1),
        dense_top1_percent = %optional(metrics.dense_top1, 1),
        place_similarity = %optional(metrics.place_similarity, 2),
        embedding_std = format_args!("{:.4}", metrics.embedding_std),
        feature_std = format_args!("{:.4}", metrics.feature_std),
        pairs_per_second = format_args!("{:.1}", metrics.pairs_per_second),
        data_wait_percent = format_args!("{:.0}", metrics.data_wait),
        remaining_seconds = remaining.as_secs(),
        "progress"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_matters() {
        assert_eq!(summary(&Metrics::sample(4)), "loss 4.0000  dense 25.0%  100.0 pairs/s  wait 3%");
        let global = Metrics { dense_top1: None, ..Metrics::sample(4) };
        assert!(!summary(&global).contains("dense"));
    }

    #[test]
    fn a_bar_stands_where_the_run_stands() {
        let mut progress = Progress::start(8, 20, ProgressStyle::Bar);
        let position = |progress: &Progress| progress.bar.as_ref().unwrap().position();
        assert_eq!(position(&progress), 8);
        progress.show(&Metrics::sample(12));
        assert_eq!(position(&progress), 12);
    }
}
