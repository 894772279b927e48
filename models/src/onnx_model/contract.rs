//! Inputs and outputs that the server relies on: one input of pictures, and the outputs that the manifest describes.

use super::INPUT;
use crate::geometry::CELL_MULTIPLE_PX;
use crate::graph_inspection::real_inputs;
use crate::manifest::Manifest;
use crate::proto::tensor_proto::DataType;
use crate::proto::tensor_shape_proto::{Dimension, dimension};
use crate::proto::{GraphProto, ValueInfoProto, type_proto};

/// Checks that `graph` has the outputs of `manifest` and takes pictures.
///
/// # Errors
/// Returns what was found and what is expected, as a sentence.
pub(super) fn check(graph: &GraphProto, manifest: &Manifest) -> Result<(), String> {
    check_input(graph)?;
    for layer in &manifest.layers {
        let expected = [Axis::Any, Axis::Fixed(layer.channels), Axis::Any, Axis::Any];
        check_output(graph, &layer.name, &expected)?;
    }
    if let Some(length) = manifest.global {
        check_output(graph, "global", &[Axis::Any, Axis::Fixed(length)])?;
    }
    Ok(())
}

/// Makes a graph that was exported for pictures of one size accept any size.
///
/// Only declarations change, and convolutions ask for none. A graph whose nodes rely on the size, too,
/// fails when it is run at another one, which a server does before it serves a model.
pub(super) fn loosen_size(graph: &mut GraphProto) {
    let mut input = graph.input.iter_mut().filter_map(axes_mut);
    let Some([_, height, width, _]) = input.next() else { return };
    if fixed(height).is_none() && fixed(width).is_none() {
        return;
    }
    (height.value, width.value) = (None, None);
    // Shapes that follow from it; buffers would be shared by them.
    graph.value_info.clear();
    for [_, _, height, width] in graph.output.iter_mut().filter_map(axes_mut) {
        (height.value, width.value) = (None, None);
    }
}

fn check_input(graph: &GraphProto) -> Result<(), String> {
    let inputs: Vec<&ValueInfoProto> = real_inputs(graph).collect();
    let expected = format!("one input `{INPUT}`, uint8 [N, H, W, 3], is expected");
    let [input] = inputs[..] else {
        return Err(format!("it has {}; {expected}", listed("input", &inputs)));
    };
    let found = || format!("its input is {}; {expected}", describe(input));
    let (DataType::Uint8, Some([batch, height, width, channels])) = shape_of(input) else {
        return Err(found());
    };
    if input.name() != INPUT || fixed(channels).is_some_and(|channels| channels != 3) {
        return Err(found());
    }
    if let Some(batch) = fixed(batch) {
        return Err(format!("its input takes exactly {batch} pictures; export it with a dynamic first axis (N)"));
    }
    let mut sides = [height, width].into_iter().filter_map(fixed);
    match sides.find(|side| *side == 0 || side % i64::from(CELL_MULTIPLE_PX) != 0) {
        None => Ok(()),
        Some(side) => Err(format!(
            "{}; it has sides of {side} pixels, and pictures come in multiples of {CELL_MULTIPLE_PX}: export it with \
             dynamic H and W, or for such a size",
            found()
        )),
    }
}

/// Length of an axis of an output.
enum Axis {
    Any,
    Fixed(u32),
}

fn check_output(graph: &GraphProto, name: &str, axes: &[Axis]) -> Result<(), String> {
    let mut found = graph.output.iter().filter(|output| output.name() == name);
    let Some(output) = found.next() else {
        let outputs: Vec<&ValueInfoProto> = graph.output.iter().collect();
        return Err(format!(
            "the manifest describes `{name}`, which the graph does not output; it has {}",
            listed("output", &outputs)
        ));
    };
    if found.next().is_some() {
        return Err(format!("it has more than one output `{name}`"));
    }
    if !graph.node.iter().any(|node| node.output.iter().any(|made| made == name)) {
        return Err(format!("its output `{name}` is not computed by any node"));
    }
    let length = |axis: &Axis| match axis {
        Axis::Any => "_".to_owned(),
        Axis::Fixed(length) => length.to_string(),
    };
    let wrong = || {
        let expected: Vec<String> = axes.iter().map(length).collect();
        format!(
            "its output is {}; by the manifest, float32 [{}] is expected (the first axis is the picture)",
            describe(output),
            expected.join(", ")
        )
    };
    let (data_type, dims) = (element_type(output), dims(output));
    // Shapes are optional: what is not written here shows when the model runs.
    let fits = dims.is_none_or(|dims| {
        let fits = |(axis, dim): (&Axis, &Dimension)| match (axis, fixed(dim)) {
            (Axis::Fixed(length), Some(found)) => found == i64::from(*length),
            _ => true,
        };
        dims.len() == axes.len() && axes.iter().zip(dims).all(fits)
    });
    if data_type == DataType::Float && fits { Ok(()) } else { Err(wrong()) }
}

/// Element type and shape, if they are of a tensor of so many axes.
fn shape_of<const N: usize>(value: &ValueInfoProto) -> (DataType, Option<&[Dimension; N]>) {
    (element_type(value), dims(value).and_then(|dims| dims.try_into().ok()))
}

fn element_type(value: &ValueInfoProto) -> DataType {
    tensor_type(value).and_then(|tensor| tensor.elem_type().try_into().ok()).unwrap_or(DataType::Undefined)
}

fn dims(value: &ValueInfoProto) -> Option<&[Dimension]> {
    tensor_type(value)?.shape.as_ref().map(|shape| &shape.dim[..])
}

fn axes_mut<const N: usize>(value: &mut ValueInfoProto) -> Option<&mut [Dimension; N]> {
    match value.r#type.as_mut()?.value.as_mut()? {
        type_proto::Value::TensorType(tensor) => tensor.shape.as_mut()?.dim.as_mut_slice().try_into().ok(),
        _ => None,
    }
}

fn tensor_type(value: &ValueInfoProto) -> Option<&type_proto::Tensor> {
    match value.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => Some(tensor),
        _ => None,
    }
}

/// The length of an axis that the graph fixes. Some exporters write −1 for one that it does not.
fn fixed(dim: &Dimension) -> Option<i64> {
    match dim.value {
        Some(dimension::Value::DimValue(length)) if length >= 0 => Some(length),
        _ => None,
    }
}

/// `` `res5`, float [N, 512, h, w] ``, as messages have it.
fn describe(value: &ValueInfoProto) -> String {
    let data_type = match element_type(value) {
        DataType::Undefined => "no tensor".to_owned(),
        DataType::Float => "float32".to_owned(),
        other => other.as_str_name().to_ascii_lowercase(),
    };
    let axis = |dim: &Dimension| match &dim.value {
        Some(dimension::Value::DimValue(length)) => length.to_string(),
        Some(dimension::Value::DimParam(name)) => shortened(name),
        None => "_".to_owned(),
    };
    let shape = dims(value).map(|dims| {
        let more = if dims.len() > 8 { ", …" } else { "" };
        format!(" [{}{more}]", dims.iter().take(8).map(axis).collect::<Vec<_>>().join(", "))
    });
    format!("`{}`, {data_type}{}", shortened(value.name()), shape.unwrap_or_default())
}

/// "2 inputs: …", the first few by name and shape.
fn listed(what: &str, values: &[&ValueInfoProto]) -> String {
    const MOST: usize = 8;
    let described: Vec<String> = values.iter().take(MOST).map(|value| describe(value)).collect();
    let (plural, more) = (if values.len() == 1 { "" } else { "s" }, if values.len() > MOST { "; …" } else { "" });
    let colon = if values.is_empty() { "" } else { ": " };
    format!("{} {what}{plural}{colon}{}{more}", values.len(), described.join("; "))
}

/// Names come from the file, and may be as long as that.
fn shortened(name: &str) -> String {
    const MOST: usize = 64;
    if name.chars().count() <= MOST { name.to_owned() } else { name.chars().take(MOST).chain(['…']).collect() }
}

/// The lengths that a shape fixes.
#[cfg(test)]
pub(super) fn lengths(value: &ValueInfoProto) -> Vec<Option<i64>> {
    dims(value).unwrap_or_default().iter().map(fixed).collect()
}
