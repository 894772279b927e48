//! Folders, lists and shards as people have them: what of them is trained on, and what is said of the rest.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TRAINER: &str = env!("CARGO_BIN_EXE_densecl-trainer");

/// Images of a data set; a run takes eight steps of eight.
const COUNT: usize = 64;

/// A file that macOS puts beside another on a disk of another system.
const APPLE_DOUBLE: &[u8] = b"\0\x05\x16\x07\0\x02\0\0Mac OS X        \0\x02\0\0\0\x09\0\0\0\x32\0\0\0\x0e";

fn run(command: &mut Command) -> (Output, String) {
    let output = command.env("OMP_NUM_THREADS", "1").env_remove("RUST_LOG").output().expect("the program starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    (output, text)
}

fn pretrain(data: &Path, out: &Path) -> (Output, String) {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/tiny.toml");
    let settings = ["schedule.epochs=1", "contrast.queue_length=16", "data.images_per_epoch=64"];
    let small = ["network.stem_width=4", "schedule.picture_steps=0", "data.canvas_px=40", "data.view_px=32"];
    let mut command = Command::new(TRAINER);
    command.args(["pretrain", "--device", "cpu", "--config"]).arg(config).arg("--set").args(settings).args(small);
    run(command.arg("--data").arg(data).arg("--out").arg(out))
}

/// A run that takes all its steps; returns what it says.
fn trained(data: &Path) -> (String, serde_json::Value) {
    let out = tempfile::tempdir().expect("a folder");
    let (output, text) = pretrain(data, &out.path().join("run"));
    assert!(output.status.success(), "{}: {text}", data.display());
    let metrics = fs::read_to_string(out.path().join("run/metrics.jsonl")).expect("metrics");
    (text, serde_json::from_str(metrics.lines().last().expect("a line")).expect("JSON"))
}

fn refused(data: &Path) -> String {
    let out = tempfile::tempdir().expect("a folder");
    let (output, text) = pretrain(data, &out.path().join("run"));
    assert!(!output.status.success(), "{}: {text}", data.display());
    text
}

fn png(level: usize) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(48, 40, |x, y| image::Rgb([(x * 5) as u8, (y * 6) as u8, level as u8]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("encoded");
    bytes.into_inner()
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, content).expect("written");
}

/// Two classes of images; returns their names below `root`.
fn write_images(root: &Path) -> Vec<String> {
    let names: Vec<_> = (0..COUNT).map(|i| format!("n0{}/{i:03}.png", 1 + i % 2)).collect();
    for (i, name) in names.iter().enumerate() {
        write(&root.join(name), &png(i));
    }
    names
}

/// The folder after it went through a Mac, a Windows machine and a file server.
fn write_what_systems_leave(root: &Path, names: &[String]) {
    for name in names {
        let path = PathBuf::from(name);
        let (folder, file) = (path.parent().expect("a class"), path.file_name().expect("a name").to_string_lossy());
        write(&root.join(folder).join(format!("._{file}")), APPLE_DOUBLE);
        write(&root.join("__MACOSX").join(folder).join(format!("._{file}")), APPLE_DOUBLE);
        write(&root.join(folder).join("@eaDir").join(&*file).join("SYNOPHOTO_THUMB_M.jpg"), b"no jpeg");
    }
    for name in
        [".DS_Store", "n01/Thumbs.db", "n02/desktop.ini", "lost+found/1.png", ".cache/1.png", "$RECYCLE.BIN/1.png"]
    {
        write(&root.join(name), b"no image");
    }
}

#[test]
fn what_systems_leave_in_folders_is_neither_image_nor_class() {
    let root = tempfile::tempdir().expect("a folder");
    let names = write_images(root.path());
    write_what_systems_leave(root.path(), &names);
    let (text, last) = trained(root.path());
    assert_eq!((&last["step"], &last["skipped_images"]), (&8.into(), &0.into()), "{text}");
    assert!(!text.contains("image skipped") && text.contains("images=64"), "{text}");
    // 64 beside the images, two folders @eaDir, and four more: __MACOSX, lost+found, .cache, $RECYCLE.BIN.
    assert!(text.contains("hidden files and those of systems: 70"), "{text}");

    let (output, text) = run(Command::new(TRAINER)
        .args([
            "evaluate",
            "knn",
            "--model",
            "random:resnet18",
            "--side",
            "32",
            "--k",
            "1",
            "--device",
            "cpu",
            "--data",
        ])
        .arg(root.path()));
    assert!(output.status.success() && text.contains("2 classes"), "{text}");
}

#[test]
fn linked_folders_are_followed_and_loops_end() {
    let elsewhere = tempfile::tempdir().expect("a folder");
    write_images(elsewhere.path());
    let root = tempfile::tempdir().expect("a folder");
    for class in ["n01", "n02"] {
        symlink(elsewhere.path().join(class), root.path().join(class)).expect("linked");
    }
    symlink(".", root.path().join("loop")).expect("linked");
    symlink("n01", root.path().join("n01-again")).expect("linked");
    symlink("gone.png", root.path().join("broken.png")).expect("linked");
    let (text, last) = trained(root.path());
    assert_eq!((&last["step"], &last["skipped_images"]), (&8.into(), &0.into()), "{text}");
    for part in ["images=64", "links in a loop: 1", "read already: 1", "lead nowhere: 1", "WARN"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn lists_are_read_whatever_stands_beside_the_paths() {
    let root = tempfile::tempdir().expect("a folder");
    let names = write_images(root.path());
    let list = |name: &str, line: &dyn Fn(usize, &str) -> String| {
        let lines: Vec<_> = names.iter().enumerate().map(|(i, name)| line(i, name)).collect();
        (root.path().join(name), lines.join("\r\n"))
    };
    let labelled = list("labels.txt", &|i, name| format!("{name} {}", i % 2));
    let table = list("table.csv", &|i, name| format!("{i},\"{name}\",n0{}", 1 + i % 2));
    let (path, text) = list("mark.txt", &|_, name| name.to_owned());
    for (path, text) in [labelled, table, (path, format!("\u{feff}{text}"))] {
        fs::write(&path, text).expect("written");
        let (text, last) = trained(&path);
        assert_eq!((&last["step"], &last["skipped_images"]), (&8.into(), &0.into()), "{text}");
        assert!(text.contains("images=64 passed_over=0"), "{text}");
    }
    // A name in Latin-1 that is not there costs that line, and is told.
    let path = root.path().join("latin.txt");
    let mut bytes = names.join("\n").into_bytes();
    bytes.extend(b"\ncaf\xe9.png\n");
    fs::write(&path, bytes).expect("written");
    let (text, _) = trained(&path);
    assert!(text.contains("images=64") && text.contains("listed but not there: 1"), "{text}");
    assert!(text.contains("line 65: café.png"), "{text}");

    fs::write(&path, "/home/somebody/1.png 0\n/home/somebody/2.png 1\n").expect("written");
    let text = refused(&path);
    assert!(text.contains("Line 1 is `/home/somebody/1.png 0`") && text.contains("No such file"), "{text}");
}

fn write_tar(path: &Path, name: &dyn Fn(usize) -> String) {
    let mut archive = tar::Builder::new(fs::File::create(path).expect("created"));
    for i in 0..COUNT {
        let bytes = png(i);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name(i), &bytes[..]).expect("appended");
    }
    archive.finish().expect("finished");
}

#[test]
fn members_of_shards_that_are_no_image_of_their_sample_are_counted() {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join("mixed.tar");
    write_tar(&path, &|i| if i % 2 == 0 { format!("{i:03}.png") } else { format!("22.{i:03}.png") });
    let (text, _) = trained(&path);
    assert!(text.contains("images=32") && text.contains("first dot): 32 ("), "{text}");
    let path = root.path().join("dots.tar");
    write_tar(&path, &|i| format!("photo_{i}.5mm.png"));
    let text = refused(&path);
    assert!(text.contains("first dot): 64 (") && text.contains("dots.tar/photo_0.5mm.png"), "{text}");
    let compressed = root.path().join("dots.tar.gz");
    fs::File::create(&compressed).and_then(|mut file| file.write_all(b"\x1f\x8b\x08\0")).expect("written");
    let text = refused(&compressed);
    assert!(text.contains("compressed with gzip") && text.contains("gunzip -k"), "{text}");
}

#[test]
fn images_that_cannot_be_read_are_counted_by_reason_and_named_if_there_are_no_others() {
    let root = tempfile::tempdir().expect("a folder");
    write_images(root.path());
    let whole = png(1);
    for (name, content) in [("a.png", &b"<html>"[..]), ("b.jpg", b"GIF"), ("z.png", &whole[..whole.len() / 2])] {
        write(&root.path().join(name), content);
    }
    write(&root.path().join("c.heic"), b"\0\0\0\x18ftypheic");
    // Of 67 images 64 are drawn in an epoch; in two all of them.
    let (text, last) = trained(root.path());
    let skipped = last["skipped_images"].as_u64().expect("a number");
    let by_reason = ["missing", "unreadable", "no_image", "unsupported", "damaged", "too_large"]
        .map(|reason| last[format!("skipped_{reason}")].as_u64().expect("a number"));
    assert_eq!(by_reason.iter().sum::<u64>(), skipped, "{last}");
    assert!((1..=3).contains(&skipped) && by_reason[2] + by_reason[4] == skipped, "{last}");
    assert_eq!(text.matches("image skipped").count() as u64, skipped, "each is told once: {text}");
    assert!(text.contains("images that could not be read: "), "{text}");
    assert!(text.contains("kinds that are not read from data sets: 1") && text.contains("c.heic"), "{text}");

    let bad = root.path().join("bad");
    for i in 0..COUNT {
        write(&bad.join(format!("{i:02}.jpg")), APPLE_DOUBLE);
    }
    let text = refused(&bad);
    assert!(text.contains("none of 64 images can be read; the first is ") && text.contains("bad/00.jpg: "), "{text}");
    assert!(refused(&root.path().join("a.png")).contains("is a single image"));
}
