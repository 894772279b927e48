//! Replays a file of recorded training steps and measures how far this trainer departs from it.
//!
//! A golden file holds initial weights and queues, the views of each step, and what an
//! independent implementation made of them; hyper-parameters are in its metadata. Keys:
//! `init/{query,key}/<name>`, `init/queue/{global,dense}`,
//! `step<i>/{view_q,view_k,lr,loss,loss_global,loss_dense,match}`,
//! `final/{query,key}/<name>`, `final/queue/{global,dense}`, `final/queue_pointer`.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use densecl_models::resnet::Architecture;
use tch::{Device, Kind, Tensor};

use crate::densecl::{ContrastOptions, DenseCl, Step};
use crate::distributed::World;
use crate::network::{Encoder, EncoderSpec};
use crate::optimizer::{Algorithm, Optimizer, OptimizerOptions};
use crate::tensor_file::TensorFile;

/// Negatives that the loss looks at together: fewer than a golden file's queue holds, so that the
/// chunks are put to the test.
const LOSS_CHUNK: i64 = 24;

/// Difference between replay and recording.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Tensors compared.
    pub compared: usize,
    /// The tensor with the largest error.
    pub worst: String,
    /// Its error: L2 norm of the difference over the norm of the recorded tensor.
    pub relative_error: f64,
}

/// Replays the steps of `input`, writes what came out to `output`, and compares the two.
///
/// # Errors
/// If the file is not a golden file, or `output` cannot be written.
pub fn replay(input: &Path, output: &Path) -> Result<Comparison> {
    let golden = TensorFile::read(input)?;
    let result = run(&golden).with_context(|| format!("{} is not a golden file", input.display()))?;
    result.write(output)?;
    compare(&golden, &result)
}

fn run(golden: &TensorFile) -> Result<TensorFile> {
    let settings = Settings(golden);
    let dense = match settings.text("method")? {
        "densecl" => true,
        "moco-v2" => false,
        other => bail!("unknown method `{other}`"),
    };
    let architecture: Architecture = settings.text("arch")?.parse().map_err(|e: String| anyhow!(e))?;
    let spec =
        EncoderSpec { architecture, stem_width: settings.number("stem_width")?, dim: settings.number("dim")?, dense };
    let kind = golden.get("init/queue/global")?.kind();
    let options = ContrastOptions {
        queue_length: settings.number("queue")?,
        temperature: settings.number("temperature")?,
        momentum: settings.number("momentum")?,
        bn_splits: settings.number("bn_splits")?,
        loss_chunk: LOSS_CHUNK,
        products: kind,
    };
    let loss_lambda = settings.number("loss_lambda")?;
    let mut model = DenseCl::new(spec, options, kind, Device::Cpu);
    load(&mut model, golden)?;

    let sgd = OptimizerOptions {
        algorithm: Algorithm::Sgd,
        momentum: 0.9,
        weight_decay: settings.number("weight_decay")?,
        trust_coefficient: 0.0,
    };
    let mut sgd = Optimizer::new(model.query.tensors().parameters(), sgd);
    let mut result = TensorFile::default();
    let world = World::alone();
    for step in 0..settings.number::<usize>("steps")? {
        let get = |name: &str| golden.get(&format!("step{step}/{name}"));
        let (view_q, view_k) = (get("view_q")?, get("view_k")?);
        let (measures, keys) =
            model.forward_backward(&Step { world: &world, view_q, view_k, shuffle: None, loss_lambda, parts: 1 })?;
        sgd.step(get("lr")?.double_value(&[]))?;
        model.enqueue(&keys)?;
        let mut put = |name: &str, tensor: Tensor| result.tensors.insert(format!("step{step}/{name}"), tensor);
        put("loss", measures.loss);
        put("loss_global", measures.loss_global);
        if let Some(dense) = measures.dense {
            put("loss_dense", dense.loss);
            put("match", dense.matches);
        }
    }
    save(&model, &mut result);
    Ok(result)
}

fn load(model: &mut DenseCl, golden: &TensorFile) -> Result<()> {
    let encoder = |encoder: &Encoder, name: &str| {
        let find = |tensor: &str| golden.tensors.get(&format!("init/{name}/{tensor}")).map(Tensor::shallow_clone);
        encoder.tensors().load(find).with_context(|| format!("{name} encoder"))
    };
    encoder(&model.query, "query")?;
    encoder(&model.key, "key")?;
    let queue = |name: &str| golden.get(&format!("init/queue/{name}"));
    model.global_queue.load(queue("global")?, 0)?;
    if let Some(dense) = &mut model.dense_queue {
        dense.load(queue("dense")?, 0)?;
    }
    Ok(())
}

fn save(model: &DenseCl, result: &mut TensorFile) {
    for (prefix, encoder) in [("query", &model.query), ("key", &model.key)] {
        for (name, _, tensor) in encoder.tensors().iter() {
            result.tensors.insert(format!("final/{prefix}/{name}"), tensor.detach().copy());
        }
    }
    let mut put = |name: &str, tensor: Tensor| result.tensors.insert(format!("final/{name}"), tensor);
    put("queue/global", model.global_queue.vectors().copy());
    if let Some(dense) = &model.dense_queue {
        put("queue/dense", dense.vectors().copy());
    }
    put("queue_pointer", Tensor::from(model.global_queue.pointer()));
}

/// Compares every recorded outcome; one that was not replayed counts as infinitely far.
fn compare(golden: &TensorFile, result: &TensorFile) -> Result<Comparison> {
    let mut comparison = Comparison { compared: 0, worst: String::new(), relative_error: 0.0 };
    for (name, want) in &golden.tensors {
        let is_given = ["view_q", "view_k", "lr"].iter().any(|given| name.ends_with(&format!("/{given}")));
        if name.starts_with("init/") || is_given {
            continue;
        }
        comparison.compared += 1;
        let error = result.tensors.get(name).map_or(f64::INFINITY, |got| relative_error(want, got));
        // A NaN is further away than any number.
        if comparison.worst.is_empty() || error.is_nan() || error > comparison.relative_error {
            comparison.worst.clone_from(name);
            comparison.relative_error = if error.is_nan() { f64::INFINITY } else { error };
        }
    }
    if comparison.compared == 0 {
        bail!("the file records no outcome");
    }
    Ok(comparison)
}

fn relative_error(want: &Tensor, got: &Tensor) -> f64 {
    if want.size() != got.size() {
        return f64::INFINITY;
    }
    let (want, got) = (want.to_kind(Kind::Double), got.to_kind(Kind::Double));
    let norm = |x: &Tensor| x.square().sum(Kind::Double).sqrt().double_value(&[]);
    norm(&(&want - got)) / norm(&want).max(1e-12)
}

/// Hyper-parameters, which golden files keep as text.
struct Settings<'a>(&'a TensorFile);

impl Settings<'_> {
    fn text(&self, name: &str) -> Result<&str> {
        let value = self.0.metadata.get(name).with_context(|| format!("the metadata lack `{name}`"))?;
        Ok(value)
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        text.parse().map_err(|_| anyhow!("the metadata's `{name}` is `{text}`, not a number"))
    }
}
