//! Files from elsewhere: those that fulfil the contract are read, the others refused with what is wrong.

use std::fs;

use super::*;
use crate::Layer;
use crate::graph::{Attribute, Axis, GraphBuilder};
use crate::proto::tensor_proto::{DataLocation, DataType};
use crate::proto::tensor_shape_proto::{Dimension, dimension};
use crate::proto::{
    AttributeProto, FunctionProto, NodeProto, OperatorSetIdProto, SparseTensorProto, TensorProto, TypeProto, type_proto,
};

fn manifest() -> Manifest {
    Manifest {
        layers: vec![Layer { name: "a".into(), channels: 3, stride: 1 }],
        default_layer: "a".into(),
        global: None,
        ..crate::manifest::tests::manifest()
    }
}

/// `images` → `Cast` → `Transpose` → `Mul` by a constant → `a`.
fn proto() -> ModelProto {
    let mut graph = GraphBuilder::new("test");
    let input =
        graph.input(INPUT, DataType::Uint8, &[Axis::Named("N"), Axis::Named("H"), Axis::Named("W"), Axis::Fixed(3)]);
    let float = graph.node("Cast", &[&input], "float", &[("to", Attribute::Int(DataType::Float as i64))]);
    let planes = graph.node("Transpose", &[&float], "planes", &[("perm", Attribute::Ints(vec![0, 3, 1, 2]))]);
    graph.initializer("factor", DataType::Float, &[1], 2.0_f32.to_le_bytes().to_vec());
    graph.node("Mul", &[&planes, "factor"], "a", &[]);
    graph.output("a", &[Axis::Named("N"), Axis::Fixed(3), Axis::Named("h"), Axis::Named("w")]);
    bare_model(graph.finish())
}

fn read(proto: &ModelProto) -> Result<OnnxModel, ModelError> {
    OnnxModel::decode(proto.encode_to_vec().into(), || Ok(Some(manifest())))
}

fn changed(change: impl FnOnce(&mut ModelProto, &mut GraphProto)) -> ModelProto {
    let mut proto = proto();
    let mut graph = proto.graph.take().unwrap();
    change(&mut proto, &mut graph);
    proto.graph = Some(graph);
    proto
}

fn refusal(change: impl FnOnce(&mut ModelProto, &mut GraphProto)) -> String {
    read(&changed(change)).expect_err("it is to be refused").to_string()
}

fn node(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    let mut graph = GraphBuilder::new("");
    graph.node(op_type, inputs, output, &[]);
    graph.finish().node.remove(0)
}

fn set_axis(value: &mut ValueInfoProto, axis: usize, length: i64) {
    let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &mut value.r#type else {
        panic!("a tensor")
    };
    tensor.shape.as_mut().unwrap().dim[axis] =
        Dimension { value: Some(dimension::Value::DimValue(length)), denotation: None };
}

fn set_element_type(value: &mut ValueInfoProto, data_type: DataType) {
    let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &mut value.r#type else {
        panic!("a tensor")
    };
    tensor.elem_type = Some(data_type as i32);
}

#[test]
fn what_others_write_differently_is_read() {
    let constant_as_input = changed(|model, graph| {
        model.ir_version = Some(3);
        graph.input.insert(0, ValueInfoProto { name: Some("factor".into()), ..ValueInfoProto::default() });
    });
    let cut = read(&constant_as_input).unwrap().cut(&["a"], Precision::Float32).unwrap();
    let cut = ModelProto::decode(&cut[..]).unwrap();
    assert_eq!(cut.ir_version(), 4, "constants need not be inputs from 4 on");
    let inputs = cut.graph.unwrap().input;
    assert_eq!(inputs.iter().map(ValueInfoProto::name).collect::<Vec<_>>(), [INPUT]);

    for fine in [
        changed(|_, graph| graph.node.reverse()),
        changed(|_, graph| set_axis(&mut graph.input[0], 1, -1)),
        changed(|model, _| model.opset_import[0].version = Some(7)),
        changed(|model, _| model.opset_import[0].version = Some(26)),
        changed(|model, _| {
            model.opset_import.push(OperatorSetIdProto { domain: Some("not.used".into()), version: Some(1) });
        }),
        changed(|_, graph| {
            let mut more = node("Gelu", &["planes"], "b");
            more.domain = Some("com.microsoft".into());
            graph.node.push(more);
            graph.output.push(ValueInfoProto { name: Some("b".into()), ..ValueInfoProto::default() });
        }),
        changed(|_, graph| {
            let values = std::mem::take(&mut graph.initializer[0].raw_data);
            assert!(values.is_some());
            graph.initializer[0].float_data = vec![2.0];
        }),
    ] {
        read(&fine).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_graph_for_one_size_is_cut_for_any() {
    let fixed = changed(|_, graph| {
        set_axis(&mut graph.input[0], 1, 64);
        set_axis(&mut graph.input[0], 2, 96);
        set_axis(&mut graph.output[0], 2, 64);
        set_axis(&mut graph.output[0], 3, 96);
        graph.value_info.push(ValueInfoProto { name: Some("planes".into()), ..graph.output[0].clone() });
    });
    let cut = |proto: &ModelProto| {
        let cut = read(proto).unwrap().cut(&["a"], Precision::Float32).unwrap();
        ModelProto::decode(&cut[..]).unwrap().graph.unwrap()
    };
    let graph = cut(&fixed);
    let lengths = contract::lengths;
    assert_eq!(lengths(&graph.input[0]), [None, None, None, Some(3)]);
    assert_eq!(lengths(&graph.output[0]), [None, Some(3), None, None]);
    assert!(graph.value_info.is_empty());
    // What is not fixed keeps its names.
    assert_eq!(cut(&proto()).input, proto().graph.unwrap().input);
}

#[test]
fn inputs_and_outputs_that_are_not_those_of_a_model_are_described() {
    type Damage = fn(&mut ModelProto, &mut GraphProto);
    let damages: [(&str, Damage); 11] = [
        ("`pictures`, uint8 [N, H, W, 3]", |_, graph| {
            graph.input[0].name = Some("pictures".into());
            graph.node[0].input[0] = "pictures".into();
        }),
        ("`images`, float32 [N, H, W, 3]", |_, graph| set_element_type(&mut graph.input[0], DataType::Float)),
        ("`images`, uint8 [N, H, W, 4]", |_, graph| set_axis(&mut graph.input[0], 3, 4)),
        ("exactly 1 pictures", |_, graph| set_axis(&mut graph.input[0], 0, 1)),
        ("sides of 100 pixels", |_, graph| set_axis(&mut graph.input[0], 1, 100)),
        ("sides of 0 pixels", |_, graph| set_axis(&mut graph.input[0], 2, 0)),
        ("it has 2 inputs: `images`, uint8 [N, H, W, 3]; `more`, no tensor", |_, graph| {
            graph.input.push(ValueInfoProto { name: Some("more".into()), ..ValueInfoProto::default() });
        }),
        ("`a`, float16 [N, 3, h, w]; by the manifest, float32 [_, 3, _, _]", |_, graph| {
            set_element_type(&mut graph.output[0], DataType::Float16);
        }),
        ("`a`, float32 [N, 4, h, w]", |_, graph| set_axis(&mut graph.output[0], 1, 4)),
        ("does not output; it has 1 output: `float`", |_, graph| graph.output[0].name = Some("float".into())),
        ("more than one output `a`", |_, graph| graph.output.push(graph.output[0].clone())),
    ];
    for (expected, damage) in damages {
        let message = refusal(damage);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn graphs_that_do_not_hang_together_are_refused() {
    type Damage = fn(&mut ModelProto, &mut GraphProto);
    let damages: [(&str, Damage); 9] = [
        ("goes round in a circle", |_, graph| graph.node[2].input[1] = "a".into()),
        ("goes round in a circle", |_, graph| {
            // Through a branch, which sees outer values.
            let inner = GraphProto { node: vec![node("Relu", &["a"], "inner")], ..GraphProto::default() };
            let branch =
                AttributeProto { name: Some("body".into()), g: Some(Box::new(inner)), ..AttributeProto::default() };
            graph.node[2].attribute.push(branch);
        }),
        ("reads `nothing`, which nothing computes", |_, graph| graph.node[2].input[1] = "nothing".into()),
        ("more than one value is called `float`", |_, graph| graph.node[2].output.push("float".into())),
        ("more than one value is called `factor`", |_, graph| graph.initializer.push(graph.initializer[0].clone())),
        ("more than one value is called `float`", |_, graph| {
            let inner = GraphProto { node: vec![node("Relu", &["planes"], "float")], ..GraphProto::default() };
            let branch =
                AttributeProto { name: Some("body".into()), g: Some(Box::new(inner)), ..AttributeProto::default() };
            graph.node[2].attribute.push(branch);
        }),
        ("nothing computes the output `a`", |_, graph| drop(graph.node.pop())),
        ("sparse constants", |_, graph| graph.sparse_initializer.push(SparseTensorProto::default())),
        ("the constant `factor` has 3 bytes", |_, graph| graph.initializer[0].raw_data = Some(vec![0; 3].into())),
    ];
    for (expected, damage) in damages {
        let message = refusal(damage);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn constants_of_nodes_are_held_to_their_shapes() {
    let message = refusal(|_, graph| {
        let tensor = TensorProto {
            data_type: Some(DataType::Float as i32),
            dims: vec![1 << 40],
            raw_data: Some(vec![0; 4].into()),
            ..TensorProto::default()
        };
        let value =
            AttributeProto { name: Some("value".into()), t: Some(Box::new(tensor)), ..AttributeProto::default() };
        graph.node.push(NodeProto { attribute: vec![value], ..node("Constant", &[], "constant") });
    });
    assert!(message.contains("node `constant` (Constant): its constant `value` has 4 bytes"), "{message}");
}

#[test]
fn operators_that_nobody_has_are_named() {
    let message = refusal(|_, graph| graph.node[2].domain = Some("org.example".into()));
    assert!(message.contains("node `a` (Mul) is of the operator set `org.example`"), "{message}");
    for (version, expected) in [(6, "version 6"), (27, "version 27")] {
        let message = refusal(|model, _| model.opset_import[0].version = Some(version));
        assert!(message.contains(expected) && message.contains("7 to 26"), "{message}");
    }
    assert!(refusal(|model, _| model.opset_import.clear()).contains("does not say which version"));
    assert!(refusal(|model, _| model.ir_version = Some(14)).contains("IR version 14"));
}

/// A function of one input and one output that calls `callee` so many times, one after the other.
fn function(name: &str, callee: &str, domain: &str, calls: usize) -> FunctionProto {
    let value = |index: usize| format!("v{index}");
    let call =
        |index| NodeProto { domain: Some(domain.to_owned()), ..node(callee, &[&value(index)], &value(index + 1)) };
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("f".to_owned()),
        input: vec![value(0)],
        output: vec![value(calls)],
        node: (0..calls).map(call).collect(),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        ..FunctionProto::default()
    }
}

fn with_functions(functions: Vec<FunctionProto>) -> ModelProto {
    changed(|model, graph| {
        let last = functions.last().map(|function| function.name().to_owned()).unwrap();
        graph.node.push(NodeProto { domain: Some("f".into()), ..node(&last, &["planes"], "b") });
        model.functions = functions;
    })
}

#[test]
fn functions_are_kept_and_bounded() {
    let calls = |depth: usize, width: usize| -> Vec<FunctionProto> {
        let first = function("f0", "Relu", "", width);
        let others = (1..depth).map(|level| function(&format!("f{level}"), &format!("f{}", level - 1), "f", width));
        std::iter::once(first).chain(others).collect()
    };
    let model = read(&with_functions(calls(3, 2))).unwrap();
    let cut = ModelProto::decode(&model.cut(&["a"], Precision::Float32).unwrap()[..]).unwrap();
    assert_eq!(cut.functions.len(), 3);
    let message = |functions| read(&with_functions(functions)).unwrap_err().to_string();
    // Thirty functions of two calls each would be a billion nodes.
    assert!(message(calls(30, 2)).contains("unfold to more than"));
    assert!(message(calls(40, 1)).contains("more than 32 deep"));
    assert!(message(vec![function("f0", "f0", "f", 1)]).contains("`f0` calls itself"));
    assert!(message(vec![FunctionProto { domain: None, ..function("Relu", "Exp", "", 1) }]).contains("redefines"));
    let mut twice = function("f0", "Relu", "", 2);
    twice.node[1].output[0] = "v1".into();
    assert!(message(vec![twice]).contains("in its function `f0`, more than one value is called `v1`"));
}

#[test]
fn names_in_messages_are_short_and_printable() {
    let long = refusal(|_, graph| graph.node[2].input[1] = "\u{1b}[31m".repeat(100_000));
    assert!(long.len() < 2500 && !long.contains('\u{1b}'), "{} bytes", long.len());
}

fn external(location: &str, numbers: &[(&str, &str)]) -> ModelProto {
    changed(|_, graph| {
        let entry =
            |key: &str, value: &str| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
        let tensor = &mut graph.initializer[0];
        tensor.raw_data = None;
        tensor.data_location = Some(DataLocation::External as i32);
        tensor.external_data = vec![entry("location", location)];
        tensor.external_data.extend(numbers.iter().map(|(key, value)| entry(key, value)));
    })
}

#[test]
fn weights_beside_the_file_become_a_part_of_it() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("1");
    fs::create_dir(&folder).unwrap();
    let path = folder.join("model.onnx");
    fs::write(folder.join("manifest.json"), serde_json::to_string(&manifest()).unwrap()).unwrap();
    let content = [&[0; 8][..], &0.5_f32.to_le_bytes()].concat();
    fs::write(folder.join("weights"), &content).unwrap();
    fs::write(root.path().join("secret"), &content).unwrap();
    let open = |proto: &ModelProto| {
        fs::write(&path, proto.encode_to_vec()).unwrap();
        OnnxModel::open(&path)
    };
    for numbers in [&[("offset", "8"), ("length", "4")][..], &[("offset", "8")]] {
        let model = open(&external("weights", numbers)).unwrap();
        assert_eq!(model.external_files().map(|(name, _)| name).collect::<Vec<_>>(), ["weights"]);
        let cut = ModelProto::decode(&model.cut(&["a"], Precision::Float32).unwrap()[..]).unwrap();
        let tensor = &cut.graph.unwrap().initializer[0];
        assert_eq!((tensor.raw_data(), tensor.data_location), (&0.5_f32.to_le_bytes()[..], None));
    }
    for (location, numbers, expected) in [
        ("../secret", &[("offset", "8")][..], "in the model's own folder"),
        ("gone", &[], "cannot be found"),
        ("weights", &[("offset", "8"), ("length", "5")], "ends behind the 12 bytes"),
        ("weights", &[("offset", "18446744073709551615"), ("length", "2")], "ends behind"),
        ("weights", &[("offset", "13")], "ends behind"),
        ("weights", &[("offset", "-1")], "not a number of bytes"),
        ("weights", &[("length", "8")], "has 8 bytes, which is not what its shape [1]"),
    ] {
        let message = open(&external(location, numbers)).unwrap_err().to_string();
        assert!(message.contains(expected), "{location} {numbers:?}: {message}");
        assert!(!message.contains(root.path().to_str().unwrap()), "{message}");
    }
    let message = read(&external("weights", &[])).unwrap_err().to_string();
    assert!(message.contains("only the model's own bytes"), "{message}");
}

#[test]
fn float16_leaves_alone_what_it_does_not_know() {
    let refused = |change: fn(&mut GraphProto)| {
        let model = read(&changed(|_, graph| change(graph))).unwrap();
        model.cut(&["a"], Precision::Float16).unwrap_err().to_string()
    };
    let contributed = refused(|graph| graph.node[2].domain = Some("com.microsoft".into()));
    assert!(contributed.contains("`Mul`"), "{contributed}");
    let number = refused(|graph| {
        let value = AttributeProto { name: Some("value_float".into()), f: Some(1.0), ..AttributeProto::default() };
        graph.node.push(NodeProto { attribute: vec![value], ..node("Constant", &[], "one") });
        graph.node[2].input[1] = "one".into();
    });
    assert!(number.contains("`Constant`"), "{number}");
    let taken = changed(|_, graph| {
        graph.node.push(node("Identity", &["planes"], "a.float16"));
        graph.node[2].input[0] = "a.float16".into();
    });
    let cut = read(&taken).unwrap().cut(&["a"], Precision::Float16).unwrap();
    OnnxModel::decode(cut.into(), || Ok(Some(manifest()))).expect("its names are different from one another");
}

#[test]
fn a_pointer_of_git_lfs_is_told() {
    let pointer = Bytes::from_static(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n");
    let message = OnnxModel::decode(pointer, || Ok(None)).unwrap_err().to_string();
    assert!(message.contains("git lfs pull"), "{message}");
}
