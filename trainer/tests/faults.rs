//! Runs of the real program that are killed or stopped, or whose disk or data fail: what they keep, and
//! where they end when they are resumed.

mod trainer_process;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::{RngExt, SeedableRng};

use trainer_process::{CHECKPOINT, Ended, TRAINER, TrainerProcess};

/// Start of the log's message that a step has been reported.
const PROGRESS: &str = ": progress step=";

/// A run long enough to be killed often: 320 steps.
const SETTINGS: [&str; 4] =
    ["schedule.epochs=40", "schedule.checkpoint_steps=3", "schedule.report_steps=2", "schedule.picture_steps=0"];

fn trainer(out: &Path, resume: bool, more: &[&str]) -> Command {
    let mut command = Command::new(TRAINER);
    command.args(arguments(out, resume, more)).env("OMP_NUM_THREADS", "1");
    command
}

fn arguments(out: &Path, resume: bool, more: &[&str]) -> Vec<String> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/tiny.toml");
    let mut arguments = vec!["pretrain".to_owned(), "--config".to_owned(), config.display().to_string()];
    arguments.extend(["--device".to_owned(), "cpu".to_owned(), "--out".to_owned(), out.display().to_string()]);
    arguments.push("--set".to_owned());
    arguments.extend(SETTINGS.iter().chain(more).map(|&setting| setting.to_owned()));
    if resume {
        arguments.push("--resume".to_owned());
    }
    arguments
}

fn finish(out: &Path, resume: bool, more: &[&str]) {
    let output = trainer(out, resume, more).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The tensors after the last step, as they are on the disk.
fn final_state(out: &Path, step: u64) -> Vec<u8> {
    fs::read(out.join(format!("checkpoints/step-{step:08}/state.safetensors"))).expect("a checkpoint")
}

fn checkpoints(out: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(out.join("checkpoints"))
        .map(|entries| entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
        .unwrap_or_default();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-")));
    found.sort();
    found
}

fn reported_steps(out: &Path) -> Vec<u64> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
    let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["step"].as_u64();
    text.lines().map(|line| step(line).expect("a step")).collect()
}

/// Killed without warning twenty times, after a random line of its log each, a run ends with the
/// weights, queues and momenta of one that was left alone, to the bit, and has reported every step
/// once. After the report of a sixth step, the trainer is about to write a checkpoint.
#[test]
fn twenty_kills_change_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    finish(&whole, false, &[]);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    for kills in 0..20 {
        let resume = !checkpoints(&killed).is_empty();
        let mut process = TrainerProcess::start(&mut trainer(&killed, resume, &[]));
        // Every process gets as far as a checkpoint, so that the run comes to its end.
        process.wait_for_line(CHECKPOINT);
        for _ in 0..rng.random_range(0..10) {
            process.next_line();
        }
        process.kill();
        let ended = process.finish();
        assert!(!ended.status.success(), "the run was over after {kills} kills");
    }
    finish(&killed, true, &[]);
    assert!(final_state(&killed, 320) == final_state(&whole, 320), "the final state differs");
    assert_eq!(reported_steps(&killed), (1..=160).map(|i| 2 * i).collect::<Vec<_>>());
    let left = fs::read_dir(killed.join("checkpoints")).expect("a folder").count();
    assert_eq!(left, checkpoints(&killed).len(), "unfinished checkpoints are removed");
}

#[test]
fn a_stopped_run_keeps_its_last_step_and_resumes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    finish(&whole, false, &["schedule.epochs=4"]);
    for signal in ["-TERM", "-INT"] {
        // The first stops before a regular checkpoint; there is none that long.
        let resume = !checkpoints(&stopped).is_empty();
        let settings = ["schedule.epochs=4", "schedule.report_steps=1", "schedule.checkpoint_steps=1000"];
        let mut process = TrainerProcess::start(&mut trainer(&stopped, resume, &settings));
        process.wait_for_line(PROGRESS);
        process.signal(signal);
        let Ended { status, stdout, stderr } = process.finish();
        assert!(status.success(), "{stderr}");
        assert!(stdout.contains("stopped after step") && stdout.contains("--resume"), "{stdout}");
        let steps = *reported_steps(&stopped).last().expect("a report");
        assert!(stdout.contains(&format!("step {steps} of 32")), "{stdout}, but {steps} were reported");
        assert!(!final_state(&stopped, steps).is_empty());
    }
    finish(&stopped, true, &["schedule.epochs=4"]);
    assert!(final_state(&stopped, 32) == final_state(&whole, 32), "the final state differs");
}

/// A checkpoint that does not fit on the disk is an error that says so; earlier ones are complete.
#[test]
fn a_full_disk_loses_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, full) = (folder.path().join("whole"), folder.path().join("full"));
    let short = ["schedule.epochs=4"];
    finish(&whole, false, &short);
    let mut process = TrainerProcess::start(&mut trainer(&full, false, &short));
    process.wait_for_line(CHECKPOINT);
    process.kill();
    process.finish();
    let before = checkpoints(&full);

    // Files may grow to 512 kB, which a report fits into and a checkpoint does not.
    let script = "trap '' XFSZ; ulimit -f 512; exec \"$0\" \"$@\"";
    let limited = Command::new("bash")
        .args(["-c", script, TRAINER])
        .args(arguments(&full, true, &short))
        .env("OMP_NUM_THREADS", "1")
        .output()
        .expect("bash runs");
    let stderr = String::from_utf8_lossy(&limited.stderr).into_owned();
    assert_eq!(limited.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write the checkpoint") && stderr.contains("earlier checkpoints"), "{stderr}");
    assert_eq!(checkpoints(&full), before);

    finish(&full, true, &short);
    assert!(final_state(&full, 32) == final_state(&whole, 32), "the final state differs");
}

/// The folder of images is moved away during the run: the error says so, and the last step is kept.
#[test]
fn missing_data_lose_no_step() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (images, out) = (folder.path().join("images"), folder.path().join("run"));
    fs::create_dir(&images).expect("made");
    for i in 0..64_u32 {
        let pixel = |x: u32, y: u32| image::Rgb([(x * 2) as u8, y as u8, (i * 3) as u8]);
        image::RgbImage::from_fn(90, 60 + i % 16, pixel).save(images.join(format!("{i:02}.png"))).expect("saved");
    }
    let source = format!("data.source={}", toml::Value::String(images.display().to_string()));
    let settings = [source.as_str(), "schedule.epochs=4000", "schedule.checkpoint_steps=100000"];
    let mut process = TrainerProcess::start(&mut trainer(&out, false, &settings));
    process.wait_for_line(PROGRESS);
    process.wait_for_line(PROGRESS);
    fs::rename(&images, folder.path().join("elsewhere")).expect("moved");
    let Ended { status, stderr, .. } = process.finish();
    assert!(!status.success() && stderr.contains("gone") && stderr.contains("--resume"), "{stderr}");
    let kept = checkpoints(&out).pop().expect("a checkpoint");
    let step: u64 = kept.to_str().and_then(|path| path.rsplit('-').next()).expect("a step").parse().expect("a number");
    assert!(step >= 4 && stderr.contains(&format!("after step {step}")), "{stderr}");
}
