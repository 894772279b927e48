//! Finds the network in a file of another tool: its position and the names of its parts.
//!
//! A ResNet is told by its stem: a name that ends in `conv1.weight` with the first block beside it.
//! The text before that is the prefix; each known prefix belongs to a layout.

use std::fmt;
use std::rc::Rc;

use crate::entries::Entries;
use crate::file::CheckpointFile;
use crate::names::Naming;
use crate::other_networks;
use crate::pickle::Value;
use crate::weight_sets::{self, WeightSet};

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
    /// Hugging Face's ResNet: `embedder.embedder`, `encoder.stages`.
    Transformers,
    /// A prefix that no known tool uses, with one network in the file.
    Prefixed,
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
            Self::Transformers => "Hugging Face transformers",
            Self::Prefixed => "bare names behind a prefix",
        })
    }
}

/// Role of a network in a momentum method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The network that gradients train, or the only one.
    Query,
    /// The momentum encoder: taken only if the query encoder is not in the file, or if it is chosen.
    Key,
    /// An average of the trained weights: taken only if those are not in the file, or if it is chosen.
    Averaged,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Query => "query encoder",
            Self::Key => "key encoder",
            Self::Averaged => "averaged weights (EMA)",
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

/// A network's location in a file.
#[derive(Clone, Debug)]
pub(crate) struct NetworkLocation<'a> {
    pub(crate) layout: CheckpointLayout,
    pub(crate) role: Role,
    pub(crate) naming: Naming,
    /// Keys to the dictionary of the names, joined by `.`; empty where they are at the root.
    pub(crate) key: String,
    /// Prefix of the backbone's names, the wrapper included.
    pub(crate) prefix: String,
    /// Prefixes of the global and the dense head.
    pub(crate) heads: [Option<String>; 2],
    pub(crate) entries: Rc<Entries<'a>>,
    /// Names of the file's other networks, each with `true` if it is averaged.
    pub(crate) others: Vec<(String, bool)>,
}

/// A file in which no network is found.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// No names of a ResNet.
    #[error(
        "no ResNet with torchvision's, Detectron2's or Hugging Face's names is in the file (`conv1.weight` and \
         `layer1.0.conv1.weight`, or `stem.conv1.weight` and `res2.0.conv1.weight`, behind any prefix){}; it holds: {keys}",
        family.map_or_else(String::new, |family| format!("; by its names this is {family}, which is not read"))
    )]
    NotFound {
        /// The first names of the file.
        keys: String,
        /// The family of networks that the names are of.
        family: Option<&'static str>,
    },
    /// Several, and no way to tell which is meant.
    #[error("the file holds several networks, and which is meant is not known: {}", quoted(.0))]
    Ambiguous(Vec<String>),
    /// None of the file's networks has the name that was asked for.
    #[error("the file holds no network `{wanted}`; it holds {}", quoted(.found))]
    NotCalled {
        /// The name.
        wanted: String,
        /// Names of the networks that are there.
        found: Vec<String>,
    },
}

fn quoted(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, … ({} in all)", names.len()) } else { shown }
}

/// Finds the network of a file, or of several the one with the name `wanted`.
pub(crate) fn find<'a>(file: &'a CheckpointFile, wanted: Option<&str>) -> Result<NetworkLocation<'a>, LayoutError> {
    let all = weight_sets::find_all(file);
    if all.is_empty() {
        let tensors = file.tensors();
        let names: Vec<_> = tensors.iter().map(|tensor| tensor.path.as_str()).collect();
        let family = other_networks::family(&names);
        return Err(LayoutError::NotFound { keys: some_keys(file), family });
    }
    let names = |sets: &[WeightSet<'_>]| sets.iter().map(WeightSet::name).collect();
    let called: Vec<_> = all.iter().filter(|set| wanted.is_none_or(|name| set.is_called(name))).cloned().collect();
    if let (Some(wanted), true) = (wanted, called.is_empty()) {
        return Err(LayoutError::NotCalled { wanted: wanted.to_owned(), found: names(&all) });
    }
    let likeliest = weight_sets::likeliest(&called);
    let (set, known) = match known(&likeliest) {
        Some((set, known)) => (set, Some(known)),
        None => match likeliest.as_slice() {
            [set] => (set, None),
            several => return Err(LayoutError::Ambiguous(names(several))),
        },
    };
    // Which of a student and its teacher is wanted, the file does not say.
    let teacher = all.iter().find(|set| set.has_word("teacher"));
    if let (None, true, Some(teacher)) = (wanted, set.has_word("student"), teacher) {
        return Err(LayoutError::Ambiguous(vec![set.name(), teacher.name()]));
    }
    let others = all.iter().filter(|other| (&other.key, &other.prefix) != (&set.key, &set.prefix));
    let others = others.map(|other| (other.name(), other.is_averaged())).collect();
    Ok(location(file, set, known, others))
}

/// The first of the prefixes that tools use.
fn known<'s, 'a>(sets: &'s [WeightSet<'a>]) -> Option<(&'s WeightSet<'a>, &'static Known)> {
    let of_prefix = |known: &'static Known| {
        let is_there = |set: &&WeightSet<'_>| {
            set.naming == Naming::Torchvision && weight_sets::unwrapped(&set.prefix) == known.prefix
        };
        Some((sets.iter().find(is_there)?, known))
    };
    let found = KNOWN.iter().find_map(of_prefix)?;
    // A prefix tells encoders of one dictionary apart, and no dictionaries.
    sets.iter().all(|set| set.key == found.0.key).then_some(found)
}

fn location<'a>(
    file: &CheckpointFile,
    set: &WeightSet<'a>,
    known: Option<&Known>,
    others: Vec<(String, bool)>,
) -> NetworkLocation<'a> {
    let WeightSet { key, prefix, naming, entries } = set.clone();
    let wrapper = &prefix[..prefix.len() - known.map_or(0, |known| known.prefix.len())];
    let head = |head: &str| format!("{wrapper}{head}");
    let heads = known.map_or([None, None], |known| known.heads.map(|name| name.map(head)));
    let layout = match (known, naming) {
        (Some(known), _) => {
            let has_head = |head: &Option<String>| {
                let weight = head.as_ref().map(|head| format!("{head}.0.weight"));
                weight.is_some_and(|weight| entries.tensors.contains_key(weight.as_str()))
            };
            let is_ours = file.metadata().contains_key(crate::write::METHOD_KEY)
                || known.prefix.is_empty() && heads.iter().any(has_head);
            if known.layout == CheckpointLayout::Torchvision && is_ours {
                CheckpointLayout::Densecl
            } else {
                known.layout
            }
        }
        (None, Naming::Detectron2) => CheckpointLayout::Detectron2,
        (None, Naming::Transformers) => CheckpointLayout::Transformers,
        (None, Naming::Torchvision) => CheckpointLayout::Prefixed,
    };
    let role = match known {
        _ if set.is_averaged() => Role::Averaged,
        Some(known) => known.role,
        None => Role::Query,
    };
    NetworkLocation { layout, role, naming, key, prefix, heads, entries, others }
}

/// The first keys of the root, for messages, with the classes of objects that are not read.
fn some_keys(file: &CheckpointFile) -> String {
    const SHOWN: usize = 8;
    let entries = file.graph().entries(file.root()).unwrap_or_default();
    let named = entries.iter().filter_map(|&(key, value)| Some((file.graph().text(key)?, value)));
    let names: Vec<String> = named
        .map(|(name, value)| match value {
            Value::Foreign(class) => {
                format!("{name} (an object of `{}`, which is not read)", file.graph().foreign(class))
            }
            _ => name.to_owned(),
        })
        .collect();
    match names.len() {
        0 => "no named values".to_owned(),
        len if len > SHOWN => format!("{}, … ({len} names)", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}
