//! No file makes its reader take more memory than a bound that grows with the file's own length.
//!
//! One test in a binary of its own, because the allocator that counts serves the whole process.

use densecl_models::{Manifest, ModelError, OnnxModel};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes for structure and for the tables of the checks.
const FIXED_BYTES: usize = 384 << 20;

/// A field of protobuf with a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 8);
    prost::encoding::encode_varint(u64::from(number) << 3 | 2, &mut bytes);
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend(content);
    bytes
}

/// A model whose graph has this content.
fn graph(content: &[u8]) -> Vec<u8> {
    field(7, content)
}

const MANIFEST: &str = r#"{"name": "m", "version": 1, "method": "m", "architecture": "a", "licence": "MIT",
    "layers": [{"name": "none", "channels": 1, "stride": 1}], "default_layer": "none", "default_side": 32,
    "mean": [0, 0, 0], "std": [1, 1, 1]}"#;

/// A chain of `count` named nodes, all of which are checked.
fn chain(count: usize) -> Vec<u8> {
    let operators = field(8, &[0x10, 17]);
    let node = |index: usize| {
        let name = |index: usize| format!("{index:x}").into_bytes();
        field(1, &[field(1, &name(index)), field(2, &name(index + 1)), field(4, b"Relu")].concat())
    };
    let input = field(11, &field(1, b"0"));
    [operators, graph(&(0..count).flat_map(node).chain(input).collect::<Vec<_>>())].concat()
}

#[test]
fn the_smallest_messages_take_a_bounded_amount() {
    // Each repeats what takes the fewest bytes in the file for the most in memory.
    // The last number of each is beyond the limit.
    type Hostile = fn(usize) -> Vec<u8>;
    let hostile: [(&str, Hostile, usize); 9] = [
        ("nodes", |n| graph(&field(1, &[]).repeat(n)), 1 << 20),
        ("attributes", |n| graph(&field(1, &field(5, &[]).repeat(n))), 1 << 20),
        ("names", |n| graph(&field(1, &field(1, &[]).repeat(n))), 1 << 23),
        ("constants", |n| graph(&field(5, &[]).repeat(n)), 1 << 20),
        ("inputs", |n| graph(&field(11, &[]).repeat(n)), 1 << 20),
        ("integers", |n| graph(&field(5, &field(7, &vec![0; n]))), 1 << 25),
        ("small numbers", |n| graph(&field(1, &field(5, &[0x40, 0].repeat(n)))), 1 << 25),
        ("functions", |n| field(25, &[]).repeat(n), 1 << 20),
        ("a chain", chain, 1 << 20),
    ];
    let manifest = Manifest::from_json(MANIFEST).expect("a manifest");
    for (what, make, beyond) in hostile {
        for count in [1 << 16, 1 << 18, beyond] {
            let file = make(count);
            let length = file.len();
            ALLOCATOR.reset_peak_usage();
            let before = ALLOCATOR.current_usage();
            let error =
                OnnxModel::decode(file.into(), || Ok(Some(manifest.clone()))).expect_err("it has no such layer");
            let taken = ALLOCATOR.peak_usage() - before;
            assert!(taken <= FIXED_BYTES + 2 * length, "{count} {what} in {length} bytes took {taken} bytes");
            let refused = matches!(&error, ModelError::Unsuitable(reason) if reason.contains("MiB of memory"));
            assert_eq!(refused, count == beyond, "{count} {what}: {error}");
        }
    }
}
