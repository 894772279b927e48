//! Pictures of a few fixed images at regular steps, which show the progress of a run.

use image::RgbImage;
use tch::Tensor;

use super::{CellMatches, MatchedCellsOptions, matched_cells, principal_components};
use crate::densecl::DenseCl;

/// Side of a map in the picture of principal components, in pixels.
const MAP_SIDE_PX: u32 = 192;

/// Images that pictures are drawn of, chosen once in a run.
///
/// All are normalised. Networks see them with their running statistics, as exported models do, so
/// drawing changes nothing in the run.
#[derive(Debug)]
pub struct FixedImages {
    /// Uncropped images `[N, 3, H, W]`, for the principal components.
    pub images: Tensor,
    /// A view of each, `[N, 3, s, s]`, for the query encoder.
    pub query_views: Tensor,
    /// Another, for the key encoder.
    pub key_views: Tensor,
}

impl FixedImages {
    /// Draws what the model makes of them: pictures by name.
    ///
    /// `matched_cells` matches res5 of both encoders across the two views; `principal_components`
    /// shows res4 and res5 of the query encoder.
    pub fn pictures(&self, model: &DenseCl) -> Vec<(&'static str, RgbImage)> {
        let ([.., query_map], [.., key_map]) = (
            model.query.features(&self.query_views).0.stages, // [N, C, s/32, s/32] of the last
            model.key.features(&self.key_views).0.stages,
        );
        let matches = CellMatches::from_maps(&query_map, &key_map);
        let options = MatchedCellsOptions { images: self.query_views.size()[0] as usize, ..Default::default() };
        let matched = matched_cells(&self.query_views, &self.key_views, &matches, &options);
        let [.., res4, res5] = model.query.features(&self.images).0.stages;
        let components = principal_components(&self.images, &[&res4, &res5], MAP_SIDE_PX);
        vec![("matched_cells", matched), ("principal_components", components)]
    }
}

#[cfg(test)]
mod tests {
    use densecl_models::resnet::Architecture;
    use tch::{Device, Kind};

    use super::*;
    use crate::densecl::ContrastOptions;
    use crate::network::EncoderSpec;

    #[test]
    fn drawing_changes_nothing_in_the_model() {
        tch::manual_seed(1);
        let spec = EncoderSpec { architecture: Architecture::ResNet18, stem_width: 4, dim: 16, dense: true };
        let options = ContrastOptions {
            queue_length: 32,
            temperature: 0.2,
            momentum: 0.9,
            bn_splits: 1,
            loss_chunk: 32,
            products: Kind::Float,
        };
        let model = DenseCl::new(spec, options, Kind::Float, Device::Cpu);
        let state = |model: &DenseCl| model.query.weights().into_values().map(|weight| weight.data).collect::<Vec<_>>();
        let before = state(&model);
        let images = Tensor::randn([2, 3, 64, 64], (Kind::Float, Device::Cpu));
        let fixed = FixedImages { query_views: images.copy(), key_views: images.flip([3]), images };
        let pictures = fixed.pictures(&model);
        assert_eq!(
            pictures.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["matched_cells", "principal_components"]
        );
        assert_eq!(state(&model), before);
    }
}
