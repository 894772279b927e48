//! Starting, running out of time, and stopping without losing anything.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use densecl_inference::registry::OpenError;
use densecl_server::app::{Application, ServeError};
use densecl_server::config::{Config, Drain, RequestLimits};
use densecl_server::http::Phase;
use densecl_tests::pictures::{png, texture};
use densecl_tests::server::{TestServer, config, models};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn with_timeout(timeout: Duration) -> Config {
    let base = config();
    Config { limits: RequestLimits { timeout, ..base.limits }, ..base }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_begun_is_finished() {
    let mut server = TestServer::start().await;
    let picture = png(&texture(1, (0, 0), (512, 512)));
    let asked: Vec<_> = (0..4)
        .map(|_| tokio::spawn(server.features(picture.clone(), &[("side", "1024"), ("format", "npy")]).send()))
        .collect();
    server.until("four requests in flight", |server| server.metric("densecl_http_requests_in_flight") >= 4.0).await;
    server.tell_to_stop();
    let address = server.address;
    for reply in asked {
        let reply = reply.await.expect("a reply").expect("a reply");
        assert_eq!(reply.status(), 200);
        assert!(!reply.bytes().await.expect("a whole reply").is_empty());
    }
    server.stopped().await.expect("it ends well");
    let refused = TcpStream::connect(address).await.expect_err("the door is closed");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_fails_before_the_door_closes() {
    let drain = Drain { delay: Duration::from_secs(2), timeout: Duration::from_secs(30) };
    let mut server = TestServer::with(Config { drain, ..config() }).await;
    let mut phase = server.state.watch_phase();
    server.tell_to_stop();
    phase.wait_for(|phase| *phase == Phase::Draining).await.expect("the state lives");
    let reply = server.get("/readyz").send().await.expect("the door is open");
    assert_eq!(reply.status(), 503);
    assert_eq!(reply.json::<Value>().await.expect("a problem")["type"], "/problems/draining");
    assert_eq!(server.get("/livez").send().await.expect("the door is open").status(), 200);
    let picture = png(&texture(1, (0, 0), (64, 64)));
    let late = server.features(picture, &[("side", "64")]).send().await.expect("the door is open");
    assert_eq!(late.status(), 200, "whoever still comes is served");
    server.stopped().await.expect("it ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_does_not_hold_the_process() {
    let drain = Drain { delay: Duration::ZERO, timeout: Duration::from_millis(200) };
    let mut server = TestServer::with(Config { drain, ..config() }).await;
    let mut stalled = stalled_upload(&server).await;
    server.until("a request in flight", |server| server.metric("densecl_http_requests_in_flight") >= 1.0).await;
    server.tell_to_stop();
    assert!(matches!(server.stopped().await, Err(ServeError::DrainTimeout { .. })));
    drop(stalled.shutdown().await);
}

/// An upload that stops in the middle of its body.
async fn stalled_upload(server: &TestServer) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
    let head = "POST /features HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).await.expect("the server reads");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_408() {
    let server = TestServer::with(with_timeout(Duration::from_millis(300))).await;
    let mut stream = stalled_upload(&server).await;
    let mut reply = vec![0; 4096];
    let length = stream.read(&mut reply).await.expect("a reply");
    let reply = String::from_utf8_lossy(&reply[..length]).into_owned();
    assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
    assert!(reply.contains("/problems/body-too-slow"), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_is_504() {
    let server = TestServer::with(with_timeout(Duration::from_millis(400))).await;
    let picture = png(&texture(1, (0, 0), (256, 256)));
    let begun = Instant::now();
    let asked: Vec<_> =
        (0..4).map(|_| tokio::spawn(server.features(picture.clone(), &[("side", "2048")]).send())).collect();
    let mut statuses = Vec::new();
    for reply in asked {
        let reply = reply.await.expect("a reply").expect("a reply");
        let status = reply.status().as_u16();
        let problem = reply.json::<Value>().await.expect("a problem");
        match status {
            504 => assert_eq!(problem["type"], "/problems/deadline-passed"),
            // One that comes a little later may be told at once that it would be in vain.
            503 => assert_eq!(problem["type"], "/problems/overloaded"),
            other => panic!("status {other}: {problem}"),
        }
        statuses.push(status);
    }
    assert!(statuses.contains(&504), "{statuses:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    // The ones that had not begun never ran.
    server.until("the queue to be empty", |server| server.metric("densecl_queue_depth") < 1.0).await;
    assert!(server.metric("densecl_batch_size_sum") < 4.0, "all of them were run");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_loading_probes_are_answered_and_requests_are_not() {
    let application = Application::bind(config()).await.expect("a free port");
    let router = densecl_server::http::router(application.state().clone());
    let ask = |path: &str| {
        let request = axum::http::Request::get(path).body(axum::body::Body::empty()).expect("a request");
        tower::ServiceExt::oneshot(router.clone(), request)
    };
    assert_eq!(ask("/livez").await.expect("an answer").status(), 200);
    for path in ["/readyz", "/models"] {
        let reply = ask(path).await.expect("an answer");
        assert_eq!(reply.status(), 503, "{path}");
        assert!(reply.headers().contains_key("Retry-After"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_model_is_named_at_start() {
    let zoo = tempfile::tempdir().expect("a folder");
    let whole = densecl_models::repository::scan(&models()).expect("the zoo has a model").remove(0).path;
    let bytes = std::fs::read(whole).expect("a model");
    let broken = zoo.path().join("broken/1/model.onnx");
    std::fs::create_dir_all(broken.parent().expect("a folder")).expect("a folder");
    std::fs::write(&broken, &bytes[..bytes.len() / 2]).expect("half a model");
    let application =
        Application::bind(Config { models: zoo.path().to_owned(), ..config() }).await.expect("a free port");
    let error = application.run_until(std::future::pending()).await.expect_err("half a model is not served");
    assert!(matches!(error, ServeError::Models(OpenError::Model { .. })), "{error:?}");
    assert!(error.to_string().contains(&broken.display().to_string()), "{error}");
}
