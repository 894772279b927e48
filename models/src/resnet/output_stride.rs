//! Finer last maps: strides that become dilations.
//!
//! A stage that no longer halves its input sees twice as many cells, each as wide a surrounding as
//! before: its convolutions look at every second cell instead ("à trous"). So the weights stay what
//! they are, and every second cell of the finer map is a cell of the coarser one.
//!
//! For bottlenecks this is torchvision's `replace_stride_with_dilation`: the first block's 3×3
//! convolution, which loses its stride, still runs on undilated input and keeps the dilation of
//! the stage before; those behind it take the new one. Basic blocks, which torchvision does not
//! dilate, follow the same rule: of the first block's two 3×3 convolutions, the first keeps the
//! old dilation and the second takes the new one.

use std::fmt;
use std::str::FromStr;

/// Input pixels per cell of `res5`, the backbone's last map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutputStride {
    /// `res4` and `res5` at 8 pixels a cell.
    Stride8,
    /// `res5` at 16 pixels a cell.
    Stride16,
    /// The network as it is trained.
    #[default]
    Stride32,
}

/// Stride and dilation of a convolution, equal along x and y.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Input cells from one output cell to the next.
    pub stride: i64,
    /// Input cells from one element of the kernel to the next.
    pub dilation: i64,
}

impl Sampling {
    /// Every cell, with its direct neighbours.
    pub const DENSE: Self = Self { stride: 1, dilation: 1 };
}

/// Stride and dilation of the convolutions of one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageSampling {
    /// The first 3×3 convolution of the first block. The shortcut beside it has the same stride.
    pub first: Sampling,
    /// Every other 3×3 convolution.
    pub rest: Sampling,
    /// Input pixels per cell of the stage's output.
    pub cell_px: u32,
}

impl OutputStride {
    /// All of them, coarsest first.
    pub const ALL: [Self; 3] = [Self::Stride32, Self::Stride16, Self::Stride8];

    /// Pixels per cell.
    pub fn pixels(self) -> u32 {
        match self {
            Self::Stride8 => 8,
            Self::Stride16 => 16,
            Self::Stride32 => 32,
        }
    }

    /// The convolutions of stage 0 to 3 (`layer1` to `layer4`).
    pub fn stage(self, stage: usize) -> StageSampling {
        let mut sampling = StageSampling { first: Sampling::DENSE, rest: Sampling::DENSE, cell_px: 4 };
        for _ in 0..stage {
            let before = sampling.rest.dilation;
            if 2 * sampling.cell_px <= self.pixels() {
                sampling.cell_px *= 2;
                sampling.first = Sampling { stride: 2, dilation: before };
            } else {
                sampling.first = Sampling { stride: 1, dilation: before };
                sampling.rest.dilation = 2 * before;
            }
        }
        sampling
    }
}

impl StageSampling {
    /// The 3×3 convolution number `index` (from 0) of block number `block`.
    pub fn convolution(self, block: usize, index: usize) -> Sampling {
        if (block, index) == (0, 0) { self.first } else { self.rest }
    }
}

impl fmt::Display for OutputStride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pixels().fmt(f)
    }
}

impl FromStr for OutputStride {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|stride| stride.to_string() == text);
        found.ok_or_else(|| format!("`{text}` is not an output stride: use 32, 16 or 8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stride and dilation of each stage's first convolution, the dilation of the rest, the cells.
    fn stages(stride: OutputStride) -> Vec<(i64, i64, i64, u32)> {
        let stage = |stage| {
            let StageSampling { first, rest, cell_px } = stride.stage(stage);
            assert_eq!(rest.stride, 1);
            (first.stride, first.dilation, rest.dilation, cell_px)
        };
        (0..4).map(stage).collect()
    }

    #[test]
    fn strides_become_dilations_from_the_last_stage_on() {
        assert_eq!(stages(OutputStride::Stride32), [(1, 1, 1, 4), (2, 1, 1, 8), (2, 1, 1, 16), (2, 1, 1, 32)]);
        assert_eq!(stages(OutputStride::Stride16), [(1, 1, 1, 4), (2, 1, 1, 8), (2, 1, 1, 16), (1, 1, 2, 16)]);
        assert_eq!(stages(OutputStride::Stride8), [(1, 1, 1, 4), (2, 1, 1, 8), (1, 1, 2, 8), (1, 2, 4, 8)]);
    }

    #[test]
    fn reads_what_it_writes() {
        for stride in OutputStride::ALL {
            assert_eq!(stride.to_string().parse(), Ok(stride));
        }
        assert!("4".parse::<OutputStride>().unwrap_err().contains("32, 16 or 8"));
    }
}
