//! SIFT as a baseline (Lowe, *Distinctive Image Features from Scale-Invariant Keypoints*, 2004), by `OpenCV` in a separate
//! Python process.
//!
//! A protocol that lets a method choose its keypoints gets SIFT's, matched as mutual nearest neighbours that pass the ratio
//! test. A protocol with given points or masks gets a SIFT descriptor for every cell (dense SIFT, as in Liu et al., *SIFT
//! Flow*, 2011).

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ndarray::Array3;
use ndarray_npy::ReadNpyError;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::dataset::Picture;
use super::error::FeatureMethodError;
use super::feature_method::FeatureMethod;
use densecl_models::geometry::inference_size;
use densecl_vision::features::{FeatureMap, PixelPoint};
use densecl_vision::matching::{Candidate, PointMatch};

const SCRIPT: &str = include_str!("sift.py");

/// A running SIFT process.
pub struct Sift {
    name: String,
    side_px: u32,
    stride_px: u32,
    folder: TempDir,
    process: Child,
    requests: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

/// The reason why SIFT failed.
#[derive(Debug, thiserror::Error)]
pub enum SiftError {
    /// Python cannot be started.
    #[error("`{}` cannot be started; --python names another Python, one with opencv-python-headless", python.display())]
    NotStarted {
        /// The program.
        python: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The script reports an error.
    #[error("{0}")]
    Refused(String),
    /// The script ended, or wrote an invalid reply.
    #[error("the Python process of SIFT broke off")]
    Broken(#[source] io::Error),
    /// The descriptors cannot be read.
    #[error("the descriptors of SIFT cannot be read")]
    Descriptors(#[source] ReadNpyError),
}

/// A reply of the script.
#[derive(Deserialize)]
struct Reply {
    opencv: Option<String>,
    matches: Option<Vec<[f64; 6]>>,
    error: Option<String>,
}

impl Sift {
    /// Starts the script with `python`. Dense descriptors are of images resized to `side_px`, one every `stride_px` pixels.
    ///
    /// # Errors
    /// [`SiftError`] if `python` cannot be started or has no `OpenCV`.
    pub fn start(python: &Path, side_px: u32, stride_px: u32) -> Result<Self, SiftError> {
        let not_started = |source| SiftError::NotStarted { python: python.to_owned(), source };
        let folder = tempfile::tempdir().map_err(SiftError::Broken)?;
        let mut process = Command::new(python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(not_started)?;
        let requests = process.stdin.take();
        let replies = process.stdout.take().ok_or_else(|| SiftError::Broken(io::ErrorKind::BrokenPipe.into()))?;
        let replies = BufReader::new(replies);
        let mut sift = Self { name: String::new(), side_px, stride_px, folder, process, requests, replies };
        let version = sift.reply()?.opencv.unwrap_or_default();
        sift.name = format!("SIFT of OpenCV {version}");
        Ok(sift)
    }

    fn ask(&mut self, request: &Value) -> Result<Reply, SiftError> {
        let closed = || SiftError::Broken(io::ErrorKind::BrokenPipe.into());
        let requests = self.requests.as_mut().ok_or_else(closed)?;
        writeln!(requests, "{request}").and_then(|()| requests.flush()).map_err(SiftError::Broken)?;
        self.reply()
    }

    fn reply(&mut self) -> Result<Reply, SiftError> {
        let mut line = String::new();
        self.replies.read_line(&mut line).map_err(SiftError::Broken)?;
        let reply: Reply = serde_json::from_str(&line).map_err(|error| SiftError::Broken(error.into()))?;
        match reply.error {
            Some(error) => Err(SiftError::Refused(error)),
            None => Ok(reply),
        }
    }
}

impl Drop for Sift {
    fn drop(&mut self) {
        // The script ends at the end of its input.
        self.requests = None;
        // A failure to wait has no consequence.
        let _ = self.process.wait();
    }
}

impl FeatureMethod for Sift {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&mut self, picture: &Picture) -> Result<FeatureMap, FeatureMethodError> {
        let size = inference_size(picture.size(), self.side_px);
        let (columns, rows) = (size.width / self.stride_px, size.height / self.stride_px);
        let file = self.folder.path().join("descriptors.npy");
        self.ask(&json!({
            "describe": absolute(&picture.path)?,
            "size": [size.width, size.height],
            "grid": [columns, rows],
            "out": &file,
        }))?;
        let descriptors: Array3<f32> = ndarray_npy::read_npy(&file).map_err(SiftError::Descriptors)?;
        let (channels, height, width) = descriptors.dim();
        Ok(FeatureMap::new(channels, height, width, descriptors.into_raw_vec_and_offset().0)?)
    }

    fn keypoint_matches(
        &mut self,
        source: &Picture,
        target: &Picture,
    ) -> Result<Option<Vec<PointMatch>>, FeatureMethodError> {
        let reply = self.ask(&json!({ "match": [absolute(&source.path)?, absolute(&target.path)?] }))?;
        let matches = reply.matches.unwrap_or_default();
        Ok(Some(matches.into_iter().enumerate().map(point_match).collect()))
    }
}

fn absolute(path: &Path) -> Result<PathBuf, SiftError> {
    std::path::absolute(path).map_err(SiftError::Broken)
}

fn point_match((query, [source_x, source_y, x, y, cosine, ratio]): (usize, [f64; 6])) -> PointMatch {
    let (target, score) = (PixelPoint { x, y }, cosine as f32);
    PointMatch {
        query,
        source: PixelPoint { x: source_x, y: source_y },
        target,
        score,
        mutual: true,
        ratio: ratio as f32,
        inlier: None,
        candidates: vec![Candidate { target, score }],
    }
}
