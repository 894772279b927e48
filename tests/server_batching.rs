//! Batched requests get the same answers as single ones.

use std::time::Duration;

use densecl_inference::batch::Batching;
use densecl_tests::pictures::{png, texture};
use densecl_tests::server::{TestServer, config, largest_difference, npy};
use ndarray::ArrayD;

const QUERY: [(&str, &str); 4] = [("layer", "res4"), ("side", "128"), ("normalize", "none"), ("format", "npy")];

async fn answers(server: &TestServer, pictures: &[Vec<u8>]) -> Vec<ArrayD<f32>> {
    let asked: Vec<_> =
        pictures.iter().map(|picture| tokio::spawn(npy(server.features(picture.clone(), &QUERY)))).collect();
    let mut answers = Vec::new();
    for answer in asked {
        answers.push(answer.await.expect("an answer"));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batched_answer_equals_a_single_one() {
    // Two shapes, which wait in the queue at the same time and cannot share a batch.
    let sizes = [(128, 96), (96, 128), (128, 96), (128, 96), (96, 128), (128, 96), (128, 96), (96, 128)];
    let pictures: Vec<_> = (0..).zip(sizes).map(|(seed, size)| png(&texture(seed, (0, 0), size))).collect();

    let alone = TestServer::with({
        let batching = Batching::NONE;
        densecl_server::config::Config { batching, ..config() }
    })
    .await;
    let mut expected = Vec::new();
    for picture in &pictures {
        expected.extend(answers(&alone, std::slice::from_ref(picture)).await);
    }
    let (images, runs) = (alone.metric("densecl_batch_size_sum"), alone.metric("densecl_batch_size_count"));
    assert!((images - runs).abs() < 0.5, "{images} images in {runs} runs");

    let together = TestServer::with({
        let max_wait = Some(Duration::from_millis(500));
        let batching = Batching { max_batch: 4, max_wait, max_batch_pixels: None };
        densecl_server::config::Config { batching, ..config() }
    })
    .await;
    let found = answers(&together, &pictures).await;
    let (images, runs) = (together.metric("densecl_batch_size_sum"), together.metric("densecl_batch_size_count"));
    assert!(images > runs, "nothing ran together: {images} images in {runs} runs");

    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let difference = largest_difference(found, expected);
        assert!(difference <= 1e-4 * largest, "picture {index}: {difference} of {largest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_server_answers_or_refuses_every_request() {
    let mut few = config();
    few.limits.max_in_flight = 16;
    let server = TestServer::with(few).await;
    let picture = png(&texture(9, (0, 0), (256, 256)));
    let asked: Vec<_> = (0..48)
        .map(|_| tokio::spawn(server.features(picture.clone(), &[("side", "512"), ("format", "npy")]).send()))
        .collect();
    let (mut answered, mut refused) = (0, 0);
    for reply in asked {
        let reply = reply.await.expect("a reply").expect("a reply");
        match reply.status().as_u16() {
            200 => answered += 1,
            503 => {
                assert!(reply.headers().contains_key("Retry-After"));
                let problem: serde_json::Value = reply.json().await.expect("a problem");
                assert_eq!(problem["type"], "/problems/overloaded");
                refused += 1;
            }
            other => panic!("status {other}"),
        }
    }
    assert_eq!(answered + refused, 48);
    assert!(answered >= 8 && refused > 0, "{answered} answered, {refused} refused");
    let ready = server.get("/readyz").send().await.expect("an answer");
    assert_eq!(ready.status(), 200, "a busy server stays ready");
}
