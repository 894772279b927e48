//! Finds the network in a file of another tool: its position and the names of its parts.
//!
//! A ResNet is told by its stem: a name that ends in `conv1.weight` with the first block beside it.
//! The text before that is the prefix; each known prefix belongs to a layout.

use std::collections::BTreeMap;
use std::fmt;

use crate::file::CheckpointFile;
use crate::names::Naming;
use crate::pickle::{TensorId, Value};

/// Layout of a tool's checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointLayout {
    /// This project's weights: torchvision's names and the heads.
    Densecl,
    /// `state.safetensors` of a checkpoint of this project.
    DenseclState,
    /// The published DenseCL (OpenSelfSup) while it trains: `encoder_q.0.*`, `encoder_q.1.mlp*`.
    OpenSelfSup,
    /// MoCo v1 and v2: `encoder_q.*` with `fc`; others have the prefix, too.
    Moco,
    /// mmselfsup and mmpretrain: `backbone.*` and `neck.*`.
    Mmpretrain,
    /// PixPro, SlotCon: `encoder.*`.
    PixPro,
    /// Bare names: torchvision, timm, and the weights that DenseCL released.
    Torchvision,
    /// `stem.conv1`, `res2` to `res5`, `conv1.norm`.
    Detectron2,
    /// A prefix that no known tool uses, with one network in the file.
    Prefixed,
}

impl CheckpointLayout {
    /// Patterns of names that belong to the layout and not to the network: other encoders, queues,
    /// classifiers. They come after the wrapper.
    pub(crate) fn companions(self) -> &'static [&'static str] {
        match self {
            Self::Densecl | Self::Prefixed => &[],
            Self::DenseclState => &["query/*", "key/*", "queue/*", "queue_pointer/*", "velocity/*"],
            Self::OpenSelfSup => &["encoder_q.1.*", "encoder_k.*", "backbone.*", "queue*"],
            Self::Moco => {
                &["encoder_q.fc.*", "encoder_k.*", "queue*", "projector*", "predictor*", "grouping*", "center"]
            }
            Self::Mmpretrain => &["neck.*", "head.*", "encoder_q.*", "encoder_k.*", "queue*", "data_preprocessor.*"],
            Self::PixPro => &[
                "encoder.fc.*",
                "encoder_k.*",
                "projector*",
                "predictor*",
                "value_transform*",
                "grouping*",
                "center",
                "queue*",
            ],
            Self::Torchvision => &["fc.*"],
            Self::Detectron2 => &["stem.fc.*", "fc.*", "linear.*"],
        }
    }
}

impl fmt::Display for CheckpointLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Densecl => "densecl (weights)",
            Self::DenseclState => "densecl (a checkpoint's state)",
            Self::OpenSelfSup => "DenseCL while training (OpenSelfSup)",
            Self::Moco => "MoCo",
            Self::Mmpretrain => "mmselfsup, mmpretrain",
            Self::PixPro => "PixPro, SlotCon",
            Self::Torchvision => "torchvision (bare names)",
            Self::Detectron2 => "Detectron2",
            Self::Prefixed => "bare names behind a prefix",
        })
    }
}

/// Role of a network in a momentum method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The network that gradients train, or the only one.
    Query,
    /// The momentum encoder: taken only if the query encoder is not in the file.
    Key,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Query => "query encoder",
            Self::Key => "key encoder",
        })
    }
}

/// A prefix that tools use, and the prefixes of its heads.
struct Known {
    prefix: &'static str,
    layout: CheckpointLayout,
    role: Role,
    /// The global head, then the dense one; none where the tool has none of that form.
    heads: [Option<&'static str>; 2],
}

/// Query encoders before key encoders.
#[rustfmt::skip]
const KNOWN: [Known; 10] = [
    Known { prefix: "encoder_q.0.", layout: CheckpointLayout::OpenSelfSup, role: Role::Query, heads: [Some("encoder_q.1.mlp"), Some("encoder_q.1.mlp2")] },
    Known { prefix: "encoder_q.", layout: CheckpointLayout::Moco, role: Role::Query, heads: [Some("encoder_q.fc"), None] },
    Known { prefix: "query/backbone.", layout: CheckpointLayout::DenseclState, role: Role::Query, heads: [Some("query/global_head"), Some("query/dense_head")] },
    Known { prefix: "backbone.", layout: CheckpointLayout::Mmpretrain, role: Role::Query, heads: [Some("neck.mlp"), Some("neck.mlp2")] },
    Known { prefix: "encoder.", layout: CheckpointLayout::PixPro, role: Role::Query, heads: [None, None] },
    Known { prefix: "", layout: CheckpointLayout::Torchvision, role: Role::Query, heads: [Some("global_head"), Some("dense_head")] },
    Known { prefix: "encoder_k.0.", layout: CheckpointLayout::OpenSelfSup, role: Role::Key, heads: [Some("encoder_k.1.mlp"), Some("encoder_k.1.mlp2")] },
    Known { prefix: "encoder_k.module.0.", layout: CheckpointLayout::Mmpretrain, role: Role::Key, heads: [Some("encoder_k.module.1.mlp"), Some("encoder_k.module.1.mlp2")] },
    Known { prefix: "encoder_k.", layout: CheckpointLayout::Moco, role: Role::Key, heads: [Some("encoder_k.fc"), None] },
    Known { prefix: "key/backbone.", layout: CheckpointLayout::DenseclState, role: Role::Key, heads: [Some("key/global_head"), Some("key/dense_head")] },
];

/// Prefixes that data parallelism, compilation and trainers add to every name.
const WRAPPERS: [&str; 3] = ["module.", "_orig_mod.", "model."];

/// Keys under which tools put the weights, the likeliest first. Of a student and its teacher neither
/// comes first: which of the two is wanted, the file does not say.
const STATE_KEYS: [&str; 7] = ["state_dict", "model", "model_state_dict", "model_state", "net", "student", "teacher"];

/// A network's location in a file.
#[derive(Clone, Debug)]
pub(crate) struct NetworkLocation<'a> {
    pub(crate) layout: CheckpointLayout,
    pub(crate) role: Role,
    pub(crate) naming: Naming,
    /// Key of the root under which the names are; empty where they are at the root.
    pub(crate) key: &'a str,
    /// Prefix of all names of the dictionary.
    pub(crate) wrapper: String,
    /// Prefix of the backbone's names, the wrapper included.
    pub(crate) prefix: String,
    /// Prefixes of the global and the dense head.
    pub(crate) heads: [Option<String>; 2],
    pub(crate) entries: Entries<'a>,
}

/// The dictionary of weights.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entries<'a> {
    pub(crate) tensors: BTreeMap<&'a str, TensorId>,
    /// Keys of what is no tensor.
    pub(crate) others: Vec<String>,
}

/// A file in which no network is found.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// No names of a ResNet.
    #[error(
        "no ResNet with torchvision's or Detectron2's names is in the file (`conv1.weight` and `layer1.0.conv1.weight`, or \
         `stem.conv1.weight` and `res2.0.conv1.weight`, behind any prefix); at its root there are: {0}"
    )]
    NotFound(String),
    /// Several, and no way to tell which is meant.
    #[error("the file holds several networks, and which is meant is not known: {0}. Save the one that is wanted alone")]
    Ambiguous(String),
}

/// Finds the network of a file.
pub(crate) fn find(file: &CheckpointFile) -> Result<NetworkLocation<'_>, LayoutError> {
    let root = Entries::from_value(file, file.root());
    if let Some(location) = find_in(file, "", root)? {
        return Ok(location);
    }
    let mut locations = Vec::new();
    for key in STATE_KEYS {
        if let Some(value) = value_of(file, key)
            && let Some(location) = find_in(file, key, Entries::from_value(file, value))?
        {
            locations.push(location);
        }
    }
    let both = |key| locations.iter().any(|location| location.key == key);
    if both("student") && both("teacher") && locations.len() == 2 {
        return Err(LayoutError::Ambiguous("`student` and `teacher`".to_owned()));
    }
    locations.into_iter().next().ok_or_else(|| LayoutError::NotFound(some_keys(file)))
}

/// The first keys of the root, for messages.
fn some_keys(file: &CheckpointFile) -> String {
    const SHOWN: usize = 8;
    let keys = file.keys();
    match keys.len() {
        0 => "no named values".to_owned(),
        len if len > SHOWN => format!("{}, … ({len} names)", keys[..SHOWN].join(", ")),
        _ => keys.join(", "),
    }
}

fn value_of(file: &CheckpointFile, key: &str) -> Option<Value> {
    let entries = file.graph().entries(file.root())?;
    // In Python the last value of a repeated key holds.
    entries.iter().rev().find(|(found, _)| file.graph().text(*found) == Some(key)).map(|&(_, value)| value)
}

fn find_in<'a>(
    file: &'a CheckpointFile,
    key: &'a str,
    entries: Entries<'a>,
) -> Result<Option<NetworkLocation<'a>>, LayoutError> {
    let networks = entries.networks();
    let known = |known: &'static Known| {
        let found = networks
            .iter()
            .find(|(prefix, naming)| *naming == Naming::Torchvision && unwrapped(prefix) == known.prefix)?;
        Some((known, &found.0))
    };
    if let Some((known, prefix)) = KNOWN.iter().find_map(known) {
        let wrapper = &prefix[..prefix.len() - known.prefix.len()];
        let is_ours = file.metadata().contains_key(crate::write::METHOD_KEY)
            || [known.heads[0], known.heads[1]].iter().flatten().any(|head| {
                known.prefix.is_empty() && entries.tensors.contains_key(format!("{wrapper}{head}.0.weight").as_str())
            });
        let layout = if known.layout == CheckpointLayout::Torchvision && is_ours {
            CheckpointLayout::Densecl
        } else {
            known.layout
        };
        return Ok(Some(NetworkLocation {
            layout,
            role: known.role,
            naming: Naming::Torchvision,
            key,
            wrapper: wrapper.to_owned(),
            prefix: prefix.clone(),
            heads: known.heads.map(|head| head.map(|head| format!("{wrapper}{head}"))),
            entries,
        }));
    }
    let [(prefix, naming)] = networks.as_slice() else {
        let prefixes: Vec<_> = networks.iter().map(|(prefix, _)| format!("`{prefix}`")).collect();
        return if prefixes.is_empty() { Ok(None) } else { Err(LayoutError::Ambiguous(prefixes.join(", "))) };
    };
    let layout = if *naming == Naming::Detectron2 { CheckpointLayout::Detectron2 } else { CheckpointLayout::Prefixed };
    let (naming, prefix) = (*naming, prefix.clone());
    let wrapper = prefix.clone();
    Ok(Some(NetworkLocation { layout, role: Role::Query, naming, key, wrapper, prefix, heads: [None, None], entries }))
}

/// A prefix without what stands before every name.
fn unwrapped(mut prefix: &str) -> &str {
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| prefix.strip_prefix(wrapper)) {
        prefix = rest;
    }
    prefix
}

impl<'a> Entries<'a> {
    fn from_value(file: &'a CheckpointFile, value: Value) -> Self {
        let mut entries = Self::default();
        for &(key, value) in file.graph().entries(value).unwrap_or_default() {
            match (file.graph().text(key), value) {
                (Some(name), Value::Tensor(id)) => drop(entries.tensors.insert(name, id)),
                _ => entries.others.push(file.key_text(key)),
            }
        }
        entries
    }

    /// Prefixes of all ResNets, and whose names they have.
    fn networks(&self) -> Vec<(String, Naming)> {
        let mut networks = Vec::new();
        for naming in Naming::ALL {
            let (stem, block) = (naming.rename("conv1.weight"), naming.rename("layer1.0.conv1.weight"));
            for name in self.tensors.keys() {
                if let Some(prefix) = name.strip_suffix(&stem)
                    && (prefix.is_empty() || prefix.ends_with('.'))
                    && self.tensors.contains_key(format!("{prefix}{block}").as_str())
                {
                    networks.push((prefix.to_owned(), naming));
                }
            }
        }
        networks
    }
}
