//! The thread that takes notices to their receivers. It waits for the network and for programs, so nobody waits for it:
//! not a request, not the database, and a stop only for a moment.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::Mode;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::attempt::{Origin, Parcel, attempt};
use super::board::{Board, TestAsk, new_id, wants};
use super::episode::Episode;
use super::lane::{DirectQueue, Lane, Shared, end_of};
use super::notice::{Notice, Status};
use crate::clock::Clock;
use crate::config::{Alerts, NoticeKind};
use crate::db::{Errands, WriterStatus};
use crate::sys;

/// Between two looks at how the database does.
const LOOK_PACE: Duration = Duration::from_secs(1);
/// Between two removals of what is old from the outbox, in looks.
const TIDY_EVERY: u64 = 3600;
/// How long names that are being looked up may hold up the end.
const END_PATIENCE: Duration = Duration::from_millis(200);

/// What a courier needs.
pub struct CourierParts {
    /// Whom to tell, and how often is tried.
    pub alerts: Alerts,
    /// Rings when there is something.
    pub board: Arc<Board>,
    /// Who tells.
    pub origin: Origin,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The outbox.
    pub errands: Errands,
    /// How the thread that writes it does.
    pub writer: Box<dyn Fn() -> WriterStatus + Send + Sync>,
}

/// The running courier. Dropped: it ends; what is under way gets two seconds.
pub struct Courier {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Courier {
    /// Begins to deliver.
    ///
    /// # Errors
    /// No thread, or no event loop.
    pub fn start(parts: CourierParts) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .thread_name("courier-names")
            .build()?;
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new().name("courier".to_owned()).spawn(move || {
            if let Err(e) = sys::file_context::own_umask(Mode::RWXG | Mode::RWXO) {
                log::warn!("programs that are run with notices make files that others may write: {e}");
            }
            runtime.block_on(serve(parts, stopped));
            runtime.shutdown_timeout(END_PATIENCE);
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        // Nobody listens when the thread has ended already.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(parts: CourierParts, stopped: watch::Receiver<bool>) {
    let CourierParts {
        alerts,
        board,
        origin,
        clock,
        errands,
        writer,
    } = parts;
    let Some(mut asked) = board.take_asked() else { return };
    let shared = Arc::new(Shared {
        alerts,
        board,
        origin,
        clock,
        errands,
    });
    let (mut lanes, mut tests, mut queues) = (JoinSet::new(), JoinSet::new(), Vec::new());
    for receiver in shared.alerts.receivers.clone() {
        let queue = DirectQueue::default();
        queues.push((receiver.clone(), queue.clone()));
        let lane = Lane::new(receiver, shared.clone(), queue);
        lanes.spawn(lane.run(shared.board.bell(), stopped.clone()));
    }
    let mut episode = Episode::default();
    lanes.spawn(keep_outbox(shared.clone(), stopped.clone()));
    let mut looks = looks();
    let end = end_of(stopped);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            ask = next_test(&mut asked) => { tests.spawn(test(shared.clone(), ask)); }
            Some(_) = tests.join_next() => {}
            _ = looks.tick() => {
                if let Some(notice) = episode.look(&writer(), shared.clock.now()) {
                    let wanting = queues.iter().filter(|(receiver, _)| wants(receiver, &notice));
                    wanting.for_each(|(_, queue)| queue.put(&notice, shared.now_s()));
                    shared.board.ring();
                }
            }
        }
    }
    while lanes.join_next().await.is_some() {}
}

/// The board outlives the courier, so there is always somebody who could ask.
async fn next_test(asked: &mut mpsc::Receiver<TestAsk>) -> TestAsk {
    match asked.recv().await {
        Some(ask) => ask,
        None => std::future::pending().await,
    }
}

async fn test(shared: Arc<Shared>, ask: TestAsk) {
    let now_s = shared.now_s();
    let at_s = now_s.cast_signed();
    let summary = "a test: notices arrive here".to_owned();
    let notice = Notice::of_daemon(NoticeKind::Test, Status::Firing, [at_s; 2], summary);
    let id = new_id();
    let parcel = Parcel {
        id: &id,
        notice: &notice,
        origin: &shared.origin,
        now_s,
    };
    let answer = attempt(&ask.receiver, parcel).await;
    // Who asked may be gone.
    let _ = ask
        .answer
        .send(answer.map(|()| id.clone()).map_err(|failed| failed.reason));
}

fn looks() -> Interval {
    let mut looks = interval(LOOK_PACE);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// Counts what is in the outbox when it may have changed, and tidies it now and then. A database that does not answer
/// is asked at the next look.
async fn keep_outbox(shared: Arc<Shared>, stopped: watch::Receiver<bool>) {
    let names: Vec<_> = shared
        .alerts
        .receivers
        .iter()
        .map(|receiver| receiver.name.clone())
        .collect();
    let work = async {
        let (mut looks, mut look) = (looks(), 0_u64);
        loop {
            looks.tick().await;
            if look.is_multiple_of(TIDY_EVERY) {
                let (names, now_s) = (names.clone(), shared.now_s());
                let tidied = shared
                    .database(move |database| database.tidy_outbox(&names, now_s))
                    .await;
                if let Err(e) = tidied {
                    log::debug!("the outbox is not tidied: {e}");
                }
            }
            look += 1;
            if shared.board.take_changed() {
                match shared.database(|database| database.outbox_counts()).await {
                    Ok(found) => shared.board.put_waiting(found),
                    Err(_) => shared.board.put_changed(),
                }
            }
        }
    };
    tokio::select! {
        () = end_of(stopped) => {}
        () = work => {}
    }
}
