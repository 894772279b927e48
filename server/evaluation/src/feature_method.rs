//! The interface of the evaluated methods, and a runner that times them and keeps recent features.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::dataset::{Picture, read_picture};
use super::error::{EvaluationError, FeatureMethodError};
use densecl_vision::features::{FeatureMap, NormalizedMap};
use densecl_vision::image::ImageSize;
use densecl_vision::matching::{MatchedImage, PointMatch};

/// A method that computes dense features, such as a model or a baseline.
pub trait FeatureMethod {
    /// The name in reports.
    fn name(&self) -> &str;

    /// Computes the features of an image, `[C, H, W]`.
    ///
    /// # Errors
    /// Those of the method.
    fn describe(&mut self, picture: &Picture) -> Result<FeatureMap, FeatureMethodError>;

    /// Matches the method's own keypoints; `None` if it has none, in which case cells are matched.
    ///
    /// # Errors
    /// Those of the method.
    fn keypoint_matches(
        &mut self,
        _source: &Picture,
        _target: &Picture,
    ) -> Result<Option<Vec<PointMatch>>, FeatureMethodError> {
        Ok(None)
    }
}

/// An image with its features.
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

/// Measured times in milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Timings {
    /// From a decoded image to its features, for each image.
    pub(super) describe_ms: Vec<f64>,
    /// From the features of two images to their matches, for each pair.
    pub(super) match_ms: Vec<f64>,
}

/// Runs a method, measures its times and keeps the features of recent images, because a sequence uses its first image again.
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

    /// Runs `work`, the matching of a pair, and records its time.
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
