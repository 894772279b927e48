//! `POST /correspondence`: points are found at their positions.

use std::io::Cursor;

use densecl_tests::pictures::{png, texture};
use densecl_tests::server::{TestServer, json, npy, succeed};
use serde_json::Value;

fn matches(reply: &Value) -> Vec<(Vec<f64>, Vec<f64>, f64)> {
    let pair = |value: &Value| value.as_array().expect("a pair").iter().filter_map(Value::as_f64).collect::<Vec<_>>();
    let list = reply["matches"].as_array().expect("matches");
    list.iter().map(|m| (pair(&m["source"]), pair(&m["target"]), m["score"].as_f64().expect("a score"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_against_itself() {
    let server = TestServer::start().await;
    let picture = png(&texture(3, (0, 0), (256, 192)));
    for refine in ["none", "softargmax"] {
        let reply =
            json(server.correspondence(&picture, &picture, &[("side", "256"), ("layer", "res4"), ("refine", refine)]))
                .await;
        let matches = matches(&reply);
        assert_eq!(matches.len(), 16 * 12, "every cell");
        for (source, target, score) in matches {
            let off = (source[0] - target[0]).hypot(source[1] - target[1]);
            assert!(off < 0.5, "{refine}: {source:?} was found at {target:?}");
            assert!((score - 1.0).abs() < 1e-3, "{refine}: {score}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_shifted_by_whole_cells() {
    let server = TestServer::start().await;
    let (dx, dy) = (32.0, 16.0);
    let source = png(&texture(4, (0, 0), (384, 384)));
    let target = png(&texture(4, (32, 16), (384, 384)));
    // Away from the border: zero padding affects this layer up to about 110 px inwards.
    let points: Vec<[f64; 2]> = (0..49).map(|i| [f64::from(128 + i % 7 * 24), f64::from(112 + i / 7 * 24)]).collect();
    let points = serde_json::json!(points).to_string();
    let fields = [("side", "384"), ("layer", "res4"), ("points", points.as_str()), ("mutual", "true")];
    let found = matches(&json(server.correspondence(&source, &target, &fields)).await);
    let is_near = |(source, target, _): &&(Vec<f64>, Vec<f64>, f64)| {
        (source[0] - dx - target[0]).hypot(source[1] - dy - target[1]) <= 16.0
    };
    let near = found.iter().filter(is_near).count();
    // Padded descriptors may be similar to another position of so regular an image, so a few matches are wrong.
    assert!(near >= 40 && near * 20 >= found.len() * 19, "{near} of {} mutual matches of 49 points", found.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_formats_hold_the_same_matches() {
    let server = TestServer::start().await;
    let source = png(&texture(5, (0, 0), (160, 128)));
    let target = png(&texture(5, (10, 6), (128, 160)));
    let fields = |format| [("side", "160"), ("grid", "24"), ("format", format)];
    let list = matches(&json(server.correspondence(&source, &target, &fields("json"))).await);
    assert_eq!(list.len(), 6 * 5, "a point every 24 pixels");
    let table = npy(server.correspondence(&source, &target, &fields("npy"))).await;
    assert_eq!(table.shape(), [30, 5]);
    for (row, (source, target, score)) in list.iter().enumerate() {
        for (column, expected) in [source[0], source[1], target[0], target[1], *score].into_iter().enumerate() {
            assert!((f64::from(table[[row, column]]) - expected).abs() < 1e-3);
        }
    }
    let picture = succeed(server.correspondence(&source, &target, &fields("png"))).await.bytes().await;
    let picture = image::ImageReader::new(Cursor::new(picture.expect("a whole reply"))).with_guessed_format();
    let picture = picture.expect("it is in memory").decode().expect("a picture");
    assert!(picture.width() >= 160 + 128 && picture.height() >= 160, "both pictures side by side");
    let one = succeed(server.correspondence(&source, &target, &[("points", "[[20, 30]]"), ("format", "png")])).await;
    assert!(one.bytes().await.expect("a whole reply").starts_with(b"\x89PNG"));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_remove_matches() {
    let server = TestServer::start().await;
    let source = png(&texture(6, (0, 0), (192, 192)));
    let target = png(&texture(6, (40, 0), (192, 192)));
    let base = [("side", "192"), ("layer", "res4")];
    let ask = |more: &[(&str, &str)]| server.correspondence(&source, &target, &[&base, more].concat());
    let all = json(ask(&[])).await;
    let all = all["matches"].as_array().expect("matches");
    let count = |test: &dyn Fn(&Value) -> bool| all.iter().filter(|m| test(m)).count();

    let mutual = json(ask(&[("mutual", "true")])).await;
    assert_eq!(mutual["matches"].as_array().map(Vec::len), Some(count(&|m| m["mutual"] == true)));
    let scores: Vec<f64> = all.iter().filter_map(|m| m["score"].as_f64()).collect();
    let middle = scores.iter().sum::<f64>() / scores.len() as f64;
    let good = json(ask(&[("min_score", &middle.to_string())])).await;
    let good = good["matches"].as_array().expect("matches");
    assert!(!good.is_empty() && good.len() < all.len());
    assert!(good.iter().all(|m| m["score"].as_f64() >= Some(middle - 1e-6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_are_ordered_by_score() {
    let server = TestServer::start().await;
    let picture = png(&texture(7, (0, 0), (192, 192)));
    let fields = [("side", "192"), ("points", "[[50, 60], [100.5, 90]]"), ("top_k", "3"), ("refine", "none")];
    let reply = json(server.correspondence(&picture, &picture, &fields)).await;
    for found in reply["matches"].as_array().expect("matches") {
        let candidates = found["candidates"].as_array().expect("candidates");
        assert_eq!(candidates.len(), 3);
        assert_eq!(candidates[0]["target"], found["target"]);
        let scores: Vec<f64> = candidates.iter().filter_map(|c| c["score"].as_f64()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    }
}
