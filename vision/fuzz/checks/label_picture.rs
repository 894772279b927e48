//! Label pictures: the size that a probe states holds, and labels that are written are read back.

use densecl_vision::image::{DecodeLimits, LabelPicture, encode_labels};

const LIMITS: DecodeLimits = DecodeLimits { max_pixels: 1 << 18 };

/// Runs one input.
pub(crate) fn check(file: &[u8]) {
    let probed = LabelPicture::probe(file, &LIMITS);
    let Ok(picture) = LabelPicture::decode(file, &LIMITS) else { return };
    let size = probed.expect("what is decoded is not refused by its header");
    assert_eq!((picture.size(), picture.labels().len() as u64), (size, size.pixels()));
    let written = encode_labels(picture.labels(), size, picture.style()).expect("labels of their own style");
    let read = LabelPicture::decode(&written, &LIMITS).expect("what was written is read");
    assert_eq!(read.labels(), picture.labels());
}
