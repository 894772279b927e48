//! Writing a network as other tools expect it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use densecl_models::atomic_file::AtomicFile;
use densecl_models::graph::Weight;
use densecl_models::resnet::Weights;

use crate::archive_writer::ArchiveWriter;
use crate::names::Naming;
use crate::pickle_writer::PickleWriter;

/// Key in the metadata of a safetensors file under which the method stands, as [`Network::method`]
/// returns it.
///
/// [`Network::method`]: crate::Network::method
pub const METHOD_KEY: &str = "densecl.method";

/// Names of weights that belong to the heads, and what mmpretrain calls them.
const HEADS: [(&str, &str); 2] = [("global_head.", "neck.mlp."), ("dense_head.", "neck.mlp2.")];

/// Folder of everything in an archive of `torch.save`.
const FOLDER: &str = "archive";

/// A layout that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// safetensors with this project's names, heads included.
    Densecl,
    /// A `.pth` of the backbone under torchvision's names, for `torch.load(weights_only=True)`; a
    /// safetensors file if the path says so.
    Torchvision,
    /// A pickle of NumPy arrays under Detectron2's names: the backbone.
    Detectron2,
    /// A `.pth` with `backbone.*` and `neck.*` under `state_dict`.
    Mmpretrain,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Densecl => "densecl",
            Self::Torchvision => "torchvision",
            Self::Detectron2 => "detectron2",
            Self::Mmpretrain => "mmpretrain",
        })
    }
}

impl Target {
    /// Layout that a path's extension stands for: `.safetensors`, `.pkl`, or `.pth` and `.pt` of `torch.save`.
    pub fn from_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "safetensors" => Some(Self::Densecl),
            "pkl" => Some(Self::Detectron2),
            "pth" | "pt" => Some(Self::Torchvision),
            _ => None,
        }
    }

    /// Returns whether the layout includes the projection heads.
    pub fn has_heads(self) -> bool {
        matches!(self, Self::Densecl | Self::Mmpretrain)
    }

    /// The layout's name for a weight; `None` if it has no place for it.
    fn rename(self, name: &str) -> Option<String> {
        let head = HEADS.iter().find_map(|(ours, theirs)| Some((theirs, name.strip_prefix(ours)?)));
        match (self, head) {
            (Self::Densecl, _) | (Self::Torchvision, None) => Some(name.to_owned()),
            (Self::Mmpretrain, Some((neck, rest))) => Some(format!("{neck}{rest}")),
            (Self::Mmpretrain, None) => Some(format!("backbone.{name}")),
            (Self::Detectron2, None) => Some(Naming::Detectron2.rename(name)),
            (Self::Torchvision | Self::Detectron2, Some(_)) => None,
        }
    }
}

/// Writes weights as [`atomic_file`](densecl_models::atomic_file) does. `metadata` goes into safetensors files. Returns the names of the weights that the layout has no place for.
///
/// # Errors
/// If the file cannot be written; what was there before is then as it was.
pub fn write(
    path: &Path,
    target: Target,
    weights: &Weights,
    metadata: &BTreeMap<String, String>,
) -> io::Result<Vec<String>> {
    let (mut named, mut left_aside) = (Vec::new(), Vec::new());
    for (name, weight) in weights {
        match target.rename(name) {
            Some(name) => named.push((name, weight)),
            None => left_aside.push(name.clone()),
        }
    }
    let mut file = AtomicFile::create(path)?;
    let out = BufWriter::new(&mut file);
    match target {
        _ if path.extension().is_some_and(|extension| extension == "safetensors") => {
            write_safetensors(out, &named, metadata)?;
        }
        Target::Densecl => write_safetensors(out, &named, metadata)?,
        Target::Torchvision => write_torch(out, None, &named)?,
        Target::Mmpretrain => write_torch(out, Some("state_dict"), &named)?,
        Target::Detectron2 => write_detectron2(out, &named)?,
    }
    file.commit()?;
    Ok(left_aside)
}

type Named<'a> = [(String, &'a Weight)];

fn bytes_of(weight: &Weight) -> Vec<u8> {
    weight.data.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A header in JSON, then the data in the order of the names: equal weights make equal files.
fn write_safetensors(mut out: impl Write, weights: &Named<'_>, metadata: &BTreeMap<String, String>) -> io::Result<()> {
    // PyTorch's loaders look for this remark.
    let mut remarks = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    remarks.extend(metadata.clone());
    let mut header = serde_json::Map::from_iter([("__metadata__".to_owned(), serde_json::json!(remarks))]);
    let mut end = 0;
    for (name, weight) in weights {
        let start = end;
        end += weight.data.len() * size_of::<f32>();
        let entry = serde_json::json!({ "dtype": "F32", "shape": weight.dims, "data_offsets": [start, end] });
        header.insert(name.clone(), entry);
    }
    let mut header = serde_json::Value::from(header).to_string();
    // The data begin at a multiple of eight.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for (_, weight) in weights {
        out.write_all(&bytes_of(weight))?;
    }
    out.flush()
}

/// `torch.save` of a dictionary of tensors, or of one under `key`.
fn write_torch(out: impl Write, key: Option<&str>, weights: &Named<'_>) -> io::Result<()> {
    let mut pickle = PickleWriter::new(Vec::new(), 2)?;
    let tensors = |w: &mut PickleWriter<Vec<u8>>| {
        w.dict(|w| {
            weights.iter().enumerate().try_for_each(|(i, (name, weight))| {
                w.text(name)?;
                write_tensor(w, &i.to_string(), weight)
            })
        })
    };
    match key {
        None => tensors(&mut pickle)?,
        Some(key) => pickle.dict(|w| {
            w.text("meta")?;
            w.dict(|_| Ok(()))?;
            w.text(key)?;
            tensors(w)
        })?,
    }
    let mut archive = ArchiveWriter::new(out);
    archive.add(&format!("{FOLDER}/data.pkl"), &pickle.finish()?)?;
    archive.add(&format!("{FOLDER}/byteorder"), b"little")?;
    for (i, (_, weight)) in weights.iter().enumerate() {
        archive.add(&format!("{FOLDER}/data/{i}"), &bytes_of(weight))?;
    }
    archive.add(&format!("{FOLDER}/version"), b"3\n")?;
    archive.finish()?.flush()
}

/// A float32 tensor whose storage has this key.
fn write_tensor<W: Write>(w: &mut PickleWriter<W>, key: &str, weight: &Weight) -> io::Result<()> {
    w.global("torch._utils", "_rebuild_tensor_v2")?;
    w.tuple(|w| {
        w.tuple(|w| {
            w.text("storage")?;
            w.global("torch", "FloatStorage")?;
            w.text(key)?;
            w.text("cpu")?;
            w.integer(weight.data.len() as i64)
        })?;
        w.persistent()?;
        w.integer(0)?;
        w.integers(weight.dims.iter().copied())?;
        w.integers((0..weight.dims.len()).map(|axis| weight.dims[axis + 1..].iter().product()))?;
        w.boolean(false)?;
        w.global("collections", "OrderedDict")?;
        w.tuple(|_| Ok(()))?;
        w.reduce()
    })?;
    w.reduce()
}

/// Detectron2 renames nothing when the names are already its own; the remark makes it match by the
/// longest common ending all the same, which finds the backbone inside its models.
fn write_detectron2(out: impl Write, weights: &Named<'_>) -> io::Result<()> {
    let mut pickle = PickleWriter::new(out, 3)?;
    pickle.dict(|w| {
        w.text("model")?;
        w.dict(|w| {
            weights.iter().try_for_each(|(name, weight)| {
                w.text(name)?;
                write_array(w, weight)
            })
        })?;
        w.text("__author__")?;
        w.text("DenseCL")?;
        w.text("matching_heuristics")?;
        w.boolean(true)
    })?;
    pickle.finish()?.flush()
}

/// A float32 array as NumPy 1 pickles it, which NumPy 2 reads under the same names.
fn write_array<W: Write>(w: &mut PickleWriter<W>, weight: &Weight) -> io::Result<()> {
    w.global("numpy.core.multiarray", "_reconstruct")?;
    w.tuple(|w| {
        w.global("numpy", "ndarray")?;
        w.integers([0])?;
        w.bytes(b"b")
    })?;
    w.reduce()?;
    w.tuple(|w| {
        w.integer(1)?;
        w.integers(weight.dims.iter().copied())?;
        w.global("numpy", "dtype")?;
        w.tuple(|w| {
            w.text("f4")?;
            w.boolean(false)?;
            w.boolean(true)
        })?;
        w.reduce()?;
        w.tuple(|w| {
            w.integer(3)?;
            w.text("<")?;
            (0..3).try_for_each(|_| w.none())?;
            w.integer(-1)?;
            w.integer(-1)?;
            w.integer(0)
        })?;
        w.build()?;
        w.boolean(false)?;
        w.bytes(&bytes_of(weight))
    })?;
    w.build()
}
