//! Runs of the real program by several processes: what they learn, and what becomes of them when one
//! of them is lost.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use densecl_trainer::checkpoint::{self, Checkpoint};

const TRAINER: &str = env!("CARGO_BIN_EXE_densecl-trainer");

/// Five steps of a batch of 16, exact enough to tell a wrong one from rounding.
const EXACT: [&str; 5] = [
    "network.precision=float64",
    "optimizer.batch=16",
    "data.images_per_epoch=80",
    "schedule.epochs=1",
    "schedule.picture_steps=0",
];

/// Exit status of a script that could not test anything here.
const SKIPPED: i32 = 77;

/// Differences that rounding leaves.
const TOLERANCE: f64 = 1e-6;

fn command(out: &Path, resume: bool, settings: &[&str]) -> Command {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/tiny.toml");
    let mut command = Command::new(TRAINER);
    command.args(["pretrain", "--device", "cpu", "--config"]).arg(config).arg("--out").arg(out);
    command.arg("--set").args(settings).args(resume.then_some("--resume"));
    command.env("OMP_NUM_THREADS", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    for variable in ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"] {
        command.env_remove(variable);
    }
    command
}

/// How a process ended.
#[derive(Debug)]
struct Ended {
    success: bool,
    stdout: String,
    stderr: String,
}

/// Processes that train together; they do not outlive the test.
struct Ranks(Vec<Child>);

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port()
}

impl Ranks {
    fn start(size: usize, out: &Path, resume: bool, settings: &[&str]) -> Self {
        Self::start_each(size, || command(out, resume, settings))
    }

    fn start_each(size: usize, command: impl Fn() -> Command) -> Self {
        let port = free_port();
        Self((0..size).map(|rank| Self::spawn(rank, size, port, &mut command())).collect())
    }

    fn spawn(rank: usize, size: usize, port: u16, command: &mut Command) -> Child {
        let variables = [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", size), ("MASTER_PORT", port.into())];
        command.env("MASTER_ADDR", "127.0.0.1").envs(variables.map(|(name, value)| (name, value.to_string())));
        command.spawn().expect("the program starts")
    }

    fn wait_for_checkpoint(&mut self, out: &Path) {
        let patience = Instant::now() + Duration::from_mins(2);
        while checkpoint::list(out).expect("a list").is_empty() {
            let ended = self.0.iter_mut().any(|process| process.try_wait().expect("a process").is_some());
            assert!(Instant::now() < patience && !ended, "no checkpoint came");
            sleep(Duration::from_millis(10));
        }
    }

    /// Waits for all, for a minute at most.
    fn end(mut self) -> Vec<Ended> {
        let patience = Instant::now() + Duration::from_mins(1);
        let end = |process: &mut Child| {
            let status = loop {
                match process.try_wait().expect("a process") {
                    Some(status) => break status,
                    None if Instant::now() > patience => panic!("a process has not ended within a minute"),
                    None => sleep(Duration::from_millis(10)),
                }
            };
            let (mut stdout, mut stderr) = (String::new(), String::new());
            process.stdout.take().expect("a pipe").read_to_string(&mut stdout).expect("text");
            process.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
            Ended { success: status.success(), stdout, stderr }
        };
        self.0.iter_mut().map(end).collect()
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for process in &mut self.0 {
            // An error says that it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn train(size: usize, out: &Path, resume: bool, settings: &[&str]) {
    if size == 1 {
        let output = command(out, resume, settings).output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    } else {
        for ended in Ranks::start(size, out, resume, settings).end() {
            assert!(ended.success, "{}", ended.stderr);
        }
    }
}

fn state(out: &Path) -> (u64, BTreeMap<String, Vec<f64>>) {
    let newest = checkpoint::newest_whole(out).expect("whole checkpoints").expect("a checkpoint");
    let values =
        |tensor: &tch::Tensor| Vec::<f64>::try_from(tensor.to_kind(tch::Kind::Double).flatten(0, -1)).expect("numbers");
    let tensors = Checkpoint::tensors(&newest).map(|(name, tensor)| (name.clone(), values(tensor))).collect();
    (newest.record.step, tensors)
}

fn assert_same(one: &Path, several: &Path, step: u64) {
    let ((step_of_one, one), (step_of_several, several)) = (state(one), state(several));
    assert_eq!((step_of_one, step_of_several), (step, step));
    assert!(one.keys().eq(several.keys()) && one.len() > 200);
    for (name, values) in &one {
        let differences = values.iter().zip(&several[name]).map(|(a, b)| (a - b).abs());
        let worst = differences.fold(0.0, f64::max);
        assert!(worst < TOLERANCE, "{name} differs by {worst:e}");
    }
}

fn with<'a>(settings: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [settings, more].concat()
}

/// Weights, running statistics, both queues and momenta are those of one process with as many
/// BatchNorm groups; the reported losses, too.
#[test]
fn several_processes_learn_what_one_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cases: [(usize, &[&str]); 5] = [
        (2, &["contrast.bn_splits=2", "method=densecl"]),
        (2, &["contrast.bn_splits=2", "method=moco-v2"]),
        (4, &["contrast.bn_splits=4", "method=densecl"]),
        (4, &["contrast.bn_splits=4", "method=moco-v2"]),
        (2, &["contrast.bn_splits=8", "optimizer.accumulation=2", "network.memory_format=channels-last"]),
    ];
    for (case, (size, settings)) in cases.into_iter().enumerate() {
        let out = |name: &str| folder.path().join(format!("{name}-{case}"));
        let (one, several) = (out("one"), out("several"));
        let settings = with(&EXACT, settings);
        train(1, &one, false, &settings);
        train(size, &several, false, &settings);
        assert_same(&one, &several, 5);
        let losses = |out: &Path| {
            let text = fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
            let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
            let loss = |line: serde_json::Value| line["loss"].as_f64().expect("a loss");
            text.lines().map(|text| loss(line(text))).collect::<Vec<_>>()
        };
        for (a, b) in losses(&one).into_iter().zip(losses(&several)) {
            assert!((a - b).abs() < TOLERANCE, "{settings:?}: {a} and {b}");
        }
    }
}

/// Shards come to the same batches, whoever reads them, and so do pictures of different sizes.
#[test]
fn several_processes_read_what_one_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let images = folder.path().join("images");
    write_pictures(&images);
    for (name, source) in [("files", images.clone()), ("shards", images.join("pictures.tar"))] {
        let source = format!("data.source={}", source.display());
        let settings = with(&EXACT, &[&source, "contrast.queue_length=16", "data.shuffle_buffer=20"]);
        let (one, several) = (folder.path().join(format!("one-{name}")), folder.path().join(format!("two-{name}")));
        train(1, &one, false, &settings);
        train(2, &several, false, &settings);
        assert_same(&one, &several, 5);
    }
}

/// 80 pictures as files, and in a tar shard beside them.
fn write_pictures(folder: &Path) {
    fs::create_dir(folder).expect("a folder");
    let mut shard = tar::Builder::new(fs::File::create(folder.join("pictures.tar")).expect("a shard"));
    for i in 0..80_u32 {
        let path = folder.join(format!("{i:02}.png"));
        let pixel = |x: u32, y: u32| image::Rgb([(x * i) as u8, (y * 7 + i) as u8, (x * y) as u8]);
        image::RgbImage::from_fn(40 + i, 100 - i, pixel).save(&path).expect("a picture");
        shard.append_path_with_name(&path, format!("{i:02}.png")).expect("a member");
    }
    shard.finish().expect("a shard");
}

/// Long enough to be interrupted: 40 steps.
const LONG: [&str; 3] = ["contrast.bn_splits=4", "schedule.epochs=8", "schedule.checkpoint_steps=2"];

/// Killed without warning, a rank is named by all others within a minute, whichever it is; the run
/// goes on with another number of processes, to where one that was left alone ends.
#[test]
fn a_killed_rank_is_named_and_the_run_goes_on_in_another_world() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = with(&EXACT, &LONG);
    let whole = folder.path().join("whole");
    train(1, &whole, false, &settings);
    for (killed, size, then) in [(0, 2, 4), (3, 4, 1), (1, 4, 2)] {
        let out = folder.path().join(format!("killed-{killed}"));
        let mut ranks = Ranks::start(size, &out, false, &settings);
        ranks.wait_for_checkpoint(&out);
        ranks.0[killed].kill().expect("killed");
        for (rank, Ended { success, stderr, .. }) in ranks.end().iter().enumerate() {
            assert!(!success, "rank {rank} was not stopped: {stderr}");
            let named = stderr.contains(&format!("rank {killed} is gone")) && stderr.contains("--resume");
            assert!(rank == killed || named, "rank {rank}: {stderr}");
        }
        assert!(state(&out).0 < 40, "it was over before it was killed");
        train(then, &out, true, &settings);
        assert_same(&whole, &out, 40);
    }
}

/// A rank that hangs is named as well, once it has been silent for as long as it may.
#[test]
fn a_rank_that_hangs_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = with(&EXACT, &LONG);
    let mut ranks = Ranks::start_each(2, || {
        let mut command = command(folder.path(), false, &settings);
        command.args(["--distributed-timeout", "3"]);
        command
    });
    ranks.wait_for_checkpoint(folder.path());
    signal(&ranks.0[1], "-STOP");
    let patience = Instant::now() + Duration::from_secs(30);
    while ranks.0[0].try_wait().expect("a process").is_none() && Instant::now() < patience {
        sleep(Duration::from_millis(10));
    }
    ranks.0[1].kill().expect("killed");
    let first = &ranks.end()[0];
    assert!(!first.success && first.stderr.contains("rank 1 has not been heard of for 3 s"), "{}", first.stderr);
}

/// Whichever rank is told to stop, all stop after the same step, with one checkpoint.
#[test]
fn one_rank_that_is_told_to_stop_stops_all() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    let settings = with(&EXACT, &LONG);
    train(1, &whole, false, &settings);
    let mut ranks = Ranks::start(2, &stopped, false, &settings);
    ranks.wait_for_checkpoint(&stopped);
    signal(&ranks.0[1], "-TERM");
    let ended = ranks.end();
    let (step, _) = state(&stopped);
    assert!(ended.iter().all(|ended| ended.success) && step < 40, "{ended:?}");
    assert!(ended[0].stdout.contains(&format!("stopped after step {step} of 40")), "{ended:?}");
    assert!(ended[1].stdout.is_empty(), "the first rank alone reports: {ended:?}");
    train(2, &stopped, true, &settings);
    assert_same(&whole, &stopped, 40);
}

fn signal(process: &Child, signal: &str) {
    let told = Command::new("kill").args([signal, &process.id().to_string()]).status().expect("kill runs");
    assert!(told.success());
}

#[test]
fn what_cannot_be_trained_together_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let half = command(folder.path(), false, &EXACT).env("RANK", "1").output().expect("the program starts");
    let said = String::from_utf8_lossy(&half.stderr).into_owned();
    assert!(!half.status.success() && said.contains("but not LOCAL_RANK, WORLD_SIZE, MASTER_ADDR"), "{said}");

    for ended in Ranks::start(2, folder.path(), false, &with(&EXACT, &["contrast.bn_splits=1"])).end() {
        assert!(!ended.success && ended.stderr.contains("Set contrast.bn_splits to 2"), "{}", ended.stderr);
    }
    // As where two hosts have different files.
    let seeds: [&str; 2] = ["seed=1", "seed=2"];
    let port = free_port();
    let start =
        |rank: usize| Ranks::spawn(rank, 2, port, &mut command(folder.path(), false, &with(&EXACT, &[seeds[rank]])));
    for ended in Ranks(vec![start(0), start(1)]).end() {
        assert!(!ended.success && ended.stderr.contains("rank 1 is about to train something else"), "{}", ended.stderr);
    }
}

/// Two hosts whose link is cut for half a minute. It takes root and network namespaces.
#[test]
fn a_cut_link_ends_the_run_and_it_goes_on_afterwards() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/distributed/link_cut.sh");
    let output = Command::new(script).arg(TRAINER).output().expect("bash runs");
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    match output.status.code() {
        Some(0) => {}
        // Shown by `cargo test -- --nocapture`.
        Some(SKIPPED) => eprintln!("{said}"),
        _ => panic!("{said}"),
    }
}
