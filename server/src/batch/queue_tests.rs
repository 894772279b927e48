//! Nothing that was accepted goes unanswered, whatever happens to callers and deadlines.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::engine::{LayerSet, ModelFile};
use crate::metrics::Metrics;

const LIMITS: QueueLimits = QueueLimits { max_requests: 3, max_pixels: 10_000 };

fn queue(max_wait: Duration) -> Queue {
    let policy = BatchPolicy { max_batch: 2, max_batch_pixels: 1 << 20, max_wait };
    Queue::new(policy, LIMITS, Metrics::new().batch)
}

fn request(side: usize) -> BatchRequest {
    BatchRequest {
        model: ModelFile { name: "m".into(), version: 1, path: Arc::from(Path::new("m.onnx")) },
        layers: LayerSet::new(["res5"]).unwrap(),
        height: side,
        width: side,
        rgb: vec![0; side * side * 3],
        deadline: Instant::now() + Duration::from_mins(1),
    }
}

#[test]
fn equal_sizes_share_a_batch() {
    let queue = queue(Duration::ZERO);
    let _waiting: Vec<_> = [32, 64, 32].map(|side| queue.push(request(side)).unwrap()).into();
    assert_eq!(queue.next_batch().unwrap().len(), 2);
    assert_eq!(queue.next_batch().unwrap()[0].request.height, 64);
}

#[test]
fn refuses_what_it_cannot_hold() {
    let queue = queue(Duration::ZERO);
    let _large = queue.push(request(200)).unwrap();
    assert!(matches!(queue.push(request(32)), Err(BatchError::QueueFull)), "too many pixels");
    assert_eq!(queue.next_batch().unwrap().len(), 1);
    let _waiting: Vec<_> = (0..3).map(|_| queue.push(request(32)).unwrap()).collect();
    assert!(matches!(queue.push(request(32)), Err(BatchError::QueueFull)), "too many requests");
}

#[test]
fn gone_callers_make_room_and_are_never_run() {
    let queue = queue(Duration::ZERO);
    for _ in 0..10 {
        drop(queue.push(request(32)).unwrap());
    }
    let _stays = queue.push(request(64)).unwrap();
    assert_eq!(queue.next_batch().unwrap()[0].request.height, 64);
}

#[test]
fn a_passed_deadline_is_answered_without_a_run() {
    let queue = queue(Duration::ZERO);
    let late = queue.push(BatchRequest { deadline: Instant::now(), ..request(32) }).unwrap();
    let _in_time = queue.push(request(64)).unwrap();
    assert_eq!(queue.next_batch().unwrap()[0].request.height, 64);
    assert!(matches!(late.blocking_recv().unwrap(), Err(BatchError::DeadlinePassed)));
}

#[test]
fn closing_runs_what_waits_and_refuses_the_rest() {
    let queue = queue(Duration::from_hours(1));
    let _waiting = queue.push(request(32)).unwrap();
    queue.close();
    assert!(matches!(queue.push(request(32)), Err(BatchError::Closed)));
    assert_eq!(queue.next_batch().unwrap().len(), 1, "it does not wait an hour for company");
    assert!(queue.next_batch().is_none());
}

#[test]
fn abandoning_answers_everybody() {
    let queue = queue(Duration::from_hours(1));
    let waiting: Vec<_> = (0..3).map(|_| queue.push(request(32)).unwrap()).collect();
    queue.abandon();
    for receiver in waiting {
        assert!(matches!(receiver.blocking_recv().unwrap(), Err(BatchError::Closed)));
    }
}

#[test]
fn a_waiting_engine_wakes_when_work_arrives() {
    let queue = Arc::new(queue(Duration::ZERO));
    let engine = std::thread::spawn({
        let queue = Arc::clone(&queue);
        move || queue.next_batch().map(|batch| batch.len())
    });
    let _waiting = queue.push(request(32)).unwrap();
    assert_eq!(engine.join().unwrap(), Some(1));
}
