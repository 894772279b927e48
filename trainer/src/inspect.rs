//! Says what is in a file of weights.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use densecl_models::OnnxModel;
use tch::Tensor;

use crate::checkpoint::{Checkpoint, locate};
use crate::tensor_file::TensorFile;

/// Describes an ONNX model (its manifest and outputs), a checkpoint or run (its record and
/// tensors), or a safetensors file (its remarks and tensors).
///
/// # Errors
/// If it is none of these, or damaged.
pub fn inspect(path: &Path) -> Result<String> {
    let mut text = String::new();
    if path.is_dir() {
        let checkpoint = Checkpoint::read(&locate(path)?)?;
        let _ = writeln!(text, "{}", toml::to_string(&checkpoint.record)?);
        tensors(&mut text, checkpoint.tensors());
    } else if path.extension().is_some_and(|extension| extension == "onnx") {
        let model = OnnxModel::open(path)?;
        let _ = writeln!(text, "{}", serde_json::to_string_pretty(model.manifest())?);
        let _ = writeln!(text, "outputs: {}", model.outputs().collect::<Vec<_>>().join(", "));
    } else {
        let file = TensorFile::read(path)?;
        for (key, value) in &file.metadata {
            let _ = writeln!(text, "{key} = {value}");
        }
        tensors(&mut text, file.tensors.iter());
    }
    Ok(text)
}

fn tensors<'a>(text: &mut String, tensors: impl Iterator<Item = (&'a String, &'a Tensor)>) {
    let (mut count, mut values) = (0, 0);
    for (name, tensor) in tensors {
        let _ = writeln!(text, "{name}\t{:?}\t{:?}", tensor.kind(), tensor.size());
        count += 1;
        values += tensor.numel();
    }
    let _ = writeln!(text, "{count} tensors, {values} values");
}
