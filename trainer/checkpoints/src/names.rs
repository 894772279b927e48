//! Names and shapes of the tensors of a ResNet.

use densecl_models::resnet::Architecture;

/// Naming of the backbone's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// `layer1.0.conv1.weight`, `layer1.0.bn1.bias`
    Torchvision,
    /// `res2.0.conv1.weight`, `res2.0.conv1.norm.bias`
    Detectron2,
    /// Hugging Face's: `encoder.stages.0.layers.0.layer.0.convolution.weight`
    Transformers,
}

/// A tensor that the network needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Needed {
    /// torchvision's name.
    pub(crate) name: String,
    pub(crate) shape: Vec<u64>,
}

/// Parts of a BatchNorm.
const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// The tensors of a backbone whose stem has `width` channels.
pub(crate) fn backbone(architecture: Architecture, width: u64) -> Vec<Needed> {
    let mut needed = Vec::new();
    let mut conv = |conv: String, norm: String, [output, input, kernel]: [u64; 3]| {
        needed.push(Needed { name: format!("{conv}.weight"), shape: vec![output, input, kernel, kernel] });
        needed.extend(NORM.map(|part| Needed { name: format!("{norm}.{part}"), shape: vec![output] }));
    };
    conv("conv1".into(), "bn1".into(), [width, 3, 7]);
    let mut input = width;
    for (stage, depth) in architecture.depths().into_iter().enumerate() {
        // A width that no network has overflows nothing: shapes are only compared.
        let middle = width.saturating_mul(1 << stage);
        let output = middle.saturating_mul(architecture.expansion() as u64);
        for block in 0..depth {
            let name = format!("layer{}.{block}", stage + 1);
            let shapes = if architecture.expansion() == 1 {
                vec![[middle, input, 3], [middle, middle, 3]]
            } else {
                vec![[middle, input, 1], [middle, middle, 3], [output, middle, 1]]
            };
            for (i, shape) in (1..).zip(shapes) {
                conv(format!("{name}.conv{i}"), format!("{name}.bn{i}"), shape);
            }
            if block == 0 && (stage > 0 || input != output) {
                conv(format!("{name}.downsample.0"), format!("{name}.downsample.1"), [output, input, 1]);
            }
            input = output;
        }
    }
    needed
}

impl Naming {
    /// All namings.
    pub(crate) const ALL: [Self; 3] = [Self::Torchvision, Self::Detectron2, Self::Transformers];

    /// This naming's name for the tensor that torchvision calls `name`.
    pub(crate) fn rename(self, name: &str) -> String {
        match self {
            Self::Torchvision => name.to_owned(),
            Self::Detectron2 => detectron2(name),
            Self::Transformers => transformers(name),
        }
    }

    /// Returns whether a name, without the prefix of all names, is one of a part of the backbone, in which nothing is set
    /// aside: what stands there changes the features. Anything else is a head or a companion.
    pub(crate) fn is_in_backbone(self, name: &str) -> bool {
        let module = name.split('.').next().unwrap_or_default();
        match self {
            Self::Torchvision => {
                let kind = module.trim_end_matches(|letter: char| letter.is_ascii_digit());
                ["conv", "bn", "norm", "gn", "layer", "stem", "stages", "maxpool"].contains(&kind)
            }
            // `fc` becomes `stem.fc` in Detectron2's own converter.
            Self::Detectron2 => module.starts_with("res") || module == "stem" && !name.starts_with("stem.fc."),
            Self::Transformers => matches!(module, "embedder" | "encoder"),
        }
    }
}

fn detectron2(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let conv_of = |norm: &str| norm.replace("bn", "conv") + ".norm";
    let stage = |layer: &str| format!("res{}", stage_number(layer) + 1);
    match parts[..] {
        ["conv1", part] => format!("stem.conv1.{part}"),
        [norm, part] => format!("stem.{}.{part}", conv_of(norm)),
        [layer, block, "downsample", conv, part] => {
            let shortcut = if conv == "0" { "shortcut" } else { "shortcut.norm" };
            format!("{}.{block}.{shortcut}.{part}", stage(layer))
        }
        [layer, block, norm, part] if norm.starts_with("bn") => {
            format!("{}.{block}.{}.{part}", stage(layer), conv_of(norm))
        }
        [layer, ref rest @ ..] => format!("{}.{}", stage(layer), rest.join(".")),
        [] => String::new(),
    }
}

fn transformers(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let kind = |is_conv: bool| if is_conv { "convolution" } else { "normalization" };
    match parts[..] {
        [module, part] => format!("embedder.embedder.{}.{part}", kind(module == "conv1")),
        [layer, block, "downsample", number, part] => {
            let stage = stage_number(layer).saturating_sub(1);
            format!("encoder.stages.{stage}.layers.{block}.shortcut.{}.{part}", kind(number == "0"))
        }
        [layer, block, module, part] => {
            let stage = stage_number(layer).saturating_sub(1);
            let number = module.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse::<u32>();
            let number = number.unwrap_or_default().saturating_sub(1);
            format!("encoder.stages.{stage}.layers.{block}.layer.{number}.{}.{part}", kind(module.starts_with("conv")))
        }
        _ => name.to_owned(),
    }
}

/// `layer1` → 1
fn stage_number(layer: &str) -> u32 {
    layer.trim_start_matches("layer").parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detectron2_names() {
        for (torchvision, detectron2) in [
            ("conv1.weight", "stem.conv1.weight"),
            ("bn1.running_var", "stem.conv1.norm.running_var"),
            ("layer1.0.conv1.weight", "res2.0.conv1.weight"),
            ("layer4.2.bn3.bias", "res5.2.conv3.norm.bias"),
            ("layer2.0.downsample.0.weight", "res3.0.shortcut.weight"),
            ("layer2.0.downsample.1.running_mean", "res3.0.shortcut.norm.running_mean"),
        ] {
            assert_eq!(Naming::Detectron2.rename(torchvision), detectron2);
            assert_eq!(Naming::Torchvision.rename(torchvision), torchvision);
        }
    }

    #[test]
    fn transformers_names() {
        for (torchvision, transformers) in [
            ("conv1.weight", "embedder.embedder.convolution.weight"),
            ("bn1.running_var", "embedder.embedder.normalization.running_var"),
            ("layer1.0.conv1.weight", "encoder.stages.0.layers.0.layer.0.convolution.weight"),
            ("layer4.2.bn3.bias", "encoder.stages.3.layers.2.layer.2.normalization.bias"),
            ("layer2.0.downsample.0.weight", "encoder.stages.1.layers.0.shortcut.convolution.weight"),
            ("layer2.0.downsample.1.running_mean", "encoder.stages.1.layers.0.shortcut.normalization.running_mean"),
        ] {
            assert_eq!(Naming::Transformers.rename(torchvision), transformers);
        }
    }

    #[test]
    fn heads_are_told_from_parts_of_the_backbone() {
        for (naming, backbone, head) in [
            (Naming::Torchvision, "layer1.0.se.fc1.weight", "fc.weight"),
            (Naming::Torchvision, "layer5.0.conv1.weight", "projection_head.0.weight"),
            (Naming::Torchvision, "bn2.weight", "layers.0.weight"),
            (Naming::Torchvision, "maxpool.1.filt", "global_pool.p"),
            (Naming::Detectron2, "res6.0.conv1.weight", "stem.fc.weight"),
            (Naming::Transformers, "encoder.stages.4.layers.0.x", "classifier.1.weight"),
        ] {
            assert!(naming.is_in_backbone(backbone), "{backbone}");
            assert!(!naming.is_in_backbone(head), "{head}");
        }
    }

    #[test]
    fn counts_are_torchvision_s() {
        // Parameters and running statistics of torchvision's networks, without `fc` and counters.
        let counts = Architecture::ALL.map(|architecture| backbone(architecture, 64).len());
        assert_eq!(counts, [100, 180, 265, 520]);
        let values = |a| backbone(a, 64).iter().map(|n| n.shape.iter().product::<u64>()).sum::<u64>();
        assert_eq!(values(Architecture::ResNet18), 11_186_112);
        assert_eq!(values(Architecture::ResNet50), 23_561_152);
    }
}
