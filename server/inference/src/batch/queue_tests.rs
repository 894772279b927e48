//! Nothing that was accepted goes unanswered, whatever happens to callers and deadlines.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::*;
use crate::engine::{LayerSet, ModelFile, smallest};
use crate::metrics::BatchMetrics;
use prometheus_client::registry::Registry;

const LIMITS: QueueLimits = QueueLimits { max_requests: 3, max_pixels: 10_000, max_image_pixels: 10_000 };
const ENGINE: usize = 0;

static MODEL: LazyLock<ModelFile> = LazyLock::new(smallest);

fn queue(max_wait: Duration) -> Queue {
    let policy = BatchPolicy { max_batch: 2, max_batch_pixels: 1 << 20, max_wait };
    Queue::new(2, policy, LIMITS, BatchMetrics::register(&mut Registry::default()))
}

/// The next batch for an engine, and what else the machine does.
fn next(queue: &Queue, engine: usize) -> Option<(Vec<Pending>, Load)> {
    queue.next(engine).map(|work| match work {
        Work::Run(batch, load) => (batch, load),
        Work::Errand(_) => panic!("nobody sent an errand"),
    })
}

fn next_batch(queue: &Queue) -> Option<Vec<Pending>> {
    next(queue, ENGINE).map(|(batch, _)| batch)
}

fn request(side: usize) -> BatchRequest {
    BatchRequest {
        model: MODEL.clone(),
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
    assert_eq!(next_batch(&queue).unwrap().len(), 2);
    assert_eq!(next_batch(&queue).unwrap()[0].request.height, 64);
}

#[test]
fn refuses_what_it_cannot_hold() {
    let queue = queue(Duration::ZERO);
    let _large = queue.push(request(200)).unwrap();
    assert!(matches!(queue.push(request(32)), Err(BatchError::Overloaded { .. })), "too many pixels");
    assert_eq!(next_batch(&queue).unwrap().len(), 1);
    let _waiting: Vec<_> = (0..3).map(|_| queue.push(request(32)).unwrap()).collect();
    assert!(matches!(queue.push(request(32)), Err(BatchError::Overloaded { .. })), "too many requests");
}

#[test]
fn gone_callers_make_room_and_are_never_run() {
    let queue = queue(Duration::ZERO);
    for _ in 0..10 {
        drop(queue.push(request(32)).unwrap());
    }
    let _stays = queue.push(request(64)).unwrap();
    assert_eq!(next_batch(&queue).unwrap()[0].request.height, 64);
}

#[test]
fn a_passed_deadline_is_answered_without_a_run() {
    let queue = queue(Duration::ZERO);
    let late = queue.push(BatchRequest { deadline: Instant::now(), ..request(32) }).unwrap();
    let _in_time = queue.push(request(64)).unwrap();
    assert_eq!(next_batch(&queue).unwrap()[0].request.height, 64);
    assert!(matches!(late.blocking_recv().unwrap(), Err(BatchError::DeadlinePassed)));
}

#[test]
fn closing_runs_what_waits_and_refuses_the_rest() {
    let queue = queue(Duration::from_hours(1));
    let _waiting = queue.push(request(32)).unwrap();
    queue.close();
    assert!(matches!(queue.push(request(32)), Err(BatchError::Closed)));
    assert_eq!(next_batch(&queue).unwrap().len(), 1, "it does not wait an hour for company");
    assert!(next_batch(&queue).is_none());
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
        move || next_batch(&queue).map(|batch| batch.len())
    });
    let _waiting = queue.push(request(32)).unwrap();
    assert_eq!(engine.join().unwrap(), Some(1));
}

#[test]
fn a_lone_request_has_the_machine_to_itself() {
    let queue = queue(Duration::ZERO);
    let _first = queue.push(request(32)).unwrap();
    assert_eq!(next(&queue, 0).unwrap().1, Load::Idle);
    let _second = queue.push(request(32)).unwrap();
    assert_eq!(next(&queue, 1).unwrap().1, Load::Busy, "engine 0 still runs");
    let _others: Vec<_> = [32, 64].map(|side| queue.push(request(side)).unwrap()).into();
    assert_eq!(next(&queue, 0).unwrap().1, Load::Busy, "engine 1 still runs");
    assert_eq!(next(&queue, 1).unwrap().1, Load::Busy);
}

#[test]
fn what_would_come_too_late_is_refused_at_once() {
    let queue = queue(Duration::ZERO);
    let _run = queue.push(request(32)).unwrap();
    let batch = next_batch(&queue).unwrap();
    queue.observe(&batch, Load::Busy, Duration::from_secs(10));
    let soon = |side| BatchRequest { deadline: Instant::now() + Duration::from_secs(6), ..request(side) };
    // Engine 0 is at it again; what waits takes ten seconds more, shared by two engines.
    let _waiting = queue.push(request(32)).unwrap();
    assert!(queue.predicted_wait() > Duration::from_secs(4), "{:?}", queue.predicted_wait());
    let refused = queue.push(soon(32)).unwrap_err();
    assert!(matches!(refused, BatchError::Overloaded { retry_after } if retry_after > Duration::from_secs(4)));
}

#[test]
fn errands_come_first_each_to_its_own_engine() {
    let queue = queue(Duration::ZERO);
    let _waiting = queue.push(request(32)).unwrap();
    for engine in [0, 1] {
        queue.send(engine, Errand::Forget(MODEL.id()));
    }
    for engine in [1, 0] {
        let work = queue.next(engine);
        assert!(matches!(work, Some(Work::Errand(Errand::Forget(model))) if model == MODEL.id()));
    }
    assert!(next_batch(&queue).is_some());
}

#[test]
fn nobody_waits_for_an_errand_that_nobody_does() {
    let queue = queue(Duration::ZERO);
    queue.send(ENGINE, Errand::Forget(MODEL.id()));
    queue.abandon();
    assert!(queue.next(ENGINE).is_none());
    queue.send(ENGINE, Errand::Forget(MODEL.id()));
    assert!(queue.next(ENGINE).is_none());
}
