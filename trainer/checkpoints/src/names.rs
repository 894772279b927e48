//! Names and shapes of the tensors of a ResNet.

use densecl_models::resnet::Architecture;

/// Naming of the backbone's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// `layer1.0.conv1.weight`, `layer1.0.bn1.bias`
    Torchvision,
    /// `res2.0.conv1.weight`, `res2.0.conv1.norm.bias`
    Detectron2,
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
    pub(crate) const ALL: [Self; 2] = [Self::Torchvision, Self::Detectron2];

    /// This naming's name for the tensor that torchvision calls `name`.
    pub(crate) fn rename(self, name: &str) -> String {
        if self == Self::Torchvision {
            return name.to_owned();
        }
        let parts: Vec<&str> = name.split('.').collect();
        let conv_of = |norm: &str| norm.replace("bn", "conv") + ".norm";
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
}

/// `layer1` → `res2`
fn stage(layer: &str) -> String {
    let number = layer.trim_start_matches("layer").parse::<u32>().unwrap_or_default();
    format!("res{}", number + 1)
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
    fn counts_are_torchvision_s() {
        // Parameters and running statistics of torchvision's networks, without `fc` and counters.
        let counts = Architecture::ALL.map(|architecture| backbone(architecture, 64).len());
        assert_eq!(counts, [100, 180, 265, 520]);
        let values = |a| backbone(a, 64).iter().map(|n| n.shape.iter().product::<u64>()).sum::<u64>();
        assert_eq!(values(Architecture::ResNet18), 11_186_112);
        assert_eq!(values(Architecture::ResNet50), 23_561_152);
    }
}
