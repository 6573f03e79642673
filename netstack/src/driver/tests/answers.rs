use super::*;

/// Answers the first frames it is sent before the call returns, and never tells epoll.
struct Answering {
    silent: EventFd,
    waiting: usize,
    answers: usize,
    log: Arc<Mutex<Vec<String>>>,
}

impl Device for Answering {
    fn mtu(&self) -> usize {
        1500
    }

    fn offload(&self) -> OffloadFeatures {
        OffloadFeatures::NONE
    }

    fn recv_batch(&mut self, pool: &mut FramePool, batch: &mut FrameBatch) -> Result<usize, DeviceError> {
        let before = self.waiting;
        while self.waiting > 0 && !batch.is_full() {
            batch.push(pool.take(60)).unwrap();
            self.waiting -= 1;
        }
        self.log.lock().unwrap().push(format!("got {}", before - self.waiting));
        Ok(before - self.waiting)
    }

    fn send_batch(&mut self, pool: &mut FramePool, batch: &mut FrameBatch) -> Result<Sent, DeviceError> {
        let frames = batch.len();
        batch.drain().for_each(|frame| pool.recycle(frame));
        let answered = frames.min(self.answers);
        self.answers -= answered;
        self.waiting += answered;
        self.log.lock().unwrap().push(format!("sent {frames}"));
        Ok(Sent { frames: frames as u64, ..Sent::default() })
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.silent.as_raw_fd())
    }
}

#[test]
fn what_is_answered_at_once_is_heard_without_epoll_and_one_frame_goes_on_before_the_next_is_asked_for() {
    let mut driver = Driver::new(Clock::start()).unwrap();
    let id = driver.add_engine(Toy::boxed(Habit::Reflect));
    let log = Arc::default();
    let silent = EventFd::new().unwrap();
    let device = Answering { silent, waiting: 2, answers: 3, log: Arc::clone(&log) };
    driver.attach(id, PortId(0), Box::new(device)).unwrap();
    let turn = driver.run_once(Some(Duration::ZERO)).unwrap();
    assert_eq!((turn.frames, turn.more), (5, false));
    let expected = ["got 1", "sent 1", "got 2", "sent 2", "got 2", "sent 2", "got 0"];
    assert_eq!(*log.lock().unwrap(), expected);
}
