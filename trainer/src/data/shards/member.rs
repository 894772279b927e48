//! The images in a tar file, and their offsets.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use densecl_vision::image::{is_ignored_name, is_picture_extension};

use crate::data::Tally;
use crate::data::passed_over::PassedOverReason;

/// An image within a shard.
#[derive(Clone, Debug)]
pub(super) struct Member {
    shard: Arc<PathBuf>,
    name: String,
    pub(super) offset: u64,
    size: u64,
}

impl Member {
    /// Reads its bytes from the shard.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&*self.shard)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        let read = file.take(self.size).read_to_end(&mut bytes)?;
        if read as u64 == self.size { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.shard.display(), self.name)
    }
}

/// Lists the images of a shard in its order, and counts what else could be one. The rest of a damaged shard is left out.
pub(super) fn index(shard: &Path) -> (Vec<Member>, Tally<PassedOverReason>) {
    let mut listing = Listing { shard: Arc::new(shard.to_owned()), ..Listing::default() };
    if let Err(error) = listing.read() {
        listing.passed_over.note(PassedOverReason::DamagedShard, format_args!("{}: {error}", shard.display()));
    }
    listing.dotted.iter().for_each(|(key, name)| {
        let has_image = listing.keys.contains(key);
        let reason = if has_image { PassedOverReason::OtherPart } else { PassedOverReason::DottedName };
        listing.passed_over.note(reason, format_args!("{}/{name}", shard.display()));
    });
    (listing.members, listing.passed_over)
}

#[derive(Default)]
struct Listing {
    shard: Arc<PathBuf>,
    members: Vec<Member>,
    passed_over: Tally<PassedOverReason>,
    /// Samples that have an image.
    keys: HashSet<String>,
    /// Members with an image's ending behind a further dot, by their samples: those may have an image, or not.
    dotted: Vec<(String, String)>,
}

impl Listing {
    fn read(&mut self) -> io::Result<()> {
        let shard = Arc::clone(&self.shard);
        let mut archive = tar::Archive::new(File::open(&*shard)?);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            if kind.is_dir() {
                continue;
            }
            let (offset, size) = (entry.raw_file_position(), entry.size());
            let example = format!("{}/{name}", shard.display());
            match Part::of(&name) {
                Part::Other => {}
                Part::System => self.passed_over.note(PassedOverReason::SystemName, example),
                Part::Image(_) | Part::Dotted(_) if !kind.is_file() && !kind.is_contiguous() => {
                    let is_link = kind.is_symlink() || kind.is_hard_link();
                    let reason = if is_link { PassedOverReason::MemberLink } else { PassedOverReason::MemberKind };
                    self.passed_over.note(reason, example);
                }
                Part::Dotted(key) => self.dotted.push((key.to_owned(), name.clone())),
                Part::Image(key) => {
                    if self.keys.insert(key.to_owned()) {
                        self.members.push(Member { shard: Arc::clone(&shard), name, offset, size });
                    } else {
                        self.passed_over.note(PassedOverReason::SecondImage, example);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Kind of a member, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'a> {
    /// The image of the sample of this name: the path up to the first dot of the file name.
    Image(&'a str),
    /// Of this sample, with an image's ending behind a further dot.
    Dotted(&'a str),
    /// It would be an image, but its name, or that of a folder, is hidden or belongs to a system.
    System,
    /// No image.
    Other,
}

impl<'a> Part<'a> {
    fn of(name: &'a str) -> Self {
        let file = name.rfind('/').map_or(0, |slash| slash + 1);
        let last = name[file..].rfind('.').map(|dot| &name[file + dot + 1..]);
        if !last.is_some_and(is_picture_extension) {
            return Self::Other;
        }
        let is_hidden = |component: &str| !matches!(component, "." | "..") && is_ignored_name(component.as_ref());
        if name.split('/').any(is_hidden) {
            return Self::System;
        }
        let Some(dot) = name[file..].find('.').map(|dot| file + dot) else { return Self::Other };
        let key = &name[..dot];
        if is_picture_extension(&name[dot + 1..]) { Self::Image(key) } else { Self::Dotted(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_of_a_sample_ends_in_an_image_ending_after_the_first_dot() {
        for (name, part) in [
            ("a.b/0001.jpg", Part::Image("a.b/0001")),
            ("0001.JPEG", Part::Image("0001")),
            ("./0001.png", Part::Image("./0001")),
            ("0001.seg.png", Part::Dotted("0001")),
            ("img.0001.jpg", Part::Dotted("img")),
            ("a/photo_1.5mm.JPG", Part::Dotted("a/photo_1")),
            ("0001", Part::Other),
            ("0001.json", Part::Other),
            ("0001.jpg.txt", Part::Other),
            ("._0001.jpg", Part::System),
            ("a/__MACOSX/0001.jpg", Part::System),
            (".jpg", Part::System),
            ("@eaDir/0001.jpg/SYNOPHOTO_THUMB_M.jpg", Part::System),
        ] {
            assert_eq!(Part::of(name), part, "{name}");
        }
    }

    #[test]
    fn members_that_are_passed_over_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.tar");
        let mut archive = tar::Builder::new(File::create(&path).unwrap());
        for name in
            ["1.jpg", "1.png", "1.seg.png", "1.json", "a.b.jpg", "img.0001.jpg", "img.0002.jpg", "__MACOSX/._1.jpg"]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            archive.append_data(&mut header, name, &b"x"[..]).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "2.jpg", "1.jpg").unwrap();
        archive.finish().unwrap();
        let (members, passed_over) = index(&path);
        assert_eq!(members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["1.jpg"]);
        let counts = [
            (PassedOverReason::SecondImage, 1),
            (PassedOverReason::OtherPart, 1),
            (PassedOverReason::DottedName, 3),
            (PassedOverReason::SystemName, 1),
            (PassedOverReason::MemberLink, 1),
        ];
        for (reason, count) in counts {
            assert_eq!(passed_over.count(reason), count, "{reason}");
        }
        assert_eq!(passed_over.total(), 7);
        std::fs::write(&path, b"no tar").unwrap();
        assert_eq!(index(&path).1.count(PassedOverReason::DamagedShard), 1);
    }
}
