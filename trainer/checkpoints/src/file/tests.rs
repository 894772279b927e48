//! Files of the real `torch.save` and `pickle` (`tests/checkpoints/make.py`), tensor by tensor.

use std::path::PathBuf;

use super::*;
use crate::pickle::element_count;

fn fixture(name: &str) -> Result<CheckpointFile, OpenError> {
    CheckpointFile::open(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoints").join(name))
}

/// Values that `make.py` fills a tensor with.
fn values(name: &str, count: usize) -> Vec<f32> {
    let start: usize = name.bytes().map(usize::from).sum::<usize>() * 31;
    (0..count).map(|i| ((start + i * 7) % 256) as f32 / 128.0 - 1.0).collect()
}

/// The tensor at a key of the root.
fn tensor(file: &CheckpointFile, key: &str) -> TensorId {
    let entries = file.graph().entries(file.root()).unwrap();
    match entries.iter().find(|(found, _)| file.graph().text(*found) == Some(key)) {
        Some(&(_, Value::Tensor(id))) => id,
        found => panic!("`{key}` is {found:?}"),
    }
}

#[test]
fn tensors_of_every_type_and_form_are_read() {
    let base = values("base", 24);
    let rows = |rows: &[usize], columns: &[usize]| -> Vec<f32> {
        rows.iter().flat_map(|row| columns.iter().map(|column| base[row * 6 + column]).collect::<Vec<_>>()).collect()
    };
    let transposed: Vec<f32> = (0..6).flat_map(|column| rows(&[0, 1, 2, 3], &[column])).collect();
    let expected: [(&str, &[u64], Vec<f32>); 13] = [
        ("float32", &[4, 6], base.clone()),
        ("float64", &[4, 6], base.clone()),
        ("float16", &[4, 6], base.clone()),
        ("bfloat16", &[4, 6], base.clone()),
        ("transposed", &[6, 4], transposed),
        ("column", &[4], rows(&[0, 1, 2, 3], &[1])),
        ("part", &[2, 3], rows(&[1, 2], &[2, 3, 4])),
        ("channels_last", &[2, 3, 4, 5], values("nhwc", 120)),
        ("expanded", &[5], values("one", 1).repeat(5)),
        ("scalar", &[], vec![0.5]),
        ("empty", &[0, 3], vec![]),
        ("parameter", &[4, 6], base.clone()),
        ("attribute", &[3], values("attribute", 3)),
    ];
    for name in ["tensors-zip.pth", "tensors-protocol-4.pth", "tensors-legacy.pth"] {
        let file = fixture(name).unwrap();
        for (key, shape, data) in &expected {
            let id = tensor(&file, key);
            assert_eq!(file.tensor_type(id).unwrap().1, *shape, "{name}: {key}");
            assert_eq!(file.read_f32(id).unwrap(), *data, "{name}: {key}");
        }
        let kinds = ["int64", "int32", "int16", "int8", "uint8", "bool"];
        for kind in kinds {
            let id = tensor(&file, kind);
            assert_eq!(file.tensor_type(id).unwrap().0.to_string(), kind);
            assert!(matches!(file.read_f32(id), Err(TensorDataError::NotFloat(_))));
        }
        let all = file.tensors();
        assert_eq!(all.len(), expected.len() + kinds.len() + 1, "{all:?}");
        assert!(all.iter().any(|info| info.path == "nested.0.deep.0" && info.shape == [6]), "{all:?}");
    }
}

#[test]
fn arrays_are_read_in_every_protocol() {
    for protocol in [0, 2, 4, 5] {
        let file = fixture(&format!("detectron2-protocol-{protocol}.pkl")).unwrap();
        assert_eq!(file.format(), Format::Pickle);
        let model = file.graph().entries(file.root()).unwrap()[0].1;
        let entries = file.graph().entries(model).unwrap();
        let (_, Value::Tensor(id)) = entries[0] else { panic!("{entries:?}") };
        let count = element_count(file.tensor_type(id).unwrap().1).unwrap() as usize;
        assert_eq!(file.read_f32(id).unwrap(), values("conv1.weight", count), "protocol {protocol}");
    }
}

#[test]
fn what_is_not_read_is_refused_by_its_name() {
    for (name, reason) in [
        ("refused-complex.pth", "torch.ComplexFloatStorage"),
        ("refused-sparse.pth", "torch._utils._rebuild_sparse_tensor"),
        ("refused-float8.pth", "torch._utils._rebuild_tensor_v3"),
        ("refused-quantised.pth", "torch._utils._rebuild_qtensor"),
        ("refused-module.pth", "torch.nn.modules.linear.Linear"),
        ("refused-big-endian-zip.pth", "big-endian"),
        ("refused-big-endian-legacy.pth", "big-endian"),
        ("refused-numpy-big-endian.pkl", "big-endian"),
        ("refused-numpy-objects.pkl", "`O8`"),
        ("refused-numpy-text.pkl", "`U1`"),
    ] {
        let error = fixture(name).unwrap_err().to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn a_damaged_archive_is_told_by_its_checksums() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoints/torchvision.pth");
    let mut bytes = std::fs::read(path).unwrap();
    let first: Vec<u8> = values("conv1.weight", 4).iter().flat_map(|value| value.to_le_bytes()).collect();
    let at = bytes.windows(first.len()).position(|window| window == first).unwrap();
    bytes[at] ^= 1;
    let file = CheckpointFile::from_bytes(bytes).unwrap();
    let error = file.verify(std::iter::once(tensor(&file, "conv1.weight"))).unwrap_err();
    assert!(matches!(error, ArchiveError::Checksum(_)), "{error}");
    file.verify(std::iter::once(tensor(&file, "bn1.weight"))).unwrap();
}
