//! Signals: SIGINT and SIGTERM ask the daemon to stop, SIGHUP to read its configuration again, SIGUSR2 to make room for
//! the next process of the mount.
//!
//! A stop has to seal open recordings and write usage back, so a second signal does not cut it
//! short: it is answered with a line that says so. Only SIGKILL ends it at once, and then the next
//! start recovers.

use std::io;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::{Handle, Signals};

/// The thread that waits for signals; dropping it gives the signals back their old meaning.
pub struct SignalThread {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl SignalThread {
    /// From now on does what is asked for.
    ///
    /// # Errors
    /// When the handlers cannot be installed or no thread can be had.
    pub fn start<S, H, O>(on: OnSignal<S, H, O>) -> io::Result<Self>
    where
        S: FnOnce() + Send + 'static,
        H: FnMut() + Send + 'static,
        O: FnMut() + Send + 'static,
    {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR2])?;
        let handle = signals.handle();
        let mut policy = Policy::new(on);
        let thread = thread::Builder::new()
            .name("signals".into())
            .spawn(move || signals.forever().for_each(|signal| policy.take(signal)))?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // A panic in `on_stop` was printed already; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// What a stop does once there is something to stop.
type StopAction = Box<dyn FnOnce() + Send>;

/// A stop that can be asked for before there is anything to stop: signals count from the first
/// moment on, the mount comes last.
#[derive(Default)]
pub struct Stop {
    state: Mutex<StopState>,
}

#[derive(Default)]
struct StopState {
    is_asked: bool,
    action: Option<StopAction>,
}

impl Stop {
    /// Asks for the stop. The action runs here, without a lock.
    pub fn ask(&self) {
        let action = {
            let mut state = self.state.lock();
            state.is_asked = true;
            state.action.take()
        };
        if let Some(action) = action {
            action();
        }
    }

    /// What the stop is to do; at once, if it was asked for already.
    pub fn when_asked(&self, action: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock();
        if state.is_asked {
            drop(state);
            action();
        } else {
            state.action = Some(Box::new(action));
        }
    }
}

/// What signals ask for. Each must be quick: the next signal waits for it.
pub struct OnSignal<S, H, O> {
    /// At the first SIGINT or SIGTERM.
    pub stop: S,
    /// At each SIGHUP.
    pub hang_up: H,
    /// At each SIGUSR2.
    pub hand_over: O,
}

/// What to do at each signal: stop at the first that asks for it, and only then.
struct Policy<S, H, O> {
    stop: Option<S>,
    hang_up: H,
    hand_over: O,
}

impl<S: FnOnce(), H: FnMut(), O: FnMut()> Policy<S, H, O> {
    fn new(on: OnSignal<S, H, O>) -> Self {
        Self {
            stop: Some(on.stop),
            hang_up: on.hang_up,
            hand_over: on.hand_over,
        }
    }

    fn take(&mut self, signal: i32) {
        match signal {
            SIGHUP => return (self.hang_up)(),
            SIGUSR2 => return (self.hand_over)(),
            _ => {}
        }
        match self.stop.take() {
            Some(stop) => {
                log::info!("stopping: unmounting, then sealing what is open");
                stop();
            }
            None => log::warn!("still sealing open recordings; they need no second signal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn only_the_first_stop_signal_stops() {
        let mut stops = 0;
        let mut policy = Policy::new(OnSignal {
            stop: || stops += 1,
            hang_up: || {},
            hand_over: || {},
        });
        for signal in [SIGHUP, SIGTERM, SIGUSR2, SIGINT, SIGTERM] {
            policy.take(signal);
        }
        assert_eq!(stops, 1);
    }

    #[test]
    fn other_signals_do_not_stop_and_count_each_time() {
        let (mut stops, mut hang_ups, mut hand_overs) = (0, 0, 0);
        let mut policy = Policy::new(OnSignal {
            stop: || stops += 1,
            hang_up: || hang_ups += 1,
            hand_over: || hand_overs += 1,
        });
        for signal in [SIGHUP, SIGUSR2, SIGHUP] {
            policy.take(signal);
        }
        assert_eq!((stops, hang_ups, hand_overs), (0, 2, 1));
    }

    #[test]
    fn a_stop_that_came_early_is_carried_out_later() {
        let (sender, receiver) = mpsc::channel();
        let stop = Stop::default();
        stop.ask();
        stop.when_asked(move || sender.send(()).unwrap());
        receiver.try_recv().unwrap();
    }

    #[test]
    fn a_stop_is_carried_out_once() {
        let (sender, receiver) = mpsc::channel();
        let stop = Stop::default();
        stop.when_asked(move || sender.send(()).unwrap());
        assert!(receiver.try_recv().is_err(), "not before it was asked for");
        stop.ask();
        stop.ask();
        assert_eq!(receiver.iter().count(), 1);
    }

    #[test]
    fn a_real_signal_reaches_the_closure() {
        let (sender, receiver) = mpsc::channel();
        let thread = SignalThread::start(OnSignal {
            stop: move || sender.send(()).unwrap(),
            hang_up: || {},
            hand_over: || {},
        })
        .unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        receiver.recv().unwrap();
        drop(thread);
    }
}
