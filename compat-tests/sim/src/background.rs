//! A runtime on its own threads, for a helper that ends with its guard.

use std::future::Future;
use std::net::Ipv4Addr;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// Runs until dropped, then ends all it has started. May be dropped in an asynchronous context.
pub(crate) struct Background {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Runs `serve` on a free port of 127.0.0.1.
    pub fn start<F>(name: &str, serve: impl FnOnce(TcpListener) -> F) -> anyhow::Result<Background>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (runtime, listener, port) = listen(name, 0, 1)?;
        runtime.spawn(serve(listener));
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(format!("{name}-stop"))
            .spawn(move || wait_and_stop(runtime, stopped))
            .context("thread")?;
        Ok(Background { port, stop: Some(stop), thread: Some(thread) })
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A runtime of `workers` threads called `name`, with a listener on `port` of 127.0.0.1, and the port it has got.
pub(crate) fn listen(name: &str, port: u16, workers: usize) -> anyhow::Result<(Runtime, TcpListener, u16)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("bind 127.0.0.1:{port}"))?;
    listener.set_nonblocking(true).context("listener")?;
    let port = listener.local_addr().context("listener")?.port();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name(name)
        .enable_all()
        .build()
        .context("runtime")?;
    let listener = {
        let _runtime = runtime.enter();
        TcpListener::from_std(listener).context("listener")?
    };
    Ok((runtime, listener, port))
}

/// Ends a runtime when `stopped` resolves.
pub(crate) fn wait_and_stop(runtime: Runtime, stopped: oneshot::Receiver<()>) {
    let _ = stopped.blocking_recv();
    runtime.shutdown_timeout(STOPPING);
}

/// Time that tasks may take to end.
const STOPPING: Duration = Duration::from_secs(3);
