//! Runs of the trainer: what they leave, how they go on, what they refuse.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use densecl_trainer::checkpoint::{Checkpoint, list, locate};
use densecl_trainer::config::Config;
use densecl_trainer::monitor::ProgressStyle;
use densecl_trainer::pretrain::{Outcome, Run, Stop, pretrain};

/// libtorch draws random weights from one generator of the whole process: runs must not overlap.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn run(out: &Path, resume: bool, overrides: &[&str]) -> anyhow::Result<Outcome> {
    run_until(&Stop::default(), out, resume, overrides)
}

fn run_until(stop: &Stop, out: &Path, resume: bool, overrides: &[&str]) -> anyhow::Result<Outcome> {
    // A failed test has left no run behind it.
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/configs/tiny.toml");
    let config = Config::read(&path, &overrides)?;
    let (device, progress) = (tch::Device::Cpu, ProgressStyle::Lines);
    pretrain(&Run { config, out: out.to_owned(), resume, device, stop: stop.clone(), progress })
}

fn state(run: &Path) -> (u64, BTreeMap<String, Vec<f64>>) {
    let checkpoint = Checkpoint::read(&locate(run).expect("a checkpoint")).expect("a whole checkpoint");
    let values = |tensor: &tch::Tensor| {
        let tensor = tensor.to_kind(tch::Kind::Double).flatten(0, -1);
        Vec::<f64>::try_from(tensor).expect("numbers")
    };
    let tensors = checkpoint.tensors().map(|(name, tensor)| (name.clone(), values(tensor))).collect();
    (checkpoint.record.step, tensors)
}

/// Stopping after any checkpoint and going on gives the weights, queues and momenta of a run that
/// was never stopped, to the bit.
#[test]
fn a_resumed_run_ends_where_an_undisturbed_one_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    run(&whole, false, &[]).expect("a run");
    run(&cut, false, &[]).expect("a run");
    // As if it had died after the checkpoint before its last.
    let newest = list(&cut).expect("checkpoints").pop().expect("one");
    fs::remove_dir_all(newest).expect("removed");
    assert_eq!(state(&cut).0, 12);
    run(&cut, true, &[]).expect("the rest of the run");
    let (whole, cut) = (state(&whole), state(&cut));
    assert_eq!(whole.0, 16);
    assert_eq!(whole.0, cut.0);
    assert!(whole.1.len() > 200);
    for (name, values) in &whole.1 {
        assert!(cut.1.get(name) == Some(values), "{name} differs");
    }
}

#[test]
fn a_run_trains_on_a_folder_of_images() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let photos = folder.path().join("photos/deep");
    fs::create_dir_all(&photos).expect("made");
    for i in 0..16_u8 {
        let image = image::RgbImage::from_fn(90, 60 + u32::from(i), |x, y| image::Rgb([x as u8 * 2, y as u8, i * 15]));
        image.save(photos.join(format!("{i}.png"))).expect("saved");
    }
    fs::write(photos.join("broken.jpg"), b"not a jpeg").expect("written");
    let source = format!("data.source={}", toml::Value::String(folder.path().join("photos").display().to_string()));
    let out = folder.path().join("run");
    run(&out, false, &[&source, "schedule.epochs=2"]).expect("a run");
    assert_eq!(state(&out).0, 4, "two batches of eight in each epoch");
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["step"], 4);
    assert!(last["loss"].as_f64().expect("a loss").is_finite());
}

#[test]
fn mistakes_are_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let message = |out: &str, resume, overrides: &[&str]| {
        format!("{:#}", run(&folder.path().join(out), resume, overrides).expect_err("a mistake"))
    };
    assert!(message("a", true, &[]).contains("nothing to resume"));
    assert!(message("b", false, &["data.source=/no/such/folder"]).contains("/no/such/folder"));
    fs::create_dir_all(folder.path().join("empty")).expect("made");
    let empty = format!("data.source={}", toml::Value::String(folder.path().join("empty").display().to_string()));
    assert!(message("c", false, &[&empty]).contains("no image"));

    run(&folder.path().join("d"), false, &["schedule.epochs=0"]).expect("random weights");
    assert!(message("d", false, &[]).contains("--resume"), "a run is never overwritten");
    let state = locate(&folder.path().join("d")).expect("a checkpoint").join("state.safetensors");
    let mut bytes = fs::read(&state).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, bytes).expect("written");
    assert!(message("d", true, &[]).contains("damaged"));
}
