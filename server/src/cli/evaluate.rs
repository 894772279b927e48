//! Flags of `evaluate`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::{Args, ValueEnum};

use super::{EngineArgs, OutputFormat, RepositoryArgs};
use densecl_evaluation::{Selection, Split};
use densecl_inference::batch::{BatcherOptions, Batching, QueueLimits};
use densecl_vision::matching::{Refinement, RefinementWindow};

/// Arguments of `evaluate`. Every combination of the flags that take several values becomes a row of the report.
#[derive(Clone, Debug, Args)]
pub struct EvaluateArgs {
    /// Flags of the model repository.
    #[command(flatten)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Folder in the layout of HPatches, of SPair-71k, or of `densecl-trainer synth --kind pairs` or `scenes`
    #[arg(long, alias = "pairs", value_name = "DIR")]
    pub data: PathBuf,
    /// Part of SPair-71k: trn, val or test
    #[arg(long, default_value_t)]
    split: Split,
    /// Most sequences, or pairs of SPair-71k, spread evenly over the whole; all if not given
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Name of the model; the first if not given
    #[arg(long)]
    pub model: Option<String>,
    /// Layer, or several joined by +; the manifest's default if not given; several separated by commas
    #[arg(long, value_delimiter = ',')]
    pub layer: Vec<String>,
    /// Pixels that the longer side is resized to; the manifest's default if not given; several separated by commas
    #[arg(long, value_name = "PX", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(32..=16384))]
    pub side: Vec<u32>,
    /// Average the features of each image with those of its mirror image, at twice the cost
    #[arg(
        long, value_enum, value_delimiter = ',', num_args = 0..=1, require_equals = true,
        default_value = "off", default_missing_value = "on"
    )]
    pub flip: Vec<Flip>,
    /// Sub-cell refinement of matches
    #[arg(long, value_enum, value_delimiter = ',', default_value = "softargmax")]
    pub refine: Vec<RefineName>,
    /// Cells across the window of the refinement, 2 to 5; the server uses 3
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = window, default_value = "3")]
    pub refine_window: Vec<RefinementWindow>,
    /// Temperature of the refinement, as a share of the difference between 1 and the best similarity; the server uses 0.05
    #[arg(long, value_name = "SHARE", value_delimiter = ',', value_parser = temperature_share, default_value = "0.05")]
    pub refine_temperature: Vec<f32>,
    /// Baselines to evaluate as well, on the first layer and side: random (the same network before any training), rgb (raw
    /// patches of pixels), sift (needs a Python with cv2); repeat it, or separate several by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    pub baseline: Vec<Baseline>,
    /// Random networks to average over
    #[arg(long, value_name = "N", default_value = "3")]
    pub seeds: NonZeroUsize,
    /// Python interpreter for SIFT, with opencv-python-headless installed
    #[arg(long, value_name = "FILE", default_value = "python3")]
    pub python: PathBuf,
    /// Format of the report
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
    /// Folder for report.json and index.html, a page with images of the best and the worst pairs
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Averaging of features with those of the mirror image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flip {
    /// No averaging
    Off,
    /// Averaging
    On,
}

/// Sub-cell refinement of matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RefineName {
    /// The centre of the best cell
    None,
    /// Soft-argmax over a window around the best cell
    Softargmax,
}

impl From<RefineName> for Refinement {
    fn from(name: RefineName) -> Self {
        match name {
            RefineName::None => Self::None,
            RefineName::Softargmax => Self::SoftArgmax,
        }
    }
}

/// A baseline that models are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Baseline {
    /// The same network before any training
    Random,
    /// Raw patches of pixels
    Rgb,
    /// SIFT
    Sift,
}

impl EvaluateArgs {
    /// Options of the engines: one image at a time, without waiting for others.
    pub fn batcher(&self) -> BatcherOptions {
        BatcherOptions {
            engine: self.engine.options(),
            batching: Batching::NONE,
            limits: QueueLimits { max_requests: 1, max_pixels: u64::MAX, max_image_pixels: u64::MAX },
        }
    }

    /// Part of the data set.
    pub fn selection(&self) -> Selection {
        Selection { split: self.split, limit: self.limit.map(NonZeroUsize::get) }
    }

    /// Threads for inference and for everything else.
    pub fn threads(&self) -> usize {
        let cores = || available_parallelism().map_or(1, NonZeroUsize::get);
        self.engine.threads.map_or_else(cores, NonZeroUsize::get)
    }
}

fn window(text: &str) -> Result<RefinementWindow, String> {
    text.parse().ok().and_then(RefinementWindow::from_cells).ok_or_else(|| "must be 2, 3, 4 or 5".to_owned())
}

fn temperature_share(text: &str) -> Result<f32, String> {
    let is_sensible = |share: &f32| share.is_finite() && *share > 0.0;
    text.parse().ok().filter(is_sensible).ok_or_else(|| "must be a number above 0".to_owned())
}
