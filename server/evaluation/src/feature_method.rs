//! What is measured: anything that describes pictures.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::EvaluationError;
use super::dataset::{Picture, read_picture};
use densecl_vision::features::{FeatureMap, NormalizedMap};
use densecl_vision::image::ImageSize;
use densecl_vision::matching::{MatchedImage, PointMatch};

/// What a method may fail with.
pub type FeatureMethodError = Box<dyn std::error::Error + Send + Sync>;

/// Something whose correspondences are measured.
pub trait FeatureMethod {
    /// What the report calls it.
    fn name(&self) -> &str;

    /// A descriptor for every cell of a picture.
    ///
    /// # Errors
    /// Whatever keeps it from describing the picture.
    fn describe(&mut self, picture: &Picture) -> Result<FeatureMap, FeatureMethodError>;

    /// Matches between keypoints of its own, if it has any; the others match cells.
    ///
    /// # Errors
    /// Whatever keeps it from matching the pictures.
    fn keypoint_matches(
        &mut self,
        _source: &Picture,
        _target: &Picture,
    ) -> Result<Option<Vec<PointMatch>>, FeatureMethodError> {
        Ok(None)
    }
}

/// A picture with its features.
pub(super) struct DescribedPicture {
    pub(super) picture: Picture,
    pub(super) map: NormalizedMap,
}

impl DescribedPicture {
    pub(super) fn size(&self) -> ImageSize {
        self.picture.size()
    }

    pub(super) fn matched_image(&self) -> MatchedImage<'_> {
        MatchedImage { map: &self.map, image: self.size() }
    }
}

/// How long it took, in milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Timings {
    /// A picture, decoded, to its features; once for each.
    pub(super) describe_ms: Vec<f64>,
    /// The features of two pictures to matches; once for each pair.
    pub(super) match_ms: Vec<f64>,
}

/// Describes pictures, and keeps the last ones: pictures come up again soon.
pub(super) struct MethodRunner<'a> {
    method: &'a mut dyn FeatureMethod,
    recent: VecDeque<Arc<DescribedPicture>>,
    pub(super) timings: Timings,
}

impl<'a> MethodRunner<'a> {
    const MAX_BYTES: usize = 256 << 20;

    pub(super) fn new(method: &'a mut dyn FeatureMethod) -> Self {
        Self { method, recent: VecDeque::new(), timings: Timings::default() }
    }

    pub(super) fn describe(&mut self, path: &Path) -> Result<Arc<DescribedPicture>, EvaluationError> {
        if let Some(known) = self.recent.iter().find(|known| known.picture.path == path) {
            return Ok(Arc::clone(known));
        }
        let picture = read_picture(path)?;
        let started = Instant::now();
        let map = self
            .method
            .describe(&picture)
            .map_err(|source| EvaluationError::Method { picture: path.to_owned(), source })?
            .into_normalized();
        self.timings.describe_ms.push(elapsed_ms(started));
        let described = Arc::new(DescribedPicture { picture, map });
        self.recent.push_back(Arc::clone(&described));
        while self.recent.len() > 1 && self.held_bytes() > Self::MAX_BYTES {
            self.recent.pop_front();
        }
        Ok(described)
    }

    pub(super) fn keypoint_matches(
        &mut self,
        source: &DescribedPicture,
        target: &DescribedPicture,
    ) -> Result<Option<Vec<PointMatch>>, EvaluationError> {
        let matches = self.method.keypoint_matches(&source.picture, &target.picture);
        matches.map_err(|source| EvaluationError::Method { picture: target.picture.path.clone(), source })
    }

    /// Runs `work` on two pictures' features and counts its time.
    pub(super) fn timed<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.timings.match_ms.push(elapsed_ms(started));
        result
    }

    fn held_bytes(&self) -> usize {
        self.recent.iter().map(|known| size_of_val(known.map.data()) + known.picture.image.as_raw().len()).sum()
    }
}

fn elapsed_ms(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1000.0
}
