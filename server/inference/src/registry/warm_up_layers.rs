//! The layers that a model runs before its first request.

use std::str::FromStr;

use densecl_models::geometry::{CELL_MULTIPLE_PX, MAX_SIDE_PX};

/// Layers that a model runs before its first request, so that no request waits for their sessions. Written `LAYER` or
/// `LAYER@SIDE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUpLayers {
    /// One layer, or several joined by `+`.
    pub layers: String,
    /// The longer side, in pixels; the manifest's default if `None`.
    pub side_px: Option<u32>,
}

/// The text is neither `LAYER` nor `LAYER@SIDE`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not LAYER or LAYER@SIDE, such as res4 or res3+res4@512")]
pub struct WarmUpLayersParseError(String);

impl FromStr for WarmUpLayers {
    type Err = WarmUpLayersParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || WarmUpLayersParseError(text.to_owned());
        let (layers, side) = text.split_once('@').map_or((text, None), |(layers, side)| (layers, Some(side)));
        let side_px = side.map(|side| side.parse().map_err(|_| wrong())).transpose()?;
        let is_sensible =
            !layers.is_empty() && side_px.is_none_or(|side| (CELL_MULTIPLE_PX..=MAX_SIDE_PX).contains(&side));
        is_sensible.then(|| Self { layers: layers.to_owned(), side_px }).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_a_side_are_read() {
        let read = |text: &str| text.parse::<WarmUpLayers>().ok();
        assert_eq!(read("res3+res4@512"), Some(WarmUpLayers { layers: "res3+res4".to_owned(), side_px: Some(512) }));
        assert_eq!(read("res5"), Some(WarmUpLayers { layers: "res5".to_owned(), side_px: None }));
        for wrong in ["", "@512", "res5@", "res5@x", "res5@8"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
