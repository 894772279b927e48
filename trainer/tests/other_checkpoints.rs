//! Files of other tools, as the commands read them: heads that are left aside, averaged weights, licences, and files that
//! are no checkpoint.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TRAINER: &str = env!("CARGO_BIN_EXE_densecl-trainer");

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/checkpoints").join(name)
}

/// Runs a command; returns whether it succeeds, and all that it says.
fn run(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> (bool, String) {
    let mut command = Command::new(TRAINER);
    command.args(arguments.iter().map(AsRef::as_ref)).env("OMP_NUM_THREADS", "1").env_remove("RUST_LOG");
    let output = command.output().expect("the program starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    (output.status.success(), text)
}

/// A network that was never trained, as another tool's file: `backbone.*` and `neck.*`.
fn random_weights(folder: &Path) -> PathBuf {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/tiny.toml");
    let (run_folder, file) = (folder.join("random"), folder.join("mm.pth"));
    let settings = ["schedule.epochs=0", "network.stem_width=4"];
    let (trained, text) =
        run(&[&"pretrain", &"--config", &config, &"--out", &run_folder, &"--set", &settings[0], &settings[1]]);
    assert!(trained, "{text}");
    let (converted, text) = run(&[&"convert", &run_folder, &file, &"--to", &"mmpretrain"]);
    assert!(converted, "{text}");
    file
}

#[test]
fn a_training_file_with_heads_is_read_by_every_command_and_its_licence_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, out) = (fixture("lightning.ckpt"), folder.path().join("zoo/a/1"));
    let (exported, text) = run(&[&"export", &file, &"--out", &out]);
    assert!(!exported && text.contains("--licence"), "{text}");
    for part in ["projection_head.* (2)", "online_classifier.*", "callbacks", "hyper_parameters"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!out.exists(), "nothing is written");
    let (inspected, text) = run(&[&"inspect", &file]);
    assert!(inspected && text.contains("online_classifier.*") && text.contains("project.models.Note"), "{text}");
    let converted = folder.path().join("a.safetensors");
    assert!(run(&[&"convert", &file, &converted]).0);
    // Converted weights are still somebody else's.
    let (exported, text) = run(&[&"export", &converted, &"--out", &out]);
    assert!(!exported && text.contains("--licence"), "{text}");

    // The values of the file above make no images' features finite; those of random weights do.
    let foreign = random_weights(folder.path());
    let (exported, text) = run(&[&"export", &foreign, &"--out", &out]);
    assert!(!exported && text.contains("--licence"), "{text}");
    let (exported, text) = run(&[&"export", &foreign, &"--out", &out, &"--licence", &"CC-BY-NC-4.0"]);
    assert!(exported, "{text}");
    let (_, text) = run(&[&"inspect", &out.join("model.onnx")]);
    assert!(text.contains("CC-BY-NC-4.0"), "{text}");
    for class in ["a", "b"] {
        for i in 0..4_u8 {
            let path = folder.path().join(format!("images/{class}/{i}.png"));
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            image::RgbImage::from_pixel(32, 32, image::Rgb([50 * i; 3])).save(path).expect("written");
        }
    }
    let data = folder.path().join("images");
    let (evaluated, text) =
        run(&[&"evaluate", &"knn", &"--model", &foreign, &"--data", &data, &"--side", &"32", &"--k", &"1"]);
    assert!(evaluated, "{text}");
}

#[test]
fn own_runs_keep_their_licence() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/tiny.toml");
    let run_folder = folder.path().join("run");
    let settings = ["schedule.epochs=0", "network.stem_width=4"];
    let (trained, text) =
        run(&[&"pretrain", &"--config", &config, &"--out", &run_folder, &"--set", &settings[0], &settings[1]]);
    assert!(trained, "{text}");
    let converted = folder.path().join("own.safetensors");
    assert!(run(&[&"convert", &run_folder, &converted]).0);
    for (number, source) in ["1", "2"].iter().zip([&run_folder, &converted]) {
        let out = folder.path().join("zoo/own").join(number);
        let (exported, text) = run(&[&"export", source, &"--out", &out]);
        assert!(exported, "{text}");
        assert!(run(&[&"inspect", &out.join("model.onnx")]).1.contains("\"licence\": \"Apache-2.0\""));
    }
    let (read, text) = run(&[&"convert", &run_folder, &converted, &"--weight-set", &"ema"]);
    assert!(!read && text.contains("no weight set `ema`"), "{text}");
}

#[test]
fn averaged_weights_are_named_and_chosen_by_a_flag() {
    let folder = tempfile::tempdir().expect("a folder");
    let convert = |file: &str, flags: &[&str]| {
        let out = folder.path().join("out.safetensors");
        let file = fixture(file);
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"convert", &file, &out];
        arguments.extend(flags.iter().map(|flag| flag as &dyn AsRef<std::ffi::OsStr>));
        let (read, text) = run(&arguments);
        (read, text, fs::read(&out).unwrap_or_default())
    };
    let (read, text, trained) = convert("ema-beside.pth.tar", &[]);
    assert!(read && text.contains("averaged weights (EMA) are left aside: state_dict_ema; --weight-set ema"), "{text}");
    let (read, text, averaged) = convert("ema-beside.pth.tar", &["--weight-set", "ema"]);
    assert!(read && text.contains("averaged weights (EMA) (state_dict_ema: module.*)"), "{text}");
    assert_ne!(trained, averaged);
    let (read, text, alone) = convert("ema-only.pth", &[]);
    assert!(read && text.contains("averaged weights (EMA) (model_ema.module: *)"), "{text}");
    assert_eq!(alone, averaged);
    let (read, text, _) = convert("dino.pth", &[]);
    assert!(!read && text.contains("--weight-set NAME") && text.contains("`teacher:backbone`"), "{text}");
    let (read, _, teacher) = convert("dino.pth", &["--weight-set", "teacher"]);
    assert!(read && teacher == averaged);
    let (read, text, _) = convert("dino.pth", &["--weight-set", "nobody"]);
    assert!(!read && text.contains("no network `nobody`") && text.contains("`student:module.backbone`"), "{text}");
    let (_, text) = run(&[&"inspect", &fixture("ema-beside.pth.tar")]);
    assert!(text.contains("other networks (--weight-set NAME takes one): state_dict_ema (EMA)"), "{text}");
}

#[test]
fn every_command_that_reads_weights_has_the_flags_that_its_errors_name() {
    for command in [
        &["export"][..],
        &["convert"],
        &["inspect"],
        &["bench-export"],
        &["evaluate", "knn"],
        &["evaluate", "segmentation-fcn"],
    ] {
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = Vec::new();
        arguments.extend(command.iter().map(|part| part as &dyn AsRef<std::ffi::OsStr>));
        arguments.push(&"--help");
        let (_, help) = run(&arguments);
        assert!(help.contains("--allow <PATTERN>") && help.contains("--weight-set <NAME>"), "{command:?}: {help}");
    }
}

#[test]
fn a_folder_of_the_hub_is_read_and_its_configuration_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = folder.path().join("resnet-18");
    fs::create_dir(&hub).expect("made");
    fs::copy(fixture("transformers.bin"), hub.join("pytorch_model.bin")).expect("copied");
    fs::write(hub.join("config.json"), r#"{"model_type": "resnet", "hidden_act": "relu"}"#).expect("written");
    let out = folder.path().join("out.safetensors");
    let (read, text) = run(&[&"convert", &hub, &out]);
    assert!(read && text.contains("Hugging Face") && text.contains("classifier.* (2)"), "{text}");
    assert!(run(&[&"inspect", &hub]).1.contains("layout: Hugging Face transformers"));
    fs::write(hub.join("config.json"), r#"{"model_type": "resnet", "downsample_in_bottleneck": true}"#)
        .expect("written");
    let (read, text) = run(&[&"convert", &hub, &out]);
    assert!(!read && text.contains("downsample_in_bottleneck"), "{text}");
}

#[test]
fn files_that_are_no_checkpoint_are_named_by_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.pth");
    let out = folder.path().join("zoo/a/1");
    for (content, part) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 46830571\n"[..], "git lfs pull"),
        (b"<!DOCTYPE html><html><title>Sign in</title></html>", "a web page"),
        (b"", "an empty file"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
    ] {
        fs::write(&path, content).expect("written");
        for arguments in [vec!["inspect"], vec!["export", "--out", out.to_str().expect("text"), "--licence", "MIT"]] {
            let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> =
                arguments.iter().map(|part| part as &dyn AsRef<std::ffi::OsStr>).collect();
            all.push(&path);
            let (read, text) = run(&all);
            assert!(!read && text.contains(part) && text.contains("model.pth"), "{text}");
        }
    }
    let (read, text) = run(&[&"inspect", &folder.path().join("gone.pth")]);
    assert!(!read && text.contains("gone.pth"), "{text}");
}
