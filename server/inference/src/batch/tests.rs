//! Batches, overload, panics, warm-up and draining, on engines without models and with a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::registry::Registry;
use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;
use crate::backend::{ImageBatch, Load};
use crate::fake::{FakeBackend, FakeEvent, FakeLog, FakeModel};

const LIMITS: QueueLimits = QueueLimits { max_requests: 64, max_pixels: 1 << 20, max_image_pixels: 1 << 12 };
const RUN_TIME: Duration = Duration::from_millis(10);
const SIZE: ImageSize = ImageSize { width: 64, height: 32 };

type FakeBatcher = Batcher<FakeBackend>;
type Reply = oneshot::Receiver<Result<BatchReply, BatchError>>;

/// A batcher with engines that take [`RUN_TIME`] for a run, and whose tasks end in `tasks`.
struct Fixture {
    batcher: FakeBatcher,
    tasks: JoinSet<()>,
    log: FakeLog,
    model: FakeModel,
}

impl Fixture {
    fn new(engines: usize, max_batch: usize) -> Self {
        let log = FakeLog::default();
        Self::with_backends(FakeBackend::first_bytes(engines, RUN_TIME, &log), log, max_batch)
    }

    fn with_backends(backends: Vec<FakeBackend>, log: FakeLog, max_batch: usize) -> Self {
        let batching = Batching { max_batch, max_wait: None, max_batch_pixels: None };
        let (batcher, tasks) = Batcher::spawn_tasks(backends, batching, LIMITS, &metrics());
        Self { batcher, tasks, log, model: FakeModel::new() }
    }

    fn submit(&self, value: u8) -> Result<Reply, BatchError> {
        self.batcher.submit(request(&self.model, value))
    }

    /// Number of images of each run, in order.
    fn runs(&self) -> Vec<usize> {
        let images = |event| if let FakeEvent::Ran { images, .. } = event { Some(images) } else { None };
        self.log.take().into_iter().filter_map(images).collect()
    }

    /// Warms up the model on a thread that may block.
    async fn warm_up(&self) -> Result<Vec<LayerOutput>, BatchError> {
        let (batcher, model) = (self.batcher.clone(), self.model.clone());
        tokio::task::spawn_blocking(move || batcher.warm_up(&model, &layers(), SIZE)).await.unwrap()
    }
}

fn metrics() -> InferenceMetrics {
    InferenceMetrics::register(&mut Registry::default())
}

fn layers() -> LayerSet {
    LayerSet::new(["res4", "res5"]).unwrap()
}

/// A request for an image whose bytes all have one value, which is also what the fake answers.
fn request(model: &FakeModel, value: u8) -> BatchRequest<FakeModel> {
    BatchRequest {
        model: model.clone(),
        layers: layers(),
        height: 2,
        width: 2,
        rgb: vec![value; 12],
        deadline: Instant::now() + Duration::from_mins(1),
    }
}

fn value(reply: &BatchReply) -> f32 {
    assert_eq!(reply.layers.len(), 2);
    reply.layers[0].data[0]
}

/// The answer to a request. One that never comes fails the test instead of stopping it.
async fn answer(reply: Reply) -> Result<BatchReply, BatchError> {
    let answer = tokio::time::timeout(Duration::from_hours(1), reply).await;
    answer.expect("an answer within an hour of the paused clock").expect("the reply was dropped")
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_share_a_run_and_each_gets_its_own_answer() {
    let fixture = Fixture::new(1, 4);
    let replies: Vec<_> = (0..7).map(|value| fixture.submit(value).unwrap()).collect();
    for (expected, reply) in (0_u8..).zip(replies) {
        let reply = answer(reply).await.unwrap();
        assert!((value(&reply) - f32::from(expected)).abs() < 1e-6, "{expected}");
    }
    assert_eq!(fixture.runs(), [4, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_reply_tells_the_time_in_the_queue_and_of_the_run() {
    let fixture = Fixture::new(1, 1);
    let replies: Vec<_> = (0..3).map(|value| fixture.submit(value).unwrap()).collect();
    for (runs_before, reply) in (0..).zip(replies) {
        let reply = answer(reply).await.unwrap();
        assert_eq!((reply.queued, reply.inference), (RUN_TIME * runs_before, RUN_TIME));
    }
}

#[tokio::test(start_paused = true)]
async fn engines_run_at_the_same_time() {
    let fixture = Fixture::new(4, 1);
    let begun = Instant::now();
    let replies: Vec<_> = (0..8).map(|value| fixture.submit(value).unwrap()).collect();
    for reply in replies {
        answer(reply).await.unwrap();
    }
    assert_eq!(begun.elapsed(), RUN_TIME * 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_caller_leaves_the_queue_is_not_run() {
    let fixture = Fixture::new(1, 1);
    let runs = fixture.submit(1).unwrap();
    let leaves = fixture.submit(2).unwrap();
    let stays = fixture.submit(3).unwrap();
    // On the paused clock: the run has begun and not ended.
    tokio::time::sleep(RUN_TIME / 2).await;
    drop(leaves);
    assert_eq!(answer(stays).await.unwrap().queued, RUN_TIME);
    answer(runs).await.unwrap();
    assert_eq!(fixture.runs(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_queue_refuses_with_the_time_to_come_back() {
    let fixture = Fixture::new(1, 1);
    // The forecast learns the time of a run from the first.
    answer(fixture.submit(0).unwrap()).await.unwrap();
    let waiting: Vec<_> = (0..LIMITS.max_requests).map(|_| fixture.submit(1).unwrap()).collect();
    let Err(BatchError::Overloaded { retry_after }) = fixture.submit(2) else { panic!("it is full") };
    let expected = RUN_TIME * LIMITS.max_requests as u32;
    assert!(retry_after.abs_diff(expected) < Duration::from_micros(10), "{retry_after:?}");
    assert_eq!(fixture.batcher.predicted_wait(), retry_after);
    for reply in waiting {
        answer(reply).await.unwrap();
    }
    assert_eq!(fixture.batcher.predicted_wait(), Duration::ZERO);
    assert!(fixture.submit(3).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_its_batch_alone_and_resets_its_engine() {
    let log = FakeLog::default();
    let backends = FakeBackend::with_compute(1, RUN_TIME, &log, |_, _, batch| {
        assert!(batch.images[0][0] != 13, "unlucky");
        Ok(vec![Vec::new(); batch.images.len()])
    });
    let fixture = Fixture::with_backends(backends, log, 2);
    let replies = [13, 13, 1].map(|value| fixture.submit(value).unwrap());
    let [first, second, third] = replies;
    for reply in [first, second] {
        let error = answer(reply).await.unwrap_err();
        assert!(matches!(&error, BatchError::Panicked(text) if text.contains("unlucky")), "{error:?}");
    }
    assert!(answer(third).await.is_ok());
    let events = fixture.log.take();
    assert!(matches!(
        events[..],
        [
            FakeEvent::Ran { images: 2, .. },
            FakeEvent::Reset { engine: 0 },
            FakeEvent::Ran { images: 1, built: true, .. }
        ]
    ));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_run_reaches_every_caller_of_its_batch() {
    let log = FakeLog::default();
    let fail = |_: &FakeModel, _: &LayerSet, _: ImageBatch<'_>| Err(BackendError::Run("out of memory".into()));
    let fixture = Fixture::with_backends(FakeBackend::with_compute(1, RUN_TIME, &log, fail), log, 2);
    for reply in [1, 2].map(|value| fixture.submit(value).unwrap()) {
        let error = answer(reply).await.unwrap_err();
        assert!(matches!(&error, BatchError::Backend(error) if matches!(**error, BackendError::Run(_))), "{error:?}");
    }
    assert_eq!(fixture.runs(), [2]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_answers_all_that_wait_and_ends_the_engines() {
    let fixture = Fixture::new(2, 2);
    let replies: Vec<_> = (0..9).map(|value| fixture.submit(value).unwrap()).collect();
    let Fixture { batcher, tasks, .. } = fixture;
    let other = batcher.clone();
    drop(batcher);
    let after_the_first = other.submit(request(&FakeModel::new(), 9)).unwrap();
    drop(other);
    tasks.join_all().await;
    for mut reply in replies.into_iter().chain([after_the_first]) {
        assert!(reply.try_recv().expect("an answer before the engines ended").is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_dies_leaves_no_caller_waiting() {
    let log = FakeLog::default();
    let mut fixture = Fixture::with_backends(FakeBackend::first_bytes(1, RUN_TIME, &log), log, 1);
    let replies: Vec<_> = (0..3).map(|value| fixture.submit(value).unwrap()).collect();
    // On the paused clock: the run has begun and not ended.
    tokio::time::sleep(RUN_TIME / 2).await;
    fixture.tasks.shutdown().await;
    for reply in replies {
        // The sender of the running batch is dropped; the others are answered.
        assert!(matches!(reply.await.unwrap_or(Err(BatchError::Closed)), Err(BatchError::Closed)));
    }
    assert!(matches!(fixture.submit(1), Err(BatchError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn warm_up_gives_every_engine_its_session() {
    let fixture = Fixture::new(2, 1);
    let outputs = fixture.warm_up().await.unwrap();
    assert_eq!(outputs.len(), 2);
    let id = fixture.model.id();
    let steps = |engine| [FakeEvent::Built { engine, model: id }, FakeEvent::Adopted { engine, model: id }];
    assert_eq!(fixture.log.take(), [steps(0), steps(1)].concat());
    let replies = [1, 2].map(|value| fixture.submit(value).unwrap());
    for reply in replies {
        answer(reply).await.unwrap();
    }
    assert!(fixture.log.take().iter().all(|event| matches!(event, FakeEvent::Ran { built: false, .. })));
}

#[tokio::test(start_paused = true)]
async fn warm_up_runs_on_the_thread_of_a_gpu_engine() {
    let log = FakeLog::default();
    let mut backends = FakeBackend::first_bytes(1, Duration::ZERO, &log);
    backends[0].provider = Provider::Cuda(0);
    let fixture = Fixture::with_backends(backends, log, 1);
    fixture.warm_up().await.unwrap();
    let events = fixture.log.take();
    assert!(matches!(
        events[..],
        [
            FakeEvent::Built { .. },
            FakeEvent::Adopted { .. },
            FakeEvent::Ran { images: 1, load: Load::Busy, built: false, .. }
        ]
    ));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_fails_its_warm_up_never_reaches_an_engine() {
    for panics in [false, true] {
        let log = FakeLog::default();
        let fail = move |_: &FakeModel, _: &LayerSet, _: ImageBatch<'_>| {
            assert!(!panics, "as intended");
            Err(BackendError::Run("as intended".into()))
        };
        let fixture = Fixture::with_backends(FakeBackend::with_compute(2, RUN_TIME, &log, fail), log, 1);
        let error = fixture.warm_up().await.unwrap_err();
        assert_eq!(matches!(error, BatchError::Panicked(_)), panics, "{error:?}");
        assert_eq!(fixture.log.take(), [FakeEvent::Built { engine: 0, model: fixture.model.id() }]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_try_out_leaves_no_session() {
    let fixture = Fixture::new(1, 1);
    assert_eq!(fixture.batcher.try_out(&fixture.model, &layers(), SIZE).unwrap().len(), 2);
    assert_eq!(fixture.log.take(), [FakeEvent::Built { engine: 0, model: fixture.model.id() }]);
}

#[tokio::test(start_paused = true)]
async fn engines_forget_a_model_between_two_runs() {
    let fixture = Fixture::new(2, 1);
    let id = fixture.model.id();
    let reply = fixture.submit(1).unwrap();
    fixture.batcher.forget(id);
    answer(reply).await.unwrap();
    let Fixture { batcher, tasks, log, .. } = fixture;
    drop(batcher);
    tasks.join_all().await;
    let forgot = |event: &FakeEvent| if let FakeEvent::Forgot { engine, .. } = event { Some(*engine) } else { None };
    let mut engines: Vec<usize> = log.take().iter().filter_map(forgot).collect();
    engines.sort_unstable();
    assert_eq!(engines, [0, 1]);
}

#[test]
fn engines_on_threads_of_their_own_need_no_runtime() {
    let log = FakeLog::default();
    let backends = FakeBackend::first_bytes(3, Duration::ZERO, &log);
    let batcher = Batcher::start_threads(backends, Batching::NONE, LIMITS, &metrics()).unwrap();
    let model = FakeModel::new();
    batcher.warm_up(&model, &layers(), SIZE).unwrap();
    for round in 0..50 {
        let replies: Vec<_> = (0..8).map(|value| batcher.submit(request(&model, round + value)).unwrap()).collect();
        for (expected, reply) in (round..).zip(replies) {
            let reply = reply.blocking_recv().unwrap().unwrap();
            assert!((value(&reply) - f32::from(expected)).abs() < 1e-6);
        }
    }
    let last: Vec<_> = (0..8).map(|value| batcher.submit(request(&model, value)).unwrap()).collect();
    drop(batcher);
    for reply in last {
        assert!(reply.blocking_recv().unwrap().is_ok());
    }
}

/// A request of a random schedule.
#[derive(Clone, Debug)]
struct Scheduled {
    pause_ms: u64,
    side: usize,
    timeout_ms: u64,
    /// The caller leaves after this time.
    leaves_after_ms: Option<u64>,
}

fn scheduled() -> impl Strategy<Value = Scheduled> {
    (0_u64..15, 1_usize..4, 1_u64..120, prop::option::weighted(0.2, 0_u64..40)).prop_map(
        |(pause_ms, side, timeout_ms, leaves_after_ms)| Scheduled { pause_ms, side, timeout_ms, leaves_after_ms },
    )
}

/// Runs a schedule; returns how many callers that stayed were answered.
async fn run_schedule(schedule: Vec<Scheduled>, engines: usize, max_batch: usize, max_wait: Duration) -> usize {
    let log = FakeLog::default();
    let backends = FakeBackend::first_bytes(engines, RUN_TIME, &log);
    let batching = Batching { max_batch, max_wait: Some(max_wait), max_batch_pixels: None };
    let limits = QueueLimits { max_requests: 8, ..LIMITS };
    let (batcher, tasks) = Batcher::spawn_tasks(backends, batching, limits, &metrics());
    let model = FakeModel::new();
    let answered = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for (index, Scheduled { pause_ms, side, timeout_ms, leaves_after_ms }) in schedule.into_iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        let expected = index as u8;
        let submitted = batcher.submit(BatchRequest {
            height: side,
            width: side,
            rgb: vec![expected; side * side * 3],
            deadline: Instant::now() + Duration::from_millis(timeout_ms),
            ..request(&model, expected)
        });
        let answered = Arc::clone(&answered);
        callers.spawn(async move {
            let reply = match submitted {
                Ok(reply) => reply,
                Err(error) => {
                    assert!(matches!(error, BatchError::Overloaded { .. }), "{error:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            };
            let patience = Duration::from_millis(leaves_after_ms.unwrap_or(60_000));
            match tokio::time::timeout(patience, reply).await {
                Ok(Ok(Ok(reply))) => assert!((value(&reply) - f32::from(expected)).abs() < 1e-6),
                Ok(Ok(Err(error))) => assert!(matches!(error, BatchError::DeadlinePassed), "{error:?}"),
                Ok(Err(_)) => panic!("the reply was dropped"),
                Err(_) => assert!(leaves_after_ms.is_some(), "a request was never answered"),
            }
            answered.fetch_add(1, Ordering::Relaxed);
        });
    }
    // Draining begins while requests wait.
    drop(batcher);
    tasks.join_all().await;
    callers.join_all().await;
    answered.load(Ordering::Relaxed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever comes and goes, every request is answered exactly once, with its own answer or a reason, and draining
    /// ends.
    #[test]
    fn every_accepted_request_is_answered(
        schedule in prop::collection::vec(scheduled(), 0..40),
        engines in 1_usize..4,
        max_batch in 1_usize..5,
        max_wait_ms in 0_u64..20,
    ) {
        let requests = schedule.len();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let max_wait = Duration::from_millis(max_wait_ms);
        let answered = runtime.block_on(run_schedule(schedule, engines, max_batch, max_wait));
        prop_assert_eq!(answered, requests);
    }
}
