//! How the colours of a JPEG file are coded: told by the rules of libjpeg, which others follow, and changed in a copy of the
//! file where the decoder has other rules.

use super::frame::FrameHeader;

/// Markers and names by which the coding is told.
#[derive(Clone, Debug, Default)]
pub(super) struct ColorMarkers {
    has_jfif: bool,
    /// The place of the byte for the transform in every segment of Adobe, and the last one's value.
    adobe: Vec<usize>,
    transform: Option<u8>,
    frame: Option<(FrameHeader, usize)>,
    /// The places of components' names in scan headers, and the names.
    selectors: Vec<(usize, u8)>,
}

/// Place of the transform in the payload of Adobe's segment (Adobe technical note 5116, section 18).
const TRANSFORM_AT: usize = 11;
/// Place of the first component's name in the payload of a frame header, and bytes of a component.
const FIRST_COMPONENT_AT: usize = 6;
const COMPONENT_BYTES: usize = 3;

impl ColorMarkers {
    /// Adds the payload of an APP0 segment.
    pub(super) fn add_app0(&mut self, payload: &[u8]) {
        self.has_jfif |= payload.len() >= 14 && payload.starts_with(b"JFIF\0");
    }

    /// Adds the payload of an APP14 segment, which begins at `at` in the file.
    pub(super) fn add_app14(&mut self, payload: &[u8], at: usize) {
        if payload.starts_with(b"Adobe")
            && let Some(&transform) = payload.get(TRANSFORM_AT)
        {
            self.adobe.push(at + TRANSFORM_AT);
            self.transform = Some(transform);
        }
    }

    /// Sets the frame header, whose payload begins at `at`.
    pub(super) fn set_frame(&mut self, frame: FrameHeader, at: usize) {
        self.frame = Some((frame, at));
    }

    /// Adds the payload of a scan header, which begins at `at`.
    pub(super) fn add_scan(&mut self, payload: &[u8], at: usize) {
        let Some((&count, rest)) = payload.split_first() else { return };
        let names = rest.iter().step_by(2).take(usize::from(count)).enumerate();
        self.selectors.extend(names.map(|(i, &name)| (at + 1 + 2 * i, name)));
    }

    /// The bytes to change, by their places, so that the decoder takes the colours as libjpeg does
    /// (`default_decompress_parms`).
    pub(super) fn changes(&self) -> Vec<(usize, u8)> {
        let Some((frame, at)) = &self.frame else { return Vec::new() };
        let is_called_rgb = frame.is_called_rgb();
        let wanted = match (frame.components.len(), self.transform) {
            (3, Some(0)) if !self.has_jfif => 0,
            (3, None) if is_called_rgb && !self.has_jfif => return Vec::new(),
            (3, _) => 1,
            (4, Some(1..)) => 2,
            _ => return Vec::new(),
        };
        let mut changes = Vec::new();
        if self.transform.is_some_and(|transform| transform != wanted) {
            changes.extend(self.adobe.iter().map(|&place| (place, wanted)));
        }
        if is_called_rgb && wanted == 1 {
            // The decoder goes by the names first.
            let number = |name: u8| 1 + b"RGB".iter().position(|known| *known == name).unwrap_or(0) as u8;
            let names = frame.components.iter().enumerate();
            changes.extend(
                names.map(|(i, component)| (at + FIRST_COMPONENT_AT + COMPONENT_BYTES * i, number(component.id))),
            );
            changes.extend(self.selectors.iter().map(|&(place, name)| (place, number(name))));
        }
        changes
    }
}
