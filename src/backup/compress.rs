//! Compression on threads of its own, one per core, fed with the plain bytes of one frame each.

use crate::codec::frames::FrameEncoder;
use crate::error::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, mpsc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How many plain bytes may be under way at most: handed in and not yet put into an object.
const IN_FLIGHT: usize = 8 << 20;

/// A compressed frame.
pub(super) struct Packed {
    /// What it holds.
    pub(super) plain: Vec<u8>,
    /// The zstd frame.
    pub(super) frame: Vec<u8>,
    /// CRC-32 of `plain`.
    pub(super) crc32: u32,
    /// Given back when both are gone.
    _permit: OwnedSemaphorePermit,
}

/// A frame that will be compressed.
pub(super) type Pending = oneshot::Receiver<Result<Packed>>;

struct Job {
    plain: Vec<u8>,
    permit: OwnedSemaphorePermit,
    answer: oneshot::Sender<Result<Packed>>,
}

/// The threads. They end when this is dropped.
pub(super) struct Compressors {
    jobs: mpsc::Sender<Job>,
    permits: Arc<Semaphore>,
}

impl Compressors {
    /// As many threads as there are cores; at most `frame` bytes will be handed in at once.
    pub(super) fn start(level: i32, frame: usize) -> Result<Self> {
        let in_flight = (IN_FLIGHT / frame).max(2);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..cores.min(in_flight) {
            let mut encoder = FrameEncoder::new(level)?;
            let queue = Arc::clone(&queue);
            std::thread::Builder::new()
                .name(format!("compress-{number}"))
                .spawn(move || {
                    while let Some(job) = next(&queue) {
                        let outcome = compress(&mut encoder, job.plain, job.permit);
                        // Nobody waits any more: the backup was given up.
                        drop(job.answer.send(outcome));
                    }
                })
                .map_err(|error| Error::new(ErrorKind::LocalIo, "cannot start a thread").because(error))?;
        }
        Ok(Self { jobs, permits: Arc::new(Semaphore::new(in_flight)) })
    }

    /// Hands in a frame, once there is room for it.
    pub(super) async fn compress(&self, plain: Vec<u8>) -> Result<Pending> {
        let gone = |_| Error::new(ErrorKind::Bug, "the threads that compress are gone");
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|error| gone(error.to_string()))?;
        let (answer, pending) = oneshot::channel();
        self.jobs.send(Job { plain, permit, answer }).map_err(|error| gone(error.to_string()))?;
        Ok(pending)
    }
}

fn next(queue: &Mutex<mpsc::Receiver<Job>>) -> Option<Job> {
    queue.lock().ok()?.recv().ok()
}

fn compress(encoder: &mut FrameEncoder, plain: Vec<u8>, permit: OwnedSemaphorePermit) -> Result<Packed> {
    let mut frame = Vec::new();
    let (_, crc32) = encoder.encode(&plain, &mut frame)?;
    Ok(Packed { plain, frame, crc32, _permit: permit })
}
