//! Start, deadlines, and a stop that loses no request.

use std::io::ErrorKind;
use std::time::Duration;

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
async fn requests_that_have_begun_are_finished() {
    let mut server = TestServer::start().await;
    let picture = png(&texture(1, (0, 0), (512, 512)));
    let mut uploads = Vec::new();
    for _ in 0..4 {
        uploads.push(server.begin_upload("?side=1024&format=npy", picture.len()).await);
    }
    assert!(server.metric("densecl_http_requests_in_flight") >= 4.0);
    for upload in &mut uploads {
        upload.write_all(&picture).await.expect("the server reads");
    }
    server.tell_to_stop();
    let address = server.address;
    for mut upload in uploads {
        let mut reply = Vec::new();
        upload.read_to_end(&mut reply).await.expect("a complete reply");
        assert_complete(&reply);
    }
    server.stopped().await.expect("all requests are finished");
    let refused = TcpStream::connect(address).await.expect_err("the listener is closed");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

/// Checks that a raw reply is a 200 with as many bytes as its head says, more than none.
fn assert_complete(reply: &[u8]) {
    let end = reply.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&reply[..end]).to_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    assert_eq!(length, Some(reply.len() - end - 4), "{head}");
    assert!(length > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_is_not_ready_and_still_answers() {
    // Longer than the test, so that the listener stays open.
    let drain = Drain { delay: Duration::from_hours(1), timeout: Duration::from_secs(30) };
    let mut server = TestServer::with(Config { drain, ..config() }).await;
    let mut phase = server.state.watch_phase();
    server.tell_to_stop();
    phase.wait_for(|phase| *phase == Phase::Draining).await.expect("the state lives");
    let reply = server.get("/readyz").send().await.expect("the listener is open");
    assert_eq!(reply.status(), 503);
    assert_eq!(reply.json::<Value>().await.expect("a problem")["type"], "/problems/draining");
    assert_eq!(server.get("/livez").send().await.expect("the listener is open").status(), 200);
    let picture = png(&texture(1, (0, 0), (64, 64)));
    let late = server.features(picture, &[("side", "64")]).send().await.expect("the listener is open");
    assert_eq!(late.status(), 200, "a late request is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_does_not_prevent_the_stop() {
    let drain = Drain { delay: Duration::ZERO, timeout: Duration::from_millis(200) };
    let mut server = TestServer::with(Config { drain, ..config() }).await;
    let mut stalled = stalled_upload(&server).await;
    assert!(server.metric("densecl_http_requests_in_flight") >= 1.0);
    server.tell_to_stop();
    assert!(matches!(server.stopped().await, Err(ServeError::DrainTimeout { .. })));
    drop(stalled.shutdown().await);
}

/// An upload that stops in the middle of its body.
async fn stalled_upload(server: &TestServer) -> TcpStream {
    let mut stream = server.begin_upload("", 1000).await;
    stream.write_all(b"half").await.expect("the server reads");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_is_answered_with_408() {
    let server = TestServer::with(with_timeout(Duration::from_millis(300))).await;
    let mut stream = stalled_upload(&server).await;
    let mut reply = vec![0; 4096];
    let length = stream.read(&mut reply).await.expect("a reply");
    let reply = String::from_utf8_lossy(&reply[..length]).into_owned();
    assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
    assert!(reply.contains("/problems/body-too-slow"), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_too_long_is_replaced_by_504() {
    let server = TestServer::with(with_timeout(Duration::from_millis(400))).await;
    let picture = png(&texture(1, (0, 0), (256, 256)));
    let asked: Vec<_> =
        (0..4).map(|_| tokio::spawn(server.features(picture.clone(), &[("side", "2048")]).send())).collect();
    let mut statuses = Vec::new();
    for reply in asked {
        let reply = reply.await.expect("a reply").expect("a reply");
        let status = reply.status().as_u16();
        let problem = reply.json::<Value>().await.expect("a problem");
        match status {
            504 => assert_eq!(problem["type"], "/problems/deadline-passed"),
            // A later one may be refused at once, because it could not run in time.
            503 => assert_eq!(problem["type"], "/problems/overloaded"),
            other => panic!("status {other}: {problem}"),
        }
        statuses.push(status);
    }
    assert!(statuses.contains(&504), "{statuses:?}");
    assert!(server.metric("densecl_batch_size_sum") < 4.0, "the replies waited for the work");
    // Expired requests leave the queue when the engine looks for the next one. Each round waits for a reply.
    while server.metric("densecl_queue_depth") >= 1.0 {
        server.get("/livez").send().await.expect("a reply");
    }
    assert!(server.metric("densecl_batch_size_sum") < 4.0, "expired requests were run");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_probes_are_answered_while_the_models_load() {
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
