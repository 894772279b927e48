//! The size of a picture as it is written on a command line.

use std::fmt;
use std::str::FromStr;

use crate::Frame;

/// Width and height in pixels, each within [`Size::LIMITS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width_px: u32,
    /// Rows.
    pub height_px: u32,
}

impl Size {
    /// Smallest and largest width or height that [`Size::from_str`] accepts: a sequence is painted
    /// at twice its size and needs about 150 bytes a pixel of memory.
    pub const LIMITS: (u32, u32) = (16, 2048);

    /// A picture of this size, whose shorter side is one image unit.
    pub(super) fn frame(self) -> Frame {
        let unit_px = self.width_px.min(self.height_px) as f32;
        Frame { width_px: self.width_px as usize, height_px: self.height_px as usize, unit_px }
    }
}

/// A size that is not `SIDE` or `WIDTHxHEIGHT` within the limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no size: write WIDTHxHEIGHT or one number, each from {low} to {high}",
    low = Size::LIMITS.0, high = Size::LIMITS.1)]
pub struct ParseSizeError(String);

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, ParseSizeError> {
        let (width, height) = text.split_once('x').unwrap_or((text, text));
        let side = |digits: &str| {
            let side = digits.trim().parse::<u32>().ok()?;
            (Self::LIMITS.0..=Self::LIMITS.1).contains(&side).then_some(side)
        };
        match (side(width), side(height)) {
            (Some(width_px), Some(height_px)) => Ok(Self { width_px, height_px }),
            _ => Err(ParseSizeError(text.to_owned())),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}x{}", self.width_px, self.height_px)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_and_checked() {
        assert_eq!("480x360".parse(), Ok(Size { width_px: 480, height_px: 360 }));
        assert_eq!("64".parse(), Ok(Size { width_px: 64, height_px: 64 }));
        for bad in ["", "x", "480x", "15", "4096x64", "-64", "64x64x64", "1e3"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
        let size = Size { width_px: 31, height_px: 2048 };
        assert_eq!(size.to_string().parse(), Ok(size));
    }
}
