//! A model repository with random weights, for architectures of which the project ships no model.

use std::path::{Path, PathBuf};

use anyhow::Context;
use densecl_models::graph::{Weight, WeightStorage};
use densecl_models::resnet::{Architecture, GraphSpec, OutputStride, Weights, build};
use densecl_models::{Manifest, OnnxModel};

const STEM_WIDTH: usize = 64;
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Returns the repository at `name`. If `name` is an architecture, creates one with random weights below `folder`.
pub(crate) fn repository(name: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let named = [
        ("resnet18", Architecture::ResNet18),
        ("resnet34", Architecture::ResNet34),
        ("resnet50", Architecture::ResNet50),
        ("resnet101", Architecture::ResNet101),
    ];
    let Some((_, architecture)) = named.into_iter().find(|(known, _)| *known == name) else {
        return Ok(PathBuf::from(name));
    };
    let version = folder.join(name).join("1");
    std::fs::create_dir_all(&version)?;
    let spec = GraphSpec {
        architecture,
        output_stride: OutputStride::Stride32,
        mean: MEAN,
        std: STD,
        storage: WeightStorage::Float32,
    };
    let built = build(&spec, &random_weights(architecture)).context("the graph cannot be built")?;
    let manifest = Manifest {
        name: name.to_owned(),
        version: 1,
        method: "random".to_owned(),
        architecture: name.to_owned(),
        layers: built.layers,
        global: built.global,
        default_layer: "res5".to_owned(),
        default_side: 224,
        mean: MEAN,
        std: STD,
        training: None,
        fidelity: None,
        licence: "Apache-2.0".to_owned(),
    };
    OnnxModel::new(built.graph, manifest)?.save(&version.join("model.onnx"))?;
    Ok(folder.to_owned())
}

/// He's initialisation (arXiv 1502.01852), BatchNorm as the identity.
fn random_weights(architecture: Architecture) -> Weights {
    let mut network = Network { weights: Weights::new(), state: 1 };
    network.convolution("conv1", "bn1", [STEM_WIDTH, 3, 7]);
    let mut input = STEM_WIDTH;
    for (stage, depth) in architecture.depths().into_iter().enumerate() {
        let width = STEM_WIDTH << stage;
        let output = architecture.channels(stage, STEM_WIDTH);
        for block in 0..depth {
            let name = format!("layer{}.{block}", stage + 1);
            let shapes: &[[usize; 3]] = match architecture.convolutions_per_block() {
                2 => &[[width, input, 3], [output, width, 3]],
                _ => &[[width, input, 1], [width, width, 3], [output, width, 1]],
            };
            for (index, shape) in shapes.iter().enumerate() {
                let number = index + 1;
                network.convolution(&format!("{name}.conv{number}"), &format!("{name}.bn{number}"), *shape);
            }
            if input != output {
                network.convolution(
                    &format!("{name}.downsample.0"),
                    &format!("{name}.downsample.1"),
                    [output, input, 1],
                );
            }
            input = output;
        }
    }
    network.weights
}

struct Network {
    weights: Weights,
    state: u64,
}

impl Network {
    /// A convolution `[output, input, kernel, kernel]` and the BatchNorm after it.
    fn convolution(&mut self, name: &str, norm: &str, [output, input, kernel]: [usize; 3]) {
        let fan_in = input * kernel * kernel;
        // Uniform with the variance 2 / fan_in.
        let bound = (6.0 / fan_in as f32).sqrt();
        let data = (0..output * fan_in).map(|_| self.uniform() * bound).collect();
        self.insert(format!("{name}.weight"), Weight { dims: vec![output, input, kernel, kernel], data });
        for (part, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
            self.insert(format!("{norm}.{part}"), Weight { dims: vec![output], data: vec![value; output] });
        }
    }

    fn insert(&mut self, name: String, weight: Weight) {
        self.weights.insert(name, weight);
    }

    /// Uniform in [-1, 1), by the upper bits of a linear congruential generator.
    fn uniform(&mut self) -> f32 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}
