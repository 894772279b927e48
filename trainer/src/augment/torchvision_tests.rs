//! The operations against torchvision's, with the same parameters on the same images.
//!
//! `tests/golden/make_augmentation.py` wrote the expected values and says what the file holds.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::colour::{Jitter, JitterStep, grey_where, jitter};
use super::parameters::{Crops, ViewParameters};
use super::{ImageSize, Normalization, column, resample, view};
use crate::tensor_file::TensorFile;

/// Largest difference of a value in [0, 1]: a few roundings of float32.
const TOLERANCE: f64 = 2e-6;

struct Golden(TensorFile);

impl Golden {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/augmentation.safetensors");
        Self(TensorFile::read(&path).unwrap())
    }

    fn tensor(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap()
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        Vec::try_from(self.tensor(name)).unwrap()
    }

    /// uint8 canvases `[N, S, S, 3]`.
    fn canvases(&self) -> &Tensor {
        self.tensor("images")
    }

    /// Columns of `[N, 4]` windows.
    fn crops(&self, name: &str) -> Crops {
        let along = |i: i64| Vec::try_from(self.tensor(name).select(1, i).to_kind(Kind::Float).contiguous()).unwrap();
        Crops { x: along(0), y: along(1), width: along(2), height: along(3) }
    }

    fn assert_close(&self, found: &Tensor, name: &str, tolerance: f64) {
        let expected = self.tensor(&format!("{name}/result"));
        assert_eq!(found.size(), expected.size(), "{name}");
        for image in 0..found.size()[0] {
            let error = (found.get(image) - expected.get(image)).abs().max().double_value(&[]);
            assert!(error <= tolerance, "{name}, image {image}: differs by {error:e}");
        }
    }
}

fn side(images: &Tensor) -> i64 {
    images.size()[3]
}

#[test]
fn crops_are_torchvisions() {
    let golden = Golden::read();
    let images = golden.canvases().permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
    for name in ["smaller", "larger", "mixed"] {
        let crops = golden.crops(&format!("crop/{name}/windows"));
        let expected = golden.tensor(&format!("crop/{name}/result"));
        let rows = |starts: &[f32], lengths: &[f32], flips: Option<&[bool]>| {
            resample::crop_rows(starts, lengths, flips, side(&images), side(expected), Device::Cpu)
        };
        let vertical = rows(&crops.y, &crops.height, None);
        let found = resample::apply(&images, &vertical, &rows(&crops.x, &crops.width, None));
        golden.assert_close(&found, &format!("crop/{name}"), TOLERANCE);
        let mirrored = resample::apply(&images, &vertical, &rows(&crops.x, &crops.width, Some(&[true; 4])));
        golden.assert_close(&mirrored.flip([3]), &format!("crop/{name}"), TOLERANCE);
    }
}

#[test]
fn colours_are_torchvisions() {
    let golden = Golden::read();
    let input = golden.tensor("colour/input");
    for name in ["brightness", "contrast", "saturation", "hue"] {
        // The other three operations do nothing, which is a test of its own below.
        let mut strengths = Jitter::identity(4);
        *strengths_of(&mut strengths, name) = golden.numbers(&format!("{name}/parameter"));
        golden.assert_close(&jitter(input.shallow_clone(), &strengths), name, TOLERANCE);
    }
    let mask = column(&golden.numbers("grey/parameter"), Device::Cpu);
    golden.assert_close(&grey_where(input, &mask), "grey", TOLERANCE);
}

#[test]
fn doing_nothing_changes_nothing() {
    let golden = Golden::read();
    let input = golden.tensor("colour/input");
    let error = (jitter(input.shallow_clone(), &Jitter::identity(4)) - input).abs().max().double_value(&[]);
    assert!(error <= TOLERANCE, "{error:e}");
}

#[test]
fn blurs_are_torchvisions() {
    let golden = Golden::read();
    let input = golden.tensor("colour/input");
    let rows = resample::blur_rows(&golden.numbers("blur/parameter"), side(input), Device::Cpu);
    golden.assert_close(&resample::apply(input, &rows, &rows), "blur", TOLERANCE);
}

#[test]
fn whole_views_are_torchvisions() {
    let golden = Golden::read();
    for name in ["published", "turned"] {
        let numbers = |key: &str| golden.numbers(&format!("chain/{name}/{key}"));
        let order: Vec<_> = golden.0.metadata[&format!("chain/{name}/order")].split(',').map(step).collect();
        let mut parameters = ViewParameters::identity(&[ImageSize { width: 40, height: 40 }; 4], 40);
        parameters.crops = golden.crops(&format!("chain/{name}/windows"));
        parameters.flips = numbers("flip").iter().map(|&flip| flip > 0.0).collect();
        parameters.greys = numbers("grey");
        parameters.blur_sigmas_px = numbers("blur");
        parameters.jitter.order = order.try_into().unwrap();
        for name in ["brightness", "contrast", "saturation", "hue"] {
            *strengths_of(&mut parameters.jitter, name) = numbers(name);
        }
        let expected = golden.tensor(&format!("chain/{name}/result"));
        let found = view(golden.canvases(), &parameters, side(expected), &Normalization::IMAGENET);
        // Dividing by the standard deviations makes every difference about 4.5 times as large.
        golden.assert_close(&found, &format!("chain/{name}"), 1e-5);
    }
}

fn step(name: &str) -> JitterStep {
    match name {
        "brightness" => JitterStep::Brightness,
        "contrast" => JitterStep::Contrast,
        "saturation" => JitterStep::Saturation,
        "hue" => JitterStep::Hue,
        other => panic!("unknown operation `{other}`"),
    }
}

fn strengths_of<'a>(jitter: &'a mut Jitter, name: &str) -> &'a mut Vec<f32> {
    match step(name) {
        JitterStep::Brightness => &mut jitter.brightness,
        JitterStep::Contrast => &mut jitter.contrast,
        JitterStep::Saturation => &mut jitter.saturation,
        JitterStep::Hue => &mut jitter.hue,
    }
}
