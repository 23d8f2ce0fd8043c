//! The parent on Windows: its id from the system, and a handle that is signalled at its end.
#![expect(unsafe_code, reason = "how another process was started has no safe interface")]

use std::ffi::OsString;
use std::os::windows::ffi::OsStringExt;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::PathBuf;
use std::thread;

use tokio::sync::oneshot;
use windows_sys::Wdk::System::Threading::{
    NtQueryInformationProcess, PROCESSINFOCLASS, ProcessBasicInformation, ProcessCommandLineInformation,
};
use windows_sys::Win32::Foundation::{FILETIME, HANDLE, UNICODE_STRING, WAIT_TIMEOUT};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetProcessTimes, INFINITE, OpenProcess, PROCESS_BASIC_INFORMATION,
    PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE, QueryFullProcessImageNameW, WaitForSingleObject,
};

use super::command::Command;

/// The process that started us. Windows does not re-parent orphans: it stays our parent when it has ended.
#[derive(Debug)]
pub(super) struct Process {
    end: End,
}

/// Means of noticing its end.
#[derive(Debug)]
enum End {
    Handle(OwnedHandle),
    /// A thread waits and drops the sender.
    Awaited(oneshot::Receiver<()>),
    /// No thread could be had.
    Unseen,
}

impl Process {
    /// The process that started us; `None` if it has ended and its id was given to a younger one, or it is another
    /// user's.
    pub(crate) fn parent() -> Option<Process> {
        let mut basic = PROCESS_BASIC_INFORMATION::default();
        let length = size_of::<PROCESS_BASIC_INFORMATION>();
        // SAFETY: takes no pointers; the answer needs no closing.
        let own = unsafe { GetCurrentProcess() };
        // SAFETY: `basic` is a place of that length for this kind of answer.
        unsafe { query(own, ProcessBasicInformation, (&raw mut basic).cast(), length) }?;
        let id = u32::try_from(basic.InheritedFromUniqueProcessId).ok()?;
        // SAFETY: takes no pointers. What is opened is ours to close.
        let handle = unsafe {
            let handle = OpenProcess(PROCESS_SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION, 0, id);
            (!handle.is_null()).then(|| OwnedHandle::from_raw_handle(handle))
        }?;
        let is_older = created(handle.as_raw_handle())? <= created(own)?;
        is_older.then_some(Process { end: End::Handle(handle) })
    }

    /// Returns its command line.
    pub(crate) fn command(&self) -> Option<Command> {
        let End::Handle(handle) = &self.end else { return None };
        let handle = handle.as_raw_handle();
        Some(Command { executable: executable(handle), arguments: arguments(handle).unwrap_or_default() })
    }

    /// Returns whether it still runs.
    pub(crate) fn is_parent(&self) -> bool {
        let End::Handle(handle) = &self.end else { return true };
        // SAFETY: the handle is open.
        unsafe { WaitForSingleObject(handle.as_raw_handle(), 0) == WAIT_TIMEOUT }
    }

    /// There is no adoption.
    pub(crate) fn may_have_adopted_us(&self) -> bool {
        false
    }

    /// Resolves when it has ended. Cancel-safe.
    pub(crate) async fn exit(&mut self) {
        if let End::Handle(_) = self.end
            && let End::Handle(handle) = std::mem::replace(&mut self.end, End::Unseen)
        {
            let (sender, receiver) = oneshot::channel();
            let waiting = move || {
                // SAFETY: the handle is open, and this thread's.
                unsafe { WaitForSingleObject(handle.as_raw_handle(), INFINITE) };
                drop(sender);
            };
            if thread::Builder::new().name("parent".to_owned()).spawn(waiting).is_ok() {
                self.end = End::Awaited(receiver);
            }
        }
        match &mut self.end {
            End::Awaited(receiver) => _ = receiver.await,
            End::Handle(_) | End::Unseen => std::future::pending().await,
        }
    }
}

/// When a process was created, in units of 100 ns.
fn created(process: HANDLE) -> Option<u64> {
    let mut times = [FILETIME::default(); 4];
    let [creation, exit, kernel, user] = &mut times;
    // SAFETY: the handle is open, and all four are places for an answer.
    let known = unsafe { GetProcessTimes(process, creation, exit, kernel, user) } != 0;
    known.then(|| u64::from(creation.dwHighDateTime) << 32 | u64::from(creation.dwLowDateTime))
}

fn executable(process: HANDLE) -> Option<PathBuf> {
    let mut buffer = vec![0u16; PATH_LENGTH as usize];
    let mut length = PATH_LENGTH;
    // SAFETY: the handle is open, and `length` is the buffer's; the call sets it to what it has filled.
    let known = unsafe { QueryFullProcessImageNameW(process, 0, buffer.as_mut_ptr(), &raw mut length) } != 0;
    known.then(|| OsString::from_wide(buffer.get(..length as usize).unwrap_or_default()).into())
}

fn arguments(process: HANDLE) -> Option<Vec<OsString>> {
    let line = command_line(process)?;
    Some(split(&line).into_iter().map(OsString::from).collect())
}

/// This process's command line as others see it.
#[cfg(test)]
pub(crate) fn shown_command_line() -> Option<String> {
    // SAFETY: takes no pointers; the answer needs no closing.
    command_line(unsafe { GetCurrentProcess() })
}

fn command_line(process: HANDLE) -> Option<String> {
    // A UNICODE_STRING and, behind it, the text that it points to. As u64, so that it is aligned.
    let mut answer = vec![0u64; COMMAND_LINE_SIZE / 8];
    let place = answer.as_mut_ptr();
    // SAFETY: the place is of that length and aligned for any answer.
    unsafe { query(process, ProcessCommandLineInformation, place.cast(), COMMAND_LINE_SIZE) }?;
    // SAFETY: the call has put a UNICODE_STRING there, whose buffer lies behind it in `answer`.
    let line = unsafe {
        let text = place.cast::<UNICODE_STRING>().read();
        if text.Buffer.is_null() {
            return None;
        }
        std::slice::from_raw_parts(text.Buffer, usize::from(text.Length) / 2)
    };
    Some(OsString::from_wide(line).to_string_lossy().into_owned())
}

/// # Safety
/// `place` must have room for `length` bytes and be aligned for this kind of answer.
unsafe fn query(
    process: HANDLE,
    kind: PROCESSINFOCLASS,
    place: *mut std::ffi::c_void,
    length: usize,
) -> Option<()> {
    let length = u32::try_from(length).ok()?;
    // SAFETY: as the caller promises; the length of the answer is not asked for.
    let status = unsafe { NtQueryInformationProcess(process, kind, place, length, std::ptr::null_mut()) };
    (status >= 0).then_some(())
}

/// The words of a command line. Quotes are enough: a backslash before a quote is in no name that matters here.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), None::<String>, false);
    for character in line.chars() {
        match character {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            ' ' | '\t' if !is_quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

/// The longest path there is.
const PATH_LENGTH: u32 = 32_768;
/// A command line has at most 32,767 characters of 2 bytes.
const COMMAND_LINE_SIZE: usize = 2 * 32_768 + 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command_line() {
        let line = r#""C:\Program Files\Python\python.exe"  -x "C:\Scripts\aws.cmd" ssm """#;
        let words = [r"C:\Program Files\Python\python.exe", "-x", r"C:\Scripts\aws.cmd", "ssm", ""];
        assert_eq!(split(line), words);
    }

    /// A child of this program's own: under wine the parent may be a process of UNIX.
    #[test]
    fn a_parent_s_executable() {
        const CHILD: &str = "TEST_OF_A_PARENT";
        if std::env::var_os(CHILD).is_some() {
            let parent = Process::parent().expect("it lives");
            assert!(parent.is_parent());
            let executable = parent.command().expect("its command").executable.expect("its path");
            assert_eq!(executable.file_name(), std::env::current_exe().unwrap().file_name());
            return;
        }
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "process::parent::windows::tests::a_parent_s_executable"]).env(CHILD, "1");
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}
