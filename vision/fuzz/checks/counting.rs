//! Counting allocator for checks of memory.

use super::image_decode::PeakMemory;

#[global_allocator]
static ALLOCATOR: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// Memory of the whole process.
pub(crate) struct Process;

impl PeakMemory for Process {
    fn reset(&self) -> usize {
        ALLOCATOR.reset_peak_usage();
        ALLOCATOR.current_usage()
    }

    fn peak(&self) -> usize {
        ALLOCATOR.peak_usage()
    }
}
