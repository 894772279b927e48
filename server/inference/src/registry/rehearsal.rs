//! Which layers are run before the first request asks for them.

use std::str::FromStr;

use densecl_models::geometry::{CELL_MULTIPLE_PX, MAX_SIDE_PX};

/// Layers that are run before the first request asks for them, so that it need not wait for their
/// sessions to be built. Written `LAYER` or `LAYER@SIDE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// One layer, or several joined by `+`.
    pub layers: String,
    /// The longer side, in pixels; the manifest's default if `None`.
    pub side_px: Option<u32>,
}

/// A rehearsal that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not LAYER or LAYER@SIDE, such as res4 or res3+res4@512")]
pub struct RehearsalParseError(String);

impl FromStr for Rehearsal {
    type Err = RehearsalParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || RehearsalParseError(text.to_owned());
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
    fn rehearsals_name_layers_and_a_side() {
        let read = |text: &str| text.parse::<Rehearsal>().ok();
        assert_eq!(read("res3+res4@512"), Some(Rehearsal { layers: "res3+res4".to_owned(), side_px: Some(512) }));
        assert_eq!(read("res5"), Some(Rehearsal { layers: "res5".to_owned(), side_px: None }));
        for wrong in ["", "@512", "res5@", "res5@x", "res5@8"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
