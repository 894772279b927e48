//! The frame header of a JPEG file.

use super::super::Format::Jpeg;
use super::super::fields::Fields;
use crate::image::ImageSize;
use crate::image::decode::DecodeError;

/// A frame header.
#[derive(Clone, Debug)]
pub(super) struct FrameHeader {
    pub(super) size: ImageSize,
    pub(super) is_progressive: bool,
    pub(super) components: Vec<FrameComponent>,
}

/// A component of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameComponent {
    pub(super) id: u8,
    /// Sampling factors, 1 to 4.
    pub(super) horizontal: u8,
    pub(super) vertical: u8,
}

/// Returns whether `marker` begins a frame header, of whatever process: 0xC4, 0xC8 and 0xCC are other things.
pub(super) const fn is_frame_header(marker: u8) -> bool {
    matches!(marker, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF)
}

impl FrameHeader {
    pub(super) fn from_segment(marker: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        let process = match marker {
            0xC0..=0xC2 => None,
            0xC3 => Some("lossless coding"),
            0xC9..=0xCB => Some("arithmetic coding"),
            _ => Some("hierarchical coding"),
        };
        if let Some(process) = process {
            return Err(Jpeg.unsupported(process));
        }
        let cut_off = || Jpeg.corrupt("its frame header is cut off");
        let fields = Fields::big_endian(payload);
        let precision = fields.u8(0).ok_or_else(cut_off)?;
        if precision != 8 {
            return Err(Jpeg.unsupported(format!("{precision} bits a sample")));
        }
        let height = u32::from(fields.u16(1).ok_or_else(cut_off)?);
        let width = u32::from(fields.u16(3).ok_or_else(cut_off)?);
        let count = fields.u8(5).ok_or_else(cut_off)?;
        if !matches!(count, 1 | 3 | 4) {
            return Err(Jpeg.unsupported(format!("{count} components")));
        }
        let components = (0..u64::from(count)).map(|index| {
            let id = fields.u8(6 + 3 * index).ok_or_else(cut_off)?;
            let factors = fields.u8(7 + 3 * index).ok_or_else(cut_off)?;
            match (factors >> 4, factors & 15) {
                (horizontal @ 1..=4, vertical @ 1..=4) => Ok(FrameComponent { id, horizontal, vertical }),
                _ => Err(Jpeg.corrupt("its sampling factors are not 1 to 4")),
            }
        });
        let components = components.collect::<Result<Vec<_>, _>>()?;
        check_sampling(&components)?;
        Ok(Self { size: ImageSize { width, height }, is_progressive: marker == 0xC2, components })
    }

    /// True if the components are called R, G and B.
    pub(super) fn is_called_rgb(&self) -> bool {
        self.components.iter().map(|component| component.id).eq(*b"RGB")
    }

    /// The largest horizontal and vertical sampling factors.
    pub(super) fn largest_factors(&self) -> (u64, u64) {
        let largest = |factor: fn(&FrameComponent) -> u8| self.components.iter().map(factor).max().unwrap_or(1).into();
        (largest(|component| component.horizontal), largest(|component| component.vertical))
    }

    /// Most bytes while it is decoded: the RGB pixels; the coefficients of the whole picture, where its components or
    /// bits come one after the other, else of one row of blocks; and that row again, upsampled.
    pub(super) fn decoding_bytes(&self, components_of_scan: u8) -> u64 {
        const BYTES_PER_COEFFICIENT: u64 = 2;
        let (horizontal, vertical) = self.largest_factors();
        let blocks_of = |component: &FrameComponent| u64::from(component.horizontal) * u64::from(component.vertical);
        let blocks: u64 = self.components.iter().map(blocks_of).sum();
        let units_across = u64::from(self.size.width).div_ceil(8 * horizontal);
        let units_down = u64::from(self.size.height).div_ceil(8 * vertical);
        let row = units_across * blocks * 64 * BYTES_PER_COEFFICIENT;
        let count = self.components.len();
        let upsampled = units_across * horizontal * vertical * 64 * count as u64 * BYTES_PER_COEFFICIENT;
        let in_one_scan = !self.is_progressive && usize::from(components_of_scan) == count;
        let coefficients = if in_one_scan { row } else { row * units_down };
        self.size.pixels() * 3 + coefficients + row + 2 * upsampled
    }
}

/// Refuses sampling factors that the decoder takes for others: it scales all components to the first one's size, by powers
/// of two.
fn check_sampling(components: &[FrameComponent]) -> Result<(), DecodeError> {
    if components.iter().any(|component| component.horizontal == 3 || component.vertical == 3) {
        return Err(Jpeg.unsupported("sampling factors of 3"));
    }
    let is_finer = |component: &FrameComponent| {
        component.horizontal > components[0].horizontal || component.vertical > components[0].vertical
    };
    if components.iter().any(is_finer) {
        return Err(Jpeg.unsupported("colours of a higher resolution than brightness"));
    }
    Ok(())
}
