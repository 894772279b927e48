//! Hypercolumns: several layers stacked into one map (Hariharan et al., *Hypercolumns for Object Segmentation and
//! Fine-grained Localization*, CVPR 2015).

use super::FeatureMap;
use super::resample::resample_into;

/// Scaling of each layer before it is stacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerScaling {
    /// Every descriptor of a layer is scaled to length 1 at the layer's own resolution, so that each layer has the same
    /// weight in a cosine similarity, whatever its number of channels and the size of its activations.
    Unit,
    /// None.
    AsIs,
}

/// The error of stacking no layers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hypercolumn needs at least one layer")]
pub struct HypercolumnError;

/// Stacks `layers` of one image, each `[C_i, H_i, W_i]`, in their order: `[ΣC_i, H, W]` on the grid with the most cells,
/// to which the other layers are upsampled bilinearly. A single layer is only scaled.
///
/// # Errors
/// [`HypercolumnError`] if there are no layers.
#[expect(clippy::missing_panics_doc, reason = "every layer was resampled to the same grid")]
pub fn hypercolumn(mut layers: Vec<FeatureMap>, scaling: LayerScaling) -> Result<FeatureMap, HypercolumnError> {
    let scaled = |layer: FeatureMap| match scaling {
        LayerScaling::Unit => layer.into_normalized().into_map(),
        LayerScaling::AsIs => layer,
    };
    if layers.len() == 1 {
        return layers.pop().map(scaled).ok_or(HypercolumnError);
    }
    let finest = layers.iter().map(FeatureMap::grid).max_by_key(|grid| grid.cells()).ok_or(HypercolumnError)?;
    let channels = layers.iter().map(FeatureMap::channels).sum();
    let mut data = vec![0.0; channels * finest.cells()];
    let mut rest = data.as_mut_slice();
    for layer in layers {
        let layer = scaled(layer);
        let (stacked, below) = rest.split_at_mut(layer.channels() * finest.cells());
        resample_into(&layer, finest, stacked);
        rest = below;
    }
    Ok(FeatureMap::new(channels, finest.height, finest.width, data).expect("every layer was resampled to this grid"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::GridSize;

    #[test]
    fn layers_stack_at_the_finest_resolution() {
        let fine = FeatureMap::new(1, 2, 2, vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let coarse = FeatureMap::new(2, 1, 1, vec![6.0, 8.0]).unwrap();
        let stacked = hypercolumn(vec![coarse.clone(), fine.clone()], LayerScaling::AsIs).unwrap();
        assert_eq!(stacked.grid(), GridSize { width: 2, height: 2 });
        assert_eq!(stacked.data(), [6.0, 6.0, 6.0, 6.0, 8.0, 8.0, 8.0, 8.0, 1.0, 2.0, 3.0, 4.0]);
        let unit = hypercolumn(vec![coarse, fine], LayerScaling::Unit).unwrap();
        assert_eq!(unit.data(), [0.6, 0.6, 0.6, 0.6, 0.8, 0.8, 0.8, 0.8, 1.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn one_layer_is_itself_and_none_is_an_error() {
        let map = FeatureMap::new(1, 1, 2, vec![1.0, 2.0]).unwrap();
        assert_eq!(hypercolumn(vec![map.clone()], LayerScaling::AsIs).unwrap(), map);
        assert_eq!(hypercolumn(Vec::new(), LayerScaling::AsIs), Err(HypercolumnError));
    }
}
