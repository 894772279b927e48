//! Folders are written as `HPatches`' are, with pictures whose truth is known.

use std::fs;

use ::image::{ImageFormat, Rgb};
use tempfile::TempDir;

use super::*;
use crate::evaluate::rgb_patches;

/// Smooth noise without repetition; the window of an endless picture that starts at `(left, top)`.
fn texture(width: u32, height: u32, left: u32, top: u32) -> RgbImage {
    const KNOTS_PX: u32 = 12;
    let knot = |x: u32, y: u32, color: u32| {
        let mut state = (x * 7919 + y * 104_729 + color).wrapping_mul(0x9E37_79B1);
        state = (state ^ (state >> 15)).wrapping_mul(0x85EB_CA77);
        f64::from((state ^ (state >> 13)) & 0xFF)
    };
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (x + left, y + top);
        let (i, j) = (x / KNOTS_PX, y / KNOTS_PX);
        let part = |position: u32| f64::from(position % KNOTS_PX) / f64::from(KNOTS_PX);
        let between = |one: f64, other: f64, share: f64| one + (other - one) * share;
        Rgb([0, 1, 2].map(|color| {
            let above = between(knot(i, j, color), knot(i + 1, j, color), part(x));
            let below = between(knot(i, j + 1, color), knot(i + 1, j + 1, color), part(x));
            between(above, below, part(y)) as u8
        }))
    })
}

/// A sequence whose second picture shows the same plane 16 pixels further right and 8 further down.
fn write_sequence(folder: &TempDir, name: &str, format: ImageFormat) {
    let path = folder.path().join(name);
    fs::create_dir(&path).unwrap();
    let extension = if format == ImageFormat::Pnm { "ppm" } else { "png" };
    texture(256, 192, 0, 0).save_with_format(path.join(format!("1.{extension}")), format).unwrap();
    texture(256, 192, 16, 8).save_with_format(path.join(format!("2.{extension}")), format).unwrap();
    fs::write(path.join("H_1_2"), "1 0 -16\n0 1 -8\n0 0 1\n").unwrap();
}

fn patches(picture: &RgbImage) -> Result<FeatureMap, ExtractorError> {
    Ok(rgb_patches(picture, 256, 8)?)
}

fn evaluate(folder: &TempDir) -> Result<Report, EvaluateError> {
    run(folder.path(), "patches", &mut patches, &Options::default())
}

#[test]
fn a_shifted_picture_is_matched_nearly_perfectly() {
    let folder = TempDir::new().unwrap();
    write_sequence(&folder, "v_png", ImageFormat::Png);
    write_sequence(&folder, "i_ppm", ImageFormat::Pnm);
    let report = evaluate(&folder).unwrap();
    assert_eq!((report.sequences, report.all.pairs), (2, 2));
    assert_eq!(report.viewpoint.as_ref().unwrap().mma, report.illumination.as_ref().unwrap().mma);
    assert!(report.all.mma[1].share.mean > 0.9, "{report:?}");
    assert!(report.all.pck_px[0].share.mean > 0.95, "{report:?}");
    assert!(report.all.matches.mean > 500.0);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["all"]["mma"][3]["threshold"], 10.0);
    assert!(json["all"]["mma"][3]["mean"].as_f64().unwrap() > 0.9);
}

#[test]
fn features_that_say_nothing_score_as_chance_does() {
    let folder = TempDir::new().unwrap();
    write_sequence(&folder, "v_png", ImageFormat::Png);
    let mut seed = 0;
    let mut noise = |_: &RgbImage| {
        let data = (0..8 * 24 * 32).map(|_| {
            seed = u32::wrapping_mul(seed, 1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
        });
        Ok(FeatureMap::new(8, 24, 32, data.collect())?)
    };
    let report = run(folder.path(), "noise", &mut noise, &Options::default()).unwrap();
    assert!(report.all.mma[3].share.mean < 0.1, "{report:?}");
    assert!(report.all.pck_px[2].share.mean < 0.15, "{report:?}");
}

#[test]
fn what_is_missing_is_named() {
    let folder = TempDir::new().unwrap();
    assert!(matches!(evaluate(&folder), Err(EvaluateError::Sequence(SequenceError::NoSequences { .. }))));
    write_sequence(&folder, "v_one", ImageFormat::Png);
    let sequence = folder.path().join("v_one");

    fs::rename(sequence.join("H_1_2"), sequence.join("H_1_3")).unwrap();
    let error = evaluate(&folder).unwrap_err().to_string();
    assert!(error.contains("H_1_2 is missing"), "{error}");
    fs::write(sequence.join("H_1_2"), "1 0 0 0 1 0 0 0").unwrap();
    assert!(matches!(evaluate(&folder), Err(EvaluateError::Sequence(SequenceError::Homography { .. }))));
    fs::rename(sequence.join("H_1_3"), sequence.join("H_1_2")).unwrap();
    fs::write(sequence.join("2.png"), "no picture").unwrap();
    assert!(matches!(evaluate(&folder), Err(EvaluateError::Sequence(SequenceError::Picture { .. }))));
    fs::remove_file(sequence.join("2.png")).unwrap();
    let error = evaluate(&folder).unwrap_err().to_string();
    assert!(error.contains("v_one has no picture 2.ppm"), "{error}");
    fs::remove_file(sequence.join("1.png")).unwrap();
    let error = evaluate(&folder).unwrap_err().to_string();
    assert!(error.contains("no picture 1.ppm"), "{error}");
}

#[test]
fn the_extractors_failure_names_the_picture() {
    let folder = TempDir::new().unwrap();
    write_sequence(&folder, "v_one", ImageFormat::Png);
    let error = run(folder.path(), "none", &mut |_| Err("out of order".into()), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("1.png"), "{error}");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "out of order");
}
