//! Description, models, probes, metrics, headers and the page.

use densecl_server::config::Config;
use densecl_server::http::document;
use densecl_tests::pictures::{png, texture};
use densecl_tests::server::{TestServer, config, header, json, succeed};
use serde_json::Value;

#[test]
fn the_committed_openapi_document_is_current() {
    let path = densecl_tests::root().join("openapi/openapi.json");
    let committed: Value = serde_json::from_slice(&std::fs::read(path).expect("openapi/openapi.json")).expect("JSON");
    let current = serde_json::to_value(document()).expect("JSON");
    assert!(committed == current, "openapi/openapi.json is out of date: run `make openapi`");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_lists_every_path() {
    let server = TestServer::start().await;
    let document = json(server.get("/openapi.json")).await;
    let paths: Vec<&str> = document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
    let ours = ["/features", "/correspondence", "/models", "/models/{name}", "/livez", "/readyz", "/metrics"];
    let open_inference = [
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{name}",
        "/v2/models/{name}/ready",
        "/v2/models/{name}/infer",
        "/v2/models/{name}/versions/{version}",
        "/v2/models/{name}/versions/{version}/ready",
        "/v2/models/{name}/versions/{version}/infer",
        "/v2/repository/index",
        "/v2/repository/models/{name}/load",
        "/v2/repository/models/{name}/unload",
    ];
    let expected = [&ours[..], &open_inference].concat();
    assert_eq!(paths.len(), expected.len(), "{paths:?}");
    assert!(expected.iter().all(|path| paths.contains(path)), "{paths:?}");
    let page = succeed(server.get("/docs/")).await;
    assert!(header(&page, "Content-Type").starts_with("text/html"));
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_described_by_their_manifests() {
    let server = TestServer::start().await;
    let list = json(server.get("/models")).await;
    let first = &list["models"][0];
    assert_eq!((&first["state"], &first["provider"]), (&"ready".into(), &"cpu".into()));
    assert!(first["manifest"]["layers"].as_array().is_some_and(|layers| !layers.is_empty()));
    let name = first["name"].as_str().expect("a name");
    assert_eq!(json(server.get(&format!("/models/{name}"))).await["name"], name);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reply_has_an_id_and_timings() {
    let server = TestServer::start().await;
    let picture = png(&texture(1, (0, 0), (64, 64)));
    let reply = succeed(server.features(picture, &[("side", "64")]).header("X-Request-Id", "mine-42")).await;
    assert_eq!(header(&reply, "X-Request-Id"), "mine-42");
    let timing = header(&reply, "Server-Timing");
    for stage in ["decode", "queue", "inference", "encode", "total"] {
        let time =
            timing.split(", ").find_map(|part| part.strip_prefix(stage)?.strip_prefix(";dur=")?.parse::<f64>().ok());
        assert!(time.is_some_and(|time| time > 0.0), "{stage} of {timing}");
    }
    let made = succeed(server.get("/livez").header("X-Request-Id", "not fit for logs")).await;
    assert_eq!(header(&made, "X-Request-Id").len(), 36, "a UUID");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_by_template_and_never_by_what_clients_write() {
    let server = TestServer::start().await;
    for path in ["/models/one", "/models/two", "/a/b/c"] {
        server.get(path).send().await.expect("an answer");
    }
    let request = server.client.request("BREW".parse().expect("a method"), server.url("/models"));
    request.send().await.expect("an answer");
    let plain = succeed(server.get("/metrics")).await;
    assert_eq!(header(&plain, "Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
    let reply = succeed(server.get("/metrics").header("Accept", "application/openmetrics-text; version=1.0.0")).await;
    assert_eq!(header(&reply, "Content-Type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = reply.text().await.expect("text");
    for line in [
        r#"densecl_http_requests_total{route="/models/{name}",method="GET",status="404",model=""} 2"#,
        r#"densecl_http_requests_total{route="",method="GET",status="404",model=""} 1"#,
        r#"densecl_http_requests_total{route="/models",method="other",status="405",model=""} 1"#,
        "# TYPE densecl_http_request_duration_seconds histogram",
        "# TYPE densecl_queue_depth gauge",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_self_contained() {
    let server = TestServer::start().await;
    for (path, content_type) in [("/", "text/html"), ("/app.js", "text/javascript"), ("/style.css", "text/css")] {
        let reply = succeed(server.get(path)).await;
        assert!(header(&reply, "Content-Type").starts_with(content_type), "{path}");
        assert!(header(&reply, "Content-Security-Policy").contains("default-src 'self'"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_configured_origins_are_allowed() {
    let cors_origins = vec!["https://lab.example".parse().expect("an origin")];
    let server = TestServer::with(Config { cors_origins, ..config() }).await;
    let allowed = succeed(server.get("/models").header("Origin", "https://lab.example")).await;
    assert_eq!(header(&allowed, "Access-Control-Allow-Origin"), "https://lab.example");
    assert!(header(&allowed, "Access-Control-Expose-Headers").contains("densecl-shape"));
    let other = succeed(server.get("/models").header("Origin", "https://elsewhere.example")).await;
    assert!(!other.headers().contains_key("Access-Control-Allow-Origin"));
}
