//! Compares the server with the parts that it is built of: four rungs on the same threads, measured alternately in one
//! run.
//!
//! - `engine`: the bare loop of ONNX Runtime, on prepared inputs, at its best batch size;
//! - `direct`: `engine` plus decoding, resizing, normalising and encoding;
//! - `router`: through admission, queue and batcher, in this process;
//! - `http`: over a socket, closed loop with 1, 4, 16 and 64 clients;
//! - `python`, if `--python` names an interpreter: the work of `direct` by `OpenCV` and onnxruntime.
//!
//! Then, over HTTP, an open loop: requests at random times (Poisson) at 0.5 to 2 times the peak.
//! `make bench-server` runs it; `--help` lists its options.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod direct;
mod gpu;
mod http;
mod inputs;
mod model;
mod open_loop;
mod python;
mod report;
mod served;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use densecl_inference::backend::LayerSet;
use densecl_inference::model_file::ModelFile;
use densecl_server::cli::{Cli, Command};
use densecl_server::config::Config;

use self::direct::Direct;
use self::gpu::GpuMonitor;
use self::http::{HttpServer, closed_loop};
use self::inputs::Inputs;
use self::python::PythonLoop;
use self::report::{Report, Rung};
use self::served::InProcess;

/// Clients of the closed loop.
const CLIENTS: [usize; 4] = [1, 4, 16, 64];
/// Requests per second of the open loop, in multiples of the closed loop's best.
const OFFERED: [f64; 4] = [0.5, 0.9, 1.2, 2.0];

/// Compares the server with the parts that it is built of
#[derive(Clone, Debug, Parser)]
#[command(name = "ladder", args_override_self = true)]
pub(crate) struct Arguments {
    /// A model repository, or resnet18, resnet34, resnet50 or resnet101 for random weights
    #[arg(long, default_value = "models/zoo")]
    model: String,
    /// The layer
    #[arg(long, default_value = "res5")]
    layer: String,
    /// The longer side that images are resized to, in pixels
    #[arg(long, default_value_t = 224)]
    side: u32,
    /// Folder of JPEG files; textures if not given
    #[arg(long)]
    pictures: Option<PathBuf>,
    /// Size of the textures, such as 4032x3024
    #[arg(long, value_parser = size, default_value = "640x480")]
    size: (u32, u32),
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Number of measurements of every rung
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each rate of the open loop; 0 leaves it out
    #[arg(long, default_value_t = 10.0)]
    open_seconds: f64,
    /// A Python with opencv-python-headless, onnxruntime and numpy
    #[arg(long)]
    python: Option<PathBuf>,
    /// File for the figures as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Arguments of the server, such as --threads 2 --device cuda
    #[arg(last = true)]
    server: Vec<String>,
    /// Passed by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

/// The work that every rung measures.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) model: ModelFile,
    pub(crate) layers: LayerSet,
    pub(crate) side_px: u32,
    pub(crate) inputs: Inputs,
    pub(crate) config: Config,
}

impl Task {
    /// Path and query of the request for it.
    pub(crate) fn path_and_query(&self) -> String {
        let layer = self.layers.names().join("%2B");
        format!("/features?layer={layer}&side={}&format=npy", self.side_px)
    }
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides.filter(|&(width, height)| width > 0 && height > 0).ok_or_else(|| "a size is WIDTHxHEIGHT".to_owned())
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let repository = model::repository(&arguments.model, folder.path())?;
    let found = densecl_models::repository::scan(&repository)?;
    let first = found.into_iter().next().context("the repository has a model")?;
    let listen = ["ladder", "--listen", "127.0.0.1:0", "--models"].map(str::to_owned);
    let server = listen.into_iter().chain([repository.display().to_string()]).chain(arguments.server.clone());
    let Command::Serve(server) = Cli::parse_from(server).into_command() else {
        anyhow::bail!("only arguments of `serve` are taken");
    };
    let task = Task {
        model: ModelFile::open(&first.name, first.version, &first.path)?,
        layers: LayerSet::new(arguments.layer.split('+')).context("a layer comes twice")?,
        side_px: arguments.side,
        inputs: Inputs::new(arguments.pictures.as_deref(), arguments.size)?,
        config: server.into_config(),
    };
    let report = measure(&arguments, &task)?;
    println!("{}", report.text());
    if let Some(file) = &arguments.json {
        std::fs::write(file, report.json()?)?;
    }
    Ok(())
}

fn measure(arguments: &Arguments, task: &Task) -> anyhow::Result<Report> {
    let time = Duration::from_secs_f64(arguments.seconds);
    let mut direct = Direct::start(task)?;
    let server = HttpServer::start(task)?;
    let in_process = InProcess::new(server.state().clone());
    let mut python = arguments.python.as_deref().map(|python| PythonLoop::start(python, task)).transpose()?;
    let batch = direct.best_batch(time)?;
    let mut report = Report::new(task, &arguments.model, batch);
    for round in 0..arguments.rounds {
        eprintln_progress(round, arguments.rounds);
        report.add(Rung::Engine, direct.bare(batch, time)?);
        if let Some(python) = &mut python {
            report.add(Rung::Python, python.run(time)?);
        }
        report.add(Rung::Direct, direct.whole(time)?);
        report.add(Rung::DirectAlone, direct.alone(time)?);
        report.add(Rung::Router, in_process.run(task, 16, time)?);
        for clients in CLIENTS {
            let gpu = GpuMonitor::start();
            report.add(Rung::Http(clients), closed_loop(server.address(), task, clients, time)?);
            report.note_gpu(clients, gpu.and_then(GpuMonitor::stop));
        }
    }
    if arguments.open_seconds > 0.0 {
        let peak = report.peak();
        for share in OFFERED {
            let time = Duration::from_secs_f64(arguments.open_seconds);
            let offered = open_loop::Offered { per_second: share * peak, time };
            report.add_open(share, open_loop::run(&server, task, offered)?);
        }
    }
    server.stop()?;
    Ok(report)
}

#[expect(clippy::print_stderr, reason = "progress is no result")]
fn eprintln_progress(round: usize, rounds: usize) {
    eprintln!("round {} of {rounds}", round + 1);
}
