//! Runs of the real program that are killed, told to stop, or run out of disk: what is left of them
//! and where they end when they go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};

const TRAINER: &str = env!("CARGO_BIN_EXE_densecl-trainer");

/// A run long enough to be killed often: 320 steps.
const SETTINGS: [&str; 4] =
    ["schedule.epochs=40", "schedule.checkpoint_steps=3", "schedule.report_steps=2", "schedule.picture_steps=0"];

fn trainer(out: &Path, resume: bool, more: &[&str]) -> Command {
    let mut command = Command::new(TRAINER);
    command.args(arguments(out, resume, more)).env("OMP_NUM_THREADS", "1").stdout(Stdio::piped());
    command.stderr(Stdio::piped());
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

fn wait_for_checkpoint(out: &Path, process: &mut Child) {
    let patience = Instant::now() + Duration::from_mins(5);
    while checkpoints(out).is_empty() {
        assert!(Instant::now() < patience && process.try_wait().expect("a process").is_none(), "no checkpoint came");
        sleep(Duration::from_millis(20));
    }
}

fn reported_steps(out: &Path) -> Vec<u64> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
    let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["step"].as_u64();
    text.lines().map(|line| step(line).expect("a step")).collect()
}

/// Killed without warning twenty times, at random moments, a run ends with the weights, queues and
/// momenta of one that was left alone, to the bit, and has reported every step once.
#[test]
fn twenty_kills_change_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    finish(&whole, false, &[]);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut kills = 0;
    while kills < 20 {
        let resume = !checkpoints(&killed).is_empty();
        let before = checkpoints(&killed).pop();
        let mut process = trainer(&killed, resume, &[]).spawn().expect("the program starts");
        // Until it has taken a step, nothing can be lost; from there on at any moment.
        let patience = Instant::now() + Duration::from_mins(5);
        while checkpoints(&killed).pop() == before && Instant::now() < patience {
            sleep(Duration::from_millis(5));
        }
        sleep(Duration::from_millis(rng.random_range(0..60)));
        process.kill().expect("killed");
        let status = process.wait().expect("it ends");
        assert!(!status.success(), "the run was over before it could be killed {kills} times");
        kills += 1;
    }
    finish(&killed, true, &[]);
    assert!(final_state(&killed, 320) == final_state(&whole, 320), "the final state differs");
    assert_eq!(reported_steps(&killed), (1..=160).map(|i| 2 * i).collect::<Vec<_>>());
    let left = fs::read_dir(killed.join("checkpoints")).expect("a folder").count();
    assert_eq!(left, checkpoints(&killed).len(), "unfinished checkpoints are removed");
}

#[test]
fn a_stopped_run_has_kept_its_last_step_and_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    finish(&whole, false, &["schedule.epochs=4"]);
    for signal in ["-TERM", "-INT"] {
        // The first stops before a regular checkpoint; there is none that long.
        let resume = !checkpoints(&stopped).is_empty();
        let settings = ["schedule.epochs=4", "schedule.report_steps=1", "schedule.checkpoint_steps=1000"];
        let mut process = trainer(&stopped, resume, &settings).spawn().expect("the program starts");
        let reported = || fs::read_to_string(stopped.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
        let before = reported();
        while reported() <= before {
            assert!(process.try_wait().expect("a process").is_none(), "it was over too soon");
            sleep(Duration::from_millis(2));
        }
        let told = Command::new("kill").args([signal, &process.id().to_string()]).status().expect("kill runs");
        assert!(told.success());
        let Output { status, stdout, stderr } = process.wait_with_output().expect("it ends");
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        let said = String::from_utf8_lossy(&stdout).into_owned();
        assert!(said.contains("stopped after step") && said.contains("--resume"), "{said}");
        let steps = *reported_steps(&stopped).last().expect("a report");
        assert!(said.contains(&format!("step {steps} of 32")), "{said}, but {steps} were reported");
        assert!(!final_state(&stopped, steps).is_empty());
    }
    finish(&stopped, true, &["schedule.epochs=4"]);
    assert!(final_state(&stopped, 32) == final_state(&whole, 32), "the final state differs");
}

/// A checkpoint that finds no room is an error that says so; the ones before are whole.
#[test]
fn a_full_disk_loses_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, full) = (folder.path().join("whole"), folder.path().join("full"));
    let short = ["schedule.epochs=4"];
    finish(&whole, false, &short);
    let mut process = trainer(&full, false, &short).spawn().expect("the program starts");
    wait_for_checkpoint(&full, &mut process);
    process.kill().expect("killed");
    process.wait().expect("it ends");
    let before = checkpoints(&full);

    // Files may grow to 512 kB, which a report fits into and a checkpoint does not.
    let script = "trap '' XFSZ; ulimit -f 512; exec \"$0\" \"$@\"";
    let limited = Command::new("bash")
        .args(["-c", script, TRAINER])
        .args(arguments(&full, true, &short))
        .env("OMP_NUM_THREADS", "1")
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&limited.stderr).into_owned();
    assert_eq!(limited.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write the checkpoint") && said.contains("earlier checkpoints"), "{said}");
    assert_eq!(checkpoints(&full), before);

    finish(&full, true, &short);
    assert!(final_state(&full, 32) == final_state(&whole, 32), "the final state differs");
}
