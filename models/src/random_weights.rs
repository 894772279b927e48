//! A network before any training: the baseline of every measurement.
//!
//! An untrained network is what the trainer starts from: convolutions drawn from a normal distribution with variance
//! 2 / fan-in (He et al., arXiv 1502.01852, equation 10), no bias, `BatchNorm` that changes nothing. In an exported graph
//! `BatchNorm` is folded into the convolutions, so that a new weight and a bias of 0 is all there is to it. What else a
//! graph holds (normalisation of the input, fully connected layers) stays.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use half::f16;
use prost::Message;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::onnx_model::{ModelError, OnnxModel};
use crate::proto::tensor_proto::DataType;
use crate::proto::{GraphProto, ModelProto, NodeProto, TensorProto};

/// `model` with every convolution's weight drawn anew from `seed`.
///
/// # Errors
/// If it has no convolutions whose weights are floating-point numbers in the file, as one that computes in integers.
pub fn with_random_weights(model: &OnnxModel, seed: u64) -> Result<OnnxModel, ModelError> {
    let mut proto =
        ModelProto::decode(Bytes::from(model.encode()?)).map_err(|error| ModelError::NotOnnx(error.to_string()))?;
    let graph = proto.graph.as_mut().ok_or_else(|| ModelError::Unsuitable("the file holds no graph".to_owned()))?;
    randomize(graph, seed)?;
    OnnxModel::decode(proto.encode_to_vec().into(), || Ok(None))
}

/// New values of a constant.
#[derive(Clone, Copy, PartialEq)]
enum NewValues {
    Random,
    Constant(f32),
}

fn randomize(graph: &mut GraphProto, seed: u64) -> Result<(), ModelError> {
    let new_values = new_values(graph);
    if !new_values.values().any(|values| *values == NewValues::Random) {
        let reason =
            "it has no convolutions whose weights are floating-point constants, so that none can be drawn anew";
        return Err(ModelError::Unsuitable(reason.to_owned()));
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for tensor in &mut graph.initializer {
        let values = match new_values.get(tensor.name()) {
            Some(NewValues::Random) => drawn(tensor, &mut random),
            Some(NewValues::Constant(value)) => vec![*value; length(&tensor.dims)],
            None => continue,
        };
        replace(tensor, &values)?;
    }
    Ok(())
}

/// The constants that convolutions, and `BatchNorm` that was not folded, take.
fn new_values(graph: &GraphProto) -> HashMap<String, NewValues> {
    let producers: HashMap<&str, &NodeProto> =
        graph.node.iter().flat_map(|node| node.output.iter().map(move |output| (output.as_str(), node))).collect();
    let constants: HashSet<&str> = graph.initializer.iter().map(TensorProto::name).collect();
    let mut new_values = HashMap::new();
    for node in &graph.node {
        // Scale, offset, mean and variance that leave everything as it is.
        let inputs: &[(usize, NewValues)] = match node.op_type() {
            "Conv" => &[(1, NewValues::Random), (2, NewValues::Constant(0.0))],
            "BatchNormalization" => &[
                (1, NewValues::Constant(1.0)),
                (2, NewValues::Constant(0.0)),
                (3, NewValues::Constant(0.0)),
                (4, NewValues::Constant(1.0)),
            ],
            _ => continue,
        };
        for (input, values) in inputs {
            let origin = node.input.get(*input).and_then(|name| origin(name, &producers));
            if let Some(name) = origin.filter(|name| constants.contains(name)) {
                new_values.insert(name.to_owned(), *values);
            }
        }
    }
    new_values
}

/// The value that `name` is a copy of: a constant may be widened before it is used.
fn origin<'a>(mut name: &'a str, producers: &HashMap<&'a str, &'a NodeProto>) -> Option<&'a str> {
    while let Some(node) = producers.get(name).filter(|node| matches!(node.op_type(), "Cast" | "Identity")) {
        name = node.input.first()?;
    }
    Some(name)
}

/// Values for a weight `[out, in, …]`.
fn drawn(weight: &TensorProto, random: &mut ChaCha8Rng) -> Vec<f32> {
    let fan_in = length(weight.dims.get(1..).unwrap_or_default()).max(1);
    let deviation = (2.0 / fan_in as f64).sqrt();
    // Box and Muller's transform; one of its two numbers is enough.
    let mut normal = || {
        let (radius, angle): (f64, f64) = (random.random(), random.random());
        (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    };
    (0..length(&weight.dims)).map(|_| (normal() * deviation) as f32).collect()
}

fn length(dims: &[i64]) -> usize {
    dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).product()
}

fn replace(tensor: &mut TensorProto, values: &[f32]) -> Result<(), ModelError> {
    let bytes: Vec<u8> = match tensor.data_type() {
        kind if kind == DataType::Float as i32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        kind if kind == DataType::Float16 as i32 => {
            values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect()
        }
        _ => {
            let reason = format!("`{}` is not float32 or float16, so that it cannot be drawn anew", tensor.name());
            return Err(ModelError::Unsuitable(reason));
        }
    };
    *tensor = TensorProto {
        raw_data: Some(bytes.into()),
        float_data: Vec::new(),
        int32_data: Vec::new(),
        ..std::mem::take(tensor)
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Axis, GraphBuilder, Weight, WeightStorage};

    /// Two convolutions, one stored in float16, and a scale that is none of theirs.
    fn graph() -> GraphProto {
        let mut builder = GraphBuilder::new("test");
        let x = builder.input(
            "x",
            DataType::Float,
            &[Axis::Named("N"), Axis::Fixed(8), Axis::Named("H"), Axis::Named("W")],
        );
        let scale = builder.weight("scale", &Weight { dims: vec![1], data: vec![3.0] }, WeightStorage::Float32);
        let x = builder.node("Mul", &[&x, &scale], "scaled", &[]);
        let weight = |dims: [usize; 4]| Weight { data: vec![9.0; dims.iter().product()], dims: dims.to_vec() };
        let first = builder.weight("first", &weight([32, 8, 3, 3]), WeightStorage::Float32);
        let bias = builder.weight("bias", &Weight { dims: vec![32], data: vec![5.0; 32] }, WeightStorage::Float32);
        let x = builder.node("Conv", &[&x, &first, &bias], "y", &[]);
        let second = builder.weight("second", &weight([16, 32, 1, 1]), WeightStorage::Float16);
        builder.node("Conv", &[&x, &second], "z", &[]);
        builder.finish()
    }

    fn values(graph: &GraphProto, name: &str) -> Vec<f32> {
        let tensor = graph.initializer.iter().find(|tensor| tensor.name() == name).unwrap();
        let bytes = tensor.raw_data();
        if tensor.data_type() == DataType::Float as i32 {
            return bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        }
        bytes.chunks_exact(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
    }

    fn randomized(seed: u64) -> GraphProto {
        let mut graph = graph();
        randomize(&mut graph, seed).unwrap();
        graph
    }

    #[test]
    fn convolutions_have_the_variance_of_their_fan_in() {
        let graph = randomized(1);
        for (name, fan_in) in [("first", 72.0), ("second.float16", 32.0)] {
            let values = values(&graph, name);
            let count = values.len() as f32;
            let mean = values.iter().sum::<f32>() / count;
            let variance = values.iter().map(|value| value * value).sum::<f32>() / count;
            // Three standard errors of each.
            assert!(mean.abs() < 3.0 * (2.0 / fan_in / count).sqrt(), "{name}: {mean}");
            assert!((variance * fan_in / 2.0 - 1.0).abs() < 3.0 * (2.0 / count).sqrt(), "{name}: {variance}");
        }
        assert_eq!(values(&graph, "bias"), [0.0; 32]);
        assert_eq!(values(&graph, "scale"), [3.0]);
    }

    #[test]
    fn a_seed_is_a_network() {
        assert_eq!(randomized(1), randomized(1));
        assert_ne!(values(&randomized(1), "first"), values(&randomized(2), "first"));
    }

    #[test]
    fn integers_are_refused() {
        let mut graph = graph();
        for tensor in &mut graph.initializer {
            tensor.data_type = Some(DataType::Int8 as i32);
        }
        assert!(randomize(&mut graph, 0).unwrap_err().to_string().contains("not float32 or float16"));
        graph.node.retain(|node| node.op_type() != "Conv");
        assert!(randomize(&mut graph, 0).unwrap_err().to_string().contains("no convolutions"));
    }
}
