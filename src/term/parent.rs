//! The process that called us.

use std::time::Duration;

use rustix::process::{Pid, getppid};

/// The parent at the start. When the `aws` process is killed, the kernel hands us to another one; the
/// official plugin then keeps its port open until the session idles out (cli#5149).
///
/// Not `PR_SET_PDEATHSIG`: that follows the *thread* that made us, and a start can miss it.
#[derive(Debug)]
pub struct Parent(Option<Pid>);

impl Parent {
    /// The parent now; to be called first thing. No parent (it is in another PID namespace, as under
    /// `docker exec`) or process 1 never counts as gone.
    pub fn current() -> Parent {
        Parent(getppid())
    }

    /// Whether that parent is gone.
    pub fn is_gone(&self) -> bool {
        getppid() != self.0
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
