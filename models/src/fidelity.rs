//! Differences between a model's outputs and those of the network that it was made from: a part of the
//! manifest.

use serde::{Deserialize, Serialize};

/// The model compared with its network in float32, on images that nothing was fitted to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// Storage of the weights: `float32`, `float16` or `int8`.
    pub weights: String,
    /// Origin of an int8 model's ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationRecord>,
    /// The images: `synthetic`.
    pub data: String,
    /// Batches that were compared: `[N, H, W]` of each.
    pub shapes: Vec<[u32; 3]>,
    /// The outputs: layers, and `global`.
    pub outputs: Vec<OutputFidelity>,
}

/// Images that an int8 model's ranges were measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalibrationRecord {
    /// `synthetic`, or the name of the folder.
    pub data: String,
    /// Number of images.
    pub images: u32,
    /// Height and width of the images, in pixels.
    pub side: u32,
    /// Seed of procedural images, or of the choice among files.
    pub seed: u64,
}

/// Differences of one output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputFidelity {
    /// Name of the output.
    pub name: String,
    /// Cosine between a cell's descriptors from the model and from the network, mean over all cells.
    pub mean_cosine: f64,
    /// The least of these cosines.
    pub minimum_cosine: f64,
    /// Largest difference of two values over the largest value of the output; the worst shape's.
    pub relative_error: f64,
}
