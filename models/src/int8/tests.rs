use std::collections::HashMap;

use super::*;
use crate::graph::{Attribute, Axis, GraphBuilder, Weight, WeightStorage};
use crate::proto::TensorProto;

/// A residual block with a pooling before it and a projection behind it: `block` and `projected`.
fn graph() -> GraphProto {
    let mut builder = GraphBuilder::new("test");
    let axes = [Axis::Named("N"), Axis::Fixed(2), Axis::Named("H"), Axis::Named("W")];
    let input = builder.input("x", DataType::Float, &axes);
    let conv = |builder: &mut GraphBuilder, x: &str, name: &str, data: [f32; 4], bias: [f32; 2]| {
        let weight = Weight { dims: vec![2, 2, 1, 1], data: data.to_vec() };
        let weight = builder.weight(&format!("{name}.weight"), &weight, WeightStorage::Float32);
        let bias = Weight { dims: vec![2], data: bias.to_vec() };
        let bias = builder.weight(&format!("{name}.bias"), &bias, WeightStorage::Float32);
        builder.node("Conv", &[x, &weight, &bias], name, &[])
    };
    let x = conv(&mut builder, &input, "stem", [1.0, -0.5, 0.25, 0.0], [0.1, 0.2]);
    let x = builder.node("Relu", &[&x], "stem.relu", &[]);
    let pooled = builder.node("MaxPool", &[&x], "pooled", &[("kernel_shape", Attribute::Ints(vec![1, 1]))]);
    let y = conv(&mut builder, &pooled, "conv", [0.5, 0.5, 1e-30, 0.0], [0.0, 0.3]);
    let sum = builder.node("Add", &[&y, &pooled], "sum", &[]);
    let block = builder.node("Relu", &[&sum], "block", &[]);
    conv(&mut builder, &block, "projected", [1.0; 4], [0.0; 2]);
    builder.node("GlobalAveragePool", &[&block], "mean", &[]);
    for output in ["block", "projected", "mean"] {
        builder.output(output, &axes);
    }
    builder.finish()
}

fn ranges() -> ValueRanges {
    let range = |low, high| ValueRange { low, high };
    let named = [("x", range(-1.0, 1.0)), ("stem.relu", range(0.0, 2.55)), ("conv", range(-1.0, 4.1))];
    named.map(|(name, range)| (name.to_owned(), range)).into()
}

fn constant<'a>(graph: &'a GraphProto, name: &str) -> &'a TensorProto {
    graph.initializer.iter().find(|tensor| tensor.name() == name).expect(name)
}

fn floats(graph: &GraphProto, name: &str) -> Vec<f32> {
    constant(graph, name).raw_data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The test's own input is a float that no node computes: rounding begins behind it.
fn quantized() -> GraphProto {
    let mut graph = graph();
    let identity = crate::proto::NodeProto {
        op_type: Some("Identity".to_owned()),
        input: vec!["input".to_owned()],
        output: vec!["x".to_owned()],
        ..Default::default()
    };
    graph.input[0].name = Some("input".to_owned());
    graph.node.insert(0, identity);
    quantize(&graph, &ranges()).unwrap()
}

#[test]
fn the_values_that_integers_are_made_of_are_measured() {
    let CalibrationModel { values, bytes } = CalibrationModel::new(&graph()).unwrap();
    assert_eq!(values, ["x", "stem.relu", "conv"]);
    let graph = crate::proto::ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
    assert_eq!(graph.output.iter().map(ValueInfoProto::name).collect::<Vec<_>>(), values);
    assert_eq!(graph.node.last().unwrap().output, ["conv"], "what is behind the last value is cut off");
}

#[test]
fn integer_operators_read_and_leave_rounded_values() {
    let graph = quantized();
    let inputs: HashMap<&str, Vec<&str>> = graph
        .node
        .iter()
        .map(|node| (node.output[0].as_str(), node.input.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(inputs["stem"], ["x.rounded", "stem.weight.rounded", "stem.bias.rounded"]);
    assert_eq!(inputs["stem.relu"], ["stem"]);
    assert_eq!(inputs["pooled"], ["stem.relu.rounded"]);
    assert_eq!(inputs["sum"], ["conv.rounded", "pooled.rounded"]);
    // A maximum has its input's steps, so that it can be taken of the integers.
    assert_eq!(inputs["pooled.quantized"], ["pooled", "stem.relu.scale", "stem.relu.zero_point"]);
    // An output is not rounded, and neither is what only floats are computed from.
    assert_eq!(inputs["block"], ["sum"]);
    assert_eq!(inputs["projected"][..2], ["block", "projected.weight"]);
    assert_eq!(inputs["mean"], ["block"]);
    // Everything that is read is there, once.
    let mut names: Vec<&str> = graph.initializer.iter().map(TensorProto::name).collect();
    names.extend(graph.node.iter().map(|node| node.output[0].as_str()));
    names.push("input");
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(graph.node.iter().flat_map(|node| &node.input).all(|input| names.contains(&input.as_str())));
    assert!(!names.contains(&"stem.weight"), "the float weights are gone");
}

#[test]
fn weights_have_a_scale_for_each_channel_and_biases_the_product() {
    let graph = quantized();
    let bytes: Vec<i8> = constant(&graph, "stem.weight.quantized").raw_data().iter().map(|&b| b as i8).collect();
    assert_eq!(bytes, [127, -64, 127, 0]);
    assert_eq!(floats(&graph, "stem.weight.scale"), [1.0 / 127.0, 0.25 / 127.0]);
    let input_scale = 2.0 / 255.0;
    for (scale, weight) in floats(&graph, "stem.bias.scale").iter().zip([1.0, 0.25]) {
        assert!((scale - weight / 127.0 * input_scale).abs() < 1e-9);
    }
    let bias = constant(&graph, "stem.bias.quantized").raw_data();
    let bias: Vec<i32> = bias.chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(bias, [(0.1 * 127.0 / input_scale).round() as i32, (0.2 * 4.0 * 127.0 / input_scale).round() as i32]);
    assert_eq!(constant(&graph, "stem.bias.zero_point").raw_data(), [0; 8]);
}

#[test]
fn a_channel_without_weights_keeps_its_bias() {
    let graph = quantized();
    let scale = floats(&graph, "conv.bias.scale")[1];
    let bias = constant(&graph, "conv.bias.quantized").raw_data()[4..].try_into().unwrap();
    assert!((i32::from_le_bytes(bias) as f32 * scale - 0.3).abs() < 1e-6);
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let error = |damage: fn(&mut GraphProto, &mut ValueRanges)| {
        let (mut graph, mut ranges) = (graph(), ranges());
        damage(&mut graph, &mut ranges);
        quantize(&graph, &ranges).unwrap_err()
    };
    assert_eq!(
        error(|_, ranges| {
            ranges.remove("conv");
        }),
        Int8Error::NoRange("conv".to_owned())
    );
    assert_eq!(
        error(|_, ranges| ranges.get_mut("stem.relu").unwrap().high = f32::INFINITY),
        Int8Error::NotFinite("stem.relu".to_owned())
    );
    assert_eq!(
        error(|graph, _| graph.initializer[0].raw_data = Some(f32::NAN.to_le_bytes().repeat(4).into())),
        Int8Error::NotFinite("stem.weight".to_owned())
    );
    assert_eq!(
        error(|graph, _| graph.initializer[0].data_type = Some(DataType::Float16 as i32)),
        Int8Error::Storage("stem.weight".to_owned())
    );
    assert_eq!(error(|graph, _| graph.node.retain(|node| node.op_type() != "Conv")), Int8Error::Nothing);
}
