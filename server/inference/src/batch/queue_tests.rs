//! The queue alone: every accepted request is answered, and every change wakes one engine.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use prometheus_client::registry::Registry;
use tokio::time::{advance, timeout};

use super::*;
use crate::fake::{FakeBackend, FakeModel};

type FakeQueue = Queue<FakeBackend>;
type Batch = Vec<Pending<FakeModel>>;
type Reply = oneshot::Receiver<Result<BatchReply, BatchError>>;

const LIMITS: QueueLimits = QueueLimits { max_requests: 3, max_pixels: 10_000, max_image_pixels: 10_000 };

struct Fixture {
    queue: Arc<FakeQueue>,
    model: FakeModel,
}

impl Fixture {
    /// A queue with two engines and batches of two.
    fn new(max_wait: Duration) -> Self {
        let policy = BatchPolicy { max_batch: 2, max_batch_pixels: 1 << 20, max_wait };
        let metrics = InferenceMetrics::register(&mut Registry::default());
        Self { queue: Arc::new(Queue::new(2, policy, LIMITS, metrics)), model: FakeModel::new() }
    }

    fn request(&self, side: usize) -> BatchRequest<FakeModel> {
        BatchRequest {
            model: self.model.clone(),
            layers: LayerSet::new(["res5"]).unwrap(),
            height: side,
            width: side,
            rgb: vec![0; side * side * 3],
            deadline: Instant::now() + Duration::from_mins(1),
        }
    }

    fn push(&self, side: usize) -> Result<Reply, BatchError> {
        self.queue.push(self.request(side))
    }

    /// The work that an engine finds without waiting; pending if it would wait.
    fn work_now(&self, engine: usize) -> Poll<Option<Work<FakeBackend>>> {
        self.queue.next(engine).now_or_never().map_or(Poll::Pending, Poll::Ready)
    }

    /// The batch that an engine finds without waiting.
    fn batch_now(&self, engine: usize) -> (Batch, Load) {
        match self.work_now(engine) {
            Poll::Ready(Some(Work::Run(batch, load))) => (batch, load),
            Poll::Ready(Some(Work::Command(_))) => panic!("a command"),
            Poll::Ready(None) => panic!("the queue has ended"),
            Poll::Pending => panic!("the engine waits"),
        }
    }

    fn side_now(&self, engine: usize) -> usize {
        self.batch_now(engine).0[0].request.height
    }

    /// An engine that waits for a batch; the task ends with the batch's length, or with 0 if there is none within an hour
    /// of the paused clock.
    fn waiting_engine(&self, engine: usize) -> tokio::task::JoinHandle<usize> {
        let queue = Arc::clone(&self.queue);
        tokio::spawn(async move {
            match timeout(Duration::from_hours(1), queue.next(engine)).await {
                Ok(Some(Work::Run(batch, _))) => batch.len(),
                _ => 0,
            }
        })
    }

    fn idle(&self) -> Vec<usize> {
        self.queue.lock().idle.clone()
    }
}

/// Lets the other tasks run until all of them wait.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn equal_sizes_share_a_batch() {
    let fixture = Fixture::new(Duration::ZERO);
    let _waiting = [32, 64, 32].map(|side| fixture.push(side).unwrap());
    assert_eq!(fixture.batch_now(0).0.len(), 2);
    assert_eq!(fixture.side_now(0), 64);
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_limits_are_refused() {
    let fixture = Fixture::new(Duration::ZERO);
    let _large = fixture.push(200).unwrap();
    assert!(matches!(fixture.push(32), Err(BatchError::Overloaded { .. })), "too many pixels");
    assert_eq!(fixture.side_now(0), 200);
    let _waiting: Vec<_> = (0..3).map(|_| fixture.push(32).unwrap()).collect();
    assert!(matches!(fixture.push(32), Err(BatchError::Overloaded { .. })), "too many requests");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_caller_has_gone_makes_room_and_is_never_run() {
    let fixture = Fixture::new(Duration::ZERO);
    for _ in 0..10 {
        drop(fixture.push(32).unwrap());
    }
    let _stays = fixture.push(64).unwrap();
    assert_eq!(fixture.side_now(0), 64);
}

#[tokio::test(start_paused = true)]
async fn a_passed_deadline_is_answered_without_a_run() {
    let fixture = Fixture::new(Duration::ZERO);
    let late = fixture.push(32).unwrap();
    advance(Duration::from_mins(1)).await;
    let _in_time = fixture.push(64).unwrap();
    assert_eq!(fixture.side_now(0), 64);
    assert!(matches!(late.await.unwrap(), Err(BatchError::DeadlinePassed)));
}

#[tokio::test(start_paused = true)]
async fn a_closed_queue_runs_what_waits_at_once_and_refuses_the_rest() {
    let fixture = Fixture::new(Duration::from_hours(1));
    let _waiting = fixture.push(32).unwrap();
    assert!(fixture.work_now(0).is_pending(), "it waits for company");
    fixture.queue.close();
    assert!(matches!(fixture.push(32), Err(BatchError::Closed)));
    assert_eq!(fixture.batch_now(0).0.len(), 1);
    assert!(matches!(fixture.work_now(0), Poll::Ready(None)), "the end");
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_queue_answers_every_request() {
    let fixture = Fixture::new(Duration::from_hours(1));
    let waiting: Vec<_> = (0..3).map(|_| fixture.push(32).unwrap()).collect();
    fixture.queue.abandon();
    for reply in waiting {
        assert!(matches!(reply.await.unwrap(), Err(BatchError::Closed)));
    }
}

#[tokio::test(start_paused = true)]
async fn closing_ends_engines_that_wait() {
    let fixture = Fixture::new(Duration::ZERO);
    let engines = [0, 1].map(|engine| fixture.waiting_engine(engine));
    settle().await;
    fixture.queue.close();
    for engine in engines {
        assert_eq!(engine.await.unwrap(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_wakes_one_engine() {
    let fixture = Fixture::new(Duration::ZERO);
    let engines = [0, 1].map(|engine| fixture.waiting_engine(engine));
    settle().await;
    assert_eq!(fixture.idle(), [0, 1]);
    let _first = fixture.push(32).unwrap();
    assert_eq!(fixture.idle(), [0], "the engine that waits least is still warm");
    settle().await;
    let [first, second] = engines;
    assert!(second.is_finished() && !first.is_finished());
    let _second = fixture.push(32).unwrap();
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_before_the_engine_waits_is_not_missed() {
    let fixture = Fixture::new(Duration::ZERO);
    // Registered as idle, and not waiting yet.
    assert!(fixture.work_now(0).is_pending());
    let _waiting = fixture.push(32).unwrap();
    assert!(fixture.idle().is_empty());
    assert_eq!(fixture.waiting_engine(0).await.unwrap(), 1);
}

/// An engine that was woken for a request, and finds a command, must wake another engine for the request.
#[tokio::test(start_paused = true)]
async fn an_engine_with_a_command_passes_the_wake_up_on() {
    let fixture = Fixture::new(Duration::ZERO);
    let engines = [0, 1].map(|engine| fixture.waiting_engine(engine));
    settle().await;
    let _waiting = fixture.push(32).unwrap();
    fixture.queue.send(1, EngineCommand::Forget(fixture.model.id()));
    let [first, second] = engines;
    assert_eq!(second.await.unwrap(), 0, "it has the command");
    assert_eq!(first.await.unwrap(), 1, "it has the request");
}

/// An engine that waits for company has the timer; if it leaves with a command, another engine must take that over.
#[tokio::test(start_paused = true)]
async fn an_engine_with_a_command_passes_the_timer_on() {
    let wait = Duration::from_millis(10);
    let fixture = Fixture::new(wait);
    let engines = [0, 1].map(|engine| fixture.waiting_engine(engine));
    settle().await;
    let begun = Instant::now();
    let _waiting = fixture.push(32).unwrap();
    settle().await;
    fixture.queue.send(1, EngineCommand::Forget(fixture.model.id()));
    let [first, second] = engines;
    assert_eq!(second.await.unwrap(), 0);
    assert_eq!(first.await.unwrap(), 1);
    assert_eq!(begun.elapsed(), wait);
}

#[tokio::test(start_paused = true)]
async fn a_lone_request_runs_when_its_wait_is_over_and_a_full_batch_at_once() {
    let wait = Duration::from_millis(10);
    let fixture = Fixture::new(wait);
    let begun = Instant::now();
    let engine = fixture.waiting_engine(0);
    settle().await;
    let _lone = fixture.push(32).unwrap();
    assert_eq!(engine.await.unwrap(), 1);
    assert_eq!(begun.elapsed(), wait);
    let engine = fixture.waiting_engine(0);
    settle().await;
    let _pair = [32, 32].map(|side| fixture.push(side).unwrap());
    assert_eq!(engine.await.unwrap(), 2);
    assert_eq!(begun.elapsed(), wait);
}

#[tokio::test(start_paused = true)]
async fn a_lone_request_has_the_machine_to_itself() {
    let fixture = Fixture::new(Duration::ZERO);
    let _first = fixture.push(32).unwrap();
    assert_eq!(fixture.batch_now(0).1, Load::Idle);
    let _second = fixture.push(32).unwrap();
    assert_eq!(fixture.batch_now(1).1, Load::Busy, "engine 0 still runs");
    let _others = [32, 64].map(|side| fixture.push(side).unwrap());
    assert_eq!(fixture.batch_now(0).1, Load::Busy, "engine 1 still runs");
    assert_eq!(fixture.batch_now(1).1, Load::Busy);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_would_end_too_late_is_refused_at_once() {
    let fixture = Fixture::new(Duration::ZERO);
    let _run = fixture.push(32).unwrap();
    let (batch, _) = fixture.batch_now(0);
    fixture.queue.observe(&batch, Load::Busy, Duration::from_secs(10));
    // Engine 0 is still busy; the waiting request takes ten seconds, shared by two engines.
    let _waiting = fixture.push(32).unwrap();
    assert_eq!(fixture.queue.predicted_wait(), Duration::from_secs(5));
    let with =
        |seconds| BatchRequest { deadline: Instant::now() + Duration::from_secs(seconds), ..fixture.request(32) };
    let refused = fixture.queue.push(with(14)).unwrap_err();
    assert!(matches!(refused, BatchError::Overloaded { retry_after } if retry_after == Duration::from_secs(5)));
    assert!(fixture.queue.push(with(16)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn commands_come_first_each_to_its_own_engine() {
    let fixture = Fixture::new(Duration::ZERO);
    let _waiting = fixture.push(32).unwrap();
    for engine in [0, 1] {
        fixture.queue.send(engine, EngineCommand::Forget(fixture.model.id()));
    }
    for engine in [1, 0] {
        let work = fixture.work_now(engine);
        let expected = fixture.model.id();
        assert!(matches!(work, Poll::Ready(Some(Work::Command(EngineCommand::Forget(model)))) if model == expected));
    }
    assert_eq!(fixture.side_now(0), 32);
}

#[tokio::test(start_paused = true)]
async fn commands_to_an_abandoned_queue_are_dropped() {
    let fixture = Fixture::new(Duration::ZERO);
    let send = || fixture.queue.send(0, EngineCommand::Forget(fixture.model.id()));
    send();
    fixture.queue.abandon();
    assert!(matches!(fixture.work_now(0), Poll::Ready(None)));
    send();
    assert!(matches!(fixture.work_now(0), Poll::Ready(None)));
}
