//! Runs of the real program in several processes: they learn what one process does, and they end with
//! an error when one of them is lost.

mod trainer_process;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use densecl_trainer::checkpoint::{self, Checkpoint};
use densecl_trainer::distributed::ProcessRank;
use densecl_trainer::native::process_group::{Group, LocalEndpoint, Store, StoreAddress};

use trainer_process::{CHECKPOINT, Ended, TRAINER, TrainerProcess};

/// Five steps of a batch of 16 in float64, so that a wrong step differs by more than rounding.
const EXACT: [&str; 5] = [
    "network.precision=float64",
    "optimizer.batch=16",
    "data.images_per_epoch=80",
    "schedule.epochs=1",
    "schedule.picture_steps=0",
];

/// Differences that rounding leaves.
const TOLERANCE: f64 = 1e-6;

fn command(out: &Path, resume: bool, settings: &[&str]) -> Command {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/tiny.toml");
    let mut command = Command::new(TRAINER);
    command.args(["pretrain", "--device", "cpu", "--config"]).arg(config).arg("--out").arg(out);
    command.arg("--set").args(settings).args(resume.then_some("--resume"));
    command.env("OMP_NUM_THREADS", "1");
    for variable in ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"] {
        command.env_remove(variable);
    }
    command
}

/// Processes that train together; they do not outlive the test.
struct Ranks(Vec<TrainerProcess>);

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port()
}

impl Ranks {
    fn start(size: usize, out: &Path, resume: bool, settings: &[&str]) -> Self {
        Self::start_each(size, || command(out, resume, settings))
    }

    fn start_each(size: usize, command: impl Fn() -> Command) -> Self {
        let port = free_port();
        Self((0..size).map(|rank| start_rank(rank, size, port, command())).collect())
    }

    /// Waits for a checkpoint, which rank 0 writes.
    fn wait_for_checkpoint(&mut self) {
        self.0[0].wait_for_line(CHECKPOINT);
    }

    /// Waits until all have ended.
    fn finish(self) -> Vec<Ended> {
        self.0.into_iter().map(TrainerProcess::finish).collect()
    }
}

fn start_rank(rank: usize, size: usize, port: u16, mut command: Command) -> TrainerProcess {
    let variables = [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", size), ("MASTER_PORT", port.into())];
    command.env("MASTER_ADDR", "127.0.0.1").envs(variables.map(|(name, value)| (name, value.to_string())));
    TrainerProcess::start(&mut command)
}

fn train(size: usize, out: &Path, resume: bool, settings: &[&str]) {
    if size == 1 {
        let output = command(out, resume, settings).output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    } else {
        for ended in Ranks::start(size, out, resume, settings).finish() {
            assert!(ended.status.success(), "{}", ended.stderr);
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

/// Several processes read the batches of one, from files of different sizes and from shards.
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

/// All other ranks name the rank that was killed, and end; resumed with another number of processes,
/// the run ends in the state of an undisturbed one.
#[test]
fn a_killed_rank_is_named_and_the_run_resumes_with_other_ranks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = with(&EXACT, &LONG);
    let whole = folder.path().join("whole");
    train(1, &whole, false, &settings);
    for (killed, size, then) in [(0, 2, 4), (3, 4, 1), (1, 4, 2)] {
        let out = folder.path().join(format!("killed-{killed}"));
        let mut ranks = Ranks::start(size, &out, false, &settings);
        ranks.wait_for_checkpoint();
        ranks.0[killed].kill();
        for (rank, Ended { status, stderr, .. }) in ranks.finish().iter().enumerate() {
            assert!(!status.success(), "rank {rank} was not stopped: {stderr}");
            let named = stderr.contains(&format!("rank {killed} is gone")) && stderr.contains("--resume");
            assert!(rank == killed || named, "rank {rank}: {stderr}");
        }
        assert!(state(&out).0 < 40, "it was over before it was killed");
        train(then, &out, true, &settings);
        assert_same(&whole, &out, 40);
    }
}

/// A rank that hangs is named when the timeout of its heartbeats has passed.
#[test]
fn a_rank_that_hangs_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = with(&EXACT, &LONG);
    let mut ranks = Ranks::start_each(2, || {
        let mut command = command(folder.path(), false, &settings);
        command.args(["--distributed-timeout", "3"]);
        command
    });
    ranks.wait_for_checkpoint();
    ranks.0[1].signal("-STOP");
    let first = ranks.0.remove(0).finish();
    assert!(
        !first.status.success() && first.stderr.contains("rank 1 has not been heard of for 3 s"),
        "{}",
        first.stderr
    );
}

/// A signal to stop that one rank gets stops all after the same step, with one checkpoint.
#[test]
fn a_signal_to_one_rank_stops_all() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    let settings = with(&EXACT, &LONG);
    train(1, &whole, false, &settings);
    let mut ranks = Ranks::start(2, &stopped, false, &settings);
    ranks.wait_for_checkpoint();
    ranks.0[1].signal("-TERM");
    let ended = ranks.finish();
    let (step, _) = state(&stopped);
    assert!(ended.iter().all(|ended| ended.status.success()) && step < 40, "{ended:?}");
    assert!(ended[0].stdout.contains(&format!("stopped after step {step} of 40")), "{ended:?}");
    assert!(ended[1].stdout.is_empty(), "the first rank alone reports: {ended:?}");
    train(2, &stopped, true, &settings);
    assert_same(&whole, &stopped, 40);
}

#[test]
fn ranks_that_cannot_train_together_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let half = command(folder.path(), false, &EXACT).env("RANK", "1").output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&half.stderr).into_owned();
    assert!(!half.status.success() && stderr.contains("but not LOCAL_RANK, WORLD_SIZE, MASTER_ADDR"), "{stderr}");

    for ended in Ranks::start(2, folder.path(), false, &with(&EXACT, &["contrast.bn_splits=1"])).finish() {
        assert!(!ended.status.success() && ended.stderr.contains("Set contrast.bn_splits to 2"), "{}", ended.stderr);
    }
    // The ranks have different configurations.
    let seeds: [&str; 2] = ["seed=1", "seed=2"];
    let port = free_port();
    let start = |rank: usize| start_rank(rank, 2, port, command(folder.path(), false, &with(&EXACT, &[seeds[rank]])));
    for ended in Ranks(vec![start(0), start(1)]).finish() {
        assert!(
            !ended.status.success() && ended.stderr.contains("rank 1 is about to train something else"),
            "{}",
            ended.stderr
        );
    }
}

/// A collective that completes while a wait for it times out has not failed.
#[test]
fn a_wait_that_times_out_at_the_last_moment_is_no_failure() {
    const COLLECTIVES: u64 = 1000;
    let address = StoreAddress { host: "127.0.0.1".to_owned(), port: free_port(), prefix: "test".to_owned() };
    let timeout = Duration::from_mins(1);
    thread::scope(|scope| {
        for rank in 0..2 {
            let address = &address;
            scope.spawn(move || {
                let process = ProcessRank { rank, size: 2 };
                let store = Store::connect(address, rank == 0, timeout).expect("a store");
                let endpoint = LocalEndpoint::Address("127.0.0.1".to_owned());
                let group = Group::gloo(&store, process, &endpoint, [timeout; 2]).expect("a group");
                for i in 0..COLLECTIVES {
                    // Rank 1 joins at about the time at which the wait of rank 0 ends.
                    let late = Duration::from_micros(rank as u64 * (500 + i));
                    let started = Instant::now();
                    while started.elapsed() < late {}
                    let pending = group.sum(&tch::Tensor::from_slice(&[1_i64])).expect("a collective");
                    while !pending.wait(Duration::from_millis(1)).expect("no failure") {}
                }
            });
        }
    });
}

/// Two hosts whose link is cut for half a minute. `make test-rust` runs it where it can.
#[test]
#[ignore = "needs root, the program ip, and permission to make network namespaces"]
fn a_cut_link_ends_the_run_and_it_resumes_afterwards() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/distributed/link_cut.sh");
    let output = Command::new(script).arg(TRAINER).output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()));
}
