//! The process that called us.

use std::time::Duration;

use rustix::process::{Pid, getppid, getsid};

/// The parent at the start. When the `aws` process is killed, the kernel hands us to another one; the
/// official plugin then keeps its port open until the session idles out (cli#5149).
///
/// Not `PR_SET_PDEATHSIG`: that follows the *thread* that made us, and a start can miss it.
#[derive(Debug)]
pub struct Parent {
    id: Option<Pid>,
    /// It had died before we could look.
    was_gone: bool,
}

impl Parent {
    /// The parent now; to be called first thing. No parent (it is in another PID namespace, as under
    /// `docker exec`) never counts as gone.
    ///
    /// Process 1 is a parent where it is the caller, as `aws` is in a container of its own: then it is in our
    /// session. Elsewhere it is who takes orphans, and the caller died while we were being started.
    pub fn current() -> Parent {
        let id = getppid();
        let was_gone = id == Some(Pid::INIT) && getsid(Some(Pid::INIT)).ok() != getsid(None).ok();
        Parent { id, was_gone }
    }

    /// Whether that parent is gone.
    pub fn is_gone(&self) -> bool {
        self.was_gone || getppid() != self.id
    }

    /// Resolves when it is gone, within half a second. Cancel-safe.
    pub async fn gone(&self) {
        while !self.is_gone() {
            tokio::time::sleep(PARENT_POLL).await;
        }
    }
}

/// Time between two looks at the parent.
const PARENT_POLL: Duration = Duration::from_millis(500);
