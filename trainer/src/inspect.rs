//! Description of a file of weights.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use densecl_checkpoints::{CheckpointFile, OtherNetwork};
use densecl_models::OnnxModel;

use crate::checkpoint::{Checkpoint, locate};
use crate::pretrained::{ReadOptions, find_network, weights_file};

/// Describes an ONNX model (its manifest and outputs), a checkpoint or run (its record and
/// tensors), or a file of weights: its format and layout, what of it would be taken with these options, what is left
/// aside and what is wrong, and its tensors.
///
/// # Errors
/// If it is none of these, damaged, or refused.
pub fn inspect(path: &Path, options: &ReadOptions) -> Result<String> {
    let mut text = String::new();
    let file = weights_file(path);
    if path.is_dir() && file.is_none() {
        let checkpoint = Checkpoint::read(&locate(path)?)?;
        let _ = writeln!(text, "{}", toml::to_string(&checkpoint.record)?);
        let tensors = checkpoint.tensors().map(|(name, tensor)| Line {
            name,
            dtype: format!("{:?}", tensor.kind()),
            shape: format!("{:?}", tensor.size()),
            values: tensor.numel() as u64,
        });
        write_tensors(&mut text, tensors);
    } else if path.extension().is_some_and(|extension| extension == "onnx") {
        let model = OnnxModel::open(path)?;
        let _ = writeln!(text, "{}", serde_json::to_string_pretty(model.manifest())?);
        let _ = writeln!(text, "outputs: {}", model.outputs().collect::<Vec<_>>().join(", "));
    } else {
        let path = file.as_deref().unwrap_or(path);
        let file = CheckpointFile::open(path).with_context(|| format!("{} is not read", path.display()))?;
        let _ = writeln!(text, "format: {}", file.format());
        for (key, value) in file.metadata() {
            let _ = writeln!(text, "{key} = {value}");
        }
        write_network(&mut text, &file, options);
        let foreign: Vec<_> = file.foreign_classes().collect();
        if !foreign.is_empty() {
            let _ = writeln!(text, "objects that are not read: {}", foreign.join(", "));
        }
        let tensors = file.tensors();
        let lines = tensors.iter().map(|tensor| Line {
            name: &tensor.path,
            dtype: tensor.dtype.to_string(),
            shape: format!("{:?}", tensor.shape),
            values: tensor.element_count(),
        });
        write_tensors(&mut text, lines);
    }
    Ok(text)
}

/// The network that exports and conversions would take, or why they would take none.
fn write_network(text: &mut String, file: &CheckpointFile, options: &ReadOptions) {
    let network = match find_network(file, options.weight_set.as_deref()) {
        Ok(network) => network,
        Err(error) => {
            let _ = writeln!(text, "network: none is taken: {error:#}");
            return;
        }
    };
    let _ = writeln!(text, "layout: {}", network.layout);
    let _ = writeln!(text, "architecture: {}, stem of {} channels", network.architecture, network.stem_width);
    let _ = writeln!(text, "method: {}", network.method());
    let _ = writeln!(text, "taken: {} tensors, the {} ({})", network.taken().count(), network.role, network.origin);
    let heads =
        ["global_head", "dense_head"].map(|head| (head, network.taken().any(|(name, _)| name.starts_with(head))));
    let heads: Vec<_> = heads.iter().filter(|(_, found)| *found).map(|(head, _)| *head).collect();
    let _ = writeln!(text, "heads: {}", if heads.is_empty() { "none".to_owned() } else { heads.join(", ") });
    let aside = &network.left_aside;
    let _ = writeln!(text, "left aside ({}): {}", aside.len(), network.left_aside_summary());
    let set = |other: &OtherNetwork| format!("{}{}", other.name, if other.is_averaged { " (EMA)" } else { "" });
    let others: Vec<_> = network.others.iter().map(set).collect();
    if !others.is_empty() {
        let _ = writeln!(text, "other networks (--weight-set NAME takes one): {}", others.join(", "));
    }
    if let Some(network) = &network.looks_like {
        let _ = writeln!(text, "looks like: {network}, which is not read");
    }
    let problems = network.problems.without(&options.allow);
    if !problems.is_empty() {
        let _ = writeln!(text, "not taken without --allow: {problems}");
    }
}

/// A tensor as it is listed.
struct Line<'a> {
    name: &'a str,
    dtype: String,
    shape: String,
    values: u64,
}

fn write_tensors<'a>(text: &mut String, tensors: impl Iterator<Item = Line<'a>>) {
    let (mut count, mut sum) = (0, 0_u64);
    for Line { name, dtype, shape, values } in tensors {
        let _ = writeln!(text, "{name}\t{dtype}\t{shape}");
        count += 1;
        sum = sum.saturating_add(values);
    }
    let _ = writeln!(text, "{count} tensors, {sum} values");
}
