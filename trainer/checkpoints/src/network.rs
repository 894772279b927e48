//! The network of a file: what of it is taken, what is left aside, what is wrong.

use std::collections::{BTreeMap, HashSet};

use densecl_models::graph::Weight;
use densecl_models::resnet::{Architecture, Weights};

use crate::allow::Allow;
use crate::archive::ArchiveError;
use crate::dtype::DType;
use crate::file::CheckpointFile;
use crate::layout::{self, CheckpointLayout, LayoutError, NetworkLocation, Role};
use crate::names::{Needed, backbone};
use crate::other_networks::Backbone;
use crate::pickle::TensorId;
use crate::problems::Problems;
use crate::tensor_data::TensorDataError;

/// Layers of a head that have weights.
const HEAD_LAYERS: [&str; 2] = ["0", "2"];
/// The heads' names here, in the order of [`NetworkLocation::heads`].
const HEADS: [&str; 2] = ["global_head", "dense_head"];
/// A counter of BatchNorm that no prediction depends on.
const COUNTER: &str = ".num_batches_tracked";
/// Bytes of weights that a file may become beyond four times its own length (float16 becomes
/// float32, and tensors may share their data).
const MAX_EXTRA_BYTES: u64 = 16 << 20;

/// A ResNet that was found in a file; its weights are not read yet.
#[derive(Debug)]
pub struct Network<'a> {
    file: &'a CheckpointFile,
    /// Layout of the file.
    pub layout: CheckpointLayout,
    /// Role of the network in the momentum method.
    pub role: Role,
    /// Key of the file's root that holds the network, and the prefix of its names.
    pub origin: String,
    /// The architecture whose names fit best.
    pub architecture: Architecture,
    /// Channels of the stem.
    pub stem_width: u64,
    /// Missing, unexpected and mismatched tensors.
    pub problems: Problems,
    /// Names in the file that are not read: heads, other encoders, what is no tensor.
    pub left_aside: Vec<String>,
    /// Names of the file's other networks, by which [`Network::find_called`] takes them.
    pub others: Vec<OtherNetwork>,
    /// The network that this may be where it is no whole ResNet, such as `a ResNeXt, …`.
    pub looks_like: Option<String>,
    /// Prefix of the backbone's names.
    prefix: String,
    taken: Vec<Taken>,
}

/// A network of a file that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherNetwork {
    /// Its name.
    pub name: String,
    /// `true` if its weights are averages of trained ones (EMA).
    pub is_averaged: bool,
}

/// A tensor that becomes a weight.
#[derive(Debug)]
struct Taken {
    /// The name here.
    name: String,
    /// The name in the file.
    source: String,
    tensor: TensorId,
    shape: Vec<u64>,
}

/// Weights that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Names are missing, unexpected or of another shape, and were not allowed.
    #[error(
        "the file's network is not a whole {architecture}{}: {problems}",
        looks_like.as_ref().map_or_else(String::new, |network| format!(", but {network}, which is not read"))
    )]
    Problems {
        /// The architecture that fits best.
        architecture: Architecture,
        /// The network that it may be instead.
        looks_like: Option<String>,
        /// All of them.
        problems: Problems,
    },
    /// Its tensors share stored data so often that they would take much more memory than the file.
    #[error("the weights would take {needed} bytes, which a file of {len} bytes cannot hold")]
    TooLarge {
        /// Bytes of the weights.
        needed: u64,
        /// Bytes of the file.
        len: u64,
    },
    /// The archive's checksums say that the data are damaged.
    #[error(transparent)]
    Damaged(#[from] ArchiveError),
    /// A tensor's data cannot be read.
    #[error("`{name}` cannot be read")]
    Data {
        /// Its name in the file.
        name: String,
        /// Why.
        source: TensorDataError,
    },
}

impl<'a> Network<'a> {
    /// Finds the network of a file: the query encoder before the key encoder, trained weights before their averages.
    ///
    /// # Errors
    /// If there is no ResNet in it, or several and no way to tell which is meant.
    pub fn find(file: &'a CheckpointFile) -> Result<Self, LayoutError> {
        Self::find_in(file, None)
    }

    /// Finds the network with this name: `ema` for averaged weights, the key or the prefix under which it is, a part of
    /// either such as `teacher` or `encoder_k`, or both with a colon between them.
    ///
    /// # Errors
    /// If there is none of this name, or several and no way to tell which is meant.
    pub fn find_called(file: &'a CheckpointFile, name: &str) -> Result<Self, LayoutError> {
        Self::find_in(file, Some(name))
    }

    fn find_in(file: &'a CheckpointFile, name: Option<&str>) -> Result<Self, LayoutError> {
        let location = layout::find(file, name)?;
        let stem = location.prefix.clone() + &location.naming.rename("conv1.weight");
        let stem_width = shape_of(file, &location, &stem).and_then(|shape| shape.first().copied()).unwrap_or_default();
        let architecture = best_architecture(&location, stem_width);
        let mut found = Found::new(file, &location);
        for needed in backbone(architecture, stem_width) {
            let source = location.prefix.clone() + &location.naming.rename(&needed.name);
            found.take(needed, source);
        }
        let width = architecture.channels(3, stem_width as usize) as u64;
        for (head, prefix) in HEADS.iter().zip(&location.heads) {
            if let Some(prefix) = prefix {
                found.take_head(head, prefix, width);
            }
        }
        let (left_aside, unexpected) = found.rest();
        let looks_like = if found.problems.is_empty() && unexpected.is_empty() { None } else { found.variant() };
        let Found { taken, mut problems, .. } = found;
        problems.unexpected = unexpected;
        let others = location.others.iter().cloned();
        let others = others.map(|(name, is_averaged)| OtherNetwork { name, is_averaged }).collect();
        let key = if location.key.is_empty() { String::new() } else { format!("{}: ", location.key) };
        Ok(Self {
            file,
            layout: location.layout,
            role: location.role,
            origin: format!("{key}{}*", location.prefix),
            architecture,
            stem_width,
            problems,
            left_aside,
            others,
            looks_like,
            prefix: location.prefix.clone(),
            taken,
        })
    }

    /// The names that are left aside, by their first part, with the number of each: `projection_head.* (4)`.
    pub fn left_aside_summary(&self) -> String {
        const SHOWN: usize = 12;
        let mut groups: BTreeMap<String, usize> = BTreeMap::new();
        for name in &self.left_aside {
            *groups.entry(group_of(name, &self.prefix)).or_default() += 1;
        }
        let text = |(group, count): (&String, &usize)| match count {
            1 => group.clone(),
            count => format!("{group} ({count})"),
        };
        let shown: Vec<_> = groups.iter().take(SHOWN).map(text).collect();
        let more = groups.len().saturating_sub(SHOWN);
        let more = if more == 0 { String::new() } else { format!(", … ({more} more)") };
        format!("{}{more}", shown.join(", "))
    }

    /// Training method, as far as the layout tells it: `densecl`, `moco-v2`, `moco-v1`, or
    /// `unknown`.
    pub fn method(&self) -> &str {
        if let Some(method) = self.file.metadata().get(crate::write::METHOD_KEY) {
            return method;
        }
        let has = |head: &str| self.taken.iter().any(|taken| taken.name.starts_with(head));
        match self.layout {
            _ if has(HEADS[1]) => "densecl",
            CheckpointLayout::Moco
            | CheckpointLayout::OpenSelfSup
            | CheckpointLayout::Mmpretrain
            | CheckpointLayout::DenseclState
                if has(HEADS[0]) =>
            {
                "moco-v2"
            }
            CheckpointLayout::Moco if self.left_aside.iter().any(|name| name.ends_with("encoder_q.fc.weight")) => {
                "moco-v1"
            }
            _ => "unknown",
        }
    }

    /// Names of the weights that are taken: here, and in the file.
    pub fn taken(&self) -> impl Iterator<Item = (&str, &str)> {
        self.taken.iter().map(|taken| (taken.name.as_str(), taken.source.as_str()))
    }

    /// Reads the weights: the backbone under torchvision's names, `global_head.{0,2}` and
    /// `dense_head.{0,2}` as far as the file has them.
    ///
    /// # Errors
    /// If names are missing, unexpected or of another shape, and not allowed; if the data cannot be
    /// read.
    pub fn weights(&self, allow: &Allow) -> Result<Weights, WeightsError> {
        let problems = self.problems.without(allow);
        if !problems.is_empty() {
            let (architecture, looks_like) = (self.architecture, self.looks_like.clone());
            return Err(WeightsError::Problems { architecture, looks_like, problems });
        }
        let bytes = |taken: &Taken| taken.shape.iter().fold(4, |bytes: u64, &length| bytes.saturating_mul(length));
        let needed = self.taken.iter().map(bytes).fold(0, u64::saturating_add);
        let len = self.file.len();
        if needed > len.saturating_mul(4).saturating_add(MAX_EXTRA_BYTES) {
            return Err(WeightsError::TooLarge { needed, len });
        }
        self.file.verify(self.taken.iter().map(|taken| taken.tensor))?;
        let mut weights = Weights::new();
        for Taken { name, source, tensor, shape } in &self.taken {
            let failed = |error| WeightsError::Data { name: source.clone(), source: error };
            let dims = shape.iter().map(|&length| length as usize).collect();
            weights.insert(name.clone(), Weight { dims, data: self.file.read_f32(*tensor).map_err(failed)? });
        }
        Ok(weights)
    }
}

/// The architecture whose names differ least from the file's.
fn best_architecture(location: &NetworkLocation<'_>, stem_width: u64) -> Architecture {
    let below = |name: &&&str| name.starts_with(&location.prefix) && !name.ends_with(COUNTER);
    let present: HashSet<&str> = location.entries.tensors.keys().filter(below).copied().collect();
    let differences = |architecture: &Architecture| {
        let needed = backbone(*architecture, stem_width);
        let name = |needed: &Needed| location.prefix.clone() + &location.naming.rename(&needed.name);
        let common = needed.iter().filter(|needed| present.contains(name(needed).as_str())).count();
        needed.len() + present.len() - 2 * common
    };
    Architecture::ALL.into_iter().min_by_key(differences).unwrap_or(Architecture::ResNet50)
}

fn shape_of<'a>(file: &'a CheckpointFile, location: &NetworkLocation<'_>, name: &str) -> Option<&'a [u64]> {
    file.tensor_type(*location.entries.tensors.get(name)?).map(|(_, shape)| shape)
}

/// Tensors that were looked up so far.
struct Found<'a> {
    file: &'a CheckpointFile,
    location: &'a NetworkLocation<'a>,
    taken: Vec<Taken>,
    problems: Problems,
    /// Names that were taken or found wrong.
    seen: HashSet<String>,
}

impl<'a> Found<'a> {
    fn new(file: &'a CheckpointFile, location: &'a NetworkLocation<'a>) -> Self {
        Self { file, location, taken: Vec::new(), problems: Problems::default(), seen: HashSet::new() }
    }

    /// Takes the tensor called `source` in the file, or says what is wrong with it.
    fn take(&mut self, needed: Needed, source: String) {
        let Some(&tensor) = self.location.entries.tensors.get(source.as_str()) else {
            self.problems.missing.push(source);
            return;
        };
        self.seen.insert(source.clone());
        let Needed { name, shape } = needed;
        match self.file.tensor_type(tensor) {
            Some((dtype, found)) if found == shape && dtype.is_float() => {
                self.taken.push(Taken { name, source, tensor, shape });
            }
            Some((dtype, found)) => {
                self.problems.mismatched.push((source, difference(dtype, found, &shape)));
            }
            None => self.problems.mismatched.push((source, "an array that was never completed".to_owned())),
        }
    }

    /// Takes a head of two layers if the file has one at `prefix`. A head of another form is left aside, but in this
    /// project's own files it is an error.
    fn take_head(&mut self, head: &str, prefix: &str, channels: u64) {
        let shape = |layer: &str| shape_of(self.file, self.location, &format!("{prefix}.{layer}.weight"));
        let [first, second] = HEAD_LAYERS.map(shape);
        if first.is_none() && second.is_none() {
            return;
        }
        // Hidden and output length are the head's own; where a layer is missing they do not matter.
        let length = |shape: Option<&[u64]>| shape.and_then(|shape| shape.first().copied()).unwrap_or(channels);
        let (hidden, output) = (length(first), length(second));
        let is_dense = head == HEADS[1];
        let mut needed = Vec::new();
        for (layer, rows, columns, found) in [("0", hidden, channels, first), ("2", output, hidden, second)] {
            // A 1×1 convolution may be stored as the matrix that it is.
            let as_conv = if found.is_some_and(|shape| shape.len() == 2) { vec![] } else { vec![1, 1] };
            let tail = if is_dense { as_conv } else { vec![] };
            let shape = [vec![rows, columns], tail].concat();
            needed.push((Needed { name: format!("{head}.{layer}.weight"), shape }, format!("{prefix}.{layer}.weight")));
            let bias = Needed { name: format!("{head}.{layer}.bias"), shape: vec![rows] };
            needed.push((bias, format!("{prefix}.{layer}.bias")));
        }
        let is_ours = matches!(self.location.layout, CheckpointLayout::Densecl | CheckpointLayout::DenseclState);
        if !is_ours && !self.is_whole_head(&needed, prefix) {
            return;
        }
        for (needed, source) in needed {
            self.take(needed, source);
        }
        if is_dense {
            for taken in self.taken.iter_mut().filter(|taken| taken.name.starts_with(head) && taken.shape.len() == 2) {
                taken.shape.extend([1, 1]);
            }
        }
    }

    /// Returns whether a head has all of these tensors and no others.
    fn is_whole_head(&self, needed: &[(Needed, String)], prefix: &str) -> bool {
        let is_there = |(needed, source): &(Needed, String)| {
            shape_of(self.file, self.location, source).is_some_and(|shape| *shape == *needed.shape)
        };
        let below = format!("{prefix}.");
        let count = self.location.entries.tensors.keys().filter(|name| name.starts_with(&below)).count();
        count == needed.len() && needed.iter().all(is_there)
    }

    /// Names that were not looked up: what may be left aside, and what stands inside the backbone.
    fn rest(&self) -> (Vec<String>, Vec<String>) {
        let entries = &self.location.entries;
        let unused = entries.tensors.keys().filter(|name| !self.seen.contains(**name));
        let (unexpected, aside): (Vec<String>, Vec<String>) =
            unused.map(|&name| name.to_owned()).partition(|name| self.is_in_backbone(name));
        let mut aside: Vec<_> = aside.into_iter().chain(entries.others.iter().cloned()).collect();
        let key = self.location.key.split('.').next().unwrap_or_default();
        let beside = self.file.keys().into_iter().filter(|found| *found != key && !key.is_empty());
        aside.extend(beside.map(str::to_owned));
        (aside, unexpected)
    }

    fn is_in_backbone(&self, name: &str) -> bool {
        let inner = name.strip_prefix(&self.location.prefix);
        inner.is_some_and(|inner| !inner.ends_with(COUNTER) && self.location.naming.is_in_backbone(inner))
    }

    /// The network that the backbone may be where it is no ResNet that is read.
    fn variant(&self) -> Option<String> {
        let prefix = &self.location.prefix;
        let below = self.location.entries.tensors.iter().filter_map(|(name, &tensor)| {
            let (_, shape) = self.file.tensor_type(tensor)?;
            Some((name.strip_prefix(prefix.as_str())?, shape))
        });
        Backbone { naming: self.location.naming, tensors: below.collect() }.variant()
    }
}

/// The first part of a name that is left aside, behind the backbone's prefix or what stands before every name.
fn group_of(name: &str, prefix: &str) -> String {
    if name.ends_with(COUNTER) {
        return format!("*{COUNTER}");
    }
    let inner = name.strip_prefix(prefix).unwrap_or_else(|| crate::weight_sets::unwrapped(name));
    let wrapper = &name[..name.len() - inner.len()];
    match inner.find(['.', '/']) {
        Some(end) => format!("{wrapper}{}.*", &inner[..end]),
        None => name.to_owned(),
    }
}

fn difference(dtype: DType, found: &[u64], expected: &[u64]) -> String {
    let kind = if dtype.is_float() { String::new() } else { format!("{dtype} ") };
    format!("{kind}{found:?}, expected {expected:?}")
}
