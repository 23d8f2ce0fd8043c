//! The driver.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle};
use std::process::{Child, Command};
use std::ptr::{null, null_mut, without_provenance};

use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Storage::FileSystem::{FILE_FLAG_OVERLAPPED, PIPE_ACCESS_OUTBOUND};
use windows_sys::Win32::System::Console::{
    AllocConsole, CONSOLE_SCREEN_BUFFER_INFO, COORD, CTRL_C_EVENT, FreeConsole, GenerateConsoleCtrlEvent,
    GetConsoleCP, GetConsoleMode, GetConsoleOutputCP, GetConsoleScreenBufferInfo, INPUT_RECORD,
    INPUT_RECORD_0, KEY_EVENT, KEY_EVENT_RECORD, KEY_EVENT_RECORD_0, ReadConsoleOutputCharacterW, SMALL_RECT,
    SetConsoleCtrlHandler, SetConsoleScreenBufferSize, SetConsoleWindowInfo, WriteConsoleInputW,
};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Pipes::CreateNamedPipeW;
use windows_sys::Win32::System::Threading::CreateRemoteThread;

pub(crate) fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let how = if words[0].starts_with("--") { words.remove(0) } else { "--console".to_owned() };
    if let Some(port) = how.strip_prefix("--connect=") {
        return stay_connected(port.parse().expect("a port"));
    }
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    for (name, value) in std::env::vars() {
        if let Some(name) = name.strip_prefix(FOR_PROGRAM) {
            command.env(name, value);
        }
    }
    if how == "--no-console" {
        let status = command.status().expect("the program starts");
        println!("ended {}", status.code().unwrap_or(-1));
        return;
    }
    // Before there is a console, which takes the standard handles' place.
    let input = File::from(std::io::stdin().as_handle().try_clone_to_owned().expect("stdin"));
    let mut output = File::from(std::io::stdout().as_handle().try_clone_to_owned().expect("stdout"));
    match how.strip_prefix("--stdin=") {
        Some(name) => on_pipe(name, command, input, &mut output),
        None => {
            let console = Console::new();
            let child = console.start(command, &how);
            console.drive(child, input, &mut output);
        }
    }
}

fn stay_connected(port: u16) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

fn on_pipe(name: &str, mut command: Command, input: File, output: &mut File) {
    let (mut pipe, end) = named_pipe(name);
    let mut child = command.stdin(end).spawn().expect("the program starts");
    for line in BufReader::new(input).lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("type", hex)) => {
                pipe.write_all(String::from_utf16_lossy(&units(hex)).as_bytes()).expect("write to the pipe");
            }
            _ => break,
        }
    }
    drop(pipe);
    let status = child.wait().expect("the program ends");
    let _ = writeln!(output, "ended {}", status.code().unwrap_or(-1));
}

struct Console {
    input: File,
    output: File,
}

impl Console {
    fn new() -> Console {
        // SAFETY: the handler is a function that lives as long as the process; the other calls take nothing.
        unsafe {
            FreeConsole();
            assert!(AllocConsole() != 0, "no console: {}", std::io::Error::last_os_error());
            SetConsoleCtrlHandler(Some(stay), 1);
        }
        let open = |name| File::options().read(true).write(true).open(name).expect("the console");
        Console { input: open("CONIN$"), output: open("CONOUT$") }
    }

    fn start(&self, mut command: Command, how: &str) -> Child {
        let copy = |file: &File| file.try_clone().expect("a handle");
        let stdout = match how {
            "--stdout=read-only" => File::open("CONOUT$").expect("the console"),
            _ => copy(&self.output),
        };
        command.stdin(copy(&self.input)).stdout(stdout).stderr(copy(&self.output));
        command.spawn().expect("the program starts")
    }

    fn drive(&self, mut child: Child, input: File, output: &mut File) {
        let mut answer = |text: String| writeln!(output, "{text}").expect("stdout");
        answer(format!("started {}", self.modes()));
        for line in BufReader::new(input).lines().map_while(Result::ok) {
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "key" => self.key(rest),
                "type" => self.press(&units(rest).into_iter().flat_map(both).collect::<Vec<_>>()),
                "modes" => answer(format!("modes {}", self.modes())),
                "resize" => self.resize(rest),
                "screen" => answer(format!("screen {}", self.screen())),
                // SAFETY: takes no pointers.
                "interrupt" => _ = unsafe { GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0) },
                "event" => control_event(&child, rest.parse().expect("a number")),
                "wait" => {
                    let status = child.wait().expect("the program ends");
                    answer(format!("ended {}", status.code().unwrap_or(-1)));
                }
                other => panic!("unknown word {other:?}"),
            }
        }
        // It may have ended.
        let _ = child.kill();
        let _ = child.wait();
    }

    fn key(&self, numbers: &str) {
        let numbers: Vec<u32> = numbers.split(' ').map(|number| number.parse().expect("a number")).collect();
        self.press(&[record(numbers[0] != 0, numbers[1] as u16, numbers[2] as u16, numbers[3])]);
    }

    fn press(&self, records: &[INPUT_RECORD]) {
        for records in records.chunks(AT_ONCE) {
            let mut count = 0;
            // SAFETY: the handle is open, `records` is as long as said, `count` is a valid place.
            let written = unsafe {
                WriteConsoleInputW(
                    self.input.as_raw_handle(),
                    records.as_ptr(),
                    records.len() as u32,
                    &raw mut count,
                )
            };
            assert!(written != 0 && count as usize == records.len(), "{}", std::io::Error::last_os_error());
        }
    }

    fn modes(&self) -> String {
        let mode = |file: &File| {
            let mut mode = 0;
            // SAFETY: the handle is open, `mode` is a valid place.
            assert!(unsafe { GetConsoleMode(file.as_raw_handle(), &raw mut mode) } != 0, "no mode");
            mode
        };
        // SAFETY: these calls take no pointers.
        let (page, output_page) = unsafe { (GetConsoleCP(), GetConsoleOutputCP()) };
        format!("{} {} {page} {output_page}", mode(&self.input), mode(&self.output))
    }

    fn info(&self) -> CONSOLE_SCREEN_BUFFER_INFO {
        let mut info = CONSOLE_SCREEN_BUFFER_INFO::default();
        // SAFETY: the handle is open, `info` is a valid place.
        assert!(unsafe { GetConsoleScreenBufferInfo(self.output.as_raw_handle(), &raw mut info) } != 0);
        info
    }

    /// The window must never be larger than the buffer: it is made small first.
    fn resize(&self, numbers: &str) {
        let (columns, rows) = numbers.split_once(' ').expect("two numbers");
        let (columns, rows): (i16, i16) = (columns.parse().expect("columns"), rows.parse().expect("rows"));
        let window = |right, bottom| SMALL_RECT { Left: 0, Top: 0, Right: right, Bottom: bottom };
        let (least, wanted) = (window(0, 0), window(columns - 1, rows - 1));
        let handle = self.output.as_raw_handle();
        // SAFETY: the handle is open, the rectangles are valid.
        let done = unsafe {
            SetConsoleWindowInfo(handle, 1, &raw const least);
            SetConsoleScreenBufferSize(handle, COORD { X: columns, Y: rows }) != 0
                && SetConsoleWindowInfo(handle, 1, &raw const wanted) != 0
        };
        assert!(done, "resize: {}", std::io::Error::last_os_error());
    }

    fn screen(&self) -> String {
        let info = self.info();
        let width = info.dwSize.X as usize;
        let mut lines = Vec::new();
        for row in 0..info.dwSize.Y {
            let mut line = vec![0; width];
            let mut count = 0;
            // SAFETY: the handle is open, `line` has room for as many units as are asked for.
            unsafe {
                ReadConsoleOutputCharacterW(
                    self.output.as_raw_handle(),
                    line.as_mut_ptr(),
                    width as u32,
                    COORD { X: 0, Y: row },
                    &raw mut count,
                )
            };
            lines.push(String::from_utf16_lossy(&line[..count as usize]).trim_end().to_owned());
        }
        lines.join("|").trim_end_matches('|').to_owned()
    }
}

/// Calls the program's handlers of control events as the system does: in a thread that begins in `CtrlRoutine`, which is
/// at the same address in all processes. `GenerateConsoleCtrlEvent` knows Ctrl-C and Ctrl-Break only,
/// and wine drops the latter.
fn control_event(child: &Child, event: usize) {
    // SAFETY: the names are terminated strings; the module is one that no process unloads.
    let routine = unsafe {
        GetProcAddress(GetModuleHandleA(c"kernelbase.dll".as_ptr().cast()), c"CtrlRoutine".as_ptr().cast())
    };
    let routine = routine.expect("kernelbase.dll has CtrlRoutine");
    // SAFETY: both are functions of the system's calling convention; CtrlRoutine takes an event as its argument and
    // returns a status.
    let routine = unsafe {
        std::mem::transmute::<
            unsafe extern "system" fn() -> isize,
            unsafe extern "system" fn(*mut std::ffi::c_void) -> u32,
        >(routine)
    };
    let (process, argument) = (child.as_raw_handle(), without_provenance(event));
    // SAFETY: the process is our child, whose handle is open; CtrlRoutine is in it, too.
    let thread = unsafe { CreateRemoteThread(process, null(), 0, Some(routine), argument, 0, null_mut()) };
    assert!(!thread.is_null(), "no thread: {}", std::io::Error::last_os_error());
    // SAFETY: the handle is open and not shared.
    drop(unsafe { OwnedHandle::from_raw_handle(thread) });
}

/// Control events are for the program.
unsafe extern "system" fn stay(_event: u32) -> i32 {
    1
}

fn units(hex: &str) -> Vec<u16> {
    let digits: Vec<char> = hex.chars().collect();
    let unit = |four: &[char]| u16::from_str_radix(&four.iter().collect::<String>(), 16).expect("hex");
    digits.chunks(4).map(unit).collect()
}

fn both(unit: u16) -> [INPUT_RECORD; 2] {
    [true, false].map(|is_down| record(is_down, 0, unit, 0))
}

fn record(is_down: bool, code: u16, unit: u16, state: u32) -> INPUT_RECORD {
    let event = KEY_EVENT_RECORD {
        bKeyDown: is_down.into(),
        wRepeatCount: 1,
        wVirtualKeyCode: code,
        wVirtualScanCode: 0,
        uChar: KEY_EVENT_RECORD_0 { UnicodeChar: unit },
        dwControlKeyState: state,
    };
    INPUT_RECORD { EventType: KEY_EVENT as u16, Event: INPUT_RECORD_0 { KeyEvent: event } }
}

/// Our end, opened for overlapped operations as OpenSSH does it, and the program's.
fn named_pipe(name: &str) -> (File, File) {
    let path = format!(r"\\.\pipe\{name}");
    let wide: Vec<u16> = path.encode_utf16().chain([0]).collect();
    // SAFETY: `wide` is a terminated string, there are no attributes.
    let handle: HANDLE = unsafe {
        CreateNamedPipeW(
            wide.as_ptr(),
            PIPE_ACCESS_OUTBOUND | FILE_FLAG_OVERLAPPED,
            0,
            1,
            PIPE_SIZE,
            PIPE_SIZE,
            0,
            null(),
        )
    };
    assert!(handle != INVALID_HANDLE_VALUE && !handle.is_null(), "{}", std::io::Error::last_os_error());
    // SAFETY: the handle is open and not shared.
    let ours = File::from(unsafe { OwnedHandle::from_raw_handle(handle) });
    let theirs = {
        use std::os::windows::fs::OpenOptionsExt;
        File::options().read(true).custom_flags(FILE_FLAG_OVERLAPPED).open(&path).expect("the pipe")
    };
    (ours, theirs)
}

/// Variables that the program has under the rest of their names: wine puts its own words for some.
const FOR_PROGRAM: &str = "FOR_PROGRAM_";
/// Events that the console is handed at once.
const AT_ONCE: usize = 256;
const PIPE_SIZE: u32 = 64 * 1024;
