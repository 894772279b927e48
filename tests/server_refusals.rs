//! Requests that cannot be answered: their statuses and problems.

use densecl_server::config::{Config, RequestLimits};
use densecl_tests::pictures::{encoded, png, png_header, texture};
use densecl_tests::server::{TestServer, config, header, part, succeed};
use image::ImageFormat;
use reqwest::RequestBuilder;
use reqwest::multipart::Form;
use serde_json::Value;

fn photo() -> Vec<u8> {
    png(&texture(1, (0, 0), (96, 64)))
}

/// Sends a request and checks the problem that comes back.
async fn refused(request: RequestBuilder, status: u16, kind: &str) -> Value {
    let response = request.send().await.expect("the server answers");
    assert_eq!(response.status().as_u16(), status, "{kind}");
    assert_eq!(header(&response, "Content-Type"), "application/problem+json");
    assert!(!header(&response, "X-Request-Id").is_empty());
    assert!(header(&response, "Server-Timing").starts_with("decode;dur="));
    assert_eq!(response.headers().contains_key("Retry-After"), status == 503);
    let problem: Value = response.json().await.expect("a problem in JSON");
    assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
    assert_eq!(problem["status"], status);
    for field in ["title", "detail", "hint"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {problem}");
    }
    assert!(!problem.to_string().contains("/zoo/"), "a path of the server: {problem}");
    problem
}

fn limited(change: impl FnOnce(&mut RequestLimits)) -> Config {
    let mut config = config();
    change(&mut config.limits);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_not_images() {
    let server = TestServer::start().await;
    refused(server.features(Vec::new(), &[]), 400, "empty-body").await;
    refused(server.features(&b"hello, I am text"[..], &[]), 415, "unsupported-image").await;
    let claims_jpeg = server.features(&b"hello"[..], &[]).header("Content-Type", "image/jpeg");
    refused(claims_jpeg, 415, "unsupported-image").await;

    let jpeg = encoded(&texture(1, (0, 0), (96, 64)), ImageFormat::Jpeg);
    refused(server.features(&jpeg[..jpeg.len() / 2], &[]), 422, "corrupt-image").await;
    refused(server.features(&photo()[..200], &[]), 422, "corrupt-image").await;
    succeed(server.features(photo(), &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_header_is_refused_before_decoding() {
    let server = TestServer::start().await;
    let request = || server.features(png_header(30_000, 30_000), &[]);
    let problem = refused(request(), 413, "too-many-pixels").await;
    assert_eq!(problem["limit"], 50_000_000);
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("30000 x 30000")), "{problem}");
    let reply = request().send().await.expect("the server answers");
    assert!(header(&reply, "Server-Timing").starts_with("decode;dur=0.00, "), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bodies() {
    let server = TestServer::start().await;
    let post = |form| server.client.post(server.url("/features")).multipart(form);
    refused(post(Form::new().part("image", part(b""))), 400, "empty-part").await;
    refused(post(Form::new().text("layer", "res4")), 400, "missing-part").await;
    refused(post(Form::new().part("photo", part(&photo()))), 400, "unknown-parameter").await;
    let many = (0..33).fold(Form::new(), |form, _| form.part("image", part(&photo())));
    refused(post(many), 422, "too-many-images").await;
    let many = (0..10_000).fold(Form::new(), |form, index| form.text(format!("a{index}"), "1"));
    refused(post(many), 413, "too-many-parameters").await;
    let long = Form::new().text("points", " ".repeat(8 << 20)).part("image", part(&photo()));
    refused(post(long), 413, "parameters-too-large").await;

    let raw = |content_type: &str, body: &'static [u8]| {
        server.client.post(server.url("/features")).header("Content-Type", content_type).body(body)
    };
    refused(raw("multipart/form-data; boundary=x", b"--x\r\nContent-Dis"), 400, "malformed-body").await;
    refused(raw("multipart/form-data", b"--x"), 400, "malformed-body").await;
    refused(raw("text/plain", b"hello"), 415, "unsupported-content-type").await;
    refused(raw("application/x-www-form-urlencoded", b"a=b"), 415, "unsupported-content-type").await;
    refused(raw("image/png", b"hello").header("Content-Encoding", "gzip"), 415, "unsupported-content-encoding").await;
    refused(raw("application/json", b"{\"images\": [\"aGk=\", \"?\"]}"), 400, "malformed-parameter").await;
    refused(raw("application/json", b"[]"), 400, "malformed-body").await;
    refused(raw("application/json", b"{\"side\": 512}"), 400, "missing-part").await;

    let target = Form::new().part("source", part(&photo()));
    refused(server.client.post(server.url("/correspondence")).multipart(target), 400, "missing-part").await;
    let twice = Form::new().part("source", part(&photo())).part("source", part(&photo()));
    refused(server.client.post(server.url("/correspondence")).multipart(twice), 422, "too-many-images").await;
    refused(server.correspondence(&photo(), b"", &[]), 400, "empty-part").await;
    refused(server.correspondence(&photo(), b"text", &[]), 415, "unsupported-image").await;
    let raw = server.client.post(server.url("/correspondence")).header("Content-Type", "image/png").body(photo());
    refused(raw, 415, "unsupported-content-type").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_parameters() {
    let server = TestServer::start().await;
    for (name, value, status, kind) in [
        ("layer", "res9", 404, "unknown-layer"),
        ("layer", "res4+res4", 422, "repeated-layer"),
        ("model", "unknown", 404, "unknown-model"),
        ("version", "999", 404, "unknown-version"),
        ("side", "0", 422, "side-out-of-range"),
        ("side", "31", 422, "side-out-of-range"),
        ("side", "1000000000", 422, "side-out-of-range"),
        ("side", "-5", 400, "malformed-parameter"),
        ("side", "wide", 400, "malformed-parameter"),
        ("points", "[[96, 0]]", 422, "point-outside"),
        ("points", "[[0, -0.51]]", 422, "point-outside"),
        ("points", "[[NaN, 1]]", 422, "point-not-finite"),
        ("points", "[[1, Infinity]]", 422, "point-not-finite"),
        ("points", "[1, 2]", 400, "malformed-parameter"),
        ("points", "[]", 400, "malformed-parameter"),
        ("resolution", "fine", 400, "malformed-parameter"),
        ("resolution", "0x64", 422, "resolution-out-of-range"),
        ("crop", "1,2,3", 400, "malformed-parameter"),
        ("crop", "0,0,97,64", 422, "crop-outside"),
        ("components", "0", 422, "components-out-of-range"),
        ("normalize", "l3", 400, "malformed-parameter"),
        ("format", "docx", 400, "malformed-parameter"),
        ("colour", "red", 400, "unknown-parameter"),
    ] {
        let problem = refused(server.features(photo(), &[(name, value)]), status, kind).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(value) || detail.contains(name) || name == "points", "{name}={value}: {detail}");
    }
    let both = [("points", "[[1, 1]]"), ("format", "png")];
    refused(server.features(photo(), &both), 422, "conflicting-parameters").await;
    for (fields, status, kind) in [
        (&[("points", "[[1, 1]]"), ("grid", "8")][..], 422, "conflicting-parameters"),
        (&[("points", "[[1, 64]]")], 422, "point-outside"),
        (&[("grid", "0")], 422, "grid-out-of-range"),
        (&[("grid", "nan")], 422, "grid-out-of-range"),
        (&[("top_k", "0")], 400, "malformed-parameter"),
        (&[("min_score", "nan")], 400, "malformed-parameter"),
        (&[("mutual", "maybe")], 400, "malformed-parameter"),
    ] {
        refused(server.correspondence(&photo(), &photo(), fields), status, kind).await;
    }
    succeed(server.correspondence(&photo(), &photo(), &[("points", "[[-0.5, 63.5]]")])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_methods_and_formats() {
    let server = TestServer::start().await;
    refused(server.get("/feature"), 404, "no-such-path").await;
    refused(server.get("/models/unknown"), 404, "unknown-model").await;
    refused(server.get("/models/%FF"), 404, "no-such-path").await;
    refused(server.client.delete(server.url("/models")), 405, "method-not-allowed").await;
    let response = server.get("/features").send().await.expect("an answer");
    assert_eq!(header(&response, "Allow"), "POST");
    refused(server.features(photo(), &[]).header("Accept", "text/html"), 406, "not-acceptable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_state_the_limit() {
    let server = TestServer::with(limited(|limits| limits.max_body_bytes = 10_000)).await;
    let large = png(&texture(1, (0, 0), (400, 400)));
    assert!(large.len() > 10_000);
    let problem = refused(server.features(large, &[]), 413, "body-too-large").await;
    assert_eq!(problem["limit"], 10_000);

    let server = TestServer::with(limited(|limits| limits.max_response_bytes = 10_000)).await;
    let problem = refused(server.features(photo(), &[("side", "256")]), 413, "reply-too-large").await;
    assert_eq!(problem["limit"], 10_000);

    let server = TestServer::with(limited(|limits| limits.max_points = 2)).await;
    let three = server.features(photo(), &[("points", "[[1,1],[2,2],[3,3]]")]);
    assert_eq!(refused(three, 422, "too-many-points").await["limit"], 2);
    refused(server.correspondence(&photo(), &photo(), &[("grid", "8")]), 422, "too-many-points").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_of_too_many_cells_is_refused() {
    let server = TestServer::start().await;
    let fields = [("layer", "res2"), ("side", "2048")];
    let picture = png(&texture(8, (0, 0), (64, 64)));
    refused(server.correspondence(&picture, &picture, &fields), 422, "too-many-comparisons").await;
}
