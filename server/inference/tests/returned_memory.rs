//! Memory that was freed goes back to the operating system. Alone in its process: other tests would change what it measures.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

#[path = "../src/onnx_runtime/heap.rs"]
mod heap;

fn resident_pages() -> usize {
    let statistics = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    statistics.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages")
}

#[test]
fn freed_memory_is_returned() {
    // Pieces small enough to come from the heap; the last one holds the heap's end in place.
    let mut pieces: Vec<Vec<u8>> = (0..20_000).map(|_| vec![1; 4096]).collect();
    let last = pieces.pop();
    drop(pieces);
    let before = resident_pages();
    heap::return_freed();
    assert!(resident_pages() + 10_000 < before, "{before} pages before, {} after", resident_pages());
    drop(last);
}
