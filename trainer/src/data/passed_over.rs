//! Files that are found in a data set and not used: the reasons, and the log level of each.

use std::fmt;
use std::path::Path;

use super::Tally;

/// Why a file, an entry of a list or a member of a shard is not used as an image; what is harmless comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PassedOverReason {
    /// Its ending is that of a kind of image that data sets are not searched for.
    UnreadKind,
    /// It is an archive that has to be unpacked.
    Archive,
    /// It is a link to a folder that contains it.
    Loop,
    /// It is a link to a folder that was searched already.
    FolderAgain,
    /// It is a link that leads nowhere.
    BrokenLink,
    /// It is neither a file nor a folder: a pipe, a device.
    NoFile,
    /// A list names it, and it is not there.
    NotThere,
    /// It lies beside tar shards, which alone are read of their folder.
    BesideShards,
    /// A further dot in its name makes it a part of a sample that has no image (`a.b.jpg`).
    DottedName,
    /// It is a further image of a sample.
    SecondImage,
    /// It is a link within a shard.
    MemberLink,
    /// It is a sparse file, or of another kind that has no plain content within a shard.
    MemberKind,
    /// It is the rest of a shard, which is damaged or no tar archive.
    DamagedShard,
    /// Its name, or a folder's, is hidden or belongs to a system (`._a.jpg`, `__MACOSX`).
    SystemName,
    /// Its ending is no image's.
    OtherEnding,
    /// It belongs to a sample that has an image, under a name with a further dot (`1.seg.png`).
    OtherPart,
}

impl PassedOverReason {
    /// Returns `true` for what is expected beside images, so that it is no reason for a warning.
    pub fn is_harmless(self) -> bool {
        matches!(self, Self::SystemName | Self::OtherEnding | Self::OtherPart)
    }
}

impl fmt::Display for PassedOverReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SystemName => "hidden files and those of systems",
            Self::OtherEnding => "files without an image's ending",
            Self::UnreadKind => "images of kinds that are not read from data sets",
            Self::Archive => "archives, which have to be unpacked",
            Self::Loop => "links in a loop",
            Self::FolderAgain => "links to folders that are read already",
            Self::BrokenLink => "links that lead nowhere",
            Self::NoFile => "neither files nor folders",
            Self::NotThere => "listed but not there",
            Self::BesideShards => "files beside tar shards, of which the shards alone are read",
            Self::OtherPart => "other parts of samples that have an image",
            Self::DottedName => {
                "members with a further dot in their name, whose sample has no image (a sample's name ends at the first dot)"
            }
            Self::SecondImage => "further images of a sample",
            Self::MemberLink => "links within shards",
            Self::MemberKind => "sparse files within shards, and other special ones",
            Self::DamagedShard => "shards whose rest cannot be read",
        })
    }
}

/// Endings of images that decoders elsewhere read, in small letters.
const UNREAD_KINDS: [&str; 23] = [
    "gif", "heic", "heif", "avif", "jxl", "jp2", "j2k", "jfif", "jpe", "ppm", "pgm", "pnm", "svg", "psd", "exr", "hdr",
    "dng", "cr2", "cr3", "nef", "arw", "raf", "dcm",
];

/// Endings of archives, in small letters.
const ARCHIVES: [&str; 14] =
    ["tar", "gz", "tgz", "bz2", "tbz2", "xz", "txz", "zst", "tzst", "lz4", "zip", "7z", "rar", "z"];

/// The reason why a file without one of the endings that are searched for is not used.
pub(super) fn reason_of_ending(path: &Path) -> PassedOverReason {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    match ending.as_deref() {
        Some(ending) if UNREAD_KINDS.contains(&ending) => PassedOverReason::UnreadKind,
        Some(ending) if ARCHIVES.contains(&ending) => PassedOverReason::Archive,
        _ => PassedOverReason::OtherEnding,
    }
}

/// Writes to the log what of `source` is not used: as a warning, unless all of it is harmless.
pub(crate) fn log(source: &dyn fmt::Display, images: Option<u64>, tally: &Tally<PassedOverReason>) {
    let images = images.map_or_else(|| "not counted".to_owned(), |images| images.to_string());
    if tally.is_empty() {
        tracing::info!(%source, %images, passed_over = 0, "data");
    } else if tally.reasons().all(PassedOverReason::is_harmless) {
        tracing::info!(%source, %images, passed_over = tally.total(), "data; passed over: {tally}");
    } else {
        tracing::warn!(%source, %images, passed_over = tally.total(), "data; passed over: {tally}");
    }
}
