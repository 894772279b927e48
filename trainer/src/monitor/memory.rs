//! Peak memory of the process.

use std::fs;

/// Most host memory that this process has held at once, in bytes; `None` where the system does
/// not say. Memory of a GPU is not in it.
pub fn peak_memory_bytes() -> Option<u64> {
    peak_from_status(&fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmHWM`, the high-water mark of resident memory, of Linux's `/proc/<pid>/status`.
fn peak_from_status(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_found() {
        assert_eq!(peak_from_status("Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t    12 kB\n"), Some(12 * 1024));
        assert_eq!(peak_from_status("Name:\tx\n"), None);
    }
}
