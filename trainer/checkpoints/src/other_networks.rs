//! Networks that are close to a ResNet and are none, or are of another family: told by their names and shapes.

use std::collections::HashMap;

use densecl_models::resnet::Architecture;

use crate::names::Naming;

/// A name or its ending, and the family that has it.
#[rustfmt::skip]
const FAMILIES: [(&str, &str); 19] = [
    ("conv1.0.weight", "a ResNet with a stem of three convolutions (ResNet-C, -D, -S and -T, such as timm's resnet18d and resnet50d)"),
    ("conv1.conv1.weight", "a ResNet with a stem of three convolutions"),
    ("stem.conv1_1.weight", "a ResNet with a stem of three convolutions"),
    ("stages.0.blocks.0.norm1.weight", "a ResNet of version 2 (pre-activation, such as timm's resnetv2_50) or another network of stages"),
    ("stem.conv.weight", "another network of timm or fvcore (such as RegNet)"),
    ("cls_token", "a vision transformer"),
    ("patch_embed.proj.weight", "a vision transformer"),
    ("patch_embeddings.projection.weight", "a vision transformer"),
    ("encoder.layers.encoder_layer_0.ln_1.weight", "a vision transformer"),
    ("transformer.resblocks.0.ln_1.weight", "a vision transformer"),
    ("conv_stem.weight", "an EfficientNet or MobileNet of timm"),
    ("features.0.weight", "a VGG network"),
    ("features.0.0.weight", "a MobileNet, EfficientNet or ConvNeXt of torchvision"),
    ("features.conv0.weight", "a DenseNet"),
    ("downsample_layers.0.0.weight", "a ConvNeXt"),
    ("stem.0.weight", "a ConvNeXt or a similar network of timm"),
    ("Conv2d_1a_3x3.conv.weight", "an Inception network"),
    ("layers.0.self_attn.q_proj.weight", "a language model"),
    ("model.0.conv.weight", "a YOLO network"),
];

/// The family of a network in which no ResNet was found.
pub(crate) fn family(names: &[&str]) -> Option<&'static str> {
    let has = |ending: &str| {
        names.iter().any(|name| name.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    };
    FAMILIES.iter().find(|(ending, _)| has(ending)).map(|&(_, family)| family)
}

/// Blocks of the four stages of networks that are not read.
const OTHER_DEPTHS: [([u64; 4], &str); 5] = [
    ([1, 1, 1, 1], "ResNet-10 or ResNet-14"),
    ([2, 2, 2, 2], "ResNet-26"),
    ([3, 8, 36, 3], "ResNet-152"),
    ([3, 24, 36, 3], "ResNet-200"),
    ([4, 29, 53, 4], "ResNet-270"),
];

/// The names below the backbone's prefix, without it, and their shapes.
pub(crate) struct Backbone<'a> {
    pub(crate) naming: Naming,
    pub(crate) tensors: HashMap<&'a str, &'a [u64]>,
}

impl Backbone<'_> {
    fn shape(&self, torchvision: &str) -> Option<&[u64]> {
        self.tensors.get(&*self.naming.rename(torchvision)).copied()
    }

    fn has_part(&self, part: &str) -> bool {
        self.tensors.keys().any(|name| name.contains(part))
    }

    fn depths(&self) -> [u64; 4] {
        [1, 2, 3, 4].map(|stage| {
            let exists = |block: &u64| self.shape(&format!("layer{stage}.{block}.conv1.weight")).is_some();
            (0..1000).take_while(exists).count() as u64
        })
    }

    /// The network that differs from a ResNet in this way.
    pub(crate) fn variant(&self) -> Option<String> {
        let stem = self.shape("conv1.weight")?;
        let of_bottleneck = self.shape("layer1.0.conv3.weight").is_some();
        let middle = self.shape("layer1.0.conv2.weight");
        let depths = self.depths();
        let known = Architecture::ALL.iter().any(|known| {
            known.depths().map(|depth| depth as u64) == depths && (known.expansion() > 1) == of_bottleneck
        });
        let text = if self.has_part(".se.") || self.has_part(".se_module.") {
            "a ResNet with squeeze-and-excitation (SE-ResNet)"
        } else if self.has_part(".downsample.2.") {
            "a ResNet-D, whose shortcuts average (such as timm's resnet50d)"
        } else if self.has_part(".filt") || self.has_part("maxpool.") || self.has_part(".aa.") {
            "an anti-aliased ResNet"
        } else if stem.get(2..) == Some(&[3, 3]) {
            "a ResNet for small images, whose stem has a kernel of 3x3"
        } else if self.shape("bn1.weight").is_some() && self.shape("bn1.running_mean").is_none() {
            "a ResNet with another normalisation than BatchNorm"
        } else if of_bottleneck && middle.is_some_and(|shape| shape.len() == 4 && shape[1] < shape[0]) {
            "a ResNeXt, whose convolutions are grouped"
        } else if of_bottleneck && middle.is_some_and(|shape| shape.first() > stem.first()) {
            "a Wide ResNet"
        } else if !known {
            let name = OTHER_DEPTHS.iter().find(|(of, _)| *of == depths).map_or("of no usual depth", |(_, name)| name);
            let [a, b, c, d] = depths;
            return Some(format!("a ResNet of {a}, {b}, {c} and {d} blocks ({name})"));
        } else {
            return None;
        };
        Some(text.to_owned())
    }
}
