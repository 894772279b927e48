//! Images that were found and could not be read, counted by reason.

use std::collections::HashSet;
use std::fmt;
use std::io::ErrorKind;
use std::sync::{Mutex, MutexGuard, PoisonError};

use densecl_vision::image::DecodeError;
use serde::{Deserialize, Serialize};

use super::{PictureError, Tally};

/// Why an image cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// Its file is no longer there.
    Missing,
    /// The operating system refuses.
    Unreadable,
    /// Its content is no image of a format that is read here.
    NoImage,
    /// A variant of a format that is not read.
    Unsupported,
    /// Its content is damaged or cut off.
    Damaged,
    /// It has more pixels, or needs more memory, than the limits allow.
    TooLarge,
}

impl SkipReason {
    /// All reasons, in the order of [`SkipCounts::numbers`].
    pub const ALL: [Self; 6] =
        [Self::Missing, Self::Unreadable, Self::NoImage, Self::Unsupported, Self::Damaged, Self::TooLarge];

    /// Reason of an error.
    pub fn of(error: &PictureError) -> Self {
        match error {
            PictureError::Io(error) if error.kind() == ErrorKind::NotFound => Self::Missing,
            PictureError::Io(_) => Self::Unreadable,
            PictureError::Decode(DecodeError::Empty | DecodeError::UnknownFormat { .. }) => Self::NoImage,
            PictureError::Decode(DecodeError::Unsupported { .. }) => Self::Unsupported,
            PictureError::Decode(DecodeError::Corrupt { .. }) => Self::Damaged,
            PictureError::Decode(DecodeError::TooManyPixels { .. } | DecodeError::TooMuchMemory { .. })
            | PictureError::Resize(_) => Self::TooLarge,
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::NoImage => "no image",
            Self::Unsupported => "not supported",
            Self::Damaged => "damaged",
            Self::TooLarge => "too large",
        })
    }
}

/// Numbers of skipped images by reason, as fields of a line of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SkipCounts {
    /// See [`SkipReason::Missing`].
    #[serde(rename = "skipped_missing")]
    pub missing: u64,
    /// See [`SkipReason::Unreadable`].
    #[serde(rename = "skipped_unreadable")]
    pub unreadable: u64,
    /// See [`SkipReason::NoImage`].
    #[serde(rename = "skipped_no_image")]
    pub no_image: u64,
    /// See [`SkipReason::Unsupported`].
    #[serde(rename = "skipped_unsupported")]
    pub unsupported: u64,
    /// See [`SkipReason::Damaged`].
    #[serde(rename = "skipped_damaged")]
    pub damaged: u64,
    /// See [`SkipReason::TooLarge`].
    #[serde(rename = "skipped_too_large")]
    pub too_large: u64,
}

impl SkipCounts {
    /// The numbers in the order of [`SkipReason::ALL`].
    pub fn numbers(&self) -> [u64; 6] {
        let Self { missing, unreadable, no_image, unsupported, damaged, too_large } = *self;
        [missing, unreadable, no_image, unsupported, damaged, too_large]
    }

    /// From numbers in the order of [`SkipReason::ALL`].
    pub fn from_numbers([missing, unreadable, no_image, unsupported, damaged, too_large]: [u64; 6]) -> Self {
        Self { missing, unreadable, no_image, unsupported, damaged, too_large }
    }

    /// Number of all reasons.
    pub fn total(&self) -> u64 {
        self.numbers().iter().sum()
    }
}

/// `2 missing, 1 damaged`; `none` if there are none.
impl fmt::Display for SkipCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.total() == 0 {
            return f.write_str("none");
        }
        let counted = SkipReason::ALL.iter().zip(self.numbers()).filter(|(_, count)| *count > 0);
        let parts: Vec<_> = counted.map(|(reason, count)| format!("{count} {reason}")).collect();
        f.write_str(&parts.join(", "))
    }
}

/// Counts and logs images that cannot be read, each once, however often it is drawn.
#[derive(Debug, Default)]
pub(crate) struct Skipped(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    seen: HashSet<String>,
    tally: Tally<SkipReason>,
}

impl Skipped {
    /// Counts an image, unless it was counted before.
    pub(crate) fn note(&self, image: &dyn fmt::Display, cause: &PictureError) {
        let (image, reason) = (image.to_string(), SkipReason::of(cause));
        let mut state = self.state();
        if state.seen.insert(image.clone()) {
            state.tally.note(reason, &image);
            drop(state);
            tracing::warn!(image, %reason, %cause, "image skipped");
        }
    }

    /// The numbers so far.
    pub(crate) fn counts(&self) -> SkipCounts {
        let state = self.state();
        SkipCounts::from_numbers(SkipReason::ALL.map(|reason| state.tally.count(reason)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_image_is_counted_once_under_its_reason() {
        let skipped = Skipped::default();
        assert_eq!(skipped.counts().to_string(), "none");
        let gone = PictureError::from(io::Error::from(ErrorKind::NotFound));
        skipped.note(&"a.jpg", &gone);
        skipped.note(&"a.jpg", &gone);
        skipped.note(&"b.jpg", &PictureError::Decode(DecodeError::Empty));
        let counts = skipped.counts();
        assert_eq!((counts.missing, counts.no_image, counts.total()), (1, 1, 2));
        assert_eq!(counts.to_string(), "1 missing, 1 no image");
        assert_eq!(SkipCounts::from_numbers(counts.numbers()), counts);
    }

    #[test]
    fn counts_are_plain_numbers_in_json() {
        let json = serde_json::to_value(SkipCounts { damaged: 3, ..SkipCounts::default() }).unwrap();
        assert_eq!(json["skipped_damaged"], 3);
        assert_eq!(serde_json::from_str::<SkipCounts>("{}").unwrap(), SkipCounts::default());
    }
}
