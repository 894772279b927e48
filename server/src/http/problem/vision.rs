//! Problems of images, points, windows and masks.

use densecl_vision::features::{ComponentsError, GridError, MAX_PLACES_PER_SIDE, PointError, WindowError};
use densecl_vision::image::{DecodeError, ForeignKind, LabelError};

use super::{ProblemKind, ToProblem};

impl ToProblem for DecodeError {
    fn kind(&self) -> ProblemKind {
        let kind = ProblemKind::new;
        match self {
            Self::Empty => kind(400, "empty-part", "Empty part", "Send the bytes of an image in it."),
            Self::UnknownFormat { found } => {
                kind(415, "unsupported-image", "Not an image we read", hint_instead_of(found.kind))
            }
            Self::Unsupported { .. } => kind(
                415,
                "unsupported-image",
                "Not an image we read",
                "Save it in a common form of its format, or as PNG or JPEG with 8 bits a colour.",
            ),
            Self::Corrupt { .. } => {
                kind(422, "corrupt-image", "Corrupt image", "Check that the file is complete and opens elsewhere.")
            }
            Self::TooManyPixels { .. } | Self::TooMuchMemory { .. } => {
                kind(413, "too-many-pixels", "Too many pixels", "Send a smaller image.")
            }
        }
    }

    fn limit(&self) -> Option<u64> {
        match self {
            Self::TooManyPixels { max_pixels, .. } => Some(*max_pixels),
            Self::Empty
            | Self::UnknownFormat { .. }
            | Self::Unsupported { .. }
            | Self::Corrupt { .. }
            | Self::TooMuchMemory { .. } => None,
        }
    }
}

/// Advice for a client that sent something else than a picture we read.
const fn hint_instead_of(kind: ForeignKind) -> &'static str {
    match kind {
        ForeignKind::Picture => "Convert it to a JPEG or PNG.",
        ForeignKind::CameraRaw => {
            "Develop it to a JPEG, PNG or TIFF, or send the JPEG that the camera keeps beside it."
        }
        ForeignKind::Document => "Render it to a PNG.",
        ForeignKind::Video => "Send single frames of it, as JPEG or PNG.",
        ForeignKind::Archive => "Unpack it, and send the images in it.",
        ForeignKind::WebPage => {
            "A web page has come instead of the image: look at it, then send the bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF."
        }
        ForeignKind::Text => {
            "Send the bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF: no path, no address, and base64 only inside of JSON."
        }
        ForeignKind::Sound | ForeignKind::Other | ForeignKind::Unknown => "Send a JPEG, PNG, WebP, GIF, BMP or TIFF.",
    }
}

impl ToProblem for LabelError {
    fn kind(&self) -> ProblemKind {
        match self {
            Self::NotPng | Self::NotLabels { .. } => ProblemKind::new(
                415,
                "unsupported-mask",
                "Not a mask we read",
                "Send a PNG with a palette, or grey with at most 8 bits.",
            ),
            Self::Corrupt { .. } => ProblemKind::new(
                422,
                "corrupt-mask",
                "Corrupt mask",
                "Check that the file is complete and opens elsewhere.",
            ),
            Self::TooManyPixels { .. } => {
                ProblemKind::new(413, "too-many-pixels", "Too many pixels", "Send a smaller image.")
            }
        }
    }

    fn limit(&self) -> Option<u64> {
        match self {
            Self::TooManyPixels { max_pixels, .. } => Some(*max_pixels),
            Self::NotPng | Self::NotLabels { .. } | Self::Corrupt { .. } => None,
        }
    }
}

impl ToProblem for PointError {
    fn kind(&self) -> ProblemKind {
        match self {
            Self::NotFinite { .. } => {
                ProblemKind::new(422, "point-not-finite", "Point not finite", "Send finite coordinates only.")
            }
            Self::Outside { .. } => ProblemKind::new(
                422,
                "point-outside",
                "Point outside the image",
                "Coordinates are in pixels of the upright image; (0, 0) is the centre of its top-left pixel.",
            ),
        }
    }

    fn limit(&self) -> Option<u64> {
        None
    }
}

impl ToProblem for GridError {
    fn kind(&self) -> ProblemKind {
        match self {
            Self::Spacing { .. } => {
                ProblemKind::new(422, "grid-out-of-range", "Grid out of range", "Choose a spacing of at least 1 pixel.")
            }
            Self::TooManyPoints { .. } => {
                ProblemKind::new(422, "too-many-points", "Too many points", "Send fewer points, or several requests.")
            }
        }
    }

    fn limit(&self) -> Option<u64> {
        match self {
            Self::TooManyPoints { max_points, .. } => Some(*max_points as u64),
            Self::Spacing { .. } => None,
        }
    }
}

impl ToProblem for WindowError {
    fn kind(&self) -> ProblemKind {
        match self {
            Self::OutsideImage { .. } => ProblemKind::new(
                422,
                "crop-outside",
                "Crop outside the image",
                "Choose x,y,w,h within the upright image, at least one pixel wide and high.",
            ),
            Self::NoCells { .. } => ProblemKind::new(
                422,
                "crop-without-cells",
                "Crop without cells",
                "Choose a larger crop, a finer layer, or `resolution=pixel`.",
            ),
            Self::Resolution { .. } => ProblemKind::new(
                422,
                "resolution-out-of-range",
                "Resolution out of range",
                "Choose a resolution within the range.",
            ),
        }
    }

    fn limit(&self) -> Option<u64> {
        match self {
            Self::Resolution { .. } => Some(u64::from(MAX_PLACES_PER_SIDE)),
            Self::OutsideImage { .. } | Self::NoCells { .. } => None,
        }
    }
}

impl ToProblem for ComponentsError {
    fn kind(&self) -> ProblemKind {
        match self {
            Self::Count { .. } => ProblemKind::new(
                422,
                "components-out-of-range",
                "Components out of range",
                "Choose a number of components within the range.",
            ),
        }
    }

    fn limit(&self) -> Option<u64> {
        match self {
            Self::Count { most, .. } => Some(*most as u64),
        }
    }
}
