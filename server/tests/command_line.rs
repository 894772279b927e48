//! The command as a process: exit codes, signals, environment variables, and answers without a server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use clap::CommandFactory as _;
use densecl_server::cli::Cli;
use image::{Rgb, RgbImage};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The command with the library of `make setup` and the shipped models, unless the environment names others.
fn command(arguments: &[&str]) -> Command {
    let or_default =
        |variable: &str, default: &str| std::env::var_os(variable).map_or_else(|| root().join(default), PathBuf::from);
    let library = or_default("DENSECL_ONNXRUNTIME", ".runtime/onnxruntime/libonnxruntime.so");
    assert!(library.is_file(), "ONNX Runtime is not at {}; `make setup` fetches it", library.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_densecl-server"));
    command.args(arguments).env("DENSECL_ONNXRUNTIME", library).env("DENSECL_DEVICE", "cpu");
    command.env("DENSECL_MODELS", or_default("DENSECL_MODELS", "models/zoo"));
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the command runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server process.
struct Server {
    process: Child,
    address: SocketAddr,
    log: BufReader<std::process::ChildStderr>,
}

impl Server {
    /// Starts one on a free port and waits until its log says that it is ready.
    fn start(arguments: &[&str]) -> Self {
        let arguments = [&["serve", "--listen", "127.0.0.1:0", "--log-format", "json"], arguments].concat();
        let mut process = command(&arguments).stderr(Stdio::piped()).spawn().expect("the command runs");
        let mut log = BufReader::new(process.stderr.take().expect("it was asked for"));
        let mut next_message = || {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).expect("a log"), 0, "the server ended before it was ready");
            serde_json::from_str::<serde_json::Value>(&line).expect("JSON")
        };
        let mut until = |message: &str| loop {
            let line = next_message();
            if line["message"] == message {
                return line;
            }
        };
        let listening = until("listening");
        until("ready");
        let address = listening["address"].as_str().expect("an address").parse().expect("an address");
        Self { process, address, log }
    }

    /// Memory of the process by the name of a line of its status: `VmHWM:` is the peak, `VmRSS:` the present size.
    fn memory_bytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") << 10
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status();
        assert!(status.expect("kill is everywhere").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // If the test passed, the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn picture(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    let texture =
        RgbImage::from_fn(160, 120, |x, y| Rgb([(x * 7 % 251) as u8, (y * 5 % 241) as u8, (x * y % 239) as u8]));
    texture.save(&path).expect("a picture");
    path.to_str().expect("a path of text").to_owned()
}

#[test]
fn a_signal_lets_running_requests_finish_and_ends_with_success() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&[]);
        let folder = tempfile::tempdir().expect("a folder");
        let body = std::fs::read(picture(folder.path(), "a.png")).expect("a picture");
        let mut stream = TcpStream::connect(server.address).expect("it listens");
        let head = format!(
            "POST /features?side=1024&format=npy HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        // The server asks for the body, so the request has begun.
        let mut expect = [0; 25];
        stream.read_exact(&mut expect).expect("it answers");
        assert_eq!(&expect, b"HTTP/1.1 100 Continue\r\n\r\n");
        server.signal(signal);
        stream.write_all(&body).expect("it reads");
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).expect("a whole reply");
        assert!(reply.starts_with(b"HTTP/1.1 200 OK"), "{}", text(&reply[..reply.len().min(300)]));
        assert_eq!(server.process.wait().expect("it ends").code(), Some(0), "{signal}");
        let mut log = String::new();
        server.log.read_to_string(&mut log).expect("a log");
        assert!(log.contains("\"stopped\""), "{log}");
    }
}

/// A PNG file whose header says 30,000 × 30,000 pixels, with the right checksum and without any pixels.
const HUGE: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x75\x30\0\0\x75\x30\x08\x02\0\0\0\xe9\x45\x6f\xed\0\0\0\0IDAT\x35\xaf\x06\x1e";

#[test]
fn a_huge_header_costs_no_memory() {
    let server = Server::start(&[]);
    let ask = || {
        let mut stream = TcpStream::connect(server.address).expect("it listens");
        let head = format!(
            "POST /features HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            HUGE.len()
        );
        stream.write_all(&[head.as_bytes(), HUGE].concat()).expect("it reads");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a whole reply");
        reply
    };
    assert!(ask().starts_with("HTTP/1.1 413 "), "{}", ask());
    let before = server.memory_bytes("VmHWM:");
    for _ in 0..50 {
        ask();
    }
    let grown = server.memory_bytes("VmHWM:") - before;
    assert!(grown < 8 << 20, "{grown} bytes more");
}

#[test]
fn an_idle_server_is_small() {
    let server = Server::start(&[]);
    let resident = server.memory_bytes("VmRSS:");
    assert!(resident < 250 << 20, "{} MiB", resident >> 20);
}

#[test]
fn healthcheck_succeeds_only_while_a_server_is_ready() {
    let server = Server::start(&[]);
    let address = server.address.to_string();
    assert!(run(&["healthcheck", "--listen", &address]).status.success());
    let by_name = format!("localhost:{}", server.address.port());
    assert!(run(&["healthcheck", "--listen", &by_name]).status.success());
    drop(server);
    let gone = run(&["healthcheck", "--listen", &address]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains(&address), "{}", text(&gone.stderr));
}

#[test]
fn a_server_that_cannot_start_says_why_and_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let broken = folder.path().join("m/1/model.onnx");
    std::fs::create_dir_all(broken.parent().expect("a folder")).expect("a folder");
    std::fs::write(&broken, b"not a model").expect("a file");
    let models = folder.path().to_str().expect("a path of text");
    let listen = ["--listen", "127.0.0.1:0"];
    for (arguments, expected) in [
        (&["--models", models][..], broken.to_str().expect("a path of text")),
        (&["--models", "/nowhere"], "/nowhere"),
        (&["--device", "cuda"], "cuda:0 was asked for"),
        (&["--onnxruntime", "/nowhere.so"], "make setup"),
    ] {
        let output = run(&[&["serve"], &listen[..], arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output.stderr).contains(expected), "{arguments:?}: {}", text(&output.stderr));
    }
    assert_eq!(run(&["serve", "--device", "gpu"]).status.code(), Some(2), "clap's status of a wrong flag");
}

#[test]
fn empty_environment_variables_count_as_unset() {
    let with = |value: &str| {
        let mut command = command(&["models", "--format", "json"]);
        command.env("DENSECL_MODELS", value).env("DENSECL_MAX_SIDE", value).env("DENSECL_CACHE_BYTES", value);
        command.current_dir(root()).output().expect("the command runs")
    };
    let output = with("");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let models: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(models[0]["layers"].is_array(), "the models of the default folder");
    assert!(!with("nothing").status.success());
}

/// Every variable of `serve` with its flag, as the command line defines them.
fn variables_of_serve() -> Vec<(String, String)> {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").expect("a subcommand");
    let named = serve.get_arguments().filter_map(|argument| {
        let flag = format!("--{}", argument.get_long()?);
        Some((argument.get_env()?.to_str().expect("text").to_owned(), flag))
    });
    let variables: Vec<_> = named.collect();
    assert!(variables.len() > 30, "{variables:?}");
    variables
}

/// `serve` at an address that no machine has, so that it ends once its settings are read.
fn serve_nowhere(variable: &str, value: &str) -> Output {
    let listen: &[&str] = if variable == "DENSECL_LISTEN" { &[] } else { &["--listen", "192.0.2.1:1"] };
    let mut command = command(&[&["serve"], listen].concat());
    command.env(variable, value).output().expect("the command runs")
}

#[test]
fn no_empty_variable_stops_the_server() {
    for (variable, _) in variables_of_serve().iter().filter(|(variable, _)| variable != "DENSECL_LISTEN") {
        let output = serve_nowhere(variable, "");
        let (status, said) = (output.status.code(), text(&output.stderr));
        assert!(status == Some(1) && said.contains("192.0.2.1:1"), "{variable}: {status:?} {said}");
        let is_named = said.contains(variable.as_str());
        assert_eq!(is_named, variable == "DENSECL_API_KEYS", "{variable}: {said}");
    }
    let mut all = command(&["serve", "--listen", "192.0.2.1:1"]);
    all.envs(variables_of_serve().iter().map(|(variable, _)| (variable, "")));
    assert_eq!(all.output().expect("the command runs").status.code(), Some(1));
    let mut check = command(&["healthcheck"]);
    let check = check.env("DENSECL_LISTEN", "").output().expect("the command runs");
    assert!(check.status.success() || text(&check.stderr).contains("127.0.0.1:8080"), "{}", text(&check.stderr));
}

#[test]
fn errors_name_the_variable_that_a_value_comes_from() {
    for (variable, flag) in variables_of_serve() {
        let output = serve_nowhere(&variable, "no such value");
        let said = text(&output.stderr);
        assert!(said.contains(&variable), "{variable}: {said}");
        // Files, folders and layers are looked for later.
        let is_name =
            ["_MODELS", "_ONNXRUNTIME", "_API_KEYS", "_WARM_UP"].iter().any(|ending| variable.ends_with(ending));
        assert_eq!(output.status.code(), Some(if is_name { 1 } else { 2 }), "{variable}: {said}");
        if !is_name {
            // A flag wins, and is what the error is about.
            let mut command = command(&["serve", "--listen", "192.0.2.1:1", &flag, "no such value"]);
            let output = command.env(&variable, "no other value").output().expect("the command runs");
            let said = text(&output.stderr);
            assert!(output.status.code() == Some(2) && !said.contains("value is that of"), "{flag}: {said}");
        }
    }
    // The flag wins, also over a value that would be refused.
    let mut command = command(&["serve", "--listen", "192.0.2.1:1", "--engines", "1"]);
    let output = command.env("DENSECL_ENGINES", "x").output().expect("the command runs");
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("192.0.2.1:1"), "{said}");
    let burst = serve_nowhere("DENSECL_RATE_BURST", "5");
    let said = text(&burst.stderr);
    assert!(said.contains("--rate-limit") && said.contains("DENSECL_RATE_BURST"), "{said}");
}

#[test]
fn addresses_are_taken_as_people_write_them() {
    let server = Server::start(&[]);
    let port = server.address.port().to_string();
    for text_of_address in [
        port.clone(),
        format!(":{port}"),
        format!("*:{port}"),
        format!("localhost:{port}"),
        format!("0.0.0.0:{port}"),
        format!(" 127.0.0.1:{port}"),
    ] {
        let output = run(&["healthcheck", "--listen", &text_of_address]);
        assert!(output.status.success(), "{text_of_address}: {}", text(&output.stderr));
    }
    for wrong in ["http://localhost:80", "localhost:http", "a b:80", "99999"] {
        let output = run(&["healthcheck", "--listen", wrong]);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("127.0.0.1:8080, localhost:8080"), "{wrong}: {said}");
    }
}

#[test]
fn features_of_a_file_without_a_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = picture(folder.path(), "a.png");
    let out = folder.path().join("a.npy");
    let out_text = out.to_str().expect("a path of text");
    let output = run(&["features", &image, "-s", "side=96", "--format", "npy", "-o", out_text]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(std::fs::read(&out).expect("the result").starts_with(b"\x93NUMPY"));

    let output = run(&["features", &image, "-s", "layer=res9"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("res9"), "{}", text(&output.stderr));
}

#[test]
fn correspondence_of_files_without_a_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = (picture(folder.path(), "a.png"), picture(folder.path(), "b.png"));
    let output = run(&["correspondence", &source, &target, "-s", "side=160", "-s", "points=[[40,50]]"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let reply: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(reply["matches"].as_array().map(Vec::len), Some(1));

    let several = run(&["correspondence", &source, &target, &source, "-s", "side=160", "-s", "grid=40"]);
    let reply: serde_json::Value = serde_json::from_slice(&several.stdout).expect("JSON");
    assert_eq!(reply["targets"].as_array().map(Vec::len), Some(2));
}

#[test]
fn labels_of_a_file_without_a_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = picture(folder.path(), "a.png");
    let (width, height) = image::image_dimensions(&source).expect("a picture");
    let mask = folder.path().join("mask.png");
    image::GrayImage::from_pixel(width, height, image::Luma([5])).save(&mask).expect("a file");
    let mask = mask.to_str().expect("a path of text");
    let output = run(&["correspondence", &source, &source, "--mask", mask, "-s", "side=96"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let labels = image::load_from_memory(&output.stdout).expect("a picture");
    assert_eq!(labels, image::GrayImage::from_pixel(width, height, image::Luma([5])).into());
}

#[test]
fn models_and_the_openapi_document_need_no_server() {
    let models = run(&["models", "--format", "json"]);
    let models: serde_json::Value = serde_json::from_slice(&models.stdout).expect("JSON");
    assert!(models[0]["layers"].is_array());
    let openapi = run(&["openapi"]);
    let openapi: serde_json::Value = serde_json::from_slice(&openapi.stdout).expect("JSON");
    assert!(openapi["paths"]["/features"].is_object());
}

#[test]
fn evaluation_of_two_equal_pictures_is_perfect() {
    let folder = tempfile::tempdir().expect("a folder");
    let sequence = folder.path().join("i_same");
    std::fs::create_dir_all(&sequence).expect("a folder");
    picture(&sequence, "1.png");
    picture(&sequence, "2.png");
    std::fs::write(sequence.join("H_1_2"), "1 0 0\n0 1 0\n0 0 1\n").expect("a file");
    let data = folder.path().to_str().expect("a path of text");
    let output =
        run(&["evaluate", "--data", data, "--layer", "res4", "--side", "160", "--baseline", "rgb", "--format", "json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(2), "the model and the patches");
    let all = &report["rows"][0]["groups"][0];
    assert_eq!((&all["name"], &all["pairs"]), (&"all".into(), &1.into()));
    let metrics = all["metrics"].as_array().expect("a list");
    let mma = metrics.iter().find(|metric| metric["id"] == "mma_10px").expect("it is measured");
    assert_eq!(mma["mean"], 1.0, "{report:#}");
}
