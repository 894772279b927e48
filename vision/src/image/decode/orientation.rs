//! The orientation of a picture, from its EXIF or XMP data.
//!
//! EXIF data decide if they have the tag at all, whatever it says; XMP data are asked only where they have none. Damaged
//! data say nothing. This module does not look for the data: that is different in each format.

use std::borrow::Cow;

use ::image::metadata::Orientation;
use memchr::memmem;

use super::directory::Directory;

/// Begins the EXIF data of a JPEG; some writers keep it in other formats, or write it twice.
pub(super) const EXIF_PREFIX: &[u8] = b"Exif\0\0";

/// Most bytes of XMP or EXIF data that are examined. The data of cameras and editors are a few kilobytes.
pub(super) const MAX_METADATA_BYTES: usize = 1 << 20;

/// Name of the attribute or element.
const XMP_NAME: &[u8] = b"tiff:Orientation";

/// Bytes of the longest form: the name, `="` and a digit.
pub(super) const XMP_MATCH_BYTES: usize = XMP_NAME.len() + 3;

/// The orientation that EXIF data have the tag for, else that of XMP data, else none.
pub(super) fn stated(exif: Option<Cow<'_, [u8]>>, xmp: impl FnOnce() -> Option<Orientation>) -> Orientation {
    exif.and_then(|exif| in_exif(&exif)).or_else(xmp).unwrap_or(Orientation::NoTransforms)
}

/// The orientation in EXIF data, with or without their prefix; `None` if they have no such tag.
fn in_exif(exif: &[u8]) -> Option<Orientation> {
    let mut data = exif;
    for _ in 0..2 {
        data = data.strip_prefix(EXIF_PREFIX).unwrap_or(data);
    }
    Directory::of_exif(data)?.orientation()
}

/// The first orientation in an XMP packet, as attribute (`tiff:Orientation="6"`) or element (`>6<`).
pub(super) fn in_xmp(packet: &[u8]) -> Option<Orientation> {
    let packet = &packet[..packet.len().min(MAX_METADATA_BYTES)];
    memmem::find_iter(packet, XMP_NAME).find_map(|at| match packet.get(at + XMP_NAME.len()..)? {
        [b'=', b'"', digit @ b'0'..=b'9', ..] | [b'>', digit @ b'0'..=b'9', ..] => {
            Some(Orientation::from_exif(digit - b'0').unwrap_or(Orientation::NoTransforms))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EXIF data with one entry, whose values are `data`.
    fn exif(is_big_endian: bool, value_type: u16, count: u32, data: &[u8]) -> Vec<u8> {
        let u16_of = |value: u16| if is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let u32_of = |value: u32| if is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let mut file = if is_big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
        file.extend(u32_of(8));
        for field in [1, 274, value_type] {
            file.extend(u16_of(field));
        }
        file.extend(u32_of(count));
        if data.len() <= 4 {
            file.extend(data);
            file.resize(22, 0);
            file.extend([0; 4]);
        } else {
            file.extend(u32_of(26));
            file.extend([0; 4]);
            file.extend(data);
        }
        file
    }

    #[test]
    fn numbers_of_every_type_and_count_are_orientations() {
        let big: [(u16, Vec<u8>); 12] = [
            (3, vec![0, 6]),
            (4, vec![0, 0, 0, 6]),
            (5, vec![0, 0, 0, 12, 0, 0, 0, 2]),
            (6, vec![6]),
            (8, vec![0, 6]),
            (9, vec![0, 0, 0, 6]),
            (10, vec![0xFF, 0xFF, 0xFF, 0xFA, 0xFF, 0xFF, 0xFF, 0xFF]),
            (11, 6_f32.to_be_bytes().to_vec()),
            (12, 6_f64.to_be_bytes().to_vec()),
            (13, vec![0, 0, 0, 6]),
            (16, vec![0, 0, 0, 0, 0, 0, 0, 6]),
            (16, vec![0, 0, 0, 0, 0, 0, 0, 6]),
        ];
        for (value_type, value) in &big {
            for count in [1, 2, 5] {
                let mut values = value.clone();
                values.resize(value.len() * count as usize, 1);
                assert_eq!(
                    in_exif(&exif(true, *value_type, count, &values)),
                    Some(Orientation::Rotate90),
                    "{value_type}"
                );
            }
        }
        let little: [(u16, &[u8]); 3] = [(3, &[6, 0]), (9, &[6, 0, 0, 0]), (5, &[6, 0, 0, 0, 1, 0, 0, 0])];
        for (value_type, value) in little {
            assert_eq!(in_exif(&exif(false, value_type, 1, value)), Some(Orientation::Rotate90), "{value_type}");
        }
    }

    #[test]
    fn values_that_are_no_orientation_leave_the_picture_as_it_is() {
        let others: [(u16, &[u8]); 8] = [
            (1, &[6]),
            (2, b"6\0"),
            (7, &[6]),
            (3, &[0, 9]),
            (3, &[0, 0]),
            (5, &[0, 0, 0, 13, 0, 0, 0, 2]),
            (5, &[0, 0, 0, 6, 0, 0, 0, 0]),
            (11, &[0x40, 0xC0, 0, 1]),
        ];
        for (value_type, value) in others {
            let count = if value_type == 2 { 2 } else { 1 };
            assert_eq!(in_exif(&exif(true, value_type, count, value)), Some(Orientation::NoTransforms), "{value_type}");
        }
    }

    #[test]
    fn data_without_a_usable_tag_say_nothing() {
        assert_eq!(in_exif(b""), None);
        assert_eq!(in_exif(b"Exif\0\0"), None);
        // An unknown type, no value, values outside the data.
        assert_eq!(in_exif(&exif(true, 99, 1, &[0, 6])), None);
        assert_eq!(in_exif(&exif(true, 3, 0, &[0, 6])), None);
        assert_eq!(in_exif(&exif(true, 3, 100, &[0, 6])), None);
        assert_eq!(in_exif(&exif(true, 3, u32::MAX, &[0, 6])), None);
    }

    #[test]
    fn prefixes_and_cut_off_directories_are_passed_over() {
        let data = exif(true, 3, 1, &[0, 6]);
        for prefix in [&b""[..], b"Exif\0\0", b"Exif\0\0Exif\0\0"] {
            assert_eq!(in_exif(&[prefix, &data].concat()), Some(Orientation::Rotate90));
        }
        let mut more_entries = data.clone();
        more_entries[9] = 200;
        assert_eq!(in_exif(&more_entries), Some(Orientation::Rotate90));
        let exchanged = [b"MM*\0", &data[4..]].concat();
        assert_eq!(in_exif(&exchanged), Some(Orientation::Rotate90));
    }

    #[test]
    fn xmp_has_an_attribute_or_an_element() {
        assert_eq!(in_xmp(b"<a tiff:Orientation=\"6\"/>"), Some(Orientation::Rotate90));
        assert_eq!(in_xmp(b"<tiff:Orientation>3</tiff:Orientation>"), Some(Orientation::Rotate180));
        assert_eq!(in_xmp(b"tiff:Orientation=\"\" tiff:Orientation>8<"), Some(Orientation::Rotate270));
        assert_eq!(in_xmp(b"tiff:Orientation=\"9\""), Some(Orientation::NoTransforms));
        for nothing in [&b"tiff:Orientation"[..], b"tiff:Orientation=6", b"Orientation=\"6\"", b"tiff:Orientation=\""] {
            assert_eq!(in_xmp(nothing), None);
        }
        let far = [vec![b' '; MAX_METADATA_BYTES], b"tiff:Orientation=\"6\"".to_vec()].concat();
        assert_eq!(in_xmp(&far), None);
    }

    #[test]
    fn exif_data_with_the_tag_decide() {
        let xmp = || Some(Orientation::Rotate180);
        let stated_of = |exif: &[u8]| stated(Some(Cow::Borrowed(exif)), xmp);
        assert_eq!(stated_of(&exif(true, 3, 1, &[0, 6])), Orientation::Rotate90);
        assert_eq!(stated_of(&exif(true, 1, 1, &[6])), Orientation::NoTransforms);
        assert_eq!(stated_of(b"rubbish"), Orientation::Rotate180);
        assert_eq!(stated(None, || None), Orientation::NoTransforms);
    }
}
