//! TensorBoard's event files.
//!
//! A file is a sequence of TFRecords: the length of the data, 8 bytes, little endian; a masked
//! CRC32C of those 8; the data, here an [`Event`]; a masked CRC32C of the data.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message as _;

use super::error::MonitorError;
use super::event_messages::{Datum, Event, Image, SessionLog, SessionStatus, Summary, Value, What};

/// Added to the rotated checksum, so that checksums of data with embedded checksums stay strong.
const MASK_DELTA: u32 = 0xa282_ead8;

/// `Image.colorspace` of RGB.
const RGB: i32 = 3;

/// A PNG file with its size in pixels.
#[derive(Debug)]
pub(super) struct EncodedPicture {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) png: Vec<u8>,
}

/// An event file of its own for every part of a run.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: fs::File,
}

impl EventFile {
    /// Begins a file in the folder `run` for a run that goes on after `taken` steps.
    pub(super) fn create(run: &Path, taken: u64) -> Result<Self, MonitorError> {
        let (path, file) = create_new(run)?;
        let mut events = Self { path, file };
        events.put(0, What::FileVersion("brain.Event:2".to_owned()))?;
        if taken > 0 {
            // TensorBoard discards all steps from that of the mark on, so it is the first one to be taken.
            events.put(taken + 1, What::SessionLog(SessionLog { status: SessionStatus::Start.into() }))?;
        }
        Ok(events)
    }

    /// Adds values of a step.
    pub(super) fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<(), MonitorError> {
        let value =
            |&(tag, number): &(&str, f64)| Value { tag: tag.to_owned(), datum: Some(Datum::Scalar(number as f32)) };
        self.put(step, What::Summary(Summary { value: scalars.iter().map(value).collect() }))
    }

    /// Adds a picture of a step.
    pub(super) fn picture(&mut self, step: u64, tag: String, picture: EncodedPicture) -> Result<(), MonitorError> {
        let image = Image {
            height: picture.height as i32,
            width: picture.width as i32,
            colorspace: RGB,
            encoded_image_string: picture.png,
        };
        self.put(step, What::Summary(Summary { value: vec![Value { tag, datum: Some(Datum::Image(image)) }] }))
    }

    fn put(&mut self, step: u64, what: What) -> Result<(), MonitorError> {
        let wall_time = since_1970().as_secs_f64();
        let event = Event { wall_time, step: step as i64, what: Some(what) };
        write_record(&mut self.file, &event.encode_to_vec()).map_err(MonitorError::io(&self.path))
    }
}

/// A new file; a second one within a second gets a name that sorts behind the first's.
fn create_new(run: &Path) -> Result<(PathBuf, fs::File), MonitorError> {
    let stem = format!("events.out.tfevents.{:010}.densecl", since_1970().as_secs());
    let mut part = 0;
    loop {
        let name = if part == 0 { stem.clone() } else { format!("{stem}.{part}") };
        let path = run.join(name);
        match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => part += 1,
            opened => return Ok((path.clone(), opened.map_err(MonitorError::io(&path))?)),
        }
    }
}

fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Writes a record in one call, so that readers that follow the file see it whole.
fn write_record(out: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc32c(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked_crc32c(data).to_le_bytes());
    out.write_all(&record)
}

fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(MASK_DELTA)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of a file, with their checksums checked.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_at(8);
            let (length_crc, rest) = rest.split_at(4);
            assert_eq!(masked_crc32c(length).to_le_bytes(), length_crc);
            let (data, rest) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let (data_crc, rest) = rest.split_at(4);
            assert_eq!(masked_crc32c(data).to_le_bytes(), data_crc);
            records.push(data.to_vec());
            bytes = rest;
        }
        records
    }

    fn events(run: &Path) -> Vec<Event> {
        let mut paths: Vec<_> = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let records = paths.iter().flat_map(|path| records(&fs::read(path).unwrap()));
        records.map(|record| Event::decode(record.as_slice()).unwrap()).collect()
    }

    #[test]
    fn checksums_are_the_known_ones() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
        assert_eq!(masked_crc32c(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn scalars_and_pictures_come_back() {
        let run = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(run.path(), 0).unwrap();
        file.scalars(4, &[("loss/total", 2.5), ("std/embedding", 0.125)]).unwrap();
        let picture = EncodedPicture { width: 3, height: 2, png: vec![1, 2, 3] };
        file.picture(4, "pictures/matches".to_owned(), picture).unwrap();

        let events = events(run.path());
        assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".to_owned())));
        assert_eq!((events.len(), events[1].step, events[2].step), (3, 4, 4));
        let Some(What::Summary(scalars)) = &events[1].what else { panic!("no scalars") };
        assert_eq!(scalars.value[1].datum, Some(Datum::Scalar(0.125)));
        let Some(What::Summary(pictures)) = &events[2].what else { panic!("no pictures") };
        let image = Image { height: 2, width: 3, colorspace: 3, encoded_image_string: vec![1, 2, 3] };
        assert_eq!(pictures.value[0], Value { tag: "pictures/matches".to_owned(), datum: Some(Datum::Image(image)) });
    }

    #[test]
    fn a_resumed_run_marks_its_first_step() {
        let run = tempfile::tempdir().unwrap();
        EventFile::create(run.path(), 0).unwrap();
        EventFile::create(run.path(), 8).unwrap();
        let events = events(run.path());
        let start = What::SessionLog(SessionLog { status: SessionStatus::Start.into() });
        assert_eq!((events.len(), events[2].step, events[2].what.clone()), (3, 9, Some(start)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let path = PathBuf::from("/dev/full");
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        assert!(EventFile { path, file }.scalars(1, &[("loss/total", 1.0)]).is_err());
    }
}
