//! The thread that a session of an embedding program runs on.

use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::error::Error;
use crate::process;

/// A thread with a runtime of one thread, for work that is not [`Send`]. Dropping it asks the work to stop, and waits for nothing.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Dropped to stop the work.
    stop: Option<oneshot::Sender<()>>,
    /// Completes at the end of the thread.
    ended: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// Completes when the work is to stop.
pub(crate) type Stop = oneshot::Receiver<()>;

impl Worker {
    /// Runs the future that `work` makes on a new thread.
    ///
    /// # Errors
    /// When there is no thread or no runtime for it.
    pub(crate) fn start<F>(work: impl FnOnce(Stop) -> F + Send + 'static) -> Result<Worker, Error>
    where
        F: Future<Output = ()>,
    {
        let internal = |error: std::io::Error| Error::Internal(error.to_string());
        // The runtime panics where there are none for its signals, which it sets up even if none is listened for.
        process::check_descriptors().map_err(internal)?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(internal)?;
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name(NAME.to_owned()).stack_size(STACK).spawn(move || {
            let tasks = LocalSet::new();
            runtime.block_on(tasks.run_until(work(stopped)));
            drop(tasks);
            // A thread that still waits for a resolver must not delay the end.
            runtime.shutdown_background();
            drop(end);
        });
        Ok(Worker { stop: Some(stop), ended, thread: Some(thread.map_err(internal)?) })
    }

    /// Stops the work and waits until the thread has ended.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.join().await;
    }

    /// Waits until the work has ended by itself, and its thread with it.
    pub(crate) async fn join(&mut self) {
        let _ = (&mut self.ended).await;
        if let Some(thread) = self.thread.take() {
            // It has nothing left to do. A panic was reported by the hook of the embedding program.
            let _ = thread.join();
        }
    }
}

/// Name of the thread; systems show 15 characters of it.
const NAME: &str = "ssm-session";
/// Bytes, as main threads have: a session's futures, not optimized, overflow less.
const STACK: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[tokio::test]
    async fn work_that_is_not_send_runs_until_it_is_stopped() {
        let (sender, receiver) = oneshot::channel();
        let worker = Worker::start(|stop| async move {
            let shared = Rc::new(1);
            let task = tokio::task::spawn_local(async move { *shared });
            let _ = stop.await;
            let _ = sender.send(task.await.unwrap());
        });
        worker.unwrap().stop().await;
        assert_eq!(receiver.await, Ok(1));
        let (sender, receiver) = oneshot::channel();
        drop(Worker::start(|stop| async move {
            let _ = stop.await;
            let _ = sender.send(2);
        }));
        assert_eq!(receiver.await, Ok(2), "dropping it stops it, too");
    }
}
