//! Every interleaving of what crosses threads:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p vswitch-netstack --test loom`.
#![cfg(loom)]

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use netstack::publish::Publisher;
use netstack::sync::{LinkGone, LinkReceiver, Notify, SendError, link};

/// An eventfd's meaning: a count that one side raises and the other waits for.
#[derive(Clone)]
struct Bell(Arc<(Mutex<u64>, Condvar)>);

impl Bell {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(0), Condvar::new())))
    }

    /// Waits as a level-triggered poll does: the notification stays until it is drained.
    fn wait(&self) {
        let mut rung = self.0.0.lock().unwrap();
        while *rung == 0 {
            rung = self.0.1.wait(rung).unwrap();
        }
    }

    fn is_rung(&self) -> bool {
        *self.0.0.lock().unwrap() > 0
    }
}

impl Notify for Bell {
    fn notify(&self) {
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_one();
    }

    fn drain(&self) -> u64 {
        std::mem::replace(&mut *self.0.0.lock().unwrap(), 0)
    }
}

/// Receives until the sender is gone, sleeping when there is nothing to do. A lost wake-up is a deadlock, which loom
/// reports.
fn receive_all(mut receiver: LinkReceiver<u32, Bell>) -> Vec<u32> {
    let mut got = Vec::new();
    loop {
        match receiver.recv() {
            Ok(Some(value)) => got.push(value),
            Err(LinkGone) => return got,
            Ok(None) => {
                if receiver.prepare_sleep() {
                    receiver.notifier().wait();
                }
            }
        }
    }
}

/// Two or three wake-ups have too many interleavings to try them all; what three preemptions do not find is not
/// expected of more.
fn bounded_model(run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(run);
}

#[test]
fn the_end_comes_after_what_was_sent() {
    bounded_model(|| {
        let (sender, receiver) = link(1, Bell::new());
        let other = thread::spawn(move || sender.send(1).unwrap());
        assert_eq!(receive_all(receiver), [1]);
        other.join().unwrap();
    });
}

#[test]
fn nothing_sent_is_lost_or_overtaken() {
    bounded_model(|| {
        let (sender, receiver) = link(2, Bell::new());
        let other = thread::spawn(move || {
            sender.send(1).unwrap();
            sender.send(2).unwrap();
        });
        assert_eq!(receive_all(receiver), [1, 2]);
        other.join().unwrap();
    });
}

#[test]
fn no_receiver_sleeps_in_front_of_a_value() {
    loom::model(|| {
        let (sender, mut receiver) = link(1, Bell::new());
        let other = thread::spawn(move || {
            sender.send(7).unwrap();
            // The link stays open: only the push may end the sleep.
            sender
        });
        let got = loop {
            if let Some(value) = receiver.recv().unwrap() {
                break value;
            }
            if receiver.prepare_sleep() {
                receiver.notifier().wait();
            }
        };
        assert_eq!(got, 7);
        drop(other.join().unwrap());
    });
}

#[test]
fn a_notification_is_taken_back_even_if_it_comes_late() {
    loom::model(|| {
        let bell = Bell::new();
        let (sender, mut receiver) = link(1, bell.clone());
        let other = thread::spawn(move || {
            sender.send(7).unwrap();
            sender
        });
        receiver.prepare_sleep();
        let mut got = receiver.recv().unwrap().is_some();
        let sender = other.join().unwrap();
        got |= receiver.recv().unwrap().is_some();
        assert!(got);
        assert!(!bell.is_rung(), "a notification that stays makes every later sleep end at once");
        drop(sender);
    });
}

#[test]
fn a_full_link_gives_the_value_back_and_a_dead_one_says_so() {
    loom::model(|| {
        let (sender, receiver) = link(1, Bell::new());
        let other = thread::spawn(move || drop(receiver));
        let first = sender.send(1);
        assert!(matches!(first, Ok(()) | Err(SendError::Gone(1))));
        let second = sender.send(2);
        assert!(matches!(second, Err(SendError::Full(2) | SendError::Gone(2))));
        other.join().unwrap();
        assert_eq!(sender.send(3), Err(SendError::Gone(3)));
    });
}

#[test]
fn containers_come_back() {
    loom::model(|| {
        let (sender, mut receiver) = link(1, Bell::new());
        let other = thread::spawn(move || {
            if let Ok(Some(container)) = receiver.recv() {
                receiver.give_back(container);
            }
            receiver
        });
        sender.send(1).unwrap();
        let mut receiver = other.join().unwrap();
        if let Ok(Some(container)) = receiver.recv() {
            receiver.give_back(container);
        }
        assert_eq!(sender.reclaim(), Some(1));
    });
}

#[test]
fn a_subscriber_never_goes_back_and_never_misses_the_last() {
    loom::model(|| {
        let mut publisher = Publisher::new();
        let mut subscriber = publisher.subscribe();
        let other = thread::spawn(move || {
            for value in 1..=2u64 {
                // The snapshot says its own generation, so the two can be compared.
                assert_eq!(publisher.publish(Arc::new(value)), value);
            }
            publisher
        });
        let mut last = 0;
        for _ in 0..2 {
            if let Some(snapshot) = subscriber.changed() {
                assert_eq!(*snapshot, subscriber.generation());
                assert!(*snapshot > last);
                last = *snapshot;
            }
        }
        let mut publisher = other.join().unwrap();
        if let Some(snapshot) = subscriber.changed() {
            last = *snapshot;
        }
        assert_eq!(last, 2);
        assert_eq!(publisher.collect(), 1);
    });
}
