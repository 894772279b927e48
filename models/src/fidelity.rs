//! How close a model's outputs are to those of the network that it was made from: a part of the
//! manifest.

use serde::{Deserialize, Serialize};

/// The model compared with its network in float32, on images that nothing was fitted to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// How the weights are stored: `float32`, `float16` or `int8`.
    pub weights: String,
    /// What the int8 model's ranges come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationRecord>,
    /// The images: `synthetic`.
    pub data: String,
    /// Batches that were compared: `[N, H, W]` of each.
    pub shapes: Vec<[u32; 3]>,
    /// The outputs: layers, and `global`.
    pub outputs: Vec<OutputFidelity>,
}

/// What an int8 model's ranges were measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalibrationRecord {
    /// `synthetic`, or the name of the folder.
    pub data: String,
    /// How many images.
    pub images: u32,
    /// Their height and width, in pixels.
    pub side: u32,
    /// Seed of procedural images, or of the choice among files.
    pub seed: u64,
}

/// How close one output is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputFidelity {
    /// Name of the output.
    pub name: String,
    /// Cosine between a cell's descriptor here and there, mean over all cells.
    pub mean_cosine: f64,
    /// The least of these cosines.
    pub minimum_cosine: f64,
    /// Largest difference of two values over the largest value of the output; the worst shape's.
    pub relative_error: f64,
}
