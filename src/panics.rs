//! Panics: contained where the program can continue without the code that panicked, reported in one line where it cannot.
//!
//! The AWS SDK's loaders panic on settings that they cannot read. A panic message may hold such a value, so only the
//! place in the source is reported.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::pin::pin;
use std::sync::OnceLock;
use std::task::Poll;

use bytes::Bytes;

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("internal error at {place}")]
pub(crate) struct Panic {
    /// File, line and column in the source.
    place: String,
}

/// Runs `future` and returns its panic as an error. What the future shares with others must stay usable after a panic.
/// The [hook](install_hook) prints nothing for it, and [`is_contained`] is true while the hooks run.
pub(crate) async fn contain<T>(future: impl Future<Output = T>) -> Result<T, Panic> {
    catch(future, true).await
}

/// As [`contain`], for a panic that ends the program: the hooks treat it as one that nothing catches.
pub(crate) async fn catch_last<T>(future: impl Future<Output = T>) -> Result<T, Panic> {
    catch(future, false).await
}

async fn catch<T>(future: impl Future<Output = T>, is_contained: bool) -> Result<T, Panic> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let outer = CONTAINED.replace(is_contained);
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        CONTAINED.set(outer);
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(Panic { place: PLACE.take() })),
        }
    })
    .await
}

/// Returns whether this thread is inside [`contain`], so that the program continues after a panic.
pub(crate) fn is_contained() -> bool {
    CONTAINED.get()
}

/// Replaces the standard library's report, which repeats the panic's message.
pub(crate) fn install_hook() {
    std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let place = info.location().map(|location| shortened(&location.to_string())).unwrap_or_default();
        tracing::error!(place, contained = is_contained(), "panic");
        if !is_contained() {
            // Not `eprintln`, which panics where stderr is gone.
            let _ = io::stderr().write_all(&line(&place));
        }
        PLACE.set(place);
    }));
}

/// Sets the form of the line that a panic prints. It is plain text before. Only the first call counts.
pub(crate) fn set_form(form: fn(&str) -> Bytes) {
    let _ = FORM.set(form);
}

fn line(place: &str) -> Bytes {
    match FORM.get() {
        Some(form) => form(place),
        None => format!("session-manager-plugin: internal error at {place}; please report it\n").into(),
    }
}

/// A place without the folders of the machine that built the program: crate, folder, file.
fn shortened(place: &str) -> String {
    let from = place.rmatch_indices(['/', '\\']).nth(SHOWN - 1).map_or(0, |(at, _)| at + 1);
    place[from..].to_owned()
}

/// Line for the place of a panic.
static FORM: OnceLock<fn(&str) -> Bytes> = OnceLock::new();

/// Parts of a path that are shown.
const SHOWN: usize = 4;

thread_local! {
    #[cfg_attr(windows, allow(clippy::missing_const_for_thread_local, reason = "MinGW's expansion hides `const`"))]
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
    /// The place of the last panic.
    #[cfg_attr(windows, allow(clippy::missing_const_for_thread_local, reason = "as above"))]
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!(shortened("/home/me/.cargo/x-1.0/src/a/b.rs:1:2"), "x-1.0/src/a/b.rs:1:2");
        assert_eq!(shortened(r"C:\x\src\a\b.rs:1:2"), r"x\src\a\b.rs:1:2");
        assert_eq!(shortened("src/b.rs:1:2"), "src/b.rs:1:2");
    }

    #[test]
    fn the_line_has_the_form_of_the_settings() {
        assert_eq!(
            line("x.rs:1:2"),
            "session-manager-plugin: internal error at x.rs:1:2; please report it\n"
        );
        set_form(|place| format!("{{\"place\":\"{place}\"}}\n").into());
        assert_eq!(line("x.rs:1:2"), "{\"place\":\"x.rs:1:2\"}\n");
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_and_the_thread_continues() {
        assert_eq!(contain(async { 1 }).await, Ok(1));
        let late = async {
            tokio::task::yield_now().await;
            assert!(is_contained());
            panic!("a secret")
        };
        let panic = contain(late).await.unwrap_err();
        assert!(!format!("{panic} {panic:?}").contains("secret"));
        assert!(!is_contained());
        let inner = contain(async { catch_last(async { assert!(!is_contained()) }).await }).await;
        assert_eq!(inner, Ok(Ok(())));
    }
}
