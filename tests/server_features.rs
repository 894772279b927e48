//! `POST /features`: replies to valid requests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use densecl_inference::onnx_runtime::Precision;
use densecl_tests::pictures::{encoded, png, texture};
use densecl_tests::server::{TestServer, config, header, json, largest_difference, npy, part, succeed};
use image::ImageFormat;
use ndarray::{ArrayD, Axis};
use reqwest::multipart::Form;
use serde_json::Value;

fn photo() -> Vec<u8> {
    png(&texture(1, (0, 0), (200, 120)))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four bytes"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_formats_hold_the_same_numbers() {
    let server = TestServer::start().await;
    let query = |format| [("layer", "res3"), ("side", "192"), ("format", format)];
    let map = npy(server.features(photo(), &query("npy"))).await;
    assert_eq!(map.shape()[1..], [16, 24], "192 x 120 rounds to 192 x 128, stride 8");

    let raw = succeed(server.features(photo(), &query("raw"))).await;
    assert_eq!(header(&raw, "Densecl-Shape"), format!("{},16,24", map.shape()[0]));
    assert_eq!(header(&raw, "Densecl-Image-Size"), "200x120");
    assert_eq!(header(&raw, "Densecl-Layer"), "res3");
    let id = header(&raw, "Densecl-Feature-Id").to_owned();
    let in_order: Vec<f32> = map.iter().copied().collect();
    assert_eq!(floats(&raw.bytes().await.expect("a whole reply")), in_order);

    let document = json(server.features(photo(), &query("json"))).await;
    let data = STANDARD.decode(document["data"].as_str().expect("base64")).expect("base64");
    assert_eq!(floats(&data), in_order);
    assert_eq!(document["feature_id"], id.as_str());
    assert_eq!(document["image_size"], serde_json::json!({ "width": 200, "height": 120 }));
    assert_eq!(document["cell_scale"], serde_json::json!({ "x": 200.0 / 24.0, "y": 7.5 }));
    assert_eq!((&document["dtype"], &document["layout"]), (&"float32".into(), &"chw".into()));

    let nested = json(server.features(photo(), &[("layer", "res3"), ("side", "192"), ("encoding", "array")])).await;
    let number = |channel: usize, row: usize, column: usize| nested["data"][channel][row][column].as_f64();
    for (channel, row, column) in [(0, 0, 0), (5, 3, 20), (map.shape()[0] - 1, 15, 23)] {
        assert_eq!(number(channel, row, column).map(|number| number as f32), Some(map[[channel, row, column]]));
    }

    let picture = succeed(server.features(photo(), &query("png"))).await.bytes().await.expect("a whole reply");
    let picture = image::load_from_memory_with_format(&picture, ImageFormat::Png).expect("a PNG file");
    assert_eq!((picture.width(), picture.height()), (200, 120));
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_have_length_one_by_default() {
    let server = TestServer::start().await;
    let lengths = |map: &ArrayD<f32>| map.map_axis(Axis(0), |column| column.dot(&column).sqrt());
    // A single layer, because stacked layers are scaled before.
    let query = [("layer", "res4"), ("side", "128"), ("format", "npy")];
    let unit = npy(server.features(photo(), &query)).await;
    assert!(lengths(&unit).iter().all(|length| (length - 1.0).abs() < 1e-5));

    let query = [&query[..], &[("normalize", "none")]].concat();
    let plain = npy(server.features(photo(), &query)).await;
    let lengths = lengths(&plain).insert_axis(Axis(0));
    assert!(largest_difference(&(plain / lengths), &unit) < 1e-5);
}

#[tokio::test(flavor = "multi_thread")]
async fn layout_and_dtype_change_the_order_and_the_width() {
    let server = TestServer::start().await;
    let ask =
        |query: &[(&str, &str)]| server.features(photo(), &[&[("side", "128"), ("format", "npy")], query].concat());
    let chw = npy(ask(&[])).await;
    let hwc = npy(ask(&[("layout", "hwc")])).await;
    assert_eq!(hwc, chw.clone().permuted_axes(vec![1, 2, 0]));

    let half = succeed(ask(&[("dtype", "float16")])).await.bytes().await.expect("a whole reply");
    let header = String::from_utf8_lossy(&half[..128]).into_owned();
    assert!(header.contains("'<f2'"), "{header}");
    assert_eq!(half.len(), 128 + 2 * chw.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_sampled_from_the_map() {
    let server = TestServer::start().await;
    let query = [("layer", "res4"), ("side", "160"), ("format", "npy")];
    let map = npy(server.features(photo(), &query)).await; // [C, 6, 10]
    // Centres of the cells (row 0, column 0) and (row 2, column 7), by the contract's formula.
    let centre = |cell: f64, cells: f64, pixels: f64| (cell + 0.5) * pixels / cells - 0.5;
    let points = serde_json::json!([
        [centre(0.0, 10.0, 200.0), centre(0.0, 6.0, 120.0)],
        [centre(7.0, 10.0, 200.0), centre(2.0, 6.0, 120.0)],
    ]);
    let points = points.to_string();
    let query = [&query[..], &[("points", points.as_str())]].concat();
    let rows = npy(server.features(photo(), &query)).await;
    assert_eq!(rows.shape(), [2, map.shape()[0]]);
    for channel in 0..map.shape()[0] {
        assert!((rows[[0, channel]] - map[[channel, 0, 0]]).abs() < 1e-5);
        assert!((rows[[1, channel]] - map[[channel, 2, 7]]).abs() < 1e-5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_stack_at_the_finest_resolution() {
    let server = TestServer::start().await;
    let ask = |layer| server.features(photo(), &[("layer", layer), ("side", "128"), ("format", "npy")]);
    let (fine, coarse) = (npy(ask("res3")).await, npy(ask("res4")).await);
    let stacked = npy(ask("res3+res4")).await;
    assert_eq!(stacked.shape(), [fine.shape()[0] + coarse.shape()[0], fine.shape()[1], fine.shape()[2]]);
    // Both layers have the same weight, so the finer part is the finer layer scaled by 1/√2, and by a little more where
    // interpolation shortens the coarser descriptors.
    let half = stacked.slice_axis(Axis(0), (0..fine.shape()[0]).into());
    let cosine = (&half * &fine).sum() / fine.shape()[1] as f32 / fine.shape()[2] as f32;
    assert!((0.70..0.85).contains(&cosine), "{cosine}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_format_and_every_kind_of_body_is_read() {
    let server = TestServer::start().await;
    let picture = texture(2, (0, 0), (64, 96));
    let query = [("side", "96"), ("format", "npy")];
    let expected = npy(server.features(png(&picture), &query)).await;
    for format in [ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
        let found = npy(server.features(encoded(&picture, format), &query)).await;
        assert_eq!(found, expected, "lossless files hold the same pixels: {format:?}");
    }
    for format in [ImageFormat::Jpeg, ImageFormat::Gif] {
        assert_ne!(npy(server.features(encoded(&picture, format), &query)).await, expected);
    }
    let raw = succeed(server.features(png(&picture), &[("side", "96")])).await;
    let id = header(&raw, "Densecl-Feature-Id");
    let form = Form::new().part("image", part(&png(&picture))).text("side", "96");
    let response = succeed(server.client.post(server.url("/features")).multipart(form)).await;
    assert_eq!(header(&response, "Densecl-Feature-Id"), id, "the same file");
    // The type that `curl --data-binary` sends.
    let unsaid = server.client.post(server.url("/features?side=96")).body(png(&picture));
    let response = succeed(unsaid.header("Content-Type", "application/x-www-form-urlencoded")).await;
    assert_eq!(header(&response, "Densecl-Feature-Id"), id);
    let other_side = succeed(server.features(png(&picture), &[("side", "64")])).await;
    assert_ne!(header(&other_side, "Densecl-Feature-Id"), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn accept_chooses_the_format() {
    let server = TestServer::start().await;
    for (accept, expected) in [
        ("*/*", "application/json"),
        ("application/x-npy", "application/x-npy"),
        ("image/*", "image/png"),
        ("application/json;q=0.2, application/octet-stream", "application/octet-stream"),
    ] {
        let response = succeed(server.features(photo(), &[("side", "64")]).header("Accept", accept)).await;
        assert_eq!(header(&response, "Content-Type"), expected, "{accept}");
    }
    let response = succeed(server.features(photo(), &[("side", "64")])).await;
    assert_eq!(response.json::<Value>().await.expect("JSON")["encoding"], "base64");
}

#[tokio::test(flavor = "multi_thread")]
async fn float16_arithmetic_is_close_to_float32() {
    let query = [("layer", "res5"), ("side", "128"), ("format", "npy")];
    let expected = npy(TestServer::start().await.features(photo(), &query)).await;
    let mut narrow = config();
    narrow.engine.precision = Precision::Float16;
    let found = npy(TestServer::with(narrow).await.features(photo(), &query)).await;
    assert_ne!(found, expected, "float16 was not used");
    let cosines = (&found * &expected).sum_axis(Axis(0));
    assert!(cosines.iter().all(|&cosine| cosine > 0.999), "{cosines}");
}
