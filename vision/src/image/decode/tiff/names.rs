//! Names of what is not read in a TIFF file.

/// Name of a compression, with its number.
pub(super) fn compression(number: u64) -> String {
    let name = match number {
        6 => "old-style JPEG",
        9 | 10 | 34_661 => "JBIG",
        32_766 => "NeXT run lengths",
        32_771 => "fax run lengths in words",
        32_809 => "ThunderScan",
        32_895..=32_898 => "a coding of prepress systems (IT8)",
        33_003 | 33_005 | 34_712 => "JPEG 2000",
        34_676 | 34_677 => "SGI LogLuv",
        34_887 => "LERC",
        34_892 => "lossy JPEG of a DNG",
        34_925 => "LZMA",
        34_933 => "PNG",
        34_934 => "JPEG XR",
        50_000 => "Zstandard",
        50_001 => "WebP",
        50_002 | 52_546 => "JPEG XL",
        _ => return format!("compression {number}"),
    };
    format!("{name} (compression {number})")
}

/// Name of a photometric interpretation, with its number.
pub(super) fn photometric(number: u64) -> String {
    let name = match number {
        4 => "a transparency mask",
        6 => "YCbCr outside of a JPEG",
        8 => "CIELAB",
        9 => "ICC LAB",
        10 => "ITU LAB",
        32_803 | 34_892 => "the raw data of a camera's sensor",
        32_844 | 32_845 => "SGI LogLuv",
        51_177 => "a depth map",
        _ => return format!("photometric interpretation {number}"),
    };
    format!("{name} (photometric interpretation {number})")
}
