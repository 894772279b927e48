//! Ranges of activations, and the 8-bit numbers that stand for them.

use std::collections::BTreeMap;

/// The least and the greatest value that a tensor of the graph has taken.
///
/// On this project's networks the whole range gives descriptors closer to float32 on pictures of
/// another kind than those it was measured on than a range that cuts its ends off, by percentiles
/// or by least squares: the large values are what a descriptor is told by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueRange {
    /// The least value.
    pub low: f32,
    /// The greatest value.
    pub high: f32,
}

/// Ranges by the name of the value.
pub type ValueRanges = BTreeMap<String, ValueRange>;

impl ValueRange {
    /// The range of both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// Returns whether steps can cover it.
    pub fn is_finite(self) -> bool {
        (self.high - self.low).is_finite()
    }

    /// The steps that cover it; `None` if it is not finite. Zero is always one of them: padding
    /// and what a ReLU cuts off stay exact.
    pub(super) fn steps(self) -> Option<Steps> {
        if !self.is_finite() {
            return None;
        }
        let (low, high) = (self.low.min(0.0), self.high.max(0.0));
        let scale = (high - low) / f32::from(u8::MAX);
        // A value that is always zero.
        let scale = if scale > 0.0 { scale } else { 1.0 };
        Some(Steps { scale, zero_point: (-low / scale).round() as u8 })
    }
}

/// `value = (integer − zero_point)·scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Steps {
    pub(super) scale: f32,
    pub(super) zero_point: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(low: f32, high: f32) -> Option<Steps> {
        ValueRange { low, high }.steps()
    }

    #[test]
    fn zero_is_a_step_of_every_range() {
        assert_eq!(steps(0.0, 51.0), Some(Steps { scale: 0.2, zero_point: 0 }));
        // A range away from zero is widened to it.
        assert_eq!(steps(25.5, 51.0), Some(Steps { scale: 0.2, zero_point: 0 }));
        assert_eq!(steps(-51.0, -3.0), Some(Steps { scale: 0.2, zero_point: 255 }));
        assert_eq!(steps(-1.0, 1.55).unwrap().zero_point, 100);
        assert_eq!(steps(0.0, 0.0), Some(Steps { scale: 1.0, zero_point: 0 }));
    }

    #[test]
    fn what_is_not_finite_has_no_steps() {
        assert_eq!(steps(0.0, f32::INFINITY), None);
        assert_eq!(steps(f32::MIN, f32::MAX), None);
        assert_eq!(steps(f32::NAN, 1.0), None);
    }

    #[test]
    fn ranges_join() {
        let both = ValueRange { low: -2.0, high: 1.0 }.with(ValueRange { low: -1.0, high: 3.0 });
        assert_eq!(both, ValueRange { low: -2.0, high: 3.0 });
    }
}
