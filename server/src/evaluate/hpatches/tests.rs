//! Folders are written as `HPatches`' are, with pictures whose truth is known.

use std::fs;

use ::image::{ImageFormat, Rgb};
use tempfile::TempDir;

use super::*;
use crate::evaluate::rgb_patches;

/// Smooth colours without repetition; the window of an endless picture that starts at `(left, top)`.
fn texture(width: u32, height: u32, left: f64, top: f64) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (f64::from(x) + left, f64::from(y) + top);
        let wave = |a: f64, b: f64, c: f64| ((x * a + y * b).sin() * (x * b * 0.37 - y * c).cos() + 1.0) * 127.0;
        Rgb([wave(0.11, 0.07, 0.031), wave(0.05, 0.13, 0.043), wave(0.017, 0.029, 0.19)].map(|value| value as u8))
    })
}

/// A sequence whose second picture shows the same plane 16 pixels further right and 8 further down.
fn write_sequence(folder: &TempDir, name: &str, format: ImageFormat) {
    let path = folder.path().join(name);
    fs::create_dir(&path).unwrap();
    let extension = if format == ImageFormat::Pnm { "ppm" } else { "png" };
    texture(256, 192, 0.0, 0.0).save_with_format(path.join(format!("1.{extension}")), format).unwrap();
    texture(256, 192, 16.0, 8.0).save_with_format(path.join(format!("2.{extension}")), format).unwrap();
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
