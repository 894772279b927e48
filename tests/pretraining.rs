//! Runs of the trainer: their results, how they resume, and the errors of wrong settings.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use densecl_trainer::checkpoint::{Checkpoint, list as checkpoints, locate};
use densecl_trainer::config::Config;
use densecl_trainer::pretrain::{Outcome, Run, Stop, pretrain};

/// libtorch draws random weights from one generator of the whole process: runs must not overlap.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn run(out: &Path, resume: bool, overrides: &[&str]) -> anyhow::Result<Outcome> {
    run_until(&Stop::default(), out, resume, overrides)
}

fn run_until(stop: &Stop, out: &Path, resume: bool, overrides: &[&str]) -> anyhow::Result<Outcome> {
    // A test that has failed has ended its run.
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/configs/tiny.toml");
    let config = Config::read(&path, &overrides)?;
    pretrain(&Run { resume, stop: stop.clone(), ..Run::new(config, out.to_owned(), tch::Device::Cpu) })
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
fn a_resumed_run_ends_in_the_state_of_an_undisturbed_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert_resumes(folder.path(), &[]);
}

/// Checks that a run without its last checkpoint, as if it had been killed before, ends in the state
/// of an undisturbed one. Returns the folder of the latter.
fn assert_resumes(folder: &Path, options: &[&str]) -> PathBuf {
    let (whole, cut) = (folder.join("whole"), folder.join("cut"));
    run(&whole, false, options).expect("a run");
    run(&cut, false, options).expect("a run");
    let newest = checkpoints(&cut).expect("checkpoints").pop().expect("one");
    fs::remove_dir_all(newest).expect("removed");
    assert_eq!(state(&cut).0, 12);
    run(&cut, true, options).expect("the rest of the run");
    assert_same_state(&whole, &cut, 16);
    whole
}

fn assert_same_state(a: &Path, b: &Path, step: u64) {
    let (a, b) = (state(a), state(b));
    assert_eq!((a.0, b.0), (step, step));
    assert!(a.1.len() > 200);
    for (name, values) in &a.1 {
        assert!(b.1.get(name) == Some(values), "{name} differs");
    }
}

/// LARS, warm-up, parts of a batch, bfloat16 products, channels last, cosine per epoch.
#[test]
fn a_run_with_every_option_resumes_to_the_same_bits() {
    let options = [
        "optimizer.algorithm=lars",
        "optimizer.accumulation=2",
        "optimizer.trust_coefficient=0.02",
        "schedule.warmup_steps=5",
        "schedule.cosine=epoch",
        "network.precision=bf16",
        "network.memory_format=channels-last",
        "contrast.lambda_warmup_steps=3",
        "contrast.loss_chunk=24",
    ];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = assert_resumes(folder.path(), &options);
    let metrics = metrics(&whole);
    let rate = |line: usize| metrics[line]["learning_rate"].as_f64().expect("a rate");
    assert!((rate(0) - 0.03 * 4.0 / 5.0).abs() < 1e-12, "the fourth step is on the way up");
    assert!(rate(1) > rate(2) && (rate(2) - rate(3)).abs() < 1e-15, "steps 12 and 16 are of one epoch");
}

fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A run that is stopped during its first step keeps that step.
#[test]
fn a_stopped_run_keeps_its_step() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    let stop = Stop::default();
    stop.request();
    let outcome = run_until(&stop, &stopped, false, &[]).expect("an early end");
    assert_eq!((outcome.step, outcome.total_steps), (1, 16));
    assert!(outcome.checkpoint.ends_with("step-00000001"));
    run(&stopped, true, &[]).expect("the rest of the run");
    run(&whole, false, &[]).expect("a run");
    assert_same_state(&whole, &stopped, 16);
    let pictures = fs::read_dir(stopped.join("pictures")).expect("pictures").count();
    assert_eq!(pictures, 2);
}

#[test]
fn a_damaged_checkpoint_is_skipped_for_the_one_before() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, damaged) = (folder.path().join("whole"), folder.path().join("damaged"));
    run(&whole, false, &[]).expect("a run");
    run(&damaged, false, &[]).expect("a run");
    flip_a_byte(&checkpoints(&damaged).expect("checkpoints").pop().expect("one"));
    run(&damaged, true, &[]).expect("the rest of the run");
    assert_same_state(&whole, &damaged, 16);
    assert_eq!(metrics(&damaged).len(), 4, "no step is reported twice");
}

fn flip_a_byte(checkpoint: &Path) {
    let state = checkpoint.join("state.safetensors");
    let mut bytes = fs::read(&state).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, bytes).expect("written");
}

/// A learning rate at which the loss overflows: the error names the step and a tensor, and the
/// checkpoint before is complete.
#[test]
fn an_overflowing_loss_is_reported_and_the_last_checkpoint_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("run");
    let stop = Stop::default();
    stop.request();
    run_until(&stop, &out, false, &[]).expect("one step");
    let message = format!("{:#}", run(&out, true, &["optimizer.learning_rate=1e30"]).expect_err("no number"));
    assert!(message.contains("the loss of step") && message.contains("first tensor"), "{message}");
    assert!(message.contains("query/backbone.") && message.contains("optimizer.learning_rate"), "{message}");
    assert_eq!(state(&out).0, 1);
    run(&out, true, &[]).expect("the rest of the run");
}

fn write_images(folder: &Path, count: u8) {
    fs::create_dir_all(folder).expect("made");
    for i in 0..count {
        let image =
            image::RgbImage::from_fn(90, 60 + u32::from(i % 16), |x, y| image::Rgb([x as u8 * 2, y as u8, i * 3]));
        image.save(folder.join(format!("{i:03}.png"))).expect("saved");
    }
}

fn source(path: &Path) -> String {
    format!("data.source={}", toml::Value::String(path.display().to_string()))
}

/// A folder and a list of the same images give equal runs; a run on tar shards can be resumed.
#[test]
fn lists_and_tar_shards_can_be_trained_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let photos = folder.path().join("photos");
    write_images(&photos, 64);
    let list = folder.path().join("list.txt");
    let names: Vec<_> = (0..64).map(|i| format!("photos/{i:03}.png")).collect();
    fs::write(&list, names.join("\n")).expect("written");
    let (by_folder, by_list) = (folder.path().join("by-folder"), folder.path().join("by-list"));
    run(&by_folder, false, &[&source(&photos), "schedule.epochs=1"]).expect("a run");
    run(&by_list, false, &[&source(&list), "schedule.epochs=1"]).expect("a run");
    assert_same_state(&by_folder, &by_list, 8);

    let shards = folder.path().join("shards");
    fs::create_dir(&shards).expect("made");
    for shard in 0..4 {
        let file = fs::File::create(shards.join(format!("train-{shard:04}.tar"))).expect("created");
        let mut archive = tar::Builder::new(file);
        for i in shard * 16..shard * 16 + 16 {
            let name = format!("{i:03}.png");
            archive.append_path_with_name(photos.join(&name), &name).expect("appended");
        }
        archive.finish().expect("finished");
    }
    let settings = [&source(&shards.join("train-{0000..0003}.tar")), "data.shuffle_buffer=6", "data.shard_readers=3"];
    assert_resumes(folder.path(), &settings);
}

#[test]
fn a_run_trains_on_a_folder_of_images() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let photos = folder.path().join("photos/deep");
    write_images(&photos, 64);
    fs::write(photos.join("broken.jpg"), b"not a jpeg").expect("written");
    let out = folder.path().join("run");
    let source = source(&folder.path().join("photos"));
    run(&out, false, &[&source, "schedule.epochs=2"]).expect("a run");
    assert_eq!(state(&out).0, 16, "eight batches of eight in each epoch");
    let last = metrics(&out).pop().expect("a line");
    assert_eq!(last["step"], 16);
    assert!(last["loss"].as_f64().expect("a loss").is_finite());
    assert!(last["skipped_images"].as_u64().expect("a count") >= 1, "the broken one is counted");
}

#[test]
fn wrong_settings_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let message = |out: &str, resume, overrides: &[&str]| {
        format!("{:#}", run(&folder.path().join(out), resume, overrides).expect_err("a mistake"))
    };
    assert!(message("a", true, &[]).contains("nothing to resume"));
    assert!(message("b", false, &["data.source=/no/such/folder"]).contains("/no/such/folder"));
    fs::create_dir_all(folder.path().join("empty")).expect("made");
    let empty = source(&folder.path().join("empty"));
    assert!(message("c", false, &[&empty]).contains("no image"));
    write_images(&folder.path().join("few"), 20);
    let few = message("c", false, &[&source(&folder.path().join("few"))]);
    assert!(few.contains("only 20 images") && few.contains("multiple of the batch"), "{few}");

    run(&folder.path().join("d"), false, &["schedule.epochs=0"]).expect("random weights");
    assert!(message("d", false, &[]).contains("--resume"), "a run is never overwritten");
    let other = message("d", true, &["network.dim=16"]);
    assert!(other.contains("another model") && other.contains("network.dim: 32 → 16"), "{other}");
    flip_a_byte(&locate(&folder.path().join("d")).expect("a checkpoint"));
    assert!(message("d", true, &[]).contains("damaged"));
}
